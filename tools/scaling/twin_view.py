"""What the HPA controller can see of the service, and when: scrapes, the adapter, the metrics server.

Nobody aligns these clocks, so the twin takes the unluckiest order: in the same second the controller asks first, then
the adapter refreshes, then the pods are scraped. A value is then up to a scrape and a refresh old. Before the first
second, the service had been as in it for long.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.contracts.scaling import Delays
from tools.scaling.days import Day, Floats
from tools.scaling.replica import Replica

RATE_WINDOW_S = 120
"""What `rate(...)` in the adapter's rules looks back on, for requests per second and the p99 of a histogram.

Eight scrapes at 15 s: short enough to scale by, and two may be lost. `infertune manifests` writes its rules with it.
"""

CPU_WINDOW_S = 15
"""The metrics server's resolution: it gives the mean CPU use of the last 15 s, every 15 s."""

MISSING = -1
"""In place of a second: no metric answers."""


class Line:
    """A piecewise linear function through points with ascending x; constant beyond its ends."""

    __slots__ = ("_slopes", "xs", "ys")

    def __init__(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        self.xs = tuple(xs)
        self.ys = tuple(ys)
        self._slopes = [(ys[i + 1] - ys[i]) / (xs[i + 1] - xs[i]) for i in range(len(xs) - 1)]

    def at(self, x: float) -> float:
        """Return its value: what `numpy.interp` gives, but fast for one number."""
        place = bisect_right(self.xs, x)
        if place == 0:
            return self.ys[0]
        if place == len(self.xs):
            return self.ys[-1]
        return self.ys[place - 1] + self._slopes[place - 1] * (x - self.xs[place - 1])

    def over(self, xs: Floats) -> Floats:
        """Return its values at many places."""
        return np.interp(xs, self.xs, self.ys)


class Table:
    """A replica's table as functions of its load. An idle replica has no queue; beyond the table its last value holds.

    A replica that takes `k` times as long for everything is the measured one by a slower clock: at a load `x` it is as
    busy and has the same queue as that one at `k * x`, and its times are `k` times as long.

    Attributes:
        queue: requests that wait.
        wait_ms: mean wait.
        p99_ms: p99 of the latency; of the lightest load in the table for any lighter one.
        busy: share of the time in which it serves; 1 at capacity.
    """

    def __init__(self, replica: Replica) -> None:
        loads = replica.loads_rps
        self.capacity_rps = replica.capacity_rps
        self.full_batch_p99_ms = replica.full_batch_p99_ms
        self.queue = Line((0.0, *loads), (0.0, *replica.mean_queue))
        self.wait_ms = Line((0.0, *loads), (0.0, *replica.mean_wait_ms))
        self.p99_ms = Line(loads, replica.p99_ms)
        self.busy = Line((0.0, *loads, replica.capacity_rps), (0.0, *replica.busy, 1.0))

    def late_ms(self, waiting: float, slowdown: float = 1.0) -> float:
        """Return the p99 of requests that come to a backlog: they wait it out, and are served in a full batch."""
        return slowdown * (waiting / self.capacity_rps * 1000 + self.full_batch_p99_ms)


@dataclass(frozen=True, eq=False)
class View:
    """What is the same for every setting: when the controller looks, and which second it sees then.

    Lists have one entry for each sync.
    """

    table: Table
    sync_s: int
    scrape_s: int
    seen: list[int]
    """The scrape whose values the adapter serves; `MISSING` if none."""
    seen_cpu: list[int]
    """The same of the metrics server."""
    passed: Floats
    """Requests that came before each second, shape (seconds + 1,)."""
    window_peak_rps: list[float]
    """The most in any second of the `RATE_WINDOW_S` before `seen`."""
    rps: list[float]
    """Requests of the second `seen`."""
    window_rps: list[float]
    """Mean over the `RATE_WINDOW_S` before `seen`."""
    cpu_window_rps: list[float]
    """Mean over the `CPU_WINDOW_S` before `seen_cpu`."""

    def requests_before(self, second: int) -> float:
        """Return how many requests came before a second; before the day they came as in its first second."""
        return float(self.passed[second]) if second > 0 else float(self.passed[1]) * second

    @classmethod
    def of(cls, day: Day, replica: Replica, delays: Delays) -> View:
        """Prepare what a day shows under these delays, in whole seconds, at least one."""
        sync_s, scrape_s, adapter_s = (max(1, round(s)) for s in (delays.sync_s, delays.scrape_s, delays.adapter_s))
        syncs = np.arange(sync_s, day.seconds, sync_s)
        older = np.zeros(syncs.size, dtype=np.int64)
        missing = np.zeros(syncs.size, dtype=np.bool_)
        for fault in day.faults:
            during = (syncs >= fault.at_s) & (syncs < fault.at_s + fault.for_s)
            if fault.kind == "metrics_lag":
                older[during] += round(fault.lag_s)
            elif fault.kind == "metrics_missing":
                missing |= during
        refreshed = _tick_before(syncs, adapter_s) - older
        seen = np.maximum(_tick_before(refreshed, scrape_s), 0)
        seen_cpu = np.maximum(_tick_before(syncs, CPU_WINDOW_S) - older, 0)
        passed = np.concatenate(([0.0], np.cumsum(day.rps)))
        return cls(
            table=Table(replica),
            sync_s=sync_s,
            scrape_s=scrape_s,
            seen=np.where(missing, MISSING, seen).tolist(),
            seen_cpu=np.where(missing, MISSING, seen_cpu).tolist(),
            rps=day.rps[seen].tolist(),
            passed=passed,
            window_peak_rps=_peaks_before(day.rps, seen, RATE_WINDOW_S).tolist(),
            window_rps=_means_before(passed, seen, RATE_WINDOW_S).tolist(),
            cpu_window_rps=_means_before(passed, seen_cpu, CPU_WINDOW_S).tolist(),
        )


def _tick_before(seconds: NDArray[np.int64], every_s: int) -> NDArray[np.int64]:
    """Return the last multiple of `every_s` before each second, not at it."""
    return (seconds - 1) // every_s * every_s


def _means_before(passed: Floats, seconds: NDArray[np.int64], window_s: int) -> Floats:
    """Return the mean of the `window_s` seconds before each; before the day, it is as in the first second."""
    starts = seconds - window_s
    before = np.where(starts < 0, passed[1] * starts, passed[np.maximum(starts, 0)])
    means: Floats = (passed[seconds] - before) / window_s
    return means


def _peaks_before(rps: Floats, seconds: NDArray[np.int64], window_s: int) -> Floats:
    """Return the highest of the `window_s` seconds before each; before the day, it is as in the first second."""
    padded = np.concatenate((np.full(window_s, rps[0]), rps))
    peaks: Floats = np.lib.stride_tricks.sliding_window_view(padded, window_s)[seconds].max(axis=1)
    return peaks
