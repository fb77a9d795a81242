"""How many replicas hold a rate, and how many requests may wait: pure arithmetic, each constant with its reason.

Everything is planned with the low end of the measured capacity: if the capacity is as bad as the measurement
allows, the plan still holds.
"""

from __future__ import annotations

import math

from tools.contracts import Contract, Interval
from tools.traffic import Trace

UTILIZATION = 0.7
"""Share of its capacity that a replica is planned to use.

Waiting time grows as 1 / (1 - rho) with the utilization rho (M/M/1: mean time in system = service time / (1 - rho)):
3.3 service times at 0.7, 5 at 0.8, 10 at 0.9, 20 at 0.95. Above 0.7 a small error in the forecast costs much
latency. The remaining 30 % also carry the traffic while new replicas start.
"""

MIN_REPLICAS = 2
"""Never fewer: with one replica, a lost pod, a drained node or a rollout takes the whole service down."""

SPARE_AT_PEAK = 1
"""Replicas that the autoscaler may add beyond those for the peak: one may be lost, or be replaced in a rollout,
just then."""

FLOOR_QUANTILE = 0.05
"""The autoscaler may go down to what the quietest 5 % of the time need, no further: a queue gauge that reads zero by
mistake must not take the service below what it never needs less than. It costs next to nothing."""

QUEUE_SAFETY = 0.5
"""Share of the queue that the SLO has room for, at which a further replica is asked for.

The autoscaler sees the mean over replicas, up to a scrape and a sync (15 s each by default) late, and ignores the
first 10 % above its target; then a replica has to start. Half the room is left for that.
"""

QUEUE_TARGET_BOUNDS = (1, 1000)
QUEUE_TARGET_WITHOUT_SLO = 30
"""A familiar start when nobody said how long a request may take; to be tuned on the running service."""


class ReplicaPlan(Contract):
    """Replicas for a trace at one capacity. `minimum <= p95 <= peak < maximum`."""

    usable_rps: float
    p95: int
    """Hold the rate that is not exceeded 95 % of the time, and after losing one, still the mean."""
    peak: int
    """Hold the highest rate."""
    minimum: int
    """For the autoscaler: hold the quietest 5 % of the time after losing one, and at least `MIN_REPLICAS`."""
    maximum: int
    """For the autoscaler: those for the peak, and `SPARE_AT_PEAK` more."""

    def following(self, trace: Trace) -> tuple[int, ...]:
        """Return the replicas that run during each sample if the autoscaler follows the traffic at once."""
        return tuple(max(self.minimum, replicas_for(rate, self.usable_rps)) for rate in trace.rps)


def usable_rps(capacity: Interval, utilization: float = UTILIZATION) -> float:
    """Return the rate to plan one replica with: the low end of its capacity, times the utilization.

    Raises:
        ValueError: the low end is not positive, or the utilization not in (0, 1].
    """
    if not 0 < utilization <= 1:
        msg = f"utilization must be above 0 and at most 1, not {utilization!r}"
        raise ValueError(msg)
    _require_positive("capacity.low", capacity.low)
    return capacity.low * utilization


def replicas_for(rate_rps: float, usable_rps: float) -> int:
    """Return the least number of replicas, at least one, that hold `rate_rps` at `usable_rps` each.

    Raises:
        ValueError: the rate is negative, or `usable_rps` is not positive; either is not finite.
    """
    _require_positive("usable_rps", usable_rps)
    if not (math.isfinite(rate_rps) and rate_rps >= 0):
        msg = f"rate_rps must be finite and not negative, not {rate_rps!r}"
        raise ValueError(msg)
    # A rate of exactly three replicas may divide into 3.0000000000000004, which is not four.
    return max(1, math.ceil(rate_rps / usable_rps * (1 - 1e-12)))


def plan_replicas(trace: Trace, usable_rps: float) -> ReplicaPlan:
    """Return how many replicas the trace needs at `usable_rps` requests per second each.

    The rule for the 95 % level is N-1 safe: `(p95 - 1) * usable_rps >= mean rate`, so that the survivors of a lost
    replica hold the mean load within their planned utilization.
    """
    mean = replicas_for(trace.mean_rps, usable_rps)
    p95 = max(MIN_REPLICAS, mean + 1, replicas_for(trace.quantile_rps(0.95), usable_rps))
    peak = max(p95, replicas_for(trace.peak_rps, usable_rps))
    quiet = replicas_for(trace.quantile_rps(FLOOR_QUANTILE), usable_rps)
    return ReplicaPlan(
        usable_rps=usable_rps,
        p95=p95,
        peak=peak,
        minimum=min(p95, max(MIN_REPLICAS, quiet + 1)),
        maximum=peak + SPARE_AT_PEAK,
    )


def queue_target(capacity: Interval, *, p99_ms: float, slo_ms: float | None) -> int:
    """Return the requests that may wait per replica: the AverageValue target of the queue metric.

    By Little's law (L = lambda * W) a replica that serves C requests per second and has L waiting makes the last of
    them wait L / C seconds. It then takes `p99_ms` to be served, so it meets the SLO if
    `L <= C * (slo_ms - p99_ms) / 1000`. Of that, `QUEUE_SAFETY` is used, within `QUEUE_TARGET_BOUNDS`.

    Args:
        capacity: requests per second of one replica; the low end is used.
        p99_ms: time that serving takes without waiting, at the 99th percentile.
        slo_ms: what a request may take in all; None if nobody said.

    Raises:
        ValueError: a number is not positive and finite.
    """
    if slo_ms is None:
        return QUEUE_TARGET_WITHOUT_SLO
    _require_positive("capacity.low", capacity.low)
    _require_positive("p99_ms", p99_ms)
    _require_positive("slo_ms", slo_ms)
    room = capacity.low * (slo_ms - p99_ms) / 1000 * QUEUE_SAFETY
    least, most = QUEUE_TARGET_BOUNDS
    return min(most, max(least, math.floor(room)))


def _require_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        msg = f"{name} must be positive and finite, not {value!r}"
        raise ValueError(msg)
