"""The main process's side: start the warm process, hand it a task, wait, and kill what runs too long."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeAlias

from tools.contracts import Contract, Crashed, Failed, OutOfMemory, TimedOut
from tools.errors import InfertuneError
from tools.worker.channel import LENGTH_BYTES

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 120.0


class Returned(Contract):
    """The task came back with a JSON-ready value."""

    value: Any


TaskOutcome: TypeAlias = Returned | Failed | TimedOut | OutOfMemory | Crashed
EventHandler: TypeAlias = Callable[[dict[str, Any]], None]


class Worker:
    """One warm process that runs tasks, one at a time, each in a forked child.

    Args:
        preload: modules to import once, so that children need not. None of them may start working threads.
        log_directory: where each task's output goes, one file per task label.
    """

    def __init__(self, preload: Sequence[str], log_directory: Path) -> None:
        self._preload = tuple(preload)
        self._logs = log_directory
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._child: int | None = None
        self._cancelled = False

    def run(
        self,
        task: str,
        arguments: dict[str, Any],
        *,
        label: str,
        limit_s: float,
        on_event: EventHandler | None = None,
    ) -> TaskOutcome:
        """Run `module:function` with keyword arguments in a child and wait for its outcome.

        Args:
            task: what to call. Its value must be JSON-ready.
            arguments: keyword arguments, JSON-ready.
            label: names the log file.
            limit_s: seconds after which the child and all it started are killed.
            on_event: called with every message that the task emits.

        Returns:
            A value in any case: no failure of the task raises here.
        """
        self._cancelled = False
        connection = self._start()
        if self._cancelled:  # while the warm process was still importing
            return Failed(stage="starting", reason="interrupted")
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{label}.log"
        read_end, write_end = os.pipe()
        request = json.dumps({"task": task, "arguments": arguments, "log": str(log)}).encode()
        try:
            # the length goes ahead with the pipe; a stream socket may deliver the request itself in pieces
            socket.send_fds(connection, [len(request).to_bytes(LENGTH_BYTES)], [write_end])
            connection.sendall(request)
        except OSError as error:
            self.close()
            os.close(read_end)
            return Crashed(stage="starting", signal=f"worker lost ({error})")
        finally:
            os.close(write_end)
        try:
            with connection.makefile("rb") as answers:
                return self._wait(answers, read_end, log, limit_s, on_event)
        finally:
            self._child = None
            os.close(read_end)

    def _wait(
        self, answers: BinaryIO, read_end: int, log: Path, limit_s: float, on_event: EventHandler | None
    ) -> TaskOutcome:
        """Follow a task to its end. The warm process answers twice: the child's pid, then its wait status."""
        stage = "starting"
        last: dict[str, Any] = {}
        timed_out = False
        try:
            self._child = int(json.loads(answers.readline())["pid"])
            if self._cancelled:  # before there was a child to kill
                self._kill()
            deadline = time.monotonic() + limit_s
            for message in _messages(read_end, deadline):
                if message is None:
                    timed_out = True
                    self._kill()
                    break
                if "stage" in message:
                    stage = str(message["stage"])
                elif "event" not in message:
                    last = message
                if on_event is not None:
                    on_event(message)
            status = int(json.loads(answers.readline())["status"])
        except (json.JSONDecodeError, KeyError, OSError) as error:  # the warm process died: a new one next time
            self.close()
            return Crashed(stage=stage, signal=f"worker lost ({error})")
        if self._cancelled:
            return Failed(stage=stage, reason="interrupted")
        if timed_out:
            return TimedOut(stage=stage, limit_s=limit_s)
        return _outcome(last, status, stage, log)

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
        log = self._logs / "worker.log"
        with theirs, log.open("wb") as output:
            environment = {**os.environ, "PYTHONPATH": _python_path(), "OPENBLAS_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                # -P: a `tools.py` in the working directory must not stand in for our package
                [sys.executable, "-P", "-m", "tools.worker.zygote", str(theirs.fileno()), *self._preload],
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
            ready = ours.makefile("rb").readline()
        except TimeoutError:
            ready = b""
        if not ready:
            self.close()
            lines = log.read_text(errors="replace").strip().splitlines()
            raise InfertuneError(
                f"the worker process could not start ({lines[-1] if lines else 'no output'}).",
                fix="`infertune doctor` shows what is missing.",
            )
        ours.settimeout(None)
        return ours


def _messages(fd: int, deadline: float) -> Iterator[dict[str, Any] | None]:
    """Yield JSON messages from a pipe until it closes; None once, when the deadline passes first.

    Waits in the kernel, never polls.
    """
    buffer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                if time.monotonic() < deadline:
                    continue
                yield None
                return
            chunk = os.read(fd, 1 << 16)
            if not chunk:
                return
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                yield json.loads(line)


def _outcome(last: dict[str, Any], status: int, stage: str, log: Path) -> TaskOutcome:
    if "returned" in last:
        return Returned(value=last["returned"])
    if "out_of_memory" in last:
        return OutOfMemory(stage=stage)
    if "failed" in last:
        return Failed(stage=stage, reason=str(last["failed"]), kind=str(last["kind"]))
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGKILL:  # we did not send it: the kernel's out-of-memory killer did
            return OutOfMemory(stage=stage)
        return Crashed(stage=stage, signal=signal.Signals(number).name)
    return Failed(stage=stage, reason=f"ended without an answer (exit {os.WEXITSTATUS(status)}); see {log}")


def _python_path() -> str:
    paths = [str(REPOSITORY_ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return os.pathsep.join(p for p in paths if p)
