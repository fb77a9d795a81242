"""What a task prints: kept, but never more of it than a person will read."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from pathlib import Path
from typing import Self

HEAD_BYTES = 1_000_000
"""So much of the beginning is kept, written as it comes."""

TAIL_BYTES = 256_000
"""So much of the end is kept, written when the task is over: the end says what it died of."""


class OutputLog:
    """The log of one run of a task: the beginning and the end of its output, and how much was left out between.

    A log that cannot be written (a full disk) costs the output and not the task.

    Args:
        path: appended to, so that a label that is used twice keeps both.
    """

    def __init__(self, path: Path) -> None:
        self._room = HEAD_BYTES
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._left_out = 0
        self._recent = b""
        self._fd: int | None = None
        with contextlib.suppress(OSError):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(self, data: bytes) -> None:
        """Take what the task printed."""
        head = data[: self._room]
        if head:
            self._room -= len(head)
            self._recent = (self._recent + head)[-TAIL_BYTES:]
            self._put(head)
        rest = data[len(head) :]
        if rest:
            self._keep(rest)

    def note(self, sentence: str) -> None:
        """Add a line of our own at the end, whatever was left out before."""
        self._keep(f"\n[infertune] {sentence}\n".encode())

    def has_lately(self, text: bytes) -> bool:
        """Whether this stands in the last part of the output."""
        return text in (self._recent + b"".join(self._tail))[-TAIL_BYTES:]

    def close(self) -> None:
        """Write the end of the output, and say how much is missing before it."""
        tail = b"".join(self._tail)
        missing = self._left_out + max(0, len(tail) - TAIL_BYTES)
        if missing:
            self._put(f"\n[infertune] {missing / 1e6:,.1f} MB of output left out here\n".encode())
        self._put(tail[-TAIL_BYTES:])
        self._tail.clear()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep(self, data: bytes) -> None:
        self._tail.append(data)
        self._tail_bytes += len(data)
        while self._tail_bytes - len(self._tail[0]) >= TAIL_BYTES:  # the rest alone is long enough
            dropped = len(self._tail.popleft())
            self._tail_bytes -= dropped
            self._left_out += dropped

    def _put(self, data: bytes) -> None:
        if self._fd is None:
            return
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._fd, data) :]
