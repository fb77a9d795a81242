"""What one replica does at each load: a table that is simulated request by request from its measured batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tools.contracts import BatchPoint, Contract, Interval, ServiceCurve, ServicePoint
from tools.scaling.batching import Greedy
from tools.scaling.request_run import RequestRun
from tools.scaling.requests import simulate_requests
from tools.scaling.service_times import FloatArray, spread

UTILIZATIONS = (
    *(0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7),
    *(0.74, 0.78, 0.81, 0.84, 0.87, 0.89, 0.91, 0.925, 0.94, 0.95, 0.96, 0.97, 0.98),
)
"""Shares of the capacity at which a replica is simulated; denser where the latency rises steeply."""

CHEAP_BATCH = 8
"""From this `max_batch` on, twice as many requests are simulated at the heavy loads."""

SECTIONS = 5
"""Equal parts of a run: how much their p99 differ tells how well the p99 is known.

Few and long, since near the capacity a crowd lasts for thousands of requests. For one request at a time, such intervals
held what runs a hundred times as long found in 88 to 91 % of 250 runs at loads of 87 to 95 %, and in 84 % at 98 %; with
ten sections, on a linear scale, it was 81 to 85 % and 71 %.
"""
_T_95 = 2.776


class Replica(Contract):
    """One replica under Poisson arrivals, serving by `Greedy(max_batch)`: a table over its load.

    A Poisson stream that is spread over replicas at random is one for each of them; a balancer that looks at the queues
    makes the waits shorter, bursts make them longer.

    All times are those of the low end of the measured throughput: a plan made from this holds if the replica is as
    slow as the measurement allows. All tuples are of equal length, one entry for each of `loads_rps`, and do not fall
    as the load rises: what noise did to their order is pooled away (isotonic regression).
    """

    name: str
    """The configuration's name."""
    max_batch: int
    seed: int
    capacity_rps: float
    """The most it can serve: the low end of the measured throughput at `max_batch`."""
    throughput_rps: Interval
    """The measured throughput at `max_batch`."""
    full_batch_p99_ms: float
    """The 99th percentile of the time of a batch of `max_batch`."""
    loads_rps: tuple[float, ...]
    """Requests per second, ascending, from 2 % to 98 % of `capacity_rps`."""
    p99_ms: tuple[float, ...]
    """The 99th percentile of the time from a request's arrival to its answer."""
    p99_low_ms: tuple[float, ...]
    p99_high_ms: tuple[float, ...]
    """The ends of the interval of the p99, nominally 95 %: the noise of the simulation. See `SECTIONS`."""
    mean_wait_ms: tuple[float, ...]
    """From a request's arrival until its batch starts."""
    mean_queue: tuple[float, ...]
    """Requests that wait, without those being served: what a gauge shows on average."""
    busy: tuple[float, ...]
    """Share of the time in which it serves a batch."""
    mean_batch: tuple[float, ...]
    """Requests per batch."""

    @classmethod
    def of(cls, curve: ServiceCurve, *, seed: int = 0) -> Replica:
        """Simulate one replica at each of `UTILIZATIONS`. The same curve and seed give the same table.

        Raises:
            ValueError: `max_batch` is not among the curve's points, or a throughput may be nothing.
        """
        batches = _Batches.of(curve)
        capacity_rps = batches.throughput_rps.low
        counts = [_requests(share, curve.max_batch) for share in UTILIZATIONS]
        # The same gaps between requests at each load, only stretched: neighbours differ by the load, not by chance.
        units = np.cumsum(np.random.default_rng((seed, 0)).standard_exponential(max(counts)))
        rows = []
        for share, count in zip(UTILIZATIONS, counts, strict=True):
            service = spread(batches.p50_s, batches.p99_s, batches.mean_s, np.random.default_rng((seed, 1)))
            arrivals_s = units[:count] / (share * capacity_rps)
            rows.append(_row(simulate_requests(arrivals_s, service, Greedy(curve.max_batch))))
        columns = {name: _isotonic([row[name] for row in rows]) for name in rows[0]}
        return cls(
            name=curve.name,
            max_batch=curve.max_batch,
            seed=seed,
            capacity_rps=capacity_rps,
            throughput_rps=batches.throughput_rps,
            full_batch_p99_ms=batches.p99_s[-1] * 1000,
            loads_rps=tuple(share * capacity_rps for share in UTILIZATIONS),
            **columns,
        )

    def slo_capacity_rps(self, slo_ms: float) -> float | None:
        """Return the highest load whose p99 keeps the SLO, or None if even the lightest load does not.

        Cautious three times over: the replica is as slow as the measurement allows, the p99 is the high end of its
        interval, and between two loads it is taken to rise evenly, while it hangs below that line where it rises
        steeply. At most the heaviest load of the table.

        Raises:
            ValueError: the SLO is not positive.
        """
        return _highest_load(self.loads_rps, self.p99_high_ms, slo_ms)

    def capacity_interval(self, slo_ms: float) -> Interval | None:
        """Return the load that keeps the SLO as an estimate with its interval; None as `slo_capacity_rps`.

        The low end is `slo_capacity_rps`. For the value and the high end the replica is as fast as measured, and as
        fast as the measurement allows: with all times shorter by a factor, it holds a load that is higher by that
        factor with a p99 that is shorter by it.

        Raises:
            ValueError: the SLO is not positive.
        """
        low = self.slo_capacity_rps(slo_ms)
        if low is None:
            return None
        faster = self.throughput_rps.value / self.capacity_rps
        fastest = self.throughput_rps.high / self.capacity_rps
        value = _highest_load(self.loads_rps, self.p99_ms, slo_ms * faster)
        high = _highest_load(self.loads_rps, self.p99_low_ms, slo_ms * fastest)
        assert value is not None
        assert high is not None
        return Interval(value=value * faster, low=low, high=high * fastest, n=self.throughput_rps.n)


def n_minus_one(replicas: int, rate_rps: float, replica: Replica, slo_ms: float) -> bool:
    """Return whether the survivors of one lost replica hold the rate within the SLO, evenly spread.

    Raises:
        ValueError: `replicas` or the SLO is not positive, or the rate is negative or not finite.
    """
    if replicas < 1:
        raise ValueError(f"replicas must be at least 1, not {replicas!r}")
    if not (math.isfinite(rate_rps) and rate_rps >= 0):
        raise ValueError(f"rate_rps must be finite and not negative, not {rate_rps!r}")
    each_rps = replica.slo_capacity_rps(slo_ms)
    if each_rps is None or replicas == 1:
        return False
    # What exactly fills the survivors must not fail for the last digit of a product.
    return rate_rps <= (replicas - 1) * each_rps * (1 + 1e-12)


def service_curve(
    points: Sequence[BatchPoint],
    *,
    name: str,
    max_batch: int,
    cores: float = 1.0,
    evidence: tuple[str, ...] = (),
    confirmed: bool = False,
) -> ServiceCurve:
    """Return how one replica serves, from the measured batches of a trial or a sweep.

    A larger batch never takes less time: where noise says so, it gets the times of the smaller one, and the throughput
    that goes with them, so that no batch is faster than it was measured. Of two points of one size, the one with more
    samples counts.

    Args:
        points: in any order.
        name: of the configuration.
        max_batch: the largest batch to serve, a size among the points.
        cores: CPU cores that a replica requests.
        evidence: ids of the evidence that the points come from.
        confirmed: whether a load test of a whole replica confirmed them.

    Raises:
        ValueError: no point has `max_batch`.
    """
    best = {point.batch_size: point for point in sorted(points, key=lambda point: point.throughput_rps.n)}
    if max_batch not in best:
        raise ValueError(f"max_batch {max_batch} was not measured, only {sorted(best)}")
    curve: list[ServicePoint] = []
    p50_ms = p99_ms = mean_ms = 0.0
    for size, point in sorted(best.items()):
        p50_ms = max(p50_ms, point.latency_ms.p50.value)
        p99_ms = max(p99_ms, point.latency_ms.p99.value)
        mean_ms = max(mean_ms, point.mean_ms)
        throughput_rps = point.throughput_rps.scaled(point.mean_ms / mean_ms)
        curve.append(
            ServicePoint(batch_size=size, p50_ms=p50_ms, p99_ms=p99_ms, mean_ms=mean_ms, throughput_rps=throughput_rps)
        )
    return ServiceCurve(
        name=name, points=tuple(curve), max_batch=max_batch, cores=cores, evidence=evidence, confirmed=confirmed
    )


@dataclass(frozen=True)
class _Batches:
    """The planned times of batches of 1, 2, ... `max_batch`, at the low end of the measured throughput."""

    p50_s: FloatArray
    p99_s: FloatArray
    mean_s: FloatArray
    throughput_rps: Interval

    @classmethod
    def of(cls, curve: ServiceCurve) -> _Batches:
        points = [point for point in curve.points if point.batch_size <= curve.max_batch]
        if not points or points[-1].batch_size != curve.max_batch:
            raise ValueError(f"{curve.name}: max_batch {curve.max_batch} is not among the measured sizes")
        for point in points:
            if not (math.isfinite(point.throughput_rps.low) and point.throughput_rps.low > 0):
                raise ValueError(f"{curve.name}: the throughput at batch {point.batch_size} may be nothing")
        measured = [point.batch_size for point in points]
        slow_s = np.array([point.batch_size / point.throughput_rps.low for point in points])
        stretch = slow_s / [point.mean_ms for point in points]
        sizes = np.arange(1, curve.max_batch + 1)
        # Below the smallest measured size a batch takes as long as that one.
        return cls(
            p50_s=np.interp(sizes, measured, stretch * [point.p50_ms for point in points]),
            p99_s=np.interp(sizes, measured, stretch * [max(point.p50_ms, point.p99_ms) for point in points]),
            mean_s=np.interp(sizes, measured, slow_s),
            throughput_rps=points[-1].throughput_rps,
        )


def _requests(share: float, max_batch: int) -> int:
    """Return how many requests to simulate: more where the queue has a long memory, and where batches make it cheap."""
    needed = min(250_000, int(10_000 / (1 - share)))
    return max(40_000, needed * (2 if max_batch >= CHEAP_BATCH else 1))


def _row(run: RequestRun) -> dict[str, float]:
    """Return the table's entry for one run: after its first tenth, in which the empty queue is forgotten."""
    first = run.arrived // 10
    latency_ms, wait_ms = run.latency_s[first:] * 1000, run.wait_s[first:] * 1000
    p99_ms = float(np.quantile(latency_ms, 0.99))
    sections = np.array([np.quantile(part, 0.99) for part in np.array_split(latency_ms, SECTIONS)])
    # Sectioning (Asmussen and Glynn, Stochastic Simulation, 2007, III.5): around the quantile of the whole run, whose
    # bias is smaller than that of the sections' mean. On a logarithmic scale, since a queue's p99 errs far upwards.
    spread_log = math.sqrt(float(np.sum(np.log(sections / p99_ms) ** 2)) / (SECTIONS * (SECTIONS - 1)))
    factor = math.exp(_T_95 * spread_log)
    span_s = run.arrivals_s[-1] - run.arrivals_s[first]
    return {
        "p99_ms": p99_ms,
        "p99_low_ms": p99_ms / factor,
        "p99_high_ms": p99_ms * factor,
        "mean_wait_ms": float(wait_ms.mean()),
        # Little's law: waiting = rate * mean wait, with the rate that really arrived.
        "mean_queue": float(wait_ms.sum()) / 1000 / span_s,
        "busy": run.utilization,
        "mean_batch": run.served / len(run.batch_sizes),
    }


def _isotonic(values: Sequence[float]) -> tuple[float, ...]:
    """Return the closest sequence, in least squares, that never falls: neighbours that do are replaced by their mean.

    Pool adjacent violators (Barlow et al., Statistical Inference under Order Restrictions, 1972, 1.2).
    """
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, size = value, 1
        while pools and pools[-1][0] > mean:
            before, count = pools.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        pools.append((mean, size))
    return tuple(mean for mean, size in pools for _ in range(size))


def _highest_load(loads_rps: Sequence[float], p99_ms: Sequence[float], slo_ms: float) -> float | None:
    """Return the highest load up to which a non-falling p99 is at most `slo_ms`, straight lines between the loads."""
    if not slo_ms > 0:
        raise ValueError(f"slo_ms must be positive, not {slo_ms!r}")
    kept = int(np.searchsorted(p99_ms, slo_ms, "right"))
    if kept == 0:
        return None
    if kept == len(loads_rps):
        return loads_rps[-1]
    share = (slo_ms - p99_ms[kept - 1]) / (p99_ms[kept] - p99_ms[kept - 1])
    return loads_rps[kept - 1] + share * (loads_rps[kept] - loads_rps[kept - 1])
