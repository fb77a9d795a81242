"""A control group for what a worker runs: the kernel counts its memory, caps it, and says whether the cap was hit.

The warm process moves into a group of its own once, and its children are born in it. (Moving each child would cost
9 ms a task: the kernel waits for a grace period.) What was in memory before belongs to the group above, so the cap
counts what the tasks add. The kernel picks its victim in the group, and children are preferred victims.

A group is only ever made below the one that we are in, so every limit that we live under holds. With version 2 that
takes a group without processes: the root of the hierarchy, or one that systemd delegated (`Delegate=yes` and
`DelegateSubgroup=`), where we are in the subgroup. See https://docs.kernel.org/admin-guide/cgroup-v2.html and
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PREFIX = "infertune-"
REMOVE_WITHIN_S = 2.0
_PAUSE_S = 0.002


@dataclass(frozen=True)
class MemoryGroup:
    """The control group that this process is in.

    Args:
        path: its folder.
        home: the folder of the group that the process came from.
    """

    path: Path
    home: Path

    def oom_kills(self) -> int:
        """Return how many of its processes the kernel has killed at the cap so far."""
        for name in ("memory.events", "memory.oom_control"):  # version 2, version 1
            with contextlib.suppress(OSError):
                for line in (self.path / name).read_text(encoding="ascii").splitlines():
                    key, _, value = line.partition(" ")
                    if key == "oom_kill":
                        return int(value)
        return 0

    def leave(self) -> None:
        """Go back to where the process came from, and remove the group with everything that still runs in it."""
        with contextlib.suppress(OSError):
            _write(self.home / "cgroup.procs", os.getpid())
            remove(self.path)


def enter(limit_mb: float) -> MemoryGroup | None:
    """Make a group with a cap and move this process into it; None where that is not possible.

    Groups that were left behind by processes that are dead are removed first.
    """
    for parent in _parents():
        with contextlib.suppress(OSError):
            _remove_stale(parent)
            path = parent / _name(os.getpid())
            path.mkdir()
            try:
                _set_cap(path, int(limit_mb * 1e6))
                home = _own_group(parent)
                _write(path / "cgroup.procs", os.getpid())
            except OSError:
                path.rmdir()
                raise
            return MemoryGroup(path, home)
    return None


def remove(path: Path) -> None:
    """Kill what still runs in a group, and remove it. What is gone already is no error."""
    deadline = time.monotonic() + REMOVE_WITHIN_S
    while time.monotonic() < deadline:
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError:  # processes are in it, dying ones included
            with contextlib.suppress(OSError):
                for pid in _processes(path):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(_PAUSE_S)
        else:
            return


def _parents() -> Iterator[Path]:
    """Yield the folders in which a group with a memory controller may be made."""
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            for folder in _mounted("cgroup", "memory", path):
                yield folder
        elif not controllers:
            for folder in _mounted("cgroup2", "", path):
                if _hands_down_memory(folder):
                    yield folder
                if _is_delegated(folder.parent) and _hands_down_memory(folder.parent, switch_on=True):
                    yield folder.parent


def _mounted(kind: str, option: str, group: str) -> Iterator[Path]:
    """Yield where a group is mounted. Of a container's mount only a part of the hierarchy may be seen."""
    for line in _lines("/proc/self/mountinfo"):
        head, _, tail = line.partition(" - ")
        fields, (found, _, options) = head.split(" "), tail.split(" ", 2)
        if found != kind or (option and option not in options.split(",")):
            continue
        root, mount = fields[3], Path(fields[4])
        if group == root or group.startswith(root.rstrip("/") + "/"):
            folder = mount / group[len(root.rstrip("/")) :].lstrip("/")
            if os.access(folder, os.W_OK):
                yield folder


def _is_delegated(folder: Path) -> bool:
    """Whether systemd gave this group to us to divide (`user.delegate`; for root the same in `trusted`)."""
    for attribute in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(folder, attribute) == b"1":
                return os.access(folder, os.W_OK)
    return False


def _hands_down_memory(folder: Path, *, switch_on: bool = False) -> bool:
    """Whether groups made in this version 2 group have a memory controller; only what is ours is switched on."""
    control = folder / "cgroup.subtree_control"
    with contextlib.suppress(OSError):
        if switch_on and "memory" not in control.read_text(encoding="ascii").split():
            _write(control, "+memory")
        return "memory" in control.read_text(encoding="ascii").split()
    return False


def _own_group(parent: Path) -> Path:
    """Return the folder of the group that we are in, given the parent of the new one: itself, or its child."""
    us = os.getpid()
    if us in _processes(parent):
        return parent
    for folder in parent.iterdir():
        if folder.is_dir() and us in _processes(folder):
            return folder
    raise FileNotFoundError(parent)


def _set_cap(path: Path, limit_bytes: int) -> None:
    if (path / "memory.max").exists():
        _write(path / "memory.max", limit_bytes)
        optional = {"memory.swap.max": 0}
    else:
        _write(path / "memory.limit_in_bytes", limit_bytes)
        optional = {"memory.memsw.limit_in_bytes": limit_bytes}
    for name, value in optional.items():
        with contextlib.suppress(OSError):  # only where swap is counted
            _write(path / name, value)


def _remove_stale(parent: Path) -> None:
    for path in parent.glob(PREFIX + "*"):
        _, namespace, pid, _ = path.name.split("-")
        if int(namespace) == _pid_namespace() and _name(int(pid)) != path.name:
            remove(path)


def _name(pid: int) -> str:
    """Name a group after the process that makes it, so that nobody else's is ever taken for one left behind."""
    return f"{PREFIX}{_pid_namespace()}-{pid}-{_start_time(pid)}"


def _pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def _start_time(pid: int) -> str:
    """Return when a process started, in ticks (proc_pid_stat(5)); empty when it is dead, whether or not waited for."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *fields = text.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]


def _processes(path: Path) -> list[int]:
    """Return what runs in a group; 0 stands for processes of other namespaces, which are none of ours."""
    return [int(pid) for pid in (path / "cgroup.procs").read_text(encoding="ascii").split() if pid != "0"]


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _write(path: Path, value: object) -> None:
    path.write_text(str(value), encoding="ascii")
