"""Stands between a session and its disk, in the main process and in its workers: counts its writes, and kills in them.

Python imports this module by itself in every process that has the folder on its path. Without a `Plan` in the
environment, and in processes that are no part of a session, it does nothing. Only what lies below the plan's home
counts; what a C library writes by itself is not seen, but what makes it count (the sync, the rename, the commit) is.

Little may be imported here, and not pathlib: what this module imports is there before the session's own imports.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple

PLAN = "CHAOS_PLAN"
"""Environment variable with a `Plan` as JSON."""
_JOURNAL = "journal.jsonl"
_WAIT_S = 60
_MAIN, _WARM, _TASK = "main", "warm", "task"
_PARTS = (
    (re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}"), "SESSION"),
    (re.compile(r"[0-9a-f]{32}"), "RUN"),
    (re.compile(r"[0-9a-f]{16}(-[0-9a-f]{8})?"), "DIGEST"),
    (re.compile(r"(?<=\.making-)\w{8}|(?<=-)\w{8}$"), "RANDOM"),
)
"""What differs from run to run in a path, and what stands for it."""
_write = os.write
_connect: Callable[..., Any] = sqlite3.connect


class Point(NamedTuple):
    """A place in a session's life: the n-th time that a process of this role comes to it."""

    role: str
    """`main`; `warm`, the process that a worker keeps; or `task`, its child."""
    call: str
    """`write`, `sync`, `rename`, `truncate`, `commit`, or `node`."""
    what: str
    """Path below the home, without what differs from run to run; for the journal with the kind of entry; or a node."""
    moment: str
    """`before`, `half` (of a write or a commit is on disk), or `after`."""


class Plan(NamedTuple):
    """What is to happen in a session."""

    home: str
    trace: str | None = None
    """File that every point is written to, a line each."""
    point: Point | None = None
    """Where to kill."""
    nth: int = 1
    victims: str = "self"
    """`self`; `parent` (the warm process of a task); `main`; or `all`."""
    signal: int = signal.SIGKILL
    """What they are sent."""
    counter: str = ""
    """File whose size is how often the point was reached, in whatever process."""
    clock: tuple[tuple[int, float], ...] = ()
    """Jumps of the main process's clock: at which of its journal entries, and where to, in seconds from now."""

    def to_json(self) -> str:
        """Return the plan for the environment."""
        return json.dumps(self._asdict())

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what `to_json` wrote."""
        values = json.loads(text)
        if values["point"] is not None:
            values["point"] = Point(*values["point"])
        return cls(**values)


class _Hook:
    """One process's share of the plan."""

    def __init__(self, plan: Plan, role: str) -> None:
        self.plan = plan
        self.role = role
        self._home = plan.home.rstrip("/") + "/"

    def what(self, path: str) -> str | None:
        """Return what a path stands for; None when it is not below the home."""
        if not path.startswith(self._home):
            return None
        what = path.removeprefix(self._home)
        for pattern, name in _PARTS:
            what = pattern.sub(name, what)
        return what

    def what_is_open(self, fd: int) -> str | None:
        """Return the same for a file descriptor."""
        try:
            return self.what(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115  see the top
        except OSError:
            return None

    def reach(self, call: str, what: str, moment: str, half: Callable[[], object] | None = None) -> None:
        """Come to a point: note it, and die there if that is the plan."""
        point = Point(self.role, call, what, moment)
        if self.plan.trace is not None:
            fd = os.open(self.plan.trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            _write(fd, (json.dumps(point) + "\n").encode())
            os.close(fd)
        if point == self.plan.point and self._count() == self.plan.nth:
            if half is not None:
                half()
            self._kill()

    @contextlib.contextmanager
    def around(self, call: str, what: str | None) -> Iterator[None]:
        """Come to the points before and after a call, if it concerns the home."""
        if what is None:
            yield
            return
        self.reach(call, what, "before")
        yield
        if call != "sync":  # which changes nothing that the death of a process, unlike that of a machine, leaves behind
            self.reach(call, what, "after")

    def _count(self) -> int:
        fd = os.open(self.plan.counter, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            _write(fd, b".")
            return os.lseek(fd, 0, os.SEEK_CUR)  # of our own byte, whoever appends meanwhile
        finally:
            os.close(fd)

    def _kill(self) -> None:
        main = _main_process()
        victims = {
            "self": [os.getpid()],
            "parent": [os.getppid()],
            "main": [main],
            "all": [main, *_warm_processes(main), os.getpid()],
        }[self.plan.victims]
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, self.plan.signal)
        if self.plan.signal == signal.SIGKILL:
            time.sleep(_WAIT_S)  # whoever survives it waits for the consequences, and does not come past the point


def _main_process() -> int:
    """Return the session's main process: the first among us and our parents."""
    pid = os.getpid()
    while pid > 1:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123  see the top
            if b"simulations.chaos.child" in file.read().split(b"\0"):
                return pid
        pid = _parent(pid)
    return os.getpid()


def _warm_processes(main: int) -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _parent(int(name)) == main]  # noqa: PTH208


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123  see the top
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


hook: _Hook | None = None
"""What the main process's graph reports its nodes to."""


def _replace_calls(installed: _Hook) -> None:
    """Have every call that changes a file report to the hook."""

    def write(fd: int, data: Any) -> int:
        what = installed.what_is_open(fd)
        if what is None:
            return _write(fd, data)
        if what.endswith(_JOURNAL):
            kind = re.search(rb'"kind":"(\w+)"', bytes(data))
            what = f"{what} {kind[1].decode() if kind else ''}".rstrip()
        installed.reach("write", what, "half", lambda: _write(fd, bytes(data)[: len(data) // 2]))
        with installed.around("write", what):
            return _write(fd, data)

    def around_fd(call: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def reporting(fd: Any, *arguments: Any) -> Any:
            with installed.around(call, installed.what_is_open(fd if isinstance(fd, int) else fd.fileno())):
                return function(fd, *arguments)

        return reporting

    def around_target(function: Callable[..., Any]) -> Callable[..., Any]:
        def reporting(source: Any, target: Any, **options: Any) -> Any:
            with installed.around("rename", installed.what(os.path.abspath(target))):  # noqa: PTH100  see the top
                return function(source, target, **options)

        return reporting

    for module, name, function in (
        (os, "write", write),
        (os, "fsync", around_fd("sync", os.fsync)),
        (os, "ftruncate", around_fd("truncate", os.ftruncate)),
        (os, "rename", around_target(os.rename)),
        (os, "replace", around_target(os.replace)),
        (sqlite3, "connect", _connecting(installed)),
        (sqlite3.dbapi2, "connect", _connecting(installed)),
    ):
        setattr(module, name, function)


def _connecting(installed: _Hook) -> Callable[..., Any]:
    """Return what opens databases, those below the home so that they report their commits."""

    def connect(database: Any, *arguments: Any, **options: Any) -> Any:
        path = os.path.abspath(os.fsdecode(database))  # noqa: PTH100  see the top
        what = installed.what(path)
        if what is None or "factory" in options:
            return _connect(database, *arguments, **options)
        connection = _connect(database, *arguments, factory=_Connection, **options)
        connection.place = (installed, what, path)
        return connection

    return connect


class _Connection(sqlite3.Connection):
    """Reports its commits. One that is killed half-way leaves half of what it added to the write-ahead log."""

    place: tuple[_Hook, str, str]

    def commit(self) -> None:
        if self.in_transaction:
            self._reporting(super().commit)
        else:
            super().commit()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        def leave() -> Any:
            return super(_Connection, self).__exit__(kind, error, trace)

        return self._reporting(leave) if self.in_transaction and error is None else leave()

    def _reporting(self, commit: Callable[[], Any]) -> Any:
        reporting, what, path = self.place
        log = path + "-wal"
        before = os.path.getsize(log) if os.path.exists(log) else 0  # noqa: PTH110, PTH202  see the top

        def half() -> None:
            commit()
            os.truncate(log, (before + os.path.getsize(log)) // 2)  # noqa: PTH202  see the top

        reporting.reach("commit", what, "half", half)
        with reporting.around("commit", what):
            return commit()


def _begin() -> None:
    """Follow the plan, if there is one and this process is part of a session."""
    global hook  # noqa: PLW0603  one hook a process, where the graph's nodes find it
    text = os.environ.get(PLAN)
    if text is None:
        return
    if "tools.worker.zygote" in sys.orig_argv:
        role = _WARM
    elif "simulations.chaos.child" in sys.orig_argv:
        role = _MAIN
    else:
        return
    hook = installed = _Hook(Plan.from_json(text), role)
    _replace_calls(installed)
    if role == _WARM:

        def forked() -> None:
            installed.role = _TASK

        os.register_at_fork(after_in_child=forked)
    elif installed.plan.clock:
        from simulations.chaos.hook.clock import jump

        jump(installed.plan.clock, lambda fd: (installed.what_is_open(fd) or "").endswith(_JOURNAL))


_begin()
