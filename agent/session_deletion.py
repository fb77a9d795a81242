"""Deleting sessions: what goes and what stays, who is refused, and a deletion that a kill cannot leave half done.

A session's folder is renamed aside first, so that nothing looks at a part of it. Its checkpoints and its files go after
that. What a kill left aside is brought to its end by the next deletion.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.sessions import find, folders, forget_threads
from tools.artifacts import sync_folder
from tools.cluster.events import IN_FLIGHT
from tools.cluster.plans import has_expired
from tools.cluster.store import PLANS, PlanStore
from tools.errors import InfertuneError, StorageError
from tools.lock import held
from tools.record import JOURNAL, LOCK, RESULT, read_record
from tools.retention import DELETING
from tools.tracking.session import read_result

_RUNNING = "this session is running. Stop it first, or wait until it has ended. Nothing was deleted."
_BUSY = "sessions are being deleted or imported right now: try again in a moment. Nothing was deleted."
_TIDYING = "its evidence is being tidied away right now: try again in a moment. Nothing was deleted."


@dataclass(frozen=True)
class Doomed:
    """A session that can go.

    Attributes:
        folder: `<home>/sessions/<id>`.
        files: how many there are in it.
        files_mb: their size.
        inputs_mb: of that, the copies of its inputs.
        checkpoints_mb: of its graph.
        evidence: how many pieces it used, which stay.
        run: id of its MLflow run, which stays; None when it has none.
        verified: digests of changes to a cluster that rest on it: they can no longer be taken back by a command.
    """

    folder: Path
    files: int
    files_mb: float
    inputs_mb: float
    checkpoints_mb: float
    evidence: int
    run: str | None
    verified: tuple[str, ...] = ()


@dataclass(frozen=True)
class Deletion:
    """Sessions that go, with what an earlier deletion that was killed left behind. Hold it by `deletion_of`."""

    home: Path
    sessions: tuple[Doomed, ...]
    left_over: tuple[Path, ...] = ()
    """Folders that were renamed aside."""
    gone: tuple[str, ...] = ()
    """Sessions that were asked for, and are not there any more, or never were."""


@contextlib.contextmanager
def deletion_of(home: Path, sessions: Sequence[str], now: dt.datetime) -> Iterator[Deletion]:
    """Find what goes, and keep everybody else away from it for the length of a block, in which `delete` is called.

    Args:
        home: where the sessions are.
        sessions: their ids, or as much of the beginnings as is unique.
        now: decides whether a plan has expired; with a time zone.

    Raises:
        InfertuneError: one is not there, or runs, or a plan of it is open. Nothing is deleted then.
    """
    where = home / "sessions"
    with contextlib.ExitStack() as locks:
        if where.is_dir():
            locks.enter_context(held(home / LOCK, busy=_TIDYING, shared=True))
            locks.enter_context(held(where / LOCK, busy=_BUSY))
        left_over = tuple(sorted(where.glob(f"{DELETING}*")))
        known = [folder.name for folder in folders(home)]
        # The deletion that was killed may have come to the end of some: the same command again must work.
        gone = [s for s in sessions if left_over and not any(name.startswith(s) for name in known)]
        chosen = list(dict.fromkeys(find(home, session) for session in sessions if session not in gone))
        for folder in chosen:
            locks.enter_context(held(folder / LOCK, busy=_RUNNING))
        plans = _plans(home, {folder.name for folder in chosen}, now)
        doomed = tuple(_doomed(home, folder, plans.get(folder.name, ())) for folder in chosen)
        begun = {session_of(path) for path in left_over}
        yield Deletion(home, doomed, left_over, tuple(session for session in gone if session not in begun))


def delete(deletion: Deletion) -> None:
    """Delete it. A kill in the middle leaves what the next deletion finds and completes.

    Raises:
        StorageError: something cannot be deleted. No session that is still listed lacks a part.
    """
    aside = list(deletion.left_over)
    folder = deletion.home / "sessions"
    try:
        _clear(deletion.home, aside)  # first: a session of the same name may have come back since
        aside = [doomed.folder.rename(folder / f"{DELETING}{doomed.folder.name}") for doomed in deletion.sessions]
        if aside:
            sync_folder(folder)
        _clear(deletion.home, aside)
    except (OSError, sqlite3.Error) as error:
        raise StorageError(
            f"cannot be deleted ({getattr(error, 'strerror', None) or error}).",
            where=str(getattr(error, "filename", None) or folder),
            fix="Make it writable, and give the same command again: it goes on from there.",
        ) from None


def session_of(aside: Path) -> str:
    """Return the id of the session whose folder was renamed aside."""
    return aside.name.removeprefix(DELETING)


def _clear(home: Path, aside: Sequence[Path]) -> None:
    """Delete the checkpoints, then the files: as long as a folder is there, the next deletion knows what to clear."""
    forget_threads(home, [session_of(path) for path in aside])
    for path in aside:
        shutil.rmtree(path)


def _plans(home: Path, sessions: set[str], now: dt.datetime) -> dict[str, tuple[str, ...]]:
    """Return the digests of settled changes that rest on these sessions.

    Raises:
        InfertuneError: a plan of one of them is open: it is carried out right now, or may be.
    """
    if not (home / PLANS).is_file():
        return {}
    store = PlanStore(home)
    settled: dict[str, tuple[str, ...]] = {}
    for plan in store.plans():
        if plan.session not in sessions:
            continue
        state = store.state(plan.digest)
        if state in IN_FLIGHT or (state in ("proposed", "approved") and not has_expired(plan, now)):
            what = "is not settled" if state in IN_FLIGHT else f"is {state}, and good until {plan.expires}"
            raise InfertuneError(
                f"its plan {plan.digest} {what}. Nothing was deleted.",
                where=f"session {plan.session}",
                fix=f"Settle it first: infertune plan show {plan.digest}",
            )
        if state == "verified":
            settled[plan.session] = (*settled.get(plan.session, ()), plan.digest)
    return settled


def _doomed(home: Path, folder: Path, verified: tuple[str, ...]) -> Doomed:
    sizes = [path.lstat().st_size for path in _files(folder)]
    evidence, run = 0, None
    with contextlib.suppress(InfertuneError):  # a session that nobody can read can go as well
        if (folder / JOURNAL).exists():
            evidence = len(read_record(folder).evidence)
    with contextlib.suppress(InfertuneError):
        found = read_result(folder / RESULT).mlflow if (folder / RESULT).exists() else None
        run = None if found is None else found.run_id
    return Doomed(
        folder=folder,
        files=len(sizes),
        files_mb=sum(sizes) / 1e6,
        inputs_mb=sum(path.lstat().st_size for path in _files(folder / "inputs")) / 1e6,
        checkpoints_mb=_checkpoints_mb(home, folder.name),
        evidence=evidence,
        run=run,
        verified=verified,
    )


def _files(folder: Path) -> list[Path]:
    return [Path(root) / name for root, _, names in os.walk(folder) for name in names]


def _checkpoints_mb(home: Path, session: str) -> float:
    """Return the size of a thread's checkpoints; 0 where they cannot be read, which `delete` then says."""
    path = home / "checkpoints.db"
    if not path.is_file():
        return 0.0
    asked = (
        "SELECT (SELECT total(length(checkpoint) + length(metadata)) FROM checkpoints WHERE thread_id = :session)"
        " + (SELECT total(length(value)) FROM writes WHERE thread_id = :session)"
    )
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            (size,) = connection.execute(asked, {"session": session}).fetchone()
    except sqlite3.Error:
        return 0.0
    return float(size) / 1e6
