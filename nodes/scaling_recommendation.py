"""How many replicas does the traffic need, and what should the HPA say?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langgraph.runtime import Runtime

from nodes.context import Context, TuningState, decision_id
from tools.contracts import Decision, Option
from tools.scaling.hpa import write_recommendation
from tools.scaling.recommend import recommend
from tools.selection import final_choice
from tools.traffic import Trace, constant, load_trace


def scaling_recommendation(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Size the service for its traffic with the chosen configuration, before and after. Writes files, no cluster."""
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
        baseline_capacity=baseline.first_point.throughput_rps if baseline.recipe != best.tried.recipe else None,
    )
    summary = write_recommendation(
        summary,
        workload=view.workload.name,
        hpa_file=Path(context.spec.hpa.file) if context.spec.hpa is not None else None,
        session_folder=context.session_dir,
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


def _trace(context: Context) -> Trace:
    traffic = context.spec.traffic
    assert traffic is not None
    if traffic.trace is not None:
        return load_trace(Path(traffic.trace))
    assert traffic.rate_rps is not None, "the spec has exactly one of both"
    return constant(traffic.rate_rps)
