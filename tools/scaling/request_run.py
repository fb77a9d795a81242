"""What became of each request of one simulated run, and what follows for the queue and the servers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.scaling.service_times import FloatArray


@dataclass(frozen=True)
class RequestRun:
    """What became of each request. `arrived = served + refused + expired + waiting`."""

    arrivals_s: FloatArray
    """Of all requests that came within the horizon, ascending."""
    start_s: FloatArray
    """When the request's batch started; NaN for a request that was not served."""
    done_s: FloatArray
    """When it was answered; NaN for a request that was not served. A batch that has started is always finished."""
    batch_sizes: NDArray[np.int64]
    batch_starts_s: FloatArray
    """In the order of the starts."""
    batch_times_s: FloatArray
    servers: int
    refused: int
    """Found no room in the queue."""
    expired: int
    """Left the queue when their deadline had passed."""
    waiting: int
    """Were still in the queue at the horizon."""
    waited_s: float
    """The number of requests waiting, integrated over time: what all of them together waited within the horizon."""
    horizon_s: float
    """The moment until which was looked; otherwise when the last request was answered or had left."""

    def __post_init__(self) -> None:
        lost = self.arrived - self.served - self.refused - self.expired - self.waiting
        assert lost == 0, f"{lost} requests are unaccounted for"
        assert np.count_nonzero(~np.isnan(self.start_s)) == self.served, "a request was served twice"

    @property
    def arrived(self) -> int:
        """Return how many requests came within the horizon."""
        return len(self.arrivals_s)

    @property
    def served(self) -> int:
        """Return how many requests were in a batch that started within the horizon."""
        return int(self.batch_sizes.sum())

    @property
    def wait_s(self) -> FloatArray:
        """Return the seconds that each request waited for its batch to start; NaN if it was not served."""
        return self.start_s - self.arrivals_s

    @property
    def latency_s(self) -> FloatArray:
        """Return the seconds from each request's arrival to its answer; NaN if it was not served."""
        return self.done_s - self.arrivals_s

    @property
    def mean_queue(self) -> float:
        """Return the requests waiting, not those being served, on average from 0 to the horizon: what a gauge shows."""
        return self.waited_s / self.horizon_s if self.horizon_s else 0.0

    @property
    def utilization(self) -> float:
        """Return the share of the servers' time, from 0 to the horizon, in which they served."""
        if not self.horizon_s:
            return 0.0
        ends_s = np.minimum(self.batch_starts_s + self.batch_times_s, self.horizon_s)
        return float((ends_s - self.batch_starts_s).sum() / (self.servers * self.horizon_s))
