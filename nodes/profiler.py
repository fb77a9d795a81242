"""Measure the model as it was given, and find where its time goes."""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from nodes.context import Context, TuningState, decision_id
from tools.contracts import Decision, Option, Unstable
from tools.outcomes import describe


def profiler(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Take the baseline's latency and accuracy, then its profile, and say what usually helps."""
    context = runtime.context
    recipe = context.policy.baseline(context.view())
    trial = context.bench.trial(recipe, reference=None, batch_size=context.view().low_batch)
    if isinstance(trial.outcome, Unstable):  # everything is compared with it, so it is worth a second look
        trial = context.bench.trial(recipe, reference=None, batch_size=context.view().low_batch, attempt=2)
    evidence = [trial.id]
    reason = f"the model as given ran: {describe(trial)}"
    view = context.view()
    if view.baseline is not None and view.baseline.ran:
        evidence.append(context.bench.profile(recipe).id)
        profile = context.view().profile
        reason = profile.bottleneck.rstrip(".") if profile is not None else reason
    decision = Decision(
        id=decision_id(state),
        node="profiler",
        question="What is compared against, and where does its time go?",
        options=(Option(name=recipe.name, evidence=tuple(evidence)),),
        chosen=recipe.name,
        rule="the baseline is the model as given, at the smallest batch",
        reason=reason,
    )
    return {"decisions": [context.record(decision)]}
