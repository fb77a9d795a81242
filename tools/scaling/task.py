"""The worker task that searches the autoscaler settings for measured traffic and a measured replica."""

from __future__ import annotations

from typing import Any

from tools.contracts import Bounds, Delays, HpaSpec, ScalingResult, ServiceCurve
from tools.errors import SpecError
from tools.spec import ScalingMetric
from tools.traffic import Trace
from tools.worker import stage


def recommend_scaling(
    *,
    curve: dict[str, Any],
    trace: dict[str, Any],
    slo_ms: float,
    price_per_hour_usd: float,
    kept_share: float,
    metrics: list[ScalingMetric],
    delays: dict[str, Any],
    bounds: dict[str, Any],
    today: HpaSpec | None,
    service: str,
    seed: int,
    processes: int,
) -> dict[str, Any]:
    """Simulate a replica request by request, then the traffic second by second under every setting.

    Args:
        curve: `ServiceCurve`, dumped.
        trace: `Trace`, dumped.
        slo_ms: p99 to keep.
        price_per_hour_usd: of one replica.
        kept_share: of the recorded minutes.
        metrics: what the autoscaler may follow.
        delays: `Delays`, dumped.
        bounds: `Bounds`, dumped.
        today: `spec` of the HPA in use.
        service: name of the Service.
        seed: of all that is drawn.
        processes: that play settings side by side.

    Returns:
        A `ScalingResult`, dumped.

    Raises:
        SpecError: today's HPA is none that a server would take, or the traffic is too short to judge.
    """
    from tools.scaling.choose import search
    from tools.scaling.days import Day
    from tools.scaling.replica import Replica
    from tools.traffic.shape import describe, per_second

    traffic = Trace.model_validate(trace)
    rps = per_second(traffic)
    if len(rps) < 60:
        raise SpecError("covers less than a minute: too little to judge an autoscaler by.", where=traffic.source)
    stage("simulating a replica")
    replica = Replica.of(ServiceCurve.model_validate(curve), seed=seed)
    stage("simulating the traffic")
    recommendation = search(
        Day("the recorded traffic", rps),
        replica,
        slo_ms=slo_ms,
        price_per_hour_usd=price_per_hour_usd,
        kept_share=kept_share,
        metrics=metrics,
        delays=Delays.model_validate(delays),
        bounds=Bounds.model_validate(bounds),
        today=today,
        service=service,
        seed=seed,
        processes=processes,
    )
    return ScalingResult(
        recommendation=recommendation,
        capacity_rps=replica.capacity_interval(slo_ms),
        shape=describe(traffic).sentences,
    ).model_dump(mode="json")
