"""Watches what this process really does: files that it opens, programs that it starts, hosts that it speaks to."""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PROGRAMS = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pty.spawn"})
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_LIBRARIES = tuple(
    {str(Path(path).resolve()) for path in (sys.prefix, sys.base_prefix, *sysconfig.get_paths().values())}
    | {str(Path(__file__).resolve().parents[2]), "/usr", "/lib", "/proc/self", "/dev/null", "/dev/urandom", "/sys"}
    | {"/etc/ssl", "/etc/localtime", "/etc/mime.types", "/etc/os-release", "/etc/resolv.conf", "/etc/hosts"}
)
"""What Python and its libraries read by themselves, whatever a text says."""


class Watch:
    """Notes what is done while it is on. An audit hook of Python, which nothing in this process gets around unseen."""

    def __init__(self) -> None:
        self._home: Path | None = None
        self._noted: list[str] = []
        self._guard = threading.local()
        sys.addaudithook(self._hook)

    @contextlib.contextmanager
    def on(self, home: Path) -> Iterator[list[str]]:
        """Watch, and yield the list of what should not have been done, in sentences.

        Args:
            home: may be read and written.
        """
        self._home, self._noted = home.resolve(), []
        try:
            yield self._noted
        finally:
            self._home = None

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._home is None or getattr(self._guard, "within", False):
            return
        self._guard.within = True
        try:
            self._look(event, arguments)
        finally:
            self._guard.within = False

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _PROGRAMS:
            self._noted.append(f"a program was started: {str(arguments[:2])[:120]}")
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.startswith((str(self._home), *_LIBRARIES)):
                self._noted.append(f"a file was opened: {path[:120]}")
        elif event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in _LOOPBACK:
            self._noted.append(f"a host was spoken to: {arguments[1][0]}")
        elif event == "socket.getaddrinfo" and arguments[0] not in (*_LOOPBACK, None):
            self._noted.append(f"a host was looked up: {arguments[0]!r:.80}")
