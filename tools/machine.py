"""The machine that measures: its workers, and a way to stop them."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, Protocol

from tools.contracts import Crashed, Failed
from tools.observer import Observer
from tools.worker import TaskOutcome, was_killed_from_outside
from tools.worker.watch import EventHandler

INTERRUPTED = "interrupted"


class TaskRunner(Protocol):
    """Something that runs one task at a time where it cannot hurt the session: a `Worker`, here or elsewhere."""

    def run(
        self,
        task: str,
        arguments: dict[str, Any],
        *,
        label: str,
        limit_s: float,
        on_event: EventHandler | None = None,
    ) -> TaskOutcome:
        """Run `module:function` with keyword arguments, and return what became of it."""
        ...

    def cancel(self) -> None:
        """End the running task, if there is one, with `Failed(reason="interrupted")`. For signal handlers."""
        ...


@dataclass(frozen=True)
class Job:
    """A task that may run beside others, since nothing is timed in it."""

    task: str
    arguments: dict[str, Any]
    label: str


@dataclass
class Machine:
    """Runs tasks where they cannot hurt the session.

    Args:
        torch_worker: warm process that has imported torch.
        light_worker: warm process without it: replicas that need no torch are measured there, and so use less memory.
        observer: who is told what tasks emit.
        limit_s: seconds after which a task is killed.
        builders: more workers, for what may run at the same time; without them, one thing is done after the other.
    """

    torch_worker: TaskRunner
    light_worker: TaskRunner
    observer: Observer
    limit_s: float
    builders: Sequence[TaskRunner] = ()
    stopped: bool = False
    _running: list[TaskRunner] = field(default_factory=list)

    def stop(self) -> None:
        """Kill what runs and answer every later task with `Failed(reason="interrupted")`. For signal handlers."""
        self.stopped = True
        for worker in tuple(self._running):
            worker.cancel()

    def run(self, task: str, arguments: dict[str, Any], *, label: str, needs_torch: bool) -> TaskOutcome:
        """Run a task in the worker that fits, alone: it may be timed."""
        worker = self.torch_worker if needs_torch else self.light_worker
        return self._run(worker, Job(task, arguments, label))

    def run_many(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, TaskOutcome]]:
        """Run jobs that need torch, at the same time where there are builders, and give each when it has ended."""
        if not self.builders:
            for job in jobs:
                yield job, self._run(self.torch_worker, job)
            return
        idle: queue.SimpleQueue[TaskRunner] = queue.SimpleQueue()
        for builder in self.builders:
            idle.put(builder)

        def run(job: Job) -> TaskOutcome:
            worker = idle.get()
            try:
                return self._run(worker, job)
            finally:
                idle.put(worker)

        pool = ThreadPoolExecutor(len(self.builders), thread_name_prefix="builder")
        try:
            running = {pool.submit(run, job): job for job in jobs}
            for ended in as_completed(running):
                yield running[ended], ended.result()
        except BaseException:  # a second Ctrl-C, or a worker that cannot start: nobody waits for the others
            pool.shutdown(wait=False, cancel_futures=True)
            for builder in self.builders:
                builder.cancel()
            raise
        finally:
            pool.shutdown()

    def background(self, task: str, arguments: dict[str, Any], *, label: str, limit_s: float) -> TaskOutcome:
        """Run something that is no trial (a report, the record) away from the main process, even when stopped."""
        return run_task(self.light_worker, task, arguments, label=label, limit_s=limit_s, observer=self.observer)

    def _run(self, worker: TaskRunner, job: Job) -> TaskOutcome:
        self._running.append(worker)
        try:
            if self.stopped:
                return Failed(stage="starting", reason=INTERRUPTED)
            return run_task(
                worker, job.task, job.arguments, label=job.label, limit_s=self.limit_s, observer=self.observer
            )
        finally:
            self._running.remove(worker)


def run_task(
    worker: TaskRunner, task: str, arguments: dict[str, Any], *, label: str, limit_s: float, observer: Observer
) -> TaskOutcome:
    """Run a task in a worker.

    Somebody's `kill -9` says nothing about the task: it is run once more, and only a second death is its outcome.
    """
    outcome = worker.run(task, arguments, label=label, limit_s=limit_s, on_event=observer.event)
    if isinstance(outcome, Crashed) and was_killed_from_outside(outcome):
        observer.finding(f"A worker was killed from outside ({outcome.signal}): trying once more.")
        outcome = worker.run(task, arguments, label=label, limit_s=limit_s, on_event=observer.event)
    return outcome
