"""Bring the recommendation before the cluster: is there a change that a person can approve?"""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from nodes.context import Context, TuningState, decision_id
from tools.contracts import Decision, Option, ScalingPlan
from tools.result import ScalingSummary

QUESTION = "May this change be offered for approval?"
RULE = "the fence: allow-list, label, owner, bounds, cool-down; then the server's own dry run"


def scaling_plan(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Make a plan, if the spec names a cluster and no rule forbids it. Nothing is changed."""
    context = runtime.context
    cluster = context.spec.cluster
    scaling = ScalingSummary.model_validate(state["scaling"]) if state.get("scaling") else None
    if cluster is None:
        return {}
    if scaling is None or scaling.recommendation is None:
        return _without(state, context, ("The autoscaler's settings were not searched: there is nothing to offer.",))
    chosen = scaling.recommendation.chosen
    if chosen is None:
        return _without(state, context, ("No setting keeps every promise: there is nothing to offer.",))
    from tools.cluster.connection import open_reader, open_writer
    from tools.cluster.offer import offer
    from tools.cluster.plans import auto_approve, has_expired
    from tools.cluster.store import PlanStore
    from tools.errors import ClusterError, StorageError

    now = context.clock()
    try:
        store = PlanStore(context.bench.home)
        with open_reader(cluster) as reader:
            offered = offer(
                chosen.spec,
                store=store,
                reader=reader,
                open_writer=lambda: open_writer(cluster),
                cluster=cluster,
                session=context.session,
                why=scaling.recommendation.sentence,
                evidence=scaling.evidence,
                price_per_hour_usd=context.spec.hardware.price_per_hour_usd,
                daily_cost_usd=scaling.daily_cost_usd,
                slo_ms=context.spec.objective.p99_ms,
                now=now,
            )
    except (ClusterError, StorageError) as error:  # the session's result stands without the cluster
        return _without(state, context, (str(error),))
    plan = offered.plan
    if plan is None:
        return _without(state, context, offered.refusals)
    within = context.auto_approve
    if within is not None and store.state(plan.digest) == "proposed" and not has_expired(plan, now):
        price = context.spec.hardware.price_per_hour_usd
        auto_approve(store, plan, within, price_per_hour_usd=price, now=now)
    decision = _decision(
        state,
        options=(Option(name=f"plan {plan.digest}", evidence=plan.evidence, facts=_facts(plan)),),
        chosen=f"plan {plan.digest}",
        reason=f"no rule forbids it, and the server would take it; good until {plan.expires}",
    )
    update = {"plan": plan.digest, "server_diff": offered.server_diff, "plan_notes": list(offered.notes)}
    return {**update, "decisions": [context.record(decision)]}


def _without(state: TuningState, context: Context, reasons: tuple[str, ...]) -> dict[str, Any]:
    refused = Option(name="a plan", rejected_because=" ".join(reasons))
    decision = _decision(state, options=(refused,), chosen=None, reason=" ".join(reasons))
    return {"plan_notes": list(reasons), "decisions": [context.record(decision)]}


def _decision(state: TuningState, *, options: tuple[Option, ...], chosen: str | None, reason: str) -> Decision:
    return Decision(
        id=decision_id(state),
        node="scaling_plan",
        question=QUESTION,
        options=options,
        chosen=chosen,
        rule=RULE,
        reason=reason,
    )


def _facts(plan: ScalingPlan) -> dict[str, str | int | float | bool | None]:
    return {
        "hpa": f"{plan.target.namespace}/{plan.target.name}",
        "minReplicas": plan.after.get("minReplicas"),
        "maxReplicas": plan.after.get("maxReplicas"),
        "daily_cost_usd": plan.daily_cost_usd,
        "expires": plan.expires,
    }
