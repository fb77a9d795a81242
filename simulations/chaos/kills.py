"""Kills: at every step of the graph and in the middle of every kind of write, of one process or of all of them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from agent.sessions import folders
from simulations.chaos.checks import Kept, kept_in, lost
from simulations.chaos.hook.sitecustomize import Plan, Point
from simulations.chaos.lab import Case, Lab, Outcome, killed_at, times, unwell
from simulations.chaos.runs import run
from tools.evidence import EVIDENCE

RAW = Point("task", "sync", "raw/.DIGEST.npz-RANDOM", "before")
"""A trial has measured everything, and is about to write it down."""
ARTIFACT = Point("task", "rename", "artifacts/DIGEST", "before")
COMMIT = Point("main", "commit", EVIDENCE, "before")
_FAULTS = {
    "node": "main process killed at a step of the graph",
    "commit": "main process killed in a commit",
}
_JOURNAL = "main process killed at the journal"
_FILE = "main process killed at a file"
_JOURNAL_FILE = "sessions/SESSION/journal.jsonl"
_RELAY_KILLS = 40
"""More than there are things to measure: each kill comes one of them later, or something is measured again."""


def warm_cases(lab: Lab, points: int) -> Iterator[Case]:
    """Yield kills in sessions that find every answer: all points that an undisturbed one comes to.

    Args:
        lab: where an undisturbed session was traced.
        points: of one class (the writes of one kind of journal entry, say) so many are taken, spread over the session;
            of the steps of the graph all.
    """
    for point, reached in sorted(lab.reached.items()):
        whole = reached if point.call == "node" else min(points, reached)
        for index in range(whole):
            nth = 1 + round(index * (reached - 1) / max(whole - 1, 1))
            for fault, victims in _who(point):
                name = " ".join((*point, str(nth)))
                yield Case(fault, name, partial(_warm, lab, point, nth, victims))


def cold_cases(lab: Lab) -> Iterator[Case]:
    """Yield kills in sessions that measure everything."""
    for victims, who in (("self", "task"), ("parent", "worker"), ("main", "main process"), ("all", "all processes")):
        for point in (RAW, ARTIFACT):
            yield Case(f"{who} killed while measuring", point.what, partial(_cold, lab, point, victims))
    journal = Point("main", "write", f"{_JOURNAL_FILE} evidence", "half")
    for point in (COMMIT, COMMIT._replace(moment="half"), journal):
        name = f"{point.what} {point.moment}"
        yield Case("main process killed as evidence is written", name, partial(_cold, lab, point, "self"))
    for point in (COMMIT, journal):  # afterwards: what came before could be measured again for ever
        after = point._replace(moment="after")
        yield Case("main process killed after each trial", point.what, partial(_relay, lab, after))


def interrupt_cases(lab: Lab) -> Iterator[Case]:
    """Yield Ctrl-C and SIGTERM in the middle of a session that measures."""
    for number in (signal.SIGINT, signal.SIGTERM):
        yield Case("stopped by a signal", number.name, partial(_interrupted, lab, number))


def _who(point: Point) -> Iterator[tuple[str, str]]:
    """Yield the faults that a point is for, with the victims."""
    if point.role == "main":
        fault = _JOURNAL if point.what.startswith(_JOURNAL_FILE) else _FAULTS.get(point.call, _FILE)
        yield fault, "self"
    elif point.role == "task":
        yield "task killed at a file", "self"
        if (point.call, point.moment) == ("rename", "before"):
            yield "worker killed at a file", "parent"
            yield "main process killed while a task writes a file", "main"
            yield "all processes killed while a task writes a file", "all"


def _warm(lab: Lab, point: Point, nth: int, victims: str, folder: Path) -> Outcome:
    home = lab.warm_home(folder)
    return killed_at(home, lab.spec, point, nth=nth, victims=victims, settings=lab.settings, expected=lab.story)


def _cold(lab: Lab, point: Point, victims: str, folder: Path) -> Outcome:
    home = lab.cold_home(folder)
    return killed_at(home, lab.spec, point, nth=2, victims=victims, settings=lab.settings, expected=None)


def _relay(lab: Lab, point: Point, folder: Path) -> Outcome:
    """Kill the same session again and again: each of its processes, when that comes to the point for the first time."""
    home = lab.cold_home(folder)
    counter = folder / "reached"
    plan = Plan(str(home), point=point, counter=str(counter))
    before: Kept | None = None
    kills = 0
    complaints: list[str] = []
    command = ("optimize", str(lab.spec))
    while True:
        counter.unlink(missing_ok=True)
        ended = run(home, *command, settings=lab.settings, plan=plan if kills < _RELAY_KILLS else None)
        session = folders(home)[-1]
        now = kept_in(home, session)
        if before is not None and not (
            now.journal.startswith(before.journal) and before.evidence.items() <= now.evidence.items()
        ):
            complaints.append(f"something was lost after kill {kills}")
        complaints += ended.left
        if not ended.killed:
            break
        before = now
        kills += 1
        command = ("resume", session.name)
    complaints += unwell(ended)
    if not kills:
        complaints.append("the point was never reached")
    return Outcome(kills, (*complaints, *lost(home, session, before=before)))


def _interrupted(lab: Lab, number: int, folder: Path) -> Outcome:
    """Stop a session while a trial runs: it must keep the best so far, and go on when it is taken up."""
    home = lab.cold_home(folder)
    counter = folder / "reached"
    plan = Plan(str(home), point=RAW, nth=2, victims="main", signal=number, counter=str(counter))
    ended = run(home, "optimize", str(lab.spec), settings=lab.settings, plan=plan)
    if times(counter) < 2:
        return Outcome(0, ("the point was not reached",))
    complaints = [*ended.left, *unwell(ended, [130])]
    session = folders(home)[-1]
    if "INTERRUPTED" not in ended.text:
        complaints.append("the best so far was not shown")
    before = kept_in(home, session)
    ended = run(home, "resume", session.name, settings=lab.settings)
    complaints += [*ended.left, *unwell(ended)]
    return Outcome(1, (*complaints, *lost(home, session, before=before)))
