"""The scaling recommendation: replicas, money and a sentence that a person can repeat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tools.contracts import Interval, Recommendation, ScalingOption, ScalingResult
from tools.cost import daily_cost_usd
from tools.result import ScalingSummary
from tools.scaling.capacity import UTILIZATION, ReplicaPlan, plan_replicas, queue_target, usable_rps
from tools.scaling.story import ordinal
from tools.traffic import Trace, summarize
from tools.units import DAY_MINUTES, DAY_S

MOST_OPTIONS = 5
"""That a summary keeps of those that keep every promise, and of those that do not, by cost; the evidence has all."""


def recommend(
    *,
    trace: Trace,
    capacity: Interval,
    p99_ms: float,
    slo_ms: float | None,
    price_per_hour_usd: float,
    baseline_capacity: Interval | None = None,
) -> ScalingSummary:
    """Return how many replicas hold the traffic, and what they cost, before and after the optimization.

    Before and after are planned by the same rules: `plan_replicas` at the low end of the capacity times
    `UTILIZATION`. The files of the HPA are written by `tools.scaling.recommended_hpa.write_recommendation`.

    Args:
        trace: the traffic.
        capacity: requests per second of one optimized replica at the batch size that the SLO allows.
        p99_ms: latency of a batch at that size, without waiting.
        slo_ms: what a request may take in all; None if nobody said.
        price_per_hour_usd: price of one replica per hour.
        baseline_capacity: requests per second of one unoptimized replica; None leaves the comparison out.

    Raises:
        ValueError: a capacity, a latency or the price is not positive and finite.
    """
    plan = plan_replicas(trace, usable_rps(capacity))
    before = None if baseline_capacity is None else plan_replicas(trace, usable_rps(baseline_capacity))
    return ScalingSummary(
        traffic=summarize(trace),
        capacity_rps=capacity,
        usable_rps=plan.usable_rps,
        utilization=UTILIZATION,
        replicas_p95=plan.p95,
        replicas_peak=plan.peak,
        min_replicas=plan.minimum,
        max_replicas=plan.maximum,
        baseline_replicas_p95=None if before is None else before.p95,
        baseline_replicas_peak=None if before is None else before.peak,
        daily_cost_usd=_daily_cost_usd(plan, trace, price_per_hour_usd),
        baseline_daily_cost_usd=None if before is None else _daily_cost_usd(before, trace, price_per_hour_usd),
        queue_target=queue_target(capacity, p99_ms=p99_ms, slo_ms=slo_ms),
        sentence=sentence(plan, before),
        notes=tuple(_notes(trace, p99_ms, slo_ms)),
    )


def notable(recommendation: Recommendation) -> tuple[ScalingOption, ...]:
    """Return the settings that a person wants to see: chosen, today's, the next best, and what is cheaper but fails.

    Only settings that were played over all of the recorded traffic: only their costs compare.
    """
    played = [o for o in recommendation.options if o.outcomes[0].minutes == recommendation.minutes]
    first = [o for o in (recommendation.chosen, recommendation.today) if o is not None]
    kept = [o for o in played if o.rejected is None][:MOST_OPTIONS]
    failed = [o for o in played if o.rejected is not None][:MOST_OPTIONS]
    return tuple({option.name: option for option in (*first, *kept, *failed)}.values())


def with_recommendation(summary: ScalingSummary, found: ScalingResult, *, evidence: tuple[str, ...]) -> ScalingSummary:
    """Return a summary that rests on what the twin did, in place of rules of thumb.

    Without a setting that keeps every promise, bounds and cost stay those of the rules of thumb, and the sentence says
    what is missed.
    """
    recommendation = found.recommendation
    update: dict[str, Any] = {
        "recommendation": recommendation.model_copy(update={"options": notable(recommendation)}),
        "evidence": evidence,
        "sentence": recommendation.sentence,
        "notes": (*summary.notes, *found.shape, *recommendation.notes),
    }
    if found.capacity_rps is not None:
        update["capacity_rps"] = found.capacity_rps
    if recommendation.static is not None:
        update |= {"replicas_p95": recommendation.static.p95, "replicas_peak": recommendation.static.peak}
    chosen = recommendation.chosen
    if chosen is not None:
        recorded = chosen.outcomes[0]
        update |= {
            "min_replicas": int(chosen.spec.get("minReplicas") or 1),
            "max_replicas": int(chosen.spec["maxReplicas"]),
            "daily_cost_usd": recorded.cost_usd * DAY_MINUTES / recorded.minutes,
        }
    return summary.model_copy(update=update)


def sentence(plan: ReplicaPlan, before: ReplicaPlan | None) -> str:
    """Say how many replicas it takes: "2 replicas hold 95 % of the traffic (by time), a 3rd takes the spikes."."""
    more = plan.peak - plan.p95
    if more == 0:
        text = f"{plan.p95} replicas hold all of the traffic, spikes included"
    elif more == 1:
        text = f"{plan.p95} replicas hold 95 % of the traffic (by time), a {ordinal(plan.peak)} takes the spikes"
    else:
        text = f"{plan.p95} replicas hold 95 % of the traffic (by time), {more} more take the spikes"
    if before is not None:
        numbers = f"{before.peak}" if more == 0 else f"{before.p95} and {before.peak}"
        text += f"; unoptimized, it would take {numbers}"
    return f"{text}."


def _daily_cost_usd(plan: ReplicaPlan, trace: Trace, price_per_hour_usd: float) -> float:
    return daily_cost_usd(price_per_hour_usd, plan.following(trace), trace.durations_s)


def _notes(trace: Trace, p99_ms: float, slo_ms: float | None) -> Iterator[str]:
    """Say what the numbers leave out."""
    yield from trace.notes
    yield (
        "The daily cost follows the traffic at once; an HPA keeps replicas some minutes longer after each rise. "
        "All of this is an estimate until a load test confirms it."
    )
    if abs(trace.length_s / DAY_S - 1) > 0.05:
        yield f"The trace covers {trace.length_s / 3600:.1f} h; the daily cost takes every hour to be like these."
    if slo_ms is None:
        yield "Without a latency SLO (`objective.p99_ms`) the queue target is a common start, to be tuned."
    elif p99_ms >= slo_ms:
        yield f"Serving alone takes {p99_ms:.1f} ms at p99, the SLO is {slo_ms:g} ms: there is no time to wait."
