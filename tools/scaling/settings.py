"""The autoscaler settings that are worth trying: metric x target x bounds x behaviour, each within its limits.

Targets come from what one replica was measured to do, bounds from the traffic. Proposing is all that happens here;
`tools.scaling.choose` plays and judges them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tools.contracts.base import digest_of
from tools.contracts.scaling import OWNED_FIELDS, Bounds, HpaSpec
from tools.cost import HOURS_PER_DAY
from tools.scaling.capacity import (
    FLOOR_QUANTILE,
    MIN_REPLICAS,
    QUEUE_SAFETY,
    QUEUE_TARGET_WITHOUT_SLO,
    SPARE_AT_PEAK,
    replicas_for,
)
from tools.scaling.hpa_spec import Metric, parse_autoscaler
from tools.scaling.recommended_hpa import QUEUE_METRIC, SCALE_DOWN, SCALE_UP
from tools.scaling.replica import Replica
from tools.spec import ScalingMetric

RATE_METRIC = "request_rate"
"""Requests per second of each pod."""
LATENCY_METRIC = "request_latency_p99_ms"
"""p99 of the whole Service over the last scrapes, in milliseconds."""
CPU_METRIC = "cpu"
METRIC_NAMES: Mapping[ScalingMetric, str] = MappingProxyType(
    {"queue": QUEUE_METRIC, "rate": RATE_METRIC, "latency": LATENCY_METRIC, "cpu": CPU_METRIC}
)
"""How the HPA calls what may be followed."""

LOAD_SHARES = (0.4, 0.5, 0.6, 0.7, 0.8)
"""Shares of the rate at which one replica just keeps the SLO, to aim at.

With a share s the controller runs about `rate / s` replicas. Two survive the loss of one only below 0.5, three below
0.67; above 0.8 the controller's tolerance of 10 % alone reaches 0.88, and what is left does not last until a further
replica has started.
"""

NEARBY_SHARES = (-0.05, -0.025, 0.025, 0.05)
"""How far from the best of these is aimed as well: half of the way to the next, and a quarter."""

LATENCY_SHARES = (0.4, 0.6, 0.8)
"""Shares of the SLO. The p99 hardly moves below saturation, so that a finer grid would tell nothing apart."""

QUEUE_SHARES = (QUEUE_SAFETY, QUEUE_SAFETY / 2, 1.0)
"""Shares of the queue that the SLO has room for (see `capacity.queue_target`), the usual one first."""

LEAST_QUEUE = 1.0
"""A queue shorter than this on average is empty in most readings: the twin follows the mean, a real controller would
follow chance."""

USUAL_CPU_PERCENTS = (50, 70, 80)
"""What people set. A server that takes what waits in one batch is busy nearly always, long before it is at its limit:
the utilizations that its loads give may lie close together, and too high."""

MOST_CPU_PERCENT = 90
"""No utilization exceeds 100 % by 10 %, the controller's tolerance: above 91 it would never ask for a replica."""

BURST_FACTOR = 2.0
"""The larger of the two maxima holds the recorded peak this many times: the spike that the harder days play."""

MOST_MINIMA = 3
"""minReplicas between the quietest traffic and the 95 % level: both ends and the middle."""

MOST_FIXED = 4
"""Settings with a fixed number of replicas."""

BEHAVIORS: Mapping[str, HpaSpec | None] = MappingProxyType(
    {
        "down after 300 s": {"scaleUp": SCALE_UP, "scaleDown": SCALE_DOWN},
        "down after 600 s": {"scaleUp": SCALE_UP, "scaleDown": {**SCALE_DOWN, "stabilizationWindowSeconds": 600}},
        "controller's own pace": None,
    }
)
"""How fast replicas come and go. Without a `behavior` block the controller doubles at most, up to four at once, and
drops all that it can spare after 300 s."""


@dataclass(frozen=True)
class Setting:
    """One HPA setting to try.

    Attributes:
        name: in words.
        spec: `OWNED_FIELDS` of an HPA's `spec`.
        is_today: whether it is the one in use.
    """

    name: str
    spec: HpaSpec
    is_today: bool = False

    @property
    def min_replicas(self) -> int:
        """The lower bound; 1 where none is given, as the API server has it."""
        least = self.spec.get("minReplicas")
        return 1 if least is None else int(least)

    @property
    def max_replicas(self) -> int:
        """The upper bound."""
        return int(self.spec["maxReplicas"])

    @property
    def metrics(self) -> int:
        """How many metrics it follows. None given means the CPU."""
        return max(1, len(self.spec.get("metrics") or ()))


def candidates(
    replica: Replica,
    rps: NDArray[np.float64],
    *,
    slo_ms: float,
    price_per_hour_usd: float,
    metrics: Sequence[ScalingMetric],
    bounds: Bounds,
    today: HpaSpec | None = None,
    service: str = "model",
) -> tuple[Setting, ...]:
    """Return the settings to try, in a fixed order: today's first, whatever it is, then those within the bounds.

    Args:
        replica: how one replica serves.
        rps: requests per second, one value a second.
        slo_ms: p99 to keep.
        price_per_hour_usd: of one replica; `bounds.daily_cost_usd` limits maxReplicas by it.
        metrics: what the autoscaler may follow; each alone, and the queue together with the CPU and with the rate.
        bounds: what no setting may leave, today's excepted: to keep it changes nothing.
        today: `spec` of the HPA in use.
        service: name of the Service that the latency is a metric of.

    Returns:
        Usually 200 to 400 settings. Only today's, or none, if the bounds leave nothing, or if one replica does not
        keep the SLO under any load.

    Raises:
        SpecError: today's HPA is none that a server would take.
    """
    settings = [] if today is None else [Setting(f"today's HPA: {describe(today)}", owned(today), is_today=True)]
    hold_rps = replica.slo_capacity_rps(slo_ms)
    ceiling = max_replicas_within(bounds, price_per_hour_usd)
    if hold_rps and bounds.min_replicas <= ceiling:
        signals = _distinct(_Targets(replica, hold_rps, slo_ms, service).of(metrics), bounds)
        settings += _grid(signals, rps, hold_rps, (bounds.min_replicas, ceiling))
    unique = {digest_of(setting.spec): setting for setting in reversed(settings)}
    return tuple(setting for setting in settings if unique[digest_of(setting.spec)] is setting)


def nearby(best: Setting, replica: Replica, *, slo_ms: float, bounds: Bounds) -> tuple[Setting, ...]:
    """Return settings that aim between those of `candidates`: its best one with other targets, at each pace.

    Args:
        best: what is best among the candidates; its bounds on replicas stay.
        replica: how one replica serves.
        slo_ms: p99 to keep.
        bounds: what no setting may leave.

    Returns:
        At most 12 settings, all with another target for the request rate. None around today's, around a fixed number
        of replicas, and where the best does not follow the rate.
    """
    metrics = best.spec.get("metrics") or ()
    rates = [metric for metric in metrics if metric.get("pods", {}).get("metric", {}).get("name") == RATE_METRIC]
    hold_rps = replica.slo_capacity_rps(slo_ms)
    if best.is_today or best.min_replicas == best.max_replicas or not rates or not hold_rps:
        return ()
    (rate,) = rates
    share = _target(parse_autoscaler({"maxReplicas": 1, "metrics": [rate]}).metrics[0]) / hold_rps
    shares = [share + further for further in NEARBY_SHARES if 0 < share + further <= LOAD_SHARES[-1]]
    signals = (
        tuple(_pods_metric(RATE_METRIC, aim * hold_rps) if metric is rate else metric for metric in metrics)
        for aim in shares
    )
    return tuple(_paced(_distinct(signals, bounds), best.min_replicas, best.max_replicas))


def max_replicas_within(bounds: Bounds, price_per_hour_usd: float) -> int:
    """Return the highest maxReplicas that the bounds allow, 0 if a day of one replica costs too much already."""
    if bounds.daily_cost_usd is None:
        return bounds.max_replicas
    affordable = bounds.daily_cost_usd / (HOURS_PER_DAY * price_per_hour_usd)
    return min(bounds.max_replicas, math.floor(affordable * (1 + 1e-12)))


def owned(spec: HpaSpec) -> HpaSpec:
    """Return the fields of an HPA's `spec` that a setting is made of."""
    return {field: spec[field] for field in OWNED_FIELDS if spec.get(field) is not None}


def describe(spec: HpaSpec) -> str:
    """Say what an HPA follows and where it stops: `request_queue_length 12 per pod or cpu 70 %, 2 to 9`.

    Raises:
        SpecError: it is no HPA that a server would take.
    """
    autoscaler = parse_autoscaler(spec)
    followed = " or ".join(_text(metric) for metric in autoscaler.metrics)
    return f"{followed}, {autoscaler.min_replicas} to {autoscaler.max_replicas}"


class _Targets:
    """Metrics with the targets that one replica's measured behaviour suggests."""

    def __init__(self, replica: Replica, hold_rps: float, slo_ms: float, service: str) -> None:
        self._replica = replica
        self._hold_rps = hold_rps
        self._slo_ms = slo_ms
        self._service = service

    def of(self, metrics: Sequence[ScalingMetric]) -> Iterator[tuple[HpaSpec, ...]]:
        """Yield what the autoscaler may follow: one metric, or several of which the largest proposal wins."""
        singles = {
            "queue": self._queue(),
            "rate": [_pods_metric(RATE_METRIC, share * self._hold_rps) for share in LOAD_SHARES],
            "latency": [_service_metric(self._service, share * self._slo_ms) for share in LATENCY_SHARES],
            "cpu": self._cpu(),
        }
        for metric in METRIC_NAMES:
            if metric in metrics:
                yield from ((single,) for single in singles[metric])
        for other in ("rate", "cpu"):
            if "queue" in metrics and other in metrics:
                # The other metric sets the pace, the queue catches what it misses: one queue target, every pace.
                yield from ((singles["queue"][0], single) for single in singles[other])

    def _queue(self) -> list[HpaSpec]:
        """Targets from Little's law (L = lambda * W) around the SLO, what a gauge shows at a load, and the usual 30."""
        replica = self._replica
        room = replica.capacity_rps * max(0.0, self._slo_ms - replica.full_batch_p99_ms) / 1000
        waits = [share * room for share in QUEUE_SHARES]
        gauge = np.interp(
            [share * self._hold_rps for share in LOAD_SHARES[1::2]], replica.loads_rps, replica.mean_queue
        )
        targets = (*waits, *gauge, QUEUE_TARGET_WITHOUT_SLO)
        return [_pods_metric(QUEUE_METRIC, value) for value in targets if value >= LEAST_QUEUE]

    def _cpu(self) -> list[HpaSpec]:
        """Utilizations that the same shares of the load give, and the usual ones."""
        busy = np.interp([share * self._hold_rps for share in LOAD_SHARES], self._replica.loads_rps, self._replica.busy)
        found = {min(MOST_CPU_PERCENT, max(1, math.floor(100 * float(share)))) for share in busy}
        return [_cpu_metric(percent) for percent in sorted(found.union(USUAL_CPU_PERCENTS))]


def _distinct(groups: Iterable[tuple[HpaSpec, ...]], bounds: Bounds) -> list[tuple[HpaSpec, ...]]:
    """Return the groups of metrics that the bounds allow, each once, in order."""
    allowed = {digest_of(group): group for group in groups if _within(group, bounds)}
    return list(allowed.values())


def _grid(
    signals: Sequence[tuple[HpaSpec, ...]], rps: NDArray[np.float64], hold_rps: float, limits: tuple[int, int]
) -> Iterator[Setting]:
    """Yield signal x minReplicas x maxReplicas x behaviour, then fixed numbers of replicas."""
    minima, maxima, fixed = _replica_ranges(rps, hold_rps, limits)
    for signal, least, most in itertools.product(signals, minima, maxima):
        if least < most:
            yield from _paced([signal], least, most)
    for count in fixed if signals else ():
        # The controller wants a metric, though with equal bounds it never matters.
        yield Setting(f"always {count}", _spec(signals[0], count, count, None))


def _paced(signals: Sequence[tuple[HpaSpec, ...]], least: int, most: int) -> Iterator[Setting]:
    for signal, (pace, behavior) in itertools.product(signals, BEHAVIORS.items()):
        spec = _spec(signal, least, most, behavior)
        yield Setting(f"{describe(spec)}, {pace}", spec)


def _replica_ranges(
    rps: NDArray[np.float64], hold_rps: float, limits: tuple[int, int]
) -> tuple[list[int], list[int], list[int]]:
    """Return minReplicas, maxReplicas and fixed numbers to try, ascending, each within the limits."""

    def survivors(rate_rps: float) -> int:
        return max(MIN_REPLICAS, replicas_for(rate_rps, hold_rps) + 1)

    def within(counts: Sequence[int]) -> list[int]:
        return sorted({min(max(count, limits[0]), limits[1]) for count in counts})

    quiet, busy = (survivors(float(rate)) for rate in np.quantile(rps, [FLOOR_QUANTILE, 0.95], method="higher"))
    peak_rps = float(np.max(rps))
    most = [max(busy, replicas_for(peak_rps * factor, hold_rps) + SPARE_AT_PEAK) for factor in (1.0, BURST_FACTOR)]
    return (
        within(_spread(quiet, busy, MOST_MINIMA)),
        within(most),
        within(_spread(busy, most[-1], MOST_FIXED)),
    )


def _spread(low: int, high: int, most: int) -> list[int]:
    """Return at most `most` whole numbers from low to high, both included, evenly apart."""
    return sorted({round(value) for value in np.linspace(low, high, most)})


def _spec(signal: tuple[HpaSpec, ...], least: int, most: int, behavior: HpaSpec | None) -> HpaSpec:
    spec: HpaSpec = {"minReplicas": least, "maxReplicas": most, "metrics": list(signal)}
    return spec if behavior is None else {**spec, "behavior": behavior}


def _pods_metric(name: str, value: float) -> HpaSpec:
    target = {"type": "AverageValue", "averageValue": _quantity(value)}
    return {"type": "Pods", "pods": {"metric": {"name": name}, "target": target}}


def _service_metric(service: str, value_ms: float) -> HpaSpec:
    return {
        "type": "Object",
        "object": {
            "describedObject": {"apiVersion": "v1", "kind": "Service", "name": service},
            "metric": {"name": LATENCY_METRIC},
            "target": {"type": "Value", "value": _quantity(value_ms)},
        },
    }


def _cpu_metric(percent: int) -> HpaSpec:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": CPU_METRIC, "target": target}}


def _quantity(value: float) -> str:
    """Return a positive number with two significant digits as a Kubernetes quantity: `30`, `2500m`, `8m`."""
    rounded = round(value, 1 - math.floor(math.log10(value)))
    return f"{rounded:.0f}" if rounded >= 10 or rounded.is_integer() else f"{max(1, round(1000 * rounded))}m"


def _within(group: Sequence[HpaSpec], bounds: Bounds) -> bool:
    metrics = parse_autoscaler({"maxReplicas": 1, "metrics": list(group)}).metrics
    if bounds.metrics is not None and any(metric.name not in bounds.metrics for metric in metrics):
        return False
    return bounds.target is None or all(bounds.target[0] <= _target(metric) <= bounds.target[1] for metric in metrics)


def _target(metric: Metric) -> float:
    return float(metric.target_percent) if metric.target == "Utilization" else metric.target_milli / 1000


def _text(metric: Metric) -> str:
    unit = {"Utilization": " %", "AverageValue": " per pod", "Value": ""}[metric.target]
    return f"{metric.name} {_target(metric):,.15g}{unit}"
