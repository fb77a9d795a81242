"""A session's surroundings at their worst: the disk, the clock, another session, files that change while it is away."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from agent.sessions import folders
from simulations.chaos.checks import kept_in, lost
from simulations.chaos.hook.sitecustomize import Plan, Point
from simulations.chaos.lab import OK, Case, Lab, Outcome, killed_at, unwell
from simulations.chaos.runs import run, start
from tools.evidence import EVIDENCE
from tools.record import JOURNAL, read_record

DAY_S, YEAR_S = 86_400.0, 365 * 86_400.0
DISKS_KB = (40, 150, 250, 400)
"""Sizes at which a session meets the end of its disk at different places: it needs half a megabyte."""
ROOM_KB = 64_000
BATCH_TUNING = Point("main", "node", "batch_tuning", "before")


def surrounding_cases(lab: Lab) -> Iterator[Case]:
    """Yield all of them."""
    for size_kb in DISKS_KB:
        yield Case("disk full, then larger", f"{size_kb} kB", partial(_disk_full, lab, size_kb))
    for name, clock in (("a day back", ((4, -DAY_S),)), ("a year ahead", ((4, YEAR_S),)), ("both", ((4, -DAY_S), (8, YEAR_S)))):
        yield Case("clock jumps", name, partial(_clock, lab, clock))
    yield Case("two sessions at once on one home", "", partial(_two_at_once, lab))
    yield Case("artifact damaged between kill and resume", "", partial(_damaged, lab, _flip_a_byte))
    yield Case("journal cut off between kill and resume", "", partial(_damaged, lab, _cut_the_journal))
    yield Case("evidence damaged between kill and resume", "", partial(_damaged, lab, _damage_evidence))


# --- the disk ------------------------------------------------------------------------------------------------------


def _disk_full(lab: Lab, size_kb: int, folder: Path) -> Outcome:
    """Run a session on a disk that is too small, make it larger, and let the session go on."""
    home = folder / "home"
    home.mkdir()
    with _disk(home, size_kb):
        ended = run(home, "optimize", str(lab.spec), settings=lab.settings)
        complaints = list(ended.left)
        if ended.code in OK and "No space left" not in ended.text:
            return Outcome(0, (*complaints, f"{size_kb} kB were enough"))
        if ended.code not in (2, *OK) or "Traceback" in ended.text:
            complaints += unwell(ended, [2])
        known = folders(home)
        began = bool(known) and bool(kept_in(home, known[-1]).journal)
        before = kept_in(home, known[-1]) if began else None
        subprocess.run(["mount", "-o", f"remount,size={ROOM_KB}k", str(home)], check=True)
        command = ("resume", known[-1].name) if began else ("optimize", str(lab.spec))
        ended = run(home, *command, settings=lab.settings)
        complaints += [*ended.left, *unwell(ended)]
        session = known[-1] if began else folders(home)[-1]
        return Outcome(1, (*complaints, *lost(home, session, before=before)))


@contextlib.contextmanager
def _disk(where: Path, size_kb: int) -> Iterator[None]:
    """Mount a disk in memory, and unmount it whatever happens."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "chaos", str(where)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


# --- the clock -----------------------------------------------------------------------------------------------------


def _clock(lab: Lab, clock: tuple[tuple[int, float], ...], folder: Path) -> Outcome:
    home = folder / "home"
    ended = run(home, "optimize", str(lab.spec), settings=lab.settings, plan=Plan(str(home), clock=clock))
    session = folders(home)[-1]
    complaints = [*ended.left, *unwell(ended)]
    return Outcome(len(clock), (*complaints, *lost(home, session)))


# --- another session -----------------------------------------------------------------------------------------------


def _two_at_once(lab: Lab, folder: Path) -> Outcome:
    home = folder / "home"
    both = [start(home, "optimize", str(lab.spec), settings=lab.settings) for _ in range(2)]
    complaints = []
    for started in both:
        ended = started.wait()
        complaints += [*ended.left, *unwell(ended)]
    sessions = folders(home)
    if len(sessions) != len(both):
        complaints.append(f"{len(sessions)} sessions are there")
    for session in sessions:
        complaints += lost(home, session)
    return Outcome(1, tuple(complaints))


# --- files that change while nobody looks --------------------------------------------------------------------------


def _damaged(lab: Lab, damage: Callable[[Path, Path], None], folder: Path) -> Outcome:
    """Kill a session that measures before its sweeps, damage something, and let it go on."""
    return killed_at(
        folder / "home",
        lab.spec,
        BATCH_TUNING,
        nth=1,
        victims="self",
        settings=lab.settings,
        expected=None,
        meanwhile=damage,
        again=1,
    )


def _flip_a_byte(home: Path, _: Path) -> None:
    """Damage the artifact that was made last."""
    models = [path for path in (home / "artifacts").glob("[!.]*/model.onnx")]
    latest = max(models, key=lambda path: path.stat().st_mtime_ns)
    content = bytearray(latest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    latest.write_bytes(content)


def _damage_evidence(home: Path, session: Path) -> None:
    """Change a figure in the last evidence that the session has."""
    latest = read_record(session).evidence[-1]
    with contextlib.closing(sqlite3.connect(home / EVIDENCE)) as connection, connection:
        connection.execute("UPDATE findings SET body = replace(body, '0.', '1.') WHERE id = ?", (latest,))


def _cut_the_journal(_: Path, session: Path) -> None:
    """Leave half of the last line, as a kill in the middle of its write does."""
    journal = session / JOURNAL
    content = journal.read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    os.truncate(journal, (last + len(content)) // 2)
