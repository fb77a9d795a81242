"""Running what a session cannot do without, in a worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from agent.signals import leave_on_ctrl_c
from tools.errors import WorkloadError
from tools.machine import TaskRunner, run_task
from tools.observer import Observer
from tools.outcomes import reason
from tools.worker import Returned


def run_and_tell(
    worker: TaskRunner,
    task: str,
    arguments: dict[str, Any],
    *,
    what: str,
    headline: Callable[[Any], str],
    label: str,
    limit_s: float,
    observer: Observer,
    detail: str = "",
) -> tuple[Any, float]:
    """Run a task that the session cannot do without, and show whoever watches.

    Args:
        worker: runs it.
        task: what.
        arguments: its arguments.
        what: what the person who watches reads meanwhile.
        headline: of its answer, what they read then.
        label: names the log.
        limit_s: after which it is killed.
        observer: who watches.
        detail: more about it.

    Returns:
        The answer, and the seconds that it took.

    Raises:
        WorkloadError, InterruptedSessionError: as `run_or_raise`.
    """
    started = time.monotonic()
    observer.started(what, detail=detail)
    value = run_or_raise(worker, task, arguments, label=label, limit_s=limit_s, observer=observer)
    seconds = time.monotonic() - started
    observer.finished(what, outcome="finished", headline=headline(value), seconds=seconds)
    return value, seconds


def run_or_raise(
    worker: TaskRunner, task: str, arguments: dict[str, Any], *, label: str, limit_s: float, observer: Observer
) -> Any:
    """Run a task that the session cannot do without.

    Raises:
        WorkloadError: it did not come back; the message is that of the task's own error.
        InterruptedSessionError: Ctrl-C.
    """
    with leave_on_ctrl_c(worker):
        outcome = run_task(worker, task, arguments, label=label, limit_s=limit_s, observer=observer)
    if isinstance(outcome, Returned):
        return outcome.value
    text = getattr(outcome, "reason", None) or reason(outcome)
    raise WorkloadError(str(text))
