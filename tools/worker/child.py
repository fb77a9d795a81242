"""The forked child: runs one task, and tells what came of it."""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import importlib
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from tools.errors import InfertuneError
from tools.worker import channel
from tools.worker.limits import lift_data_limit, limit_data, shortage

STACK_SIGNAL = signal.SIGUSR2
"""Has a child write the stacks of its threads to its log, even while it hangs in C code."""

REASON_CHARACTERS = 500
_EXIT_TASK_ERROR = 3


def run_child(request: dict[str, Any], *, messages: int, output: int, memory_limit_mb: float | None) -> NoReturn:
    """Run one task and leave by `os._exit`, whatever happens.

    Args:
        request: `task` (`module:function`) and its keyword `arguments`.
        messages: file descriptor for what `tools.worker.channel` sends.
        output: file descriptor for everything that is printed.
        memory_limit_mb: what the task may allocate; None for no cap.
    """
    code = _EXIT_TASK_ERROR
    try:
        os.setsid()
        _redirect(output)
        faulthandler.enable()
        faulthandler.register(STACK_SIGNAL, all_threads=True)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _prefer_as_oom_victim()
        with contextlib.suppress(OSError), Path("/proc/self/clear_refs").open("w") as file:
            file.write("5")  # peak memory counts from here
        fcntl.fcntl(messages, fcntl.F_SETFD, fcntl.FD_CLOEXEC)  # programs that the task starts may not write it
        channel.open_channel(messages)
        channel.start_beating()
        if memory_limit_mb is not None:
            with contextlib.suppress(ValueError, OSError):
                limit_data(memory_limit_mb)
        _run_task(request)
        code = 0
    except BaseException:  # noqa: BLE001  the child's last line of defence: report through the exit code and the log
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _run_task(request: dict[str, Any]) -> None:
    module, _, function = request["task"].partition(":")
    try:
        channel.send({"returned": getattr(importlib.import_module(module), function)(**request["arguments"])})
    except BaseException as error:  # noqa: BLE001  user code may raise anything; it becomes an outcome
        lift_data_limit()
        # the outcome goes first: printing a stack formats user objects, which may fail in any way
        channel.send(_failure(error))
        traceback.print_exc()


def _failure(error: BaseException) -> dict[str, Any]:
    if (short := shortage(error)) is not None:
        return {"out_of_memory": short.value}
    kind = type(error).__name__
    if isinstance(error, InfertuneError):
        return {"failed": _printable(str(error)), "kind": kind}
    try:
        text = " ".join(_printable(str(error)).split())[:REASON_CHARACTERS]
    except Exception:  # noqa: BLE001  `__str__` is user code
        text = "(its text cannot be printed)"
    return {"failed": f"{kind}: {text}", "kind": kind}


def _printable(text: str) -> str:
    """Escape what no file and no terminal can take: halves of surrogate pairs."""
    return text.encode(errors="backslashreplace").decode()


def _redirect(output: int) -> None:
    """Send everything the task prints, from C++ too, to the main process: the terminal belongs to the live view."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def _prefer_as_oom_victim() -> None:
    """If the kernel has to kill something for memory, let it be the trial and not the session."""
    with contextlib.suppress(OSError), Path("/proc/self/oom_score_adj").open("w") as file:
        file.write("1000")
