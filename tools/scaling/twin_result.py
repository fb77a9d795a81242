"""What a run of the twin comes to: minute by minute, and as one outcome."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tools.contracts.scaling import DayOutcome
from tools.scaling.days import Day, Floats
from tools.scaling.twin_pods import Pods
from tools.scaling.twin_view import Table

MINUTE_S = 60
REVERSAL_S = 600
"""A scaling within this time of one in the other direction is a reversal."""
LATE_SHARE = 0.01
"""Pods that get a smaller share of the requests than this do not move the p99."""
NO_REQUEST = 1e-3
"""Fewer refused requests than this in a minute are a rounding error."""

Seconds: TypeAlias = NDArray[np.int64]

LEAVES_OUT = (
    "Requests are spread evenly over the ready replicas and stay where they came: sticky sessions would do worse.",
    "Within a second requests come at random (Poisson), as in the replica's table; burstier clients wait longer.",
    "A scrape sees the mean queue at that load: the jitter of single readings, which may scale, is left out.",
    "A ready replica is as fast as the measured one, from its first request on, and is slow or fails as the day says.",
    "There is always a node for a new replica: adding nodes takes no longer than the delays say.",
    "Clients neither retry nor give up waiting.",
)
"""What the twin does not play, in sentences."""


class Scaling(NamedTuple):
    """The controller changed the number of replicas."""

    at_s: int
    before: int
    after: int


@dataclass(frozen=True, eq=False)
class Run:
    """One HPA setting over one day. All arrays have one value for each minute; the last minute may be shorter.

    Attributes:
        outcome: the day in numbers.
        ready: replicas that serve, on average.
        paid: replicas that are paid for, on average.
        rps: requests per second, on average.
        queue: requests that wait in the fullest replica, at most.
        wait_ms: mean wait of the requests that came.
        p99_ms: p99 of the worst second.
        refused: requests that were refused, or lost with their replica.
        missed: whether the p99 was above the SLO, or requests were refused.
        scalings: what the controller did.
    """

    outcome: DayOutcome
    ready: Floats
    paid: Floats
    rps: Floats
    queue: Floats
    wait_ms: Floats
    p99_ms: Floats
    refused: Floats
    missed: NDArray[np.bool_]
    scalings: tuple[Scaling, ...]

    @property
    def leaves_out(self) -> tuple[str, ...]:
        """What the numbers do not hold, in sentences."""
        return LEAVES_OUT


def summed_up(
    day: Day,
    pods: Pods,
    scalings: Sequence[Scaling],
    *,
    table: Table,
    queue_limit: float,
    slo_ms: float,
    price_per_hour_usd: float,
) -> Run:
    """Return the run that these pods have behind them.

    Args:
        day: the traffic.
        pods: after the last second.
        scalings: what the controller did.
        table: the replica's.
        queue_limit: requests that could wait in each pod.
        slo_ms: p99 that a minute keeps.
        price_per_hour_usd: of one replica.
    """
    minutes = _Minutes(day.rps, _steps(pods.heights, day.seconds), table)
    rows = _Rows.of(pods, day.rps, table.capacity_rps, queue_limit)
    minutes.add_slow(pods, table)
    minutes.add(rows, table)
    for drained in pods.drained:
        if drained.refused:
            minutes.refused[drained.at // MINUTE_S] += drained.refused
    paid = np.cumsum(_deltas(pods.paid, day.seconds))
    missed = (minutes.p99_ms > slo_ms) | (minutes.refused > NO_REQUEST)
    replica_hours = float(paid.sum()) / 3600
    outcome = DayOutcome(
        day=day.name,
        minutes=missed.size,
        missed_minutes=int(missed.sum()),
        worst_p99_ms=float(minutes.p99_ms.max()),
        replica_hours=replica_hours,
        cost_usd=replica_hours * price_per_hour_usd,
        scalings=len(scalings),
        reversals=_reversals(scalings),
        peak_replicas=max(height for _, height in pods.heights),
        mean_replicas=float(minutes.height.mean()),
        requests=float(day.rps.sum()),
        served=minutes.served + float(rows.served.sum()) + sum(drained.served for drained in pods.drained),
        refused=float(minutes.refused.sum()),
        waiting_at_end=sum(cohort.pods * cohort.waiting for cohort in pods.cohorts)
        + sum(drained.waiting for drained in pods.drained),
    )
    return Run(
        outcome=outcome,
        ready=minutes.mean(minutes.height),
        paid=minutes.mean(paid),
        rps=minutes.mean(day.rps),
        queue=minutes.queue,
        wait_ms=minutes.wait_ms(),
        p99_ms=minutes.p99_ms,
        refused=minutes.refused,
        missed=missed,
        scalings=tuple(scalings),
    )


class _Minutes:
    """The day minute by minute: first as if nothing had ever waited, then with what did."""

    def __init__(self, rps: Floats, height: Seconds, table: Table) -> None:
        self._rps = rps
        self._starts = np.arange(0, rps.size, MINUTE_S)
        self._lengths = np.diff(np.append(self._starts, rps.size))
        self.height = height
        load = rps / np.maximum(height, 1)
        load[height == 0] = 0.0
        most = np.maximum.reduceat(load, self._starts)
        self.p99_ms = table.p99_ms.over(most)
        self.queue = table.queue.over(most)
        self.refused = np.add.reduceat(np.where(height == 0, rps, 0.0), self._starts)
        self._served = np.where(height == 0, 0.0, rps)
        self._load = load
        self._waited_ms = self._served * table.wait_ms.over(load)

    @property
    def served(self) -> float:
        """Requests served in the seconds in which nothing waited."""
        return float(self._served.sum())

    def add_slow(self, pods: Pods, table: Table) -> None:
        """Put in what slow pods did while nothing waited. Their p99 counts as that of the whole: it is no lower."""
        if len(pods.slow) == 1:
            return
        slow = _steps([(since, count) for since, count, _ in pods.slow], self._load.size)
        second = np.flatnonzero(slow)
        changes = np.array([since for since, _, _ in pods.slow])
        slowdown = np.array([slowdown for *_, slowdown in pods.slow])[np.searchsorted(changes, second, "right") - 1]
        minute, load, pods_slow, height = second // MINUTE_S, self._load[second], slow[second], self.height[second]
        np.maximum.at(self.queue, minute, table.queue.over(load * slowdown))
        late = pods_slow >= LATE_SHARE * height
        p99_ms = slowdown * table.p99_ms.over(load * slowdown)
        np.maximum.at(self.p99_ms, minute[late], p99_ms[late])
        longer_ms = slowdown * table.wait_ms.over(load * slowdown) - table.wait_ms.over(load)
        self._waited_ms[second] += load * pods_slow * longer_ms

    def add(self, rows: _Rows, table: Table) -> None:
        """Put in what happened while requests waited."""
        self._served[rows.second] = 0.0
        self._waited_ms[rows.second] = 0.0
        minute = rows.second // MINUTE_S
        scale_ms = 1000 / table.capacity_rps * rows.slowdown
        calm_ms = rows.slowdown * table.wait_ms.over(rows.load * rows.slowdown)
        wait_ms = np.maximum((rows.before + rows.after) / 2 * scale_ms, calm_ms)
        np.add.at(self._waited_ms, rows.second, rows.load * rows.pods * wait_ms)
        np.add.at(self.refused, minute, rows.refused)
        most = np.maximum(rows.before, rows.after)
        np.maximum.at(self.queue, minute, most)
        late = (most > 0) & (rows.pods >= LATE_SHARE * rows.ready)
        p99_ms = most * scale_ms + table.full_batch_p99_ms * rows.slowdown
        np.maximum.at(self.p99_ms, minute[late], p99_ms[late])

    def mean(self, values: NDArray[np.float64 | np.int64]) -> Floats:
        """Return the mean of each minute."""
        return np.add.reduceat(values, self._starts) / self._lengths

    def wait_ms(self) -> Floats:
        """Return the mean wait of the requests of each minute; 0 where none came."""
        came = np.add.reduceat(self._rps, self._starts)
        waited_ms = np.add.reduceat(self._waited_ms, self._starts)
        return np.divide(waited_ms, came, out=np.zeros_like(came), where=came > 0)


@dataclass(frozen=True, eq=False)
class _Rows:
    """One row for each second and cohort while requests waited; per pod where not said otherwise."""

    second: Seconds
    pods: Seconds
    """In the cohort."""
    ready: Seconds
    """In all."""
    slowdown: Floats
    """Of the cohort."""
    load: Floats
    """Requests that came."""
    before: Floats
    """Requests that waited when the second began."""
    after: Floats
    """Requests that waited when it ended."""
    served: Floats
    """By all pods of the cohort."""
    refused: Floats
    """By all pods of the cohort."""

    @classmethod
    def of(cls, pods: Pods, rps: Floats, capacity_rps: float, queue_limit: float) -> _Rows:
        """Work out each second of all spans at once: by the same steps as the pods did."""
        spans = pods.backlogs
        lengths = np.array([len(span.waiting) for span in spans], dtype=np.int64)
        first_row = np.cumsum(lengths) - lengths
        starts, counts, ready = (
            np.repeat(np.array(column, dtype=np.int64), lengths)
            for column in (
                [span.start for span in spans],
                [span.pods for span in spans],
                [span.ready for span in spans],
            )
        )
        slowdown = np.repeat(np.array([span.slowdown for span in spans], dtype=np.float64), lengths)
        second = starts + np.arange(lengths.sum()) - np.repeat(first_row, lengths)
        before = np.fromiter(itertools.chain.from_iterable(span.waiting for span in spans), dtype=np.float64)
        load: Floats = rps[second] / ready
        each_rps: Floats = capacity_rps / slowdown
        left: Floats = before + (load - each_rps)
        served: Floats = np.where(left > 0, each_rps, before + load)
        refused: Floats = np.maximum(left - queue_limit, 0.0)
        after = np.clip(left, 0.0, queue_limit)
        return cls(
            second=second,
            pods=counts,
            ready=ready,
            slowdown=slowdown,
            load=load,
            before=before,
            after=after,
            served=served * counts,
            refused=refused * counts,
        )


def _steps(changes: Sequence[tuple[int, int]], seconds: int) -> Seconds:
    """Return the value of each second from the seconds at which it changed; the first change is before the day."""
    at = np.array([0, *(since for since, _ in changes[1:]), seconds], dtype=np.int64)
    return np.repeat(np.array([value for _, value in changes], dtype=np.int64), np.diff(at))


def _deltas(changes: Sequence[tuple[int, int]], seconds: int) -> Seconds:
    """Return by how much a number changes in each second; changes after the last second are left out."""
    deltas = np.zeros(seconds, dtype=np.int64)
    for at, change in changes:
        if at < seconds:
            deltas[at] += change
    return deltas


def _reversals(scalings: Sequence[Scaling]) -> int:
    """Count the scalings that soon followed one in the other direction."""
    return sum(
        (later.after > later.before) != (earlier.after > earlier.before) and later.at_s - earlier.at_s <= REVERSAL_S
        for earlier, later in itertools.pairwise(scalings)
    )
