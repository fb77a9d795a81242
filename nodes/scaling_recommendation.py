"""How many replicas does the traffic need, and what should the HPA say?"""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from nodes.context import Context, TuningState, decision_id
from tools.contracts import Bounds, Decision, Evidence, Interval, JsonScalar, Measured, Option, ScalingResult
from tools.inputs import hpa_in_use, start_note, trace_of
from tools.outcomes import reason
from tools.result import ScalingSummary
from tools.scaling.recommend import notable, recommend, with_recommendation
from tools.scaling.replica import service_curve
from tools.selection import Configured, final_choice, is_baseline
from tools.traffic import Trace
from tools.view import SessionView

QUESTION = "How many replicas, and what should the HPA say?"
RULE = (
    "the cheapest setting that, over the recorded traffic and harder days in the twin, keeps the SLO, survives a lost "
    "replica and does not flap"
)
STATIC_RULE = "the low end of the measured capacity, with headroom, against the traffic's 95th percentile and peak"


def scaling_recommendation(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Size the service for its traffic with the chosen configuration, and search the settings of its autoscaler."""
    context = runtime.context
    view = context.view()
    best, _ = final_choice(view)
    if best is None or context.spec.traffic is None:
        why = "nothing keeps every constraint, so there is no capacity" if best is None else "the spec names no traffic"
        return {"decisions": [context.record(_decision(state, (), None, STATIC_RULE, f"{why}: not sized"))]}
    trace = trace_of(context.spec.traffic, context.session_dir)
    summary = recommend(
        trace=trace,
        capacity=best.point.throughput_rps,
        p99_ms=best.point.latency_ms.p99.value,
        slo_ms=context.spec.objective.p99_ms,
        price_per_hour_usd=context.spec.hardware.price_per_hour_usd,
        baseline_capacity=_baseline_capacity(view, best),
    )
    note = start_note(context.session_dir)
    if note is not None:
        summary = summary.model_copy(update={"notes": (*summary.notes, note)})
    evidence = _searched(context, best, trace)
    match None if evidence is None else evidence.outcome:
        case Measured(result=ScalingResult() as found):
            assert evidence is not None
            summary = with_recommendation(summary, found, evidence=(evidence.id, *best.tried.evidence))
            recommendation = found.recommendation
            options = tuple(_option(o, evidence) for o in notable(recommendation))
            chosen = None if recommendation.chosen is None else recommendation.chosen.name
            decision = _decision(state, options, chosen, RULE, recommendation.sentence)
        case failure:
            if failure is not None:
                why = f"The autoscaler's settings could not be searched: {reason(failure)}."
                summary = summary.model_copy(update={"notes": (*summary.notes, why)})
            decision = _decision(state, _static_options(summary, view, best), best.name, STATIC_RULE, summary.sentence)
    return {"scaling": summary.model_dump(mode="json"), "decisions": [context.record(decision)]}


def _searched(context: Context, best: Configured, trace: Trace) -> Evidence | None:
    """Ask for the search; None where there is no SLO that a setting could keep."""
    spec = context.spec
    if spec.objective.p99_ms is None:
        return None
    hpa = hpa_in_use(spec, context.session_dir)
    threads = spec.hardware.threads or context.bench.hardware.cores
    curve = service_curve(
        list(best.tried.points.values()),
        name=best.name,
        max_batch=best.point.batch_size,
        cores=spec.scaling.cores or threads,
        evidence=best.tried.evidence,
    )
    return context.bench.scaling(
        best.tried.recipe,
        {
            "curve": curve.model_dump(mode="json"),
            "slo_ms": spec.objective.p99_ms,
            "price_per_hour_usd": spec.hardware.price_per_hour_usd,
            "kept_share": spec.scaling.kept_share,
            "metrics": list(spec.scaling.metrics),
            "delays": spec.scaling.delays.model_dump(mode="json"),
            "bounds": (Bounds() if spec.cluster is None else spec.cluster.bounds).model_dump(mode="json"),
            "today": None if hpa is None else hpa["spec"],
            "service": spec.workload.name if hpa is None else hpa["spec"]["scaleTargetRef"]["name"],
            "seed": spec.seed,
        },
        trace.model_dump(mode="json"),
    )


def _option(option: Any, evidence: Evidence) -> Option:
    recorded = option.outcomes[0]
    facts: dict[str, JsonScalar] = {
        "cost_usd": recorded.cost_usd,
        "missed_minutes": recorded.missed_minutes,
        "replica_hours": recorded.replica_hours,
        "scalings": recorded.scalings,
        "reversals": recorded.reversals,
        "today": option.is_today,
    }
    return Option(name=option.name, evidence=(evidence.id,), facts=facts, rejected_because=option.rejected)


def _static_options(summary: ScalingSummary, view: SessionView, best: Configured) -> tuple[Option, ...]:
    baseline = view.baseline
    assert baseline is not None, "what is chosen was compared with it"
    facts: dict[str, JsonScalar] = {
        "capacity_rps": summary.capacity_rps.value,
        "usable_rps": summary.usable_rps,
        "replicas_p95": summary.replicas_p95,
        "replicas_peak": summary.replicas_peak,
        "queue_target": summary.queue_target,
        "daily_cost_usd": summary.daily_cost_usd,
    }
    before: dict[str, JsonScalar] = {
        "replicas_p95": summary.baseline_replicas_p95,
        "replicas_peak": summary.baseline_replicas_peak,
        "daily_cost_usd": summary.baseline_daily_cost_usd,
    }
    return (
        Option(name=best.name, evidence=best.tried.evidence, facts=facts),
        Option(name=f"{baseline.name} at batch {view.low_batch}", evidence=baseline.evidence, facts=before),
    )


def _decision(state: TuningState, options: tuple[Option, ...], chosen: str | None, rule: str, reason: str) -> Decision:
    return Decision(
        id=decision_id(state),
        node="scaling_recommendation",
        question=QUESTION,
        options=options,
        chosen=chosen,
        rule=rule,
        reason=reason.rstrip("."),
    )


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
