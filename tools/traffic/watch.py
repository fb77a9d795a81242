"""The latest p99 of a service, asked of Prometheus again and again while a change is watched."""

from __future__ import annotations

import math
from collections.abc import Callable

from tools.spec import PrometheusSpec
from tools.traffic.observed import LatencyQuantile, Signal, quantile
from tools.traffic.prometheus import read_traffic
from tools.traffic.queries import latency_unit_ms, queries_of

WINDOW_S = 150.0
"""How far back each answer looks, to see that the series can be relied on; what counts is its last point."""
STEP_S = 15.0


def slo_watch(source: PrometheusSpec, slo_ms: float | None) -> Callable[[], float | None] | None:
    """Return what tells the latest p99 in milliseconds, or None where the source has no histogram of latencies.

    What is returned gives None where there is no telling: without any request, or where the p99 lies beyond the highest
    bucket and that one is below the SLO. It raises TrafficError where Prometheus does not answer, or has nothing new.

    Args:
        source: where latencies are recorded.
        slo_ms: what they are held against.
    """
    if not any(query.signal == "latency_buckets" for query in queries_of(source)):
        return None
    recent = source.model_copy(update={"window_s": WINDOW_S, "step_s": STEP_S})

    def latest_p99_ms() -> float | None:
        buckets = read_traffic(recent).signal("latency_buckets")
        p99 = None if buckets is None else _latest(buckets)
        if p99 is None or (math.isinf(p99.high_ms) and slo_ms is not None and p99.low_ms < slo_ms):
            return None
        return p99.value_ms

    return latest_p99_ms


def _latest(buckets: Signal) -> LatencyQuantile | None:
    """Return the p99 of the last point alone: a rate over `queries.RANGE_S`, so that it tells of these two minutes."""
    seconds = [{second for second, _ in series.points} for series in buckets.series]
    shared = set.intersection(*seconds) if seconds else set()
    if not shared:
        return None
    last = max(shared)
    points = tuple(s.model_copy(update={"points": tuple(p for p in s.points if p[0] == last)}) for s in buckets.series)
    only = buckets.model_copy(update={"series": points})
    return quantile(only, 0.99, unit_ms=latency_unit_ms(buckets.query), step_s=STEP_S)
