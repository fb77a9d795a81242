"""What became of a task: from what it said, and from what was seen of it from outside."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tools.contracts import Contract, Crashed, Failed, OutOfMemory, TimedOut
from tools.worker.output import OutputLog
from tools.worker.watch import Ending, Stop

_LOST = "worker lost"


class Returned(Contract):
    """The task came back with a JSON-ready value."""

    value: Any


TaskOutcome: TypeAlias = Returned | Failed | TimedOut | OutOfMemory | Crashed


def was_killed_from_outside(outcome: object) -> bool:
    """Whether somebody else killed the task or its warm process: it says nothing about the task, and may be retried.

    The kernel's out-of-memory killer does not count: it would come again.
    """
    return isinstance(outcome, Crashed) and (outcome.signal == signal.SIGKILL.name or outcome.signal.startswith(_LOST))


@dataclass(frozen=True)
class Limits:
    """What a task may have: seconds, seconds of silence, and MB (None for no cap)."""

    time_s: float
    silence_s: float
    memory_mb: float | None


def outcome_of(ending: Ending, limits: Limits, log: OutputLog, log_path: Path) -> TaskOutcome:
    """Say what became of a task. Its own word counts most, then what we did to it, then what the kernel says."""
    return _from_answer(ending, limits) or _from_stop(ending, limits) or _from_status(ending, limits, log, log_path)


def _from_answer(ending: Ending, limits: Limits) -> TaskOutcome | None:
    stage, answer = ending.stage, ending.answer
    if "returned" in answer:
        return Returned(value=answer["returned"])
    if "out_of_memory" in answer:
        return OutOfMemory(stage=stage, limit_mb=limits.memory_mb if answer["out_of_memory"] == "host" else None)
    if ending.oom_kill == "cap":  # it may have been a process that the task needed, and the task complains of that
        return OutOfMemory(stage=stage, limit_mb=limits.memory_mb)
    if "failed" in answer:
        return Failed(stage=stage, reason=str(answer["failed"]), kind=str(answer["kind"]))
    return None


def _from_stop(ending: Ending, limits: Limits) -> TaskOutcome | None:
    match ending.stopped:
        case Stop.TIME:
            return TimedOut(stage=ending.stage, limit_s=limits.time_s)
        case Stop.SILENCE:
            return TimedOut(stage=ending.stage, limit_s=limits.silence_s, silent=True)
        case Stop.MESSAGE:
            return Failed(stage=ending.stage, reason=ending.refusal)
    return None


def _from_status(ending: Ending, limits: Limits, log: OutputLog, log_path: Path) -> TaskOutcome:
    stage = ending.stage
    if ending.status is None:
        return Crashed(stage=stage, signal=f"{_LOST} ({ending.lost})")
    code = os.waitstatus_to_exitcode(ending.status)
    if code >= 0:
        return Failed(stage=stage, reason=f"ended without an answer (exit {code}); see {log_path}")
    if -code == signal.SIGKILL and ending.oom_kill == "machine":
        return OutOfMemory(stage=stage)
    if -code == signal.SIGABRT and log.has_lately(b"bad_alloc"):  # thrown in C++, and caught by nobody
        return OutOfMemory(stage=stage, limit_mb=limits.memory_mb)
    return Crashed(stage=stage, signal=_signal_name(-code))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # the real-time signals between the first and the last have no name
        return f"signal {number}"
