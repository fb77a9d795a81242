"""Finding and listing the sessions of a home directory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from tools.errors import InfertuneError
from tools.lock import BusyError, held
from tools.record import JOURNAL, LOCK, RESULT, SessionRecord, State, read_record
from tools.tracking.session import read_result


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


def list_sessions(home: Path) -> Iterator[str]:
    """Yield one line for each session, the oldest first."""
    known = folders(home)
    if not known:
        yield f"no sessions in {home} yet: infertune optimize digits-resnet50"
    for folder in known:
        yield f"{folder.name}  {_state(folder)}"


def _state(folder: Path) -> str:
    """Return what a session came to: its result, and what is left to be done about it."""
    result, rest = _shown(folder), ""
    if (folder / JOURNAL).exists():
        try:
            rest = _described(read_record(folder))
        except InfertuneError as error:
            rest = "" if result else f"cannot be read: {error.what}"
    elif not result:
        rest = "never began"
    return f"{result}  ({rest})" if result and rest else result or f"({rest})"


def _shown(folder: Path) -> str:
    if not (folder / RESULT).exists():
        return ""
    try:
        result = read_result(folder / RESULT)
    except InfertuneError as error:
        return f"(result.json cannot be read: {error.what})"
    return f"{result.workload:<20} {result.verdict.value:<12} {result.summary}"


def _described(record: SessionRecord) -> str:
    """Return what is to be said beside the result, or in its place; empty for a session that came to its end."""
    resume = f"infertune resume {record.session}"
    match record.state:
        case State.FINISHED if record.recorded.get("run_id") is None:
            return f"not in MLflow yet: infertune sync {record.session}"
        case State.FINISHED:
            return ""
        case State.FAILED:
            return f"could not be loaded: {record.failure}"
        case State.INTERRUPTED:
            return f"interrupted: {resume}"
        case State.UNFINISHED:
            return "running" if is_running(record.folder) else f"did not end: {resume}"


def forget_threads(home: Path, sessions: Iterable[str]) -> None:
    """Delete the graph's checkpoints of sessions that are gone."""
    names, path = list(sessions), home / "checkpoints.db"
    if not names or not path.exists():
        return
    from langgraph.checkpoint.sqlite import SqliteSaver

    with SqliteSaver.from_conn_string(str(path)) as saver:
        for name in names:
            saver.delete_thread(name)
