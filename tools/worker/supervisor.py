"""The main process's side: start the warm process, hand it a task, and say what became of it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tools.contracts import Failed
from tools.errors import InfertuneError
from tools.worker import groups
from tools.worker.channel import LENGTH_BYTES
from tools.worker.outcome import Limits, TaskOutcome, outcome_of
from tools.worker.output import OutputLog
from tools.worker.watch import Ending, EventHandler, Watch

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 120.0
SILENCE_S = 120.0
"""A child says every two seconds that it lives. So long without it means code that holds the interpreter and hangs."""

_OUTPUT_PIPE_BYTES = 1 << 20


class Worker:
    """One warm process that runs tasks, one at a time, each in a forked child.

    Args:
        preload: modules to import once, so that children need not. None may start processes, or threads that work.
        log_directory: where each task's output goes, one file per task label.
        memory_limit_mb: what a task may have beyond what is preloaded, in MB (10^6 bytes); None for no cap. A control
            group, where one can be made, counts it for all processes of a task together; else it holds for each of
            them, roughly (see `tools.worker.limits`).
    """

    def __init__(self, preload: Sequence[str], log_directory: Path, *, memory_limit_mb: float | None = None) -> None:
        self._preload = tuple(preload)
        self._logs = log_directory
        self._memory_limit_mb = memory_limit_mb
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._group: Path | None = None
        self._child: int | None = None
        self._cancelled = False

    def run(
        self,
        task: str,
        arguments: dict[str, Any],
        *,
        label: str,
        limit_s: float,
        silence_s: float = SILENCE_S,
        on_event: EventHandler | None = None,
    ) -> TaskOutcome:
        """Run `module:function` with keyword arguments in a child and wait for its outcome.

        Args:
            task: what to call. Its value must be JSON-ready.
            arguments: keyword arguments, JSON-ready.
            label: names the log file. A label that is used again appends to it.
            limit_s: seconds after which the child and all it started are killed.
            silence_s: seconds without a sign of life after which it is killed earlier. A child gives one every two
                seconds, and whenever it prints; not while C code holds the interpreter's lock.
            on_event: called with every stage and event that the task sends.

        Returns:
            A value in any case: no failure of the task raises here.

        Raises:
            InfertuneError: the warm process could not start.
        """
        self._cancelled = False
        connection = self._start()
        if self._cancelled:  # while the warm process was still importing
            return Failed(stage="starting", reason="interrupted")
        self._logs.mkdir(parents=True, exist_ok=True)
        path = self._logs / f"{label}.log"
        request = json.dumps({"task": task, "arguments": arguments}).encode()
        try:
            with OutputLog(path) as log:
                limits = Limits(time_s=limit_s, silence_s=silence_s, memory_mb=self._memory_limit_mb)
                ending = self._follow(connection, request, log, limits, on_event)
                if ending.lost:
                    self.close()
                if self._cancelled:
                    return Failed(stage=ending.stage, reason="interrupted")
                return outcome_of(ending, limits, log, path)
        except BaseException:  # Ctrl-C, or an observer's bug: what the warm process says next would answer nothing
            self.close()
            raise
        finally:
            self._child = None

    def _follow(
        self,
        connection: socket.socket,
        request: bytes,
        log: OutputLog,
        limits: Limits,
        on_event: EventHandler | None,
    ) -> Ending:
        with contextlib.ExitStack() as stack:
            (messages, messages_end), (output, output_end) = os.pipe(), os.pipe()
            for fd in (messages, output):
                stack.callback(os.close, fd)
                os.set_blocking(fd, False)
            with contextlib.suppress(OSError):  # a user's share of memory for pipes is used up
                fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, _OUTPUT_PIPE_BYTES)
            try:
                self._child = _hand_over(connection, request, [messages_end, output_end])
            except (OSError, ValueError) as error:
                return Ending(lost=str(error))
            if self._cancelled:  # before there was a child to kill
                self._kill()
            return Watch(
                connection=connection.fileno(),
                messages=messages,
                output=output,
                log=log,
                child=self._child,
                kill=self._kill,
                limit_s=limits.time_s,
                silence_s=limits.silence_s,
                on_event=on_event,
            ).follow()

    def cancel(self) -> None:
        """Kill the running task, if there is one; its `run` returns `Failed(reason="interrupted")`.

        Safe to call from a signal handler.
        """
        self._cancelled = True
        self._kill()

    def close(self) -> None:
        """End the warm process and everything under it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._kill()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._group is not None:  # the warm process removes it, unless it was killed
            groups.remove(self._group)
            self._group = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _kill(self) -> None:
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):  # killed before it could become a group leader
                os.kill(self._child, signal.SIGKILL)

    def _start(self) -> socket.socket:
        if self._connection is not None and self._process is not None and self._process.poll() is None:
            return self._connection
        self.close()
        ours, theirs = socket.socketpair()
        self._logs.mkdir(parents=True, exist_ok=True)
        log = (
            self._logs / f"worker-{self._preload[-1] if self._preload else 'bare'}.log"
        )  # one for each of a session's workers
        with theirs, log.open("wb") as output:
            environment = {**os.environ, "PYTHONPATH": _python_path(), "OPENBLAS_NUM_THREADS": "1"}
            limit = "" if self._memory_limit_mb is None else str(self._memory_limit_mb)
            self._process = subprocess.Popen(
                # -P: a `tools.py` in the working directory must not stand in for our package
                [sys.executable, "-P", "-m", "tools.worker.zygote", str(theirs.fileno()), limit, *self._preload],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,  # a terminal's Ctrl-C goes to the main process alone, from the first moment on
            )
        self._connection = ours
        ours.settimeout(START_LIMIT_S)
        try:
            ready = _read_line(ours)
        except OSError:  # not in time, or it died
            ready = b""
        except BaseException:
            self.close()
            raise
        if not ready:
            self.close()
            lines = log.read_text(errors="replace").strip().splitlines()
            raise InfertuneError(
                f"the worker process could not start ({lines[-1] if lines else 'no output'}).",
                fix="`infertune doctor` shows what is missing.",
            )
        group = json.loads(ready)["group"]
        self._group = None if group is None else Path(group)
        return ours


def _hand_over(connection: socket.socket, request: bytes, pipes: list[int]) -> int:
    """Give the warm process a task and the ends of the pipes that it writes to. Returns the child's process id.

    Raises:
        OSError, ValueError: the warm process is gone, or does not answer.
    """
    try:
        # the length goes ahead with the pipes; a stream socket may deliver the request itself in pieces
        socket.send_fds(connection, [len(request).to_bytes(LENGTH_BYTES)], pipes)
        connection.sendall(request)
    finally:
        for fd in pipes:
            os.close(fd)
    line = _read_line(connection)
    if not line:
        raise ConnectionError("it ended without a word")
    return int(json.loads(line)["pid"])


def _read_line(connection: socket.socket) -> bytes:
    """Read one line, and nothing of what may follow it; empty at the end."""
    with connection.makefile("rb", buffering=0) as file:
        return bytes(file.readline())


def _python_path() -> str:
    paths = [str(REPOSITORY_ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return os.pathsep.join(p for p in paths if p)
