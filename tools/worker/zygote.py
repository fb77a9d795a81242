"""The warm process: imports once, forks a child for each task, and says how the child ended.

Started as `python -m tools.worker.zygote FD MODULE...`. On the socket `FD` it receives one JSON request at a time
together with a pipe for the child's messages, answers `{"pid": ...}`, and later `{"status": ...}` (a wait status).
It ends when the socket closes, and takes a running child along.

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
import resource
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from tools.errors import InfertuneError
from tools.worker import channel
from tools.worker.channel import LENGTH_BYTES

_PR_SET_PDEATHSIG = 1
_EXIT_TASK_ERROR = 3


def main(arguments: list[str]) -> None:
    """Serve requests until the other end closes."""
    connection = socket.socket(fileno=int(arguments[0]))
    connection.set_inheritable(False)
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which decides what to kill
    for module in arguments[1:]:
        importlib.import_module(module)
    gc.freeze()  # children share these pages until they write: keep the collector from touching them
    _answer(connection, {"ready": True})
    while True:
        header, fds, _, _ = socket.recv_fds(connection, LENGTH_BYTES, 1)
        if len(header) < LENGTH_BYTES:
            return
        request = json.loads(_receive(connection, int.from_bytes(header)))
        pid = os.fork()
        if pid == 0:
            connection.close()
            _run_child(request, fds[0])
        os.close(fds[0])
        _answer(connection, {"pid": pid})
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # whatever the task started and left behind
        _answer(connection, {"status": status})


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


def _run_child(request: dict[str, Any], fd: int) -> None:
    """Run one task and leave by `os._exit`, whatever happens."""
    code = _EXIT_TASK_ERROR
    try:
        os.setsid()
        _die_with_parent()
        _redirect_output(request["log"])
        _prefer_as_oom_victim()
        with contextlib.suppress(OSError), Path("/proc/self/clear_refs").open("w") as file:
            file.write("5")  # peak memory counts from here
        channel.open_channel(fd)
        _run_task(request)
        code = 0
    except BaseException:  # noqa: BLE001  the child's last line of defence: report through the exit code and the log
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _run_task(request: dict[str, Any]) -> None:
    module, _, function = request["task"].partition(":")
    try:
        channel.send({"returned": getattr(importlib.import_module(module), function)(**request["arguments"])})
    except MemoryError:
        traceback.print_exc()
        channel.send({"out_of_memory": True})
    except InfertuneError as error:
        traceback.print_exc()
        channel.send({"failed": str(error), "kind": type(error).__name__})
    except (Exception, SystemExit) as error:  # noqa: BLE001  user code may raise anything; it becomes an outcome
        traceback.print_exc()
        text = " ".join(str(error).split())[:500]
        channel.send({"failed": f"{type(error).__name__}: {text}", "kind": type(error).__name__})


def _redirect_output(log: str) -> None:
    """Send everything the task prints, from C++ too, to its log: the terminal belongs to the live view."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _prefer_as_oom_victim() -> None:
    """If the kernel has to kill something for memory, let it be the trial and not the session."""
    with contextlib.suppress(OSError), Path("/proc/self/oom_score_adj").open("w") as file:
        file.write("1000")


def _die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies (Linux; elsewhere the closed socket ends it)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
