"""What a person asks to be simulated: a setting in four words, a replica in two numbers, and where the rest is from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tools.contracts import HpaSpec, Interval, ServiceCurve, ServicePoint
from tools.errors import SpecError
from tools.scaling.recommended_hpa import SCALE_DOWN, SCALE_UP
from tools.scaling.settings import METRIC_NAMES, Setting, describe
from tools.spec import ScalingMetric

P99_SHARE = 1.2
"""The p99 of a batch's time as a multiple of its mean, where only the p99 is known: what quiet machines show."""


@dataclass(frozen=True)
class MetricWish:
    """A setting in four words."""

    metric: ScalingMetric
    target: float
    least: int
    most: int

    def setting(self) -> Setting:
        """Return the setting, with the behaviour that infertune recommends.

        Raises:
            SpecError: a target or a bound is none that a server would take.
        """
        spec: HpaSpec = {
            "minReplicas": self.least,
            "maxReplicas": self.most,
            "metrics": [self._metric()],
            "behavior": {"scaleUp": SCALE_UP, "scaleDown": SCALE_DOWN},
        }
        return Setting(describe(spec), spec)

    def _metric(self) -> HpaSpec:
        name, quantity = METRIC_NAMES[self.metric], f"{round(self.target * 1000)}m"
        if self.metric == "cpu":
            percent = int(self.target) if self.target.is_integer() else self.target
            target = {"type": "Utilization", "averageUtilization": percent}
            return {"type": "Resource", "resource": {"name": name, "target": target}}
        if self.metric == "latency":
            about = {"apiVersion": "v1", "kind": "Service", "name": "model"}
            target = {"type": "Value", "value": quantity}
            return {"type": "Object", "object": {"describedObject": about, "metric": {"name": name}, "target": target}}
        target = {"type": "AverageValue", "averageValue": quantity}
        return {"type": "Pods", "pods": {"metric": {"name": name}, "target": target}}


@dataclass(frozen=True)
class Wishes:
    """What was asked on the command line; None and empty where nothing was said."""

    target: str
    home: Path
    files: tuple[Path, ...] = ()
    metric: MetricWish | None = None
    session: str | None = None
    curve: str | None = None
    rps_per_replica: float | None = None
    p99_ms: float | None = None
    slo_ms: float | None = None
    kept_share: float | None = None
    price_per_hour_usd: float | None = None


def curve_of(rps: float, p99_ms: float | None) -> ServiceCurve:
    """Return how a replica serves of which only two numbers are known.

    It takes as many requests in one batch as go through in the time of one; a smaller batch is taken to be no faster,
    which is the cautious side.

    Args:
        rps: requests per second that it serves at most.
        p99_ms: p99 of the time of a request that does not wait.

    Raises:
        SpecError: the p99 is missing, or shorter than one request takes at that rate.
    """
    if p99_ms is None:
        raise SpecError(
            "says how much a replica serves, but not how fast.", where="--rps-per-replica", fix="Add --p99-ms 12."
        )
    if p99_ms * rps < 1000:
        raise SpecError(
            f"a replica that serves {rps:g} requests per second takes {1000 / rps:.3g} ms for each: a p99 of "
            f"{p99_ms:g} ms is shorter.",
            where="--p99-ms",
        )
    size = max(1, int(rps * p99_ms / P99_SHARE / 1000))
    mean_ms = 1000 * size / rps
    point = ServicePoint(
        batch_size=size,
        p50_ms=mean_ms,
        p99_ms=p99_ms,
        mean_ms=mean_ms,
        throughput_rps=Interval(value=rps, low=rps, high=rps, n=1),
    )
    return ServiceCurve(name=f"{rps:g} requests per second", points=(point,), max_batch=size)
