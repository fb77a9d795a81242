"""Where faults are injected: an undisturbed session to compare with, copies of its home, and one case after another."""

from __future__ import annotations

import collections
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.sessions import folders
from simulations.chaos import workloads
from simulations.chaos.checks import Story, kept_in, lost, story_of
from simulations.chaos.child import Settings
from simulations.chaos.hook.sitecustomize import Plan, Point
from simulations.chaos.runs import Ended, run
from tools.contracts import EvidenceKind
from tools.evidence import EVIDENCE, EvidenceStore

_OF_SESSIONS = ("sessions", "checkpoints.db*", "mlflow.db*", "mlartifacts", "traces", "cache")
OK = (0, 3)
"""Exit codes of a session that came to its end, whatever its verdict."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Attributes:
        injected: how often its fault was injected.
        lost: what was lost, as sentences.
    """

    injected: int
    lost: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One fault, to be injected into one session (or into one again and again).

    Attributes:
        fault: what kind it is: a row of the table.
        name: which one it is, unique within the fault.
        inject: does it in an empty folder.
    """

    fault: str
    name: str
    inject: Callable[[Path], Outcome]

    @property
    def title(self) -> str:
        """Return what `--only` takes."""
        return f"{self.fault}: {self.name}" if self.name else self.fault


class LabError(RuntimeError):
    """An undisturbed session went wrong already."""


@dataclass(frozen=True)
class Lab:
    """A workload, a home in which all of it is measured, and how an undisturbed session goes there.

    Attributes:
        spec: of the workload.
        home: which is only copied.
        settings: of its sessions.
        story: of an undisturbed session that finds every answer.
        reached: how often such a session comes to each point.
    """

    spec: Path
    home: Path
    settings: Settings
    story: Story
    reached: collections.Counter[Point]

    @classmethod
    def build(cls, folder: Path, settings: Settings) -> Lab:
        """Measure the small classifier, and trace a session that finds every answer.

        Raises:
            LabError: a session failed, or the second one measured something.
        """
        spec = workloads.classifier(folder)
        home = folder / "home"
        trace = folder / "trace"
        for plan in (None, Plan(str(home), trace=str(trace))):
            ended = run(home, "optimize", str(spec), settings=settings, plan=plan)
            if ended.code not in OK:
                raise LabError(f"an undisturbed session ended with {ended.code}:\n{ended.text}")
        latest = folders(home)[-1]
        if any(row.session == latest.name for row in EvidenceStore(home / EVIDENCE).rows()):
            raise LabError("a session after the first one still measured something")
        points = (Point(*json.loads(line)) for line in trace.read_text(encoding="utf-8").splitlines())
        return cls(spec, home, settings, story_of(latest), collections.Counter(points))

    def warm_home(self, folder: Path) -> Path:
        """Copy the home into a folder, without its sessions: all is measured. Returns the copy."""
        return self._copied(folder, _OF_SESSIONS)

    def cold_home(self, folder: Path) -> Path:
        """Copy the profile alone, the one thing that takes long: all else is still to be made and measured."""
        home = self._copied(folder, (*_OF_SESSIONS, "artifacts", "data", "raw"))
        store = EvidenceStore(home / EVIDENCE)
        store.delete(row.id for row in store.rows() if row.kind != EvidenceKind.PROFILE)
        return home

    def _copied(self, folder: Path, without: Iterable[str]) -> Path:
        home = folder / "home"
        shutil.copytree(self.home, home, ignore=shutil.ignore_patterns(*without))
        return home


def killed_at(
    home: Path,
    spec: Path,
    point: Point,
    *,
    nth: int,
    victims: str,
    settings: Settings,
    expected: Story | None,
    meanwhile: Callable[[Path, Path], None] = lambda _home, _folder: None,
    again: int = 0,
) -> Outcome:
    """Start a session, kill at a point, resume if the main process died, and look at what is left.

    Args:
        home: the home directory.
        spec: what is optimized.
        point: where to kill.
        nth: time that the point is reached.
        victims: who is killed there, see `Plan`.
        settings: of the session.
        expected: how an undisturbed session goes, if that is known.
        meanwhile: is called with home and session between kill and resume.
        again: see `lost`.
    """
    counter = home.parent / "reached"
    plan = Plan(str(home), point=point, nth=nth, victims=victims, counter=str(counter))
    ended = run(home, "optimize", str(spec), settings=settings, plan=plan)
    if times(counter) < nth:
        return Outcome(0, (f"the point was reached {times(counter)} times, so nothing was injected",))
    complaints = list(ended.left)
    if ended.killed:
        return taken_up(
            home,
            spec,
            settings=settings,
            expected=expected,
            meanwhile=meanwhile,
            again=again,
            complaints=complaints,
        )
    complaints += unwell(ended)
    folder = folders(home)[-1]
    return Outcome(1, (*complaints, *lost(home, folder, expected=expected, again=again)))


def taken_up(
    home: Path,
    spec: Path,
    *,
    settings: Settings,
    expected: Story | None = None,
    meanwhile: Callable[[Path, Path], None] = lambda _home, _folder: None,
    again: int = 0,
    complaints: Iterable[str] = (),
) -> Outcome:
    """Resume the latest session, and look at what is left; arguments as for `killed_at`.

    One that had not even written its first line has nothing to lose: then another session must go well.
    """
    known = folders(home)
    began = bool(known) and bool(kept_in(home, known[-1]).journal)
    if began:
        meanwhile(home, known[-1])
    before = kept_in(home, known[-1]) if began else None
    command = ("resume", known[-1].name) if began else ("optimize", str(spec))
    ended = run(home, *command, settings=settings)
    found = [*complaints, *ended.left, *unwell(ended)]
    folder = known[-1] if began else folders(home)[-1]
    return Outcome(1, (*found, *lost(home, folder, before=before, expected=expected, again=again)))


def unwell(ended: Ended, codes: Iterable[int] = OK) -> list[str]:
    """Return what is wrong with how a command ended."""
    if ended.code in codes:
        return []
    return [f"the command ended with {ended.code}: {' '.join(ended.text.split())[-600:]}"]


def times(counter: Path) -> int:
    """Return how often a plan's point was reached."""
    return counter.stat().st_size if counter.exists() else 0
