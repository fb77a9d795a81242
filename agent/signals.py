"""Ctrl-C and SIGTERM: the first keeps the best so far, the second ends everything."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from tools.errors import InfertuneError
from tools.machine import Machine, TaskRunner
from tools.observer import Observer


class InterruptedSessionError(InfertuneError):
    """Ctrl-C came before anything was measured."""


@contextlib.contextmanager
def leave_on_ctrl_c(worker: TaskRunner) -> Iterator[None]:
    """Ctrl-C ends everything at once, even while the worker still imports its libraries: there is nothing to keep."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        worker.cancel()
        raise InterruptedSessionError("interrupted before anything was measured.")

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextlib.contextmanager
def stop_on_signals(machine: Machine, observer: Observer) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) ends the trials and keeps the best so far; the second ends everything."""

    def handle(number: int, frame: FrameType | None) -> None:
        if machine.stopped:
            signal.default_int_handler(number, frame)
        machine.stop()
        observer.finding("Stopping: the best so far is kept. Once more ends at once.")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
