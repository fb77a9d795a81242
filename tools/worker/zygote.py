"""The warm process: imports once, forks a child for each task, and says how the child ended.

Started as `python -m tools.worker.zygote FD MEMORY_LIMIT_MB MODULE...`. On the socket `FD` it first says that it is
ready. Then it receives one JSON request at a time together with two pipes, for the child's messages and for its
output, answers `{"pid": ...}`, and later `{"status": ..., "oom_kill": ...}` (a wait status; whether the kernel killed
for want of memory meanwhile, at the worker's "cap" or in the "machine"). It ends when the socket closes or the main
process dies, and takes along whatever its tasks started.

Forking is only safe while no other thread holds a lock, so what is preloaded must not start threads that work.
Importing torch and numpy does not; creating an ONNX Runtime session or an OpenVINO core does, and is left to children.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from tools.worker import groups
from tools.worker.channel import LENGTH_BYTES
from tools.worker.child import run_child
from tools.worker.limits import machine_oom_kills

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_END_WITHIN_S = 5.0
_PAUSE_S = 0.001


def main(arguments: list[str]) -> None:
    """Serve requests until the other end closes."""
    descriptor, limit, *modules = arguments
    connection = socket.socket(fileno=int(descriptor))
    connection.set_inheritable(False)
    limit_mb = float(limit) if limit else None
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which decides what to kill
    for module in modules:
        importlib.import_module(module)
    gc.freeze()  # children share these pages until they write: keep the collector from touching them
    group = None if limit_mb is None else groups.enter(limit_mb)
    try:
        _answer(connection, {"ready": True, "group": None if group is None else str(group.path)})
        with contextlib.suppress(ConnectionError, EOFError):  # the main process closed in the middle of a task
            _serve(connection, group, limit_mb)
    finally:
        _end_descendants()
        if group is not None:
            group.leave()


def _serve(connection: socket.socket, group: groups.MemoryGroup | None, limit_mb: float | None) -> None:
    warm = os.getpid()
    while True:
        header, fds, _, _ = socket.recv_fds(connection, LENGTH_BYTES, 2)
        if len(header) < LENGTH_BYTES:
            return
        request = json.loads(_receive(connection, int.from_bytes(header)))
        before = _oom_kills(group)
        pid = os.fork()
        if pid == 0:
            # nothing of the warm process may run here: not its handlers, and not its `finally` on the way out
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            connection.close()
            _set_process_option(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != warm:  # it died before it could be asked for
                os._exit(1)
            run_child(request, messages=fds[0], output=fds[1], memory_limit_mb=limit_mb)
        for fd in fds:
            os.close(fd)
        _answer(connection, {"pid": pid})
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # while the dead child still holds the number, nobody else can have it
        _, status = os.waitpid(pid, 0)
        _end_descendants()
        _answer(connection, {"status": status, "oom_kill": _oom_kill(before, _oom_kills(group))})


def _receive(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        chunk = connection.recv(length - len(data))
        if not chunk:
            raise EOFError("the main process went away in the middle of a request")
        data += chunk
    return bytes(data)


def _answer(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall((json.dumps(message) + "\n").encode())


def _oom_kills(group: groups.MemoryGroup | None) -> tuple[int, int]:
    return (0 if group is None else group.oom_kills(), machine_oom_kills())


def _oom_kill(before: tuple[int, int], after: tuple[int, int]) -> str | None:
    """Say where the kernel killed for want of memory between two looks. The machine's count includes the group's."""
    if after[0] > before[0]:
        return "cap"
    return "machine" if after[1] > before[1] else None


def _end_descendants() -> None:
    """Kill what a task left behind, in sessions of its own too: as their subreaper, we inherit the orphans.

    Killing one may orphan others, so it goes on until there are none. Without orphans it costs one system call.
    """
    deadline = time.monotonic() + _END_WITHIN_S
    while time.monotonic() < deadline:
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return
        for pid in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE_S)


def _children() -> list[int]:
    """Return this process's children: the field after the state in proc_pid_stat(5) is the parent."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(stat.parent.name))
    return found


def _end_with_parent() -> None:
    """Have the kernel tell us when the main process dies, to clean up and go (Linux; elsewhere the socket closes).

    The kernel also tells of the end of the thread that started us, which means nothing.
    """
    parent = os.getppid()

    def hang_up(*_: object) -> None:
        if os.getppid() != parent:
            sys.exit()

    signal.signal(signal.SIGHUP, hang_up)
    _set_process_option(_PR_SET_PDEATHSIG, signal.SIGHUP)
    _set_process_option(_PR_SET_CHILD_SUBREAPER, 1)


def _set_process_option(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value)


if __name__ == "__main__":
    main(sys.argv[1:])
