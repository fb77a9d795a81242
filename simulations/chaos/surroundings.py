"""A session's surroundings at their worst: the disk, the clock, another session, files that change while it is away."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from agent.cli_common import EXIT_USER_ERROR
from agent.sessions import folders
from simulations.chaos.checks import lost
from simulations.chaos.hook.sitecustomize import Plan, Point
from simulations.chaos.lab import Case, Lab, Outcome, killed_at, taken_up, unwell
from simulations.chaos.runs import Ended, run, start
from tools.evidence import EVIDENCE
from tools.record import JOURNAL, read_record

DAY_S, YEAR_S = 86_400.0, 365 * 86_400.0
DISKS_KB = (40, 150, 250, 400)
"""Sizes at which a session meets the end of its disk at different places: it needs half a megabyte."""
FILES_KB = (4, 40, 80)
ROOM_KB = 64_000
_MOUNT, _UNMOUNT = "/bin/mount", "/bin/umount"
BATCH_TUNING = Point("main", "node", "batch_tuning", "before")


def surrounding_cases(lab: Lab) -> Iterator[Case]:
    """Yield all of them."""
    if _may_mount():
        for size_kb in DISKS_KB:
            yield Case("disk full, then larger", f"{size_kb} kB", partial(_disk_full, lab, size_kb))
    for file_kb in FILES_KB:
        yield Case("files may not grow, then may", f"{file_kb} kB", partial(_file_too_large, lab, file_kb))
    for name, clock in (
        ("a day back", ((4, -DAY_S),)),
        ("a year ahead", ((4, YEAR_S),)),
        ("both", ((4, -DAY_S), (8, YEAR_S))),
    ):
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
        _mount("-o", f"remount,size={ROOM_KB}k", str(home))
        return _given_room(lab, home, ended)


def _file_too_large(lab: Lab, file_kb: int, folder: Path) -> Outcome:
    """Run a session whose files may not grow, lift the limit, and let the session go on."""
    home = lab.cold_home(folder)
    ended = run(home, "optimize", str(lab.spec), settings=lab.settings._replace(file_kb=file_kb))
    return _given_room(lab, home, ended)


def _given_room(lab: Lab, home: Path, ended: Ended) -> Outcome:
    """Let a session go on that ended for want of room: with exit code 2 and a sentence, not with a stack."""
    complaints = list(ended.left)
    if ended.code != EXIT_USER_ERROR or "Traceback" in ended.text:
        complaints += unwell(ended, [EXIT_USER_ERROR]) or [ended.text]
    return taken_up(home, lab.spec, settings=lab.settings, complaints=complaints)


@contextlib.contextmanager
def _disk(where: Path, size_kb: int) -> Iterator[None]:
    """Mount a disk in memory, and unmount it whatever happens."""
    _mount("-t", "tmpfs", "-o", f"size={size_kb}k", "chaos", str(where))
    try:
        yield
    finally:
        subprocess.run([_UNMOUNT, "--lazy", str(where)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run([_MOUNT, *arguments], check=True, capture_output=True)


def _may_mount() -> bool:
    """Whether this process may mount a disk: root may, and in many containers nobody."""
    try:
        with tempfile.TemporaryDirectory() as folder, _disk(Path(folder), ROOM_KB):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


# --- the clock -----------------------------------------------------------------------------------------------------


def _clock(lab: Lab, clock: tuple[tuple[int, float], ...], folder: Path) -> Outcome:
    home = lab.cold_home(folder)
    ended = run(home, "optimize", str(lab.spec), settings=lab.settings, plan=Plan(str(home), clock=clock))
    session = folders(home)[-1]
    complaints = [*ended.left, *unwell(ended)]
    return Outcome(len(clock), (*complaints, *lost(home, session)))


# --- another session -----------------------------------------------------------------------------------------------


def _two_at_once(lab: Lab, folder: Path) -> Outcome:
    home = lab.cold_home(folder)
    both = [start(home, "optimize", str(lab.spec), settings=lab.settings) for _ in range(2)]
    complaints = []
    try:
        for started in both:
            ended = started.wait()
            complaints += [*ended.left, *unwell(ended)]
    finally:
        for started in both:
            started.end()
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
        lab.cold_home(folder),
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
    latest = max((home / "artifacts").glob("[!.]*/model.onnx"), key=lambda path: path.stat().st_mtime_ns)
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
