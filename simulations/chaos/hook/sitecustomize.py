"""Stands between a session and its disk, in the main process and in its workers: counts its writes, and kills in them.

Python imports this module by itself in every process that has the folder on its path. Without a `Plan` in the
environment, and in processes that are no part of a session, it does nothing. Only what lies below the plan's home
counts; what a C library writes by itself is not seen, but what makes it count (the sync, the rename, the commit) is.

Nothing but the standard library may be imported here: the warm processes of a session would keep it.
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
from typing import Any, NamedTuple

PLAN = "CHAOS_PLAN"
"""Environment variable with a `Plan` as JSON."""
_WAIT_S = 60
_MAIN, _WARM, _TASK = "main", "warm", "task"
_PARTS = (
    (re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}"), "SESSION"),
    (re.compile(r"[0-9a-f]{32}"), "RUN"),
    (re.compile(r"[0-9a-f]{16}(-[0-9a-f]{8})?"), "DIGEST"),
    (re.compile(r"(?<=\.making-)\w{8}|(?<=-)\w{8}$"), "RANDOM"),
)
"""What differs from run to run in a path, and what stands for it."""


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


class _Calls:
    """The real functions, from before they were replaced."""

    write = staticmethod(os.write)
    fsync = staticmethod(os.fsync)
    ftruncate = staticmethod(os.ftruncate)
    rename = staticmethod(os.rename)
    replace = staticmethod(os.replace)
    connect = staticmethod(sqlite3.connect)


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
            return self.what(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            return None

    def reach(self, call: str, what: str, moment: str, half: Callable[[], None] | None = None) -> None:
        """Come to a point: note it, and die there if that is the plan."""
        point = Point(self.role, call, what, moment)
        if self.plan.trace is not None:
            fd = os.open(self.plan.trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            _Calls.write(fd, (json.dumps(point) + "\n").encode())
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
            _Calls.write(fd, b".")
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
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123  no pathlib here: its import is not ours to make
            if b"simulations.chaos.child" in file.read().split(b"\0"):
                return pid
        pid = _parent(pid)
    return os.getpid()


def _warm_processes(main: int) -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _parent(int(name)) == main]


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123  as above
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


hook: _Hook | None = None
"""What the main process's graph reports its nodes to."""


def _install(plan: Plan, role: str) -> None:
    global hook  # noqa: PLW0603  one hook a process, where the graph's nodes find it
    installed = hook = _Hook(plan, role)

    def write(fd: int, data: Any) -> int:
        what = installed.what_is_open(fd)
        if what is None:
            return _Calls.write(fd, data)
        if what.endswith("journal.jsonl"):
            kind = re.search(rb'"kind":"(\w+)"', bytes(data))
            what = f"{what} {kind[1].decode() if kind else ''}".rstrip()
        installed.reach("write", what, "half", lambda: _write_half(fd, data))
        with installed.around("write", what):
            return _Calls.write(fd, data)

    def fsync(fd: Any) -> None:
        with installed.around("sync", installed.what_is_open(fd if isinstance(fd, int) else fd.fileno())):
            _Calls.fsync(fd)

    def ftruncate(fd: int, length: int) -> None:
        with installed.around("truncate", installed.what_is_open(fd)):
            _Calls.ftruncate(fd, length)

    def rename(source: Any, target: Any, **options: Any) -> None:
        with installed.around("rename", installed.what(os.path.abspath(target))):  # noqa: PTH100  as above
            _Calls.rename(source, target, **options)

    def replace(source: Any, target: Any, **options: Any) -> None:
        with installed.around("rename", installed.what(os.path.abspath(target))):  # noqa: PTH100  as above
            _Calls.replace(source, target, **options)

    def connect(database: Any, *arguments: Any, **options: Any) -> sqlite3.Connection:
        what = installed.what(os.path.abspath(os.fsdecode(database)))  # noqa: PTH100  as above
        if what is None or "factory" in options:
            return _Calls.connect(database, *arguments, **options)
        connection = _Calls.connect(database, *arguments, factory=_Connection, **options)
        connection.place = (installed, what, os.fsdecode(database))  # type: ignore[attr-defined]
        return connection

    for name, function in (("write", write), ("fsync", fsync), ("ftruncate", ftruncate)):
        setattr(os, name, function)
    os.rename, os.replace = rename, replace
    sqlite3.connect = sqlite3.dbapi2.connect = connect  # type: ignore[assignment]


def _write_half(fd: int, data: Any) -> None:
    _Calls.write(fd, bytes(data)[: len(data) // 2])


class _Connection(sqlite3.Connection):
    """Reports its commits. One that is killed half-way leaves half of what it added to the write-ahead log."""

    place: tuple[_Hook, str, str]

    def commit(self) -> None:
        if self.in_transaction:
            self._reporting(super().commit)
        else:
            super().commit()

    def __exit__(self, *error: object) -> Any:
        if self.in_transaction and error[0] is None:
            return self._reporting(lambda: super(_Connection, self).__exit__(*error))
        return super().__exit__(*error)

    def _reporting(self, commit: Callable[[], Any]) -> Any:
        reporting, what, path = self.place
        log = path + "-wal"
        before = os.path.getsize(log) if os.path.exists(log) else 0  # noqa: PTH110, PTH202  as above

        def half() -> None:
            commit()
            os.truncate(log, (before + os.path.getsize(log)) // 2)  # noqa: PTH202  as above

        reporting.reach("commit", what, "half", half)
        with reporting.around("commit", what):
            return commit()


def _jump(plan: Plan, installed: _Hook) -> None:
    """Replace this process's clock by one that jumps when so many of its entries are in the journal."""
    import datetime as dt

    shifts = dict(plan.clock)
    entries = 0
    shift_s = 0.0
    real_time, real_datetime, real_write = time.time, dt.datetime, os.write

    class Shifted(real_datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return real_datetime.fromtimestamp(time.time(), tz)

    def write(fd: int, data: Any) -> int:
        nonlocal entries, shift_s
        if (installed.what_is_open(fd) or "").endswith("journal.jsonl"):
            entries += 1
            shift_s = shifts.get(entries, shift_s)
        return real_write(fd, data)

    time.time = lambda: real_time() + shift_s
    dt.datetime = Shifted  # type: ignore[misc]
    os.write = write


def _begin() -> None:
    text = os.environ.get(PLAN)
    if text is None:
        return
    if "tools.worker.zygote" in sys.orig_argv:
        role = _WARM
    elif "simulations.chaos.child" in sys.orig_argv:
        role = _MAIN
    else:
        return
    plan = Plan.from_json(text)
    _install(plan, role)
    installed = hook
    assert installed is not None
    if role == _WARM:

        def forked() -> None:
            installed.role = _TASK

        os.register_at_fork(after_in_child=forked)
    elif plan.clock:
        _jump(plan, installed)


_begin()
