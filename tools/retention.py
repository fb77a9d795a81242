"""What a home directory no longer needs, and its deletion.

What is needed is found by name: rows, raw samples, artifacts and data all carry names that are digests (or hold one),
and whatever needs one of them spells its name. So a file stays as long as its name stands anywhere in a row that stays
or in the folder of a session. That keeps a little too much now and then, and never too little.

Deleting may be killed at any moment: sessions go first, then the rows, in one transaction, then the files. So nothing
that is left refers to what is missing, and the next call finds the rest.

What scheduled runs wrote to their output (`schedule/<run>.json` and `.log`) goes when it is old and many came since.
The schedule itself forgets old runs, and events that were delivered, whenever it looks at what is due.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from tools.artifacts import sync_folder
from tools.errors import StorageError
from tools.evidence import EVIDENCE, EvidenceStore
from tools.journal import Journal
from tools.lock import BusyError, held
from tools.record import JOURNAL, LOCK, RESULT, State, fold

DELETING = ".deleting-"
"""Beginning of the name of a session's folder that is being deleted."""
_ASIDE = (".making-", ".damaged-", ".importing-", DELETING)
"""Beginnings of names that nothing refers to: what is made aside, or was set aside."""
_BUSY = "a session of this home is running: what it measures must not be tidied away. Try again when it has ended."
_NAME = re.compile(r"[\w.-]+")
_RUN_OUTPUT = re.compile(r"(\d+)\.(?:json|log)")
KEEP_OUTPUTS = 100
"""Scheduled runs, the latest, whose output stays however old it is."""
KEEP_OUTPUT_DAYS = 90
"""As long as the schedule remembers its runs; the one that is under way is among the latest."""
_CAN_GO = frozenset({State.FINISHED, State.FAILED})


@dataclass(frozen=True)
class Part:
    """One kind of things that can go."""

    kind: str
    """In the plural: `sessions`, `rows`, `raw files`, `artifacts`, `data`, `run files`,
    `leftovers`."""
    count: int
    size_mb: float


@dataclass(frozen=True)
class Garbage:
    """What a home directory no longer needs."""

    home: Path
    parts: tuple[Part, ...]
    """What there is of each kind; kinds without any are left out."""
    sessions: tuple[Path, ...]
    rows: tuple[str, ...]
    """Ids."""
    files: tuple[Path, ...]
    """Raw files, folders of artifacts and data, and outputs of scheduled runs."""
    leftovers: tuple[Path, ...]
    """Files and folders of writers and deleters that were killed."""

    @property
    def size_mb(self) -> float:
        """What deleting it frees."""
        return sum(part.size_mb for part in self.parts)


@contextlib.contextmanager
def alone(home: Path) -> Iterator[None]:
    """Keep sessions from running for the length of a block, in which garbage is looked for and deleted.

    Raises:
        BusyError: one is running.
        StorageError: the home directory cannot be written.
    """
    with held(home / LOCK, busy=_BUSY):
        yield


def find_garbage(home: Path, now: datetime, older_than: timedelta | None = None) -> Garbage:
    """Find what no session needs.

    Rows stay when a session that stays used them, or measured them: it can still go on, or be asked for more.

    Args:
        home: the home directory; call this `alone` in it.
        now: in UTC.
        older_than: sessions that came to their end longer ago than this are no longer needed either.

    Raises:
        StorageError: a journal or the store cannot be read, so that nobody can tell what is needed.
    """
    old, kept = _split(home, None if older_than is None else now - older_than)
    mentioned: set[str] = set()
    for session in kept:
        mentioned |= _names_in_session(session.folder)
    measured_for = {session.folder.name for session in kept}  # a challenge measures for a session that is over
    rows: dict[str, int] = {}
    for identity, measured_by, body in _rows(home):
        if identity in mentioned or measured_by in measured_for:
            mentioned |= set(_NAME.findall(body))
        else:
            rows[identity] = len(body.encode())
    raw = [f for f in _inside(home / "raw") if f.name not in mentioned]
    artifacts = [f for f in _inside(home / "artifacts") if f.name not in mentioned and not _is_aside(f)]
    data = [f for f in _inside(home / "data") if f.name not in mentioned and not _is_aside(f)]
    outputs = _old_outputs(home, now)
    leftovers = [f for name in ("artifacts", "data", "sessions") for f in _inside(home / name) if _is_aside(f)]
    parts = (
        _part("sessions", old),
        Part("rows", len(rows), sum(rows.values()) / 1e6),
        _part("raw files", raw),
        _part("artifacts", artifacts),
        _part("data", data),
        _part("run files", outputs),
        _part("leftovers", leftovers),
    )
    return Garbage(
        home=home,
        parts=tuple(part for part in parts if part.count),
        sessions=tuple(old),
        rows=tuple(rows),
        files=(*raw, *artifacts, *data, *outputs),
        leftovers=tuple(leftovers),
    )


def delete(garbage: Garbage) -> str | None:
    """Delete it.

    Returns:
        Why the space of the deleted rows could not be given back, if it could not: later evidence uses it then.

    Raises:
        StorageError: something cannot be deleted. What is left is whole, and found again.
    """
    folder = garbage.home / "sessions"
    try:
        for path in garbage.leftovers:
            _delete(path)
        gone = [session.rename(folder / f"{DELETING}{session.name}") for session in garbage.sessions]
        if gone:
            sync_folder(folder)
        note = _delete_rows(garbage)
        for path in (*gone, *garbage.files):
            _delete(path)
    except OSError as error:
        raise StorageError(
            f"cannot be deleted ({error.strerror or error}).",
            where=str(error.filename or garbage.home),
            fix="Make it writable and try again: the rest is in order.",
        ) from None
    return note


@dataclass(frozen=True)
class _Session:
    folder: Path
    state: State
    ended: datetime | None
    """When its last entry was written; None when it never began."""


def _split(home: Path, before: datetime | None) -> tuple[list[Path], list[_Session]]:
    """Return the folders of sessions that ended before a moment, and all the other sessions."""
    sessions = [_read(folder) for folder in _inside(home / "sessions") if folder.is_dir() and not _is_aside(folder)]
    old = [
        s.folder
        for s in sessions
        if before is not None and s.ended is not None and s.ended < before and s.state in _CAN_GO and _is_idle(s.folder)
    ]
    return old, [s for s in sessions if s.folder not in old]


def _read(folder: Path) -> _Session:
    try:
        entries = Journal(folder / JOURNAL).read()
        if not entries:
            return _Session(folder, State.UNFINISHED, None)
        return _Session(folder, fold(folder, entries).state, datetime.fromisoformat(entries[-1].at))
    except StorageError as error:
        raise StorageError(
            f"the journal of session {folder.name} cannot be read, so that nobody can tell which evidence it needs: "
            f"nothing was deleted. {error.what}",
            where=str(folder / JOURNAL),
            fix="Restore the file, or move the session's folder out of the home directory to do without it.",
        ) from None


def _is_idle(folder: Path) -> bool:
    """Whether nobody works on a session: `infertune sync` may, beside us."""
    try:
        with held(folder / LOCK, busy=""):
            return True
    except BusyError:
        return False


def _names_in_session(folder: Path) -> set[str]:
    """Return every name that a session's journal or result spells."""
    texts = [(folder / name).read_text(errors="replace") for name in (JOURNAL, RESULT) if (folder / name).is_file()]
    return {name for text in texts for name in _NAME.findall(text)}


def _rows(home: Path) -> Iterator[tuple[str, str, str]]:
    """Yield id, measuring session and body of every row."""
    if not (home / EVIDENCE).exists():
        return
    store = EvidenceStore(home / EVIDENCE)
    measured_by = {row.id: row.session for row in store.rows()}
    for identity, body in store.bodies():
        yield identity, measured_by.get(identity, ""), body


def _old_outputs(home: Path, now: datetime) -> list[Path]:
    """Return what scheduled runs wrote that were not among the latest, long ago."""
    before_s = (now - timedelta(days=KEEP_OUTPUT_DAYS)).timestamp()
    runs: dict[int, list[Path]] = {}
    for path in _inside(home / "schedule"):
        found = _RUN_OUTPUT.fullmatch(path.name)
        if found is not None:
            runs.setdefault(int(found[1]), []).append(path)
    earlier = sorted(runs)[:-KEEP_OUTPUTS]
    return [path for run in earlier for path in runs[run] if path.stat().st_mtime < before_s]


def _delete_rows(garbage: Garbage) -> str | None:
    if not garbage.rows:
        return None
    store = EvidenceStore(garbage.home / EVIDENCE)
    store.delete(garbage.rows)
    try:
        store.compact()
    except StorageError as error:
        return f"The space of the deleted rows stays with the store, for later evidence: {error.what}"
    return None


def _delete(path: Path) -> None:
    """Delete a file or a folder; a folder that others look for by name disappears at once, and never loses parts."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    if not _is_aside(path):
        path = path.rename(path.with_name(f"{DELETING}{path.name}"))
    shutil.rmtree(path)


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _is_aside(path: Path) -> bool:
    return path.name.startswith(_ASIDE)


def _part(kind: str, paths: Iterable[Path]) -> Part:
    sizes = [_size_bytes(path) for path in paths]
    return Part(kind, len(sizes), sum(sizes) / 1e6)


def _size_bytes(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum((Path(root) / name).lstat().st_size for root, _, names in os.walk(path) for name in names)
