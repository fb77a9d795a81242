"""The journal: what happened in a session, one JSON line each, on disk before anything relies on it.

A line counts once its newline is on disk. What follows the last newline was cut off by a crash: it was never
acknowledged to anyone, so readers skip it and the next append replaces it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from pydantic import Field, ValidationError
from pydantic_core import to_json

from tools.artifacts import sync_folder
from tools.contracts import Contract
from tools.errors import StorageError

JournalKind: TypeAlias = Literal[
    "started",  # a session began: what it was asked, on which machine, with which versions
    "loaded",  # its workload was read
    "failed",  # its workload could not be
    "resumed",  # a process took an interrupted session up again
    "note",  # something a person should know
    "evidence",  # something was measured
    "decision",  # something was chosen
    "plan",  # a bounded change to the cluster was proposed
    "approval",  # a person answered
    "applied",  # the cluster was changed
    "verified",  # the change was watched for its window
    "rolled_back",  # the change was taken back
    "result",  # the outcome of the session
    "recorded",  # the session was mirrored to MLflow, or could not be
    "interrupted",  # the session was stopped before its end
    "finished",  # nothing more will follow
]
KINDS: tuple[str, ...] = get_args(JournalKind)


class Entry(Contract):
    """One line of a journal."""

    seq: int = Field(ge=1)
    """Its number, counted from 1 without gaps: the line number."""
    at: str
    """UTC, ISO 8601."""
    kind: JournalKind
    payload: dict[str, Any]


class Journal:
    """An append-only file of entries. Several processes may append to one file.

    Args:
        path: the file; it and its folder are made by the first append.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cut_off = False
        """Whether the last `read` met a last line that was cut off by a crash."""
        self._size = -1
        self._seq = 0

    def append(self, kind: JournalKind, payload: Mapping[str, Any]) -> Entry:
        """Write one entry and return it when it is on disk.

        Args:
            kind: what happened.
            payload: JSON-ready values (`model_dump(mode="json")`). Numbers that JSON lacks are written as `"NaN"`,
                `"Infinity"` and `"-Infinity"`, which the contracts read back.

        Raises:
            StorageError: the disk is full, the file cannot be written, or its earlier lines are damaged. Nothing of
                the entry is left behind then.
        """
        try:
            with self._locked() as fd:
                if os.fstat(fd).st_size != self._size:  # the first append, or another process wrote meanwhile
                    self._catch_up(fd)
                return self._write(fd, kind, payload)
        except OSError as error:
            raise self._unusable("written", error) from None

    def read(self) -> list[Entry]:
        """Return all entries in order; none when the file does not exist yet. Sets `cut_off`.

        Raises:
            StorageError: the file cannot be read, or a line before the last one is damaged or missing.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise self._unusable("read", error) from None
        entries, intact = self._parse(data)
        self.cut_off = intact < len(data)
        return entries

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if new:
                sync_folder(self.path.parent)
            yield fd
        finally:
            os.close(fd)  # releases the lock

    def _catch_up(self, fd: int) -> None:
        """Learn where the file stands, and drop a line that was cut off."""
        data = self.path.read_bytes()
        entries, intact = self._parse(data)
        if intact < len(data):
            os.ftruncate(fd, intact)
        self._size, self._seq = intact, len(entries)

    def _write(self, fd: int, kind: JournalKind, payload: Mapping[str, Any]) -> Entry:
        line = to_json(
            {"seq": self._seq + 1, "at": datetime.now(UTC).isoformat(), "kind": kind, "payload": payload},
            inf_nan_mode="strings",
        )
        entry = Entry.model_validate_json(line)
        data = line + b"\n"
        try:
            # One write: another reader sees the whole line or none, and a crash can only cut the last line short.
            written = os.write(fd, data)
            os.fsync(fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, self._size)
            raise
        if written < len(data):
            os.ftruncate(fd, self._size)
            raise StorageError("the disk is full.", where=str(self.path), fix="Free some space and resume the session.")
        self._size += len(data)
        self._seq = entry.seq
        return entry

    def _parse(self, data: bytes) -> tuple[list[Entry], int]:
        """Return the entries and the length of the part of `data` that they fill."""
        *lines, _ = data.split(b"\n")
        entries: list[Entry] = []
        intact = 0
        for number, line in enumerate(lines, start=1):
            try:
                entry = Entry.model_validate_json(line)
            except ValidationError as error:
                raise self._damaged(number, f"is no journal entry ({_first_problem(error)})") from None
            if entry.seq != number:
                raise self._damaged(number, f"holds entry {entry.seq}: lines were lost or added")
            entries.append(entry)
            intact += len(line) + 1
        return entries, intact

    def _damaged(self, number: int, what: str) -> StorageError:
        return StorageError(
            f"line {number} {what}.",
            where=str(self.path),
            fix="Restore the file from a copy, or move it away to keep what can still be read by eye.",
        )

    def _unusable(self, verb: str, error: OSError) -> StorageError:
        return StorageError(
            f"cannot be {verb} ({error.strerror or error}).",
            where=str(self.path),
            fix="Free some space, or point INFERTUNE_HOME to a folder that you can write.",
        )


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else problem["msg"]
