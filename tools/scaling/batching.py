"""When a server takes which requests: batching policies as pure objects, for a simulated server and a real one.

A policy has no clock, no timer and no queue. Whoever serves asks it whenever a worker is idle and somebody waits, and
asks again when a request arrives or the time has come that the policy named. A server on asyncio passes
`loop.time()`, the simulation passes its own time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias


class QueueState(NamedTuple):
    """What a policy may look at when a worker is idle."""

    waiting: int
    """Requests that wait, at least one."""
    oldest_s: float
    """When the first of them arrived."""


class Serve(NamedTuple):
    """Serve the `batch_size` oldest requests now, in one batch."""

    batch_size: int


class WakeAt(NamedTuple):
    """Serve nobody yet. Ask again at `time_s` (infinity: only when a request arrives)."""

    time_s: float


BatchDecision: TypeAlias = Serve | WakeAt


class BatchPolicy(Protocol):
    """Decides for an idle worker. The same arguments always give the same decision."""

    def decide(self, now_s: float, queue: QueueState) -> BatchDecision:
        """Return how many to serve now, 1 to `queue.waiting`, or when to ask again, later than `now_s`."""
        ...


@dataclass(frozen=True)
class Greedy:
    """An idle worker takes all that wait, at most `max_batch`: no request ever waits for another one to come.

    Batches grow by themselves while the worker is busy.
    """

    max_batch: int

    def __post_init__(self) -> None:
        _require_batch(self.max_batch)

    def decide(self, now_s: float, queue: QueueState) -> Serve:  # noqa: ARG002 - it never waits
        """Return to serve what waits, at most `max_batch`."""
        return Serve(min(queue.waiting, self.max_batch))


@dataclass(frozen=True)
class OneByOne(Greedy):
    """No batching: each request is served alone."""

    max_batch: int = field(default=1, init=False)


@dataclass(frozen=True)
class Window:
    """Wait until the batch is full or the oldest request has waited `max_wait_ms`.

    The window is counted from the arrival of the oldest request, not from when the worker became idle: what was
    waited while the worker was busy is not waited again.
    """

    max_batch: int
    max_wait_ms: float

    def __post_init__(self) -> None:
        _require_batch(self.max_batch)
        if not 0 <= self.max_wait_ms < float("inf"):
            msg = f"max_wait_ms must be finite and not negative, not {self.max_wait_ms!r}"
            raise ValueError(msg)

    def decide(self, now_s: float, queue: QueueState) -> BatchDecision:
        """Return to serve a full batch, or a smaller one when the oldest request's time has come."""
        until_s = queue.oldest_s + self.max_wait_ms / 1000
        if queue.waiting >= self.max_batch or now_s >= until_s:
            return Serve(min(queue.waiting, self.max_batch))
        return WakeAt(until_s)


def _require_batch(max_batch: int) -> None:
    if max_batch < 1:
        msg = f"max_batch must be at least 1, not {max_batch!r}"
        raise ValueError(msg)
