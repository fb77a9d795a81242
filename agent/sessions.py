"""Finding and listing the sessions of a home directory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from tools.errors import InfertuneError
from tools.lock import BusyError, held
from tools.record import LOCK, State, read_record


def folders(home: Path) -> list[Path]:
    """Return the folders of all sessions, the oldest first."""
    return sorted(p for p in (home / "sessions").glob("*") if p.is_dir() and not p.name.startswith("."))


def find(home: Path, session: str | None, *, to_resume: bool = False) -> Path:
    """Return a session's folder.

    Args:
        home: where to look.
        session: its id, or as much of its beginning as is unique; None for the latest.
        to_resume: the latest that did not come to its end, and that nobody works on.

    Raises:
        InfertuneError: there is none, or the beginning is not unique.
    """
    known = folders(home)
    if not known:
        raise InfertuneError("there are no sessions.", where=str(home), fix="Start one: infertune optimize TARGET")
    if session is not None:
        matching = [f for f in known if f.name == session] or [f for f in known if f.name.startswith(session)]
        if len(matching) == 1:
            return matching[0]
        what = f"{len(matching)} sessions begin with {session!r}" if matching else f"there is no session {session!r}"
        listed = ", ".join(f.name for f in (matching or known)[-5:])
        raise InfertuneError(f"{what}.", where=str(home), fix=f"The latest are: {listed}.")
    if not to_resume:
        return known[-1]
    for folder in reversed(known):
        if _can_go_on(folder):
            return folder
    raise InfertuneError("no session is waiting to be resumed.", where=str(home), fix="See: infertune sessions")


def _can_go_on(folder: Path) -> bool:
    with contextlib.suppress(InfertuneError):
        return read_record(folder).state in (State.UNFINISHED, State.INTERRUPTED) and not is_running(folder)
    return False


def is_running(folder: Path) -> bool:
    """Whether a process works on this session right now."""
    try:
        with held(folder / LOCK, busy=""):
            return False
    except BusyError:
        return True


def forget_threads(home: Path, sessions: Iterable[str]) -> None:
    """Delete the graph's checkpoints of sessions that are gone."""
    names, path = list(sessions), home / "checkpoints.db"
    if not names or not path.exists():
        return
    from langgraph.checkpoint.sqlite import SqliteSaver

    with SqliteSaver.from_conn_string(str(path)) as saver:
        for name in names:
            saver.delete_thread(name)
