"""How many replicas does the traffic need, and what should the HPA say?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langgraph.runtime import Runtime

from nodes.context import Context, TuningState, decision_id
from tools.contracts import Decision, Interval, Option
from tools.scaling.recommend import recommend
from tools.selection import Configured, final_choice, is_baseline
from tools.traffic import Trace, constant, load_trace
from tools.view import SessionView


def scaling_recommendation(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Size the service for its traffic with the chosen configuration, before and after."""
    context = runtime.context
    view = context.view()
    best, _ = final_choice(view)
    question = "How many replicas?"
    rule = "the low end of the measured capacity, with headroom, against the traffic's 95th percentile and peak"
    if best is None or context.spec.traffic is None:
        why = "nothing keeps every constraint, so there is no capacity" if best is None else "the spec names no traffic"
        decision = Decision(
            id=decision_id(state),
            node="scaling_recommendation",
            question=question,
            options=(),
            chosen=None,
            rule=rule,
            reason=f"{why}: not sized",
        )
        return {"decisions": [context.record(decision)]}
    baseline = view.baseline
    assert baseline is not None, "what is chosen was compared with it"
    summary = recommend(
        trace=_trace(context),
        capacity=best.point.throughput_rps,
        p99_ms=best.point.latency_ms.p99.value,
        slo_ms=context.spec.objective.p99_ms,
        price_per_hour_usd=context.spec.hardware.price_per_hour_usd,
        baseline_capacity=_baseline_capacity(view, best),
    )
    facts = {
        "capacity_rps": summary.capacity_rps.value,
        "usable_rps": summary.usable_rps,
        "replicas_p95": summary.replicas_p95,
        "replicas_peak": summary.replicas_peak,
        "queue_target": summary.queue_target,
        "daily_cost_usd": summary.daily_cost_usd,
    }
    before = {
        "replicas_p95": summary.baseline_replicas_p95,
        "replicas_peak": summary.baseline_replicas_peak,
        "daily_cost_usd": summary.baseline_daily_cost_usd,
    }
    decision = Decision(
        id=decision_id(state),
        node="scaling_recommendation",
        question=question,
        options=(
            Option(name=best.name, evidence=best.tried.evidence, facts=facts),
            Option(name=f"{baseline.name} at batch {view.low_batch}", evidence=baseline.evidence, facts=before),
        ),
        chosen=best.name,
        rule=rule,
        reason=summary.sentence.rstrip("."),
    )
    return {"scaling": summary.model_dump(mode="json"), "decisions": [context.record(decision)]}


def _baseline_capacity(view: SessionView, best: Configured) -> Interval | None:
    """Return the capacity of a replica of the model as given; None when that is what is recommended.

    Where both were timed in turn it follows from the ratio: the baseline's own trial may have had a bad moment.
    """
    assert view.baseline is not None
    if is_baseline(view, best):
        return None
    compared = view.against_baseline(best.tried.recipe, best.point.batch_size)
    if compared is None:
        return view.baseline.first_point.throughput_rps
    return compared[1].throughput.inverse(best.point.throughput_rps.value)


def _trace(context: Context) -> Trace:
    traffic = context.spec.traffic
    assert traffic is not None
    if traffic.trace is not None:
        return load_trace(Path(traffic.trace))
    assert traffic.rate_rps is not None, "the spec has exactly one of both"
    return constant(traffic.rate_rps)
