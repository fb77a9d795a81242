"""Locks between processes: held by an open file, so that a process that dies lets go."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from tools.errors import StorageError


class BusyError(StorageError):
    """Another process holds the lock."""


@contextlib.contextmanager
def held(path: Path, *, busy: str, shared: bool = False) -> Iterator[None]:
    """Hold a lock file for the length of a block, without waiting for it.

    Args:
        path: the file; made if absent, never removed.
        busy: what to tell a person when another process holds it, as a sentence.
        shared: several processes may hold it at once, unless one wants it alone.

    Raises:
        BusyError: another process holds it.
        StorageError: the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(
            f"cannot be written ({error.strerror or error}).",
            where=str(path),
            fix="Free some space, or point INFERTUNE_HOME to a folder that you can write.",
        ) from None
    try:
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(busy, where=str(path.parent)) from None
        yield
    finally:
        os.close(fd)
