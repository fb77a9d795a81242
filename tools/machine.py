"""The machine that measures: two warm workers, what was spent in them, and a way to stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tools.contracts import Crashed, Failed
from tools.observer import Observer
from tools.worker import TaskOutcome, Worker, was_killed_from_outside

INTERRUPTED = "interrupted"


@dataclass
class Machine:
    """Runs tasks where they cannot hurt the session.

    Args:
        torch_worker: warm process that has imported torch.
        light_worker: warm process without it: replicas that need no torch are measured there, and so use less memory.
        observer: who is told what tasks emit.
        limit_s: seconds after which a task is killed.
    """

    torch_worker: Worker
    light_worker: Worker
    observer: Observer
    limit_s: float
    stopped: bool = False
    _current: Worker | None = None

    def stop(self) -> None:
        """Kill what runs and answer every later task with `Failed(reason="interrupted")`. For signal handlers."""
        self.stopped = True
        if self._current is not None:
            self._current.cancel()

    def run(self, task: str, arguments: dict[str, Any], *, label: str, needs_torch: bool) -> TaskOutcome:
        """Run a task in the worker that fits."""
        if self.stopped:
            return Failed(stage="starting", reason=INTERRUPTED)
        self._current = self.torch_worker if needs_torch else self.light_worker
        try:
            return run_task(self._current, task, arguments, label=label, limit_s=self.limit_s, observer=self.observer)
        finally:
            self._current = None

    def background(self, task: str, arguments: dict[str, Any], *, label: str, limit_s: float) -> TaskOutcome:
        """Run something that is no trial (a report, the record) away from the main process, even when stopped."""
        return run_task(self.light_worker, task, arguments, label=label, limit_s=limit_s, observer=self.observer)


def run_task(
    worker: Worker, task: str, arguments: dict[str, Any], *, label: str, limit_s: float, observer: Observer
) -> TaskOutcome:
    """Run a task in a worker.

    Somebody's `kill -9` says nothing about the task: it is run once more, and only a second death is its outcome.
    """
    outcome = worker.run(task, arguments, label=label, limit_s=limit_s, on_event=observer.event)
    if isinstance(outcome, Crashed) and was_killed_from_outside(outcome):
        observer.finding(f"A worker was killed from outside ({outcome.signal}): trying once more.")
        outcome = worker.run(task, arguments, label=label, limit_s=limit_s, on_event=observer.event)
    return outcome
