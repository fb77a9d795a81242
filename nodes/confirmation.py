"""Does the leader hold, side by side with the baseline and under unusual inputs?"""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from nodes.context import Context, Proposal, TuningState, decision_id
from nodes.evaluation import baseline_trial
from tools.contracts import Decision, EvidenceKind, Option, Recipe
from tools.outcomes import describe
from tools.selection import Configured, cheapest, configurations, held, p99_is_bounded


def confirmation(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Time baseline and leader in turn, then feed the leader edge cases.

    A slow model may have too few samples for a bounded p99 from the sweep: then it is first measured for longer, and
    may turn out to break the SLO after all.
    """
    context = runtime.context
    proposal = Proposal.model_validate(state["proposal"])
    recipe = proposal.recipes[0]
    winner = _leader(context, recipe)
    assert winner is not None, "only a feasible leader is proposed"
    if not p99_is_bounded(winner.point):
        longer = context.bench.bound_p99(recipe, winner.point.batch_size)
        winner = _leader(context, recipe)
        if winner is None:
            decision = Decision(
                id=decision_id(state),
                node="confirmation",
                question="Does it hold, measured for longer?",
                options=(Option(name=recipe.name, evidence=(longer.id,)),),
                chosen=None,
                rule="the p99's upper end must fit the SLO",
                reason=f"{describe(longer)}, and no batch size keeps every constraint",
            )
            return {"decisions": [context.record(decision)]}
    view = context.view()
    tried = winner.tried
    trial = next(e for e in view.of_kind(EvidenceKind.TRIAL) if e.recipe == recipe)
    compared = context.bench.compare(
        baseline_trial(context), trial, batch_size=winner.point.batch_size, low_batch=view.low_batch
    )
    edges = context.bench.edge_cases(trial, sorted({min(tried.points), max(tried.points)}))
    holds = held(context.view(), recipe)
    decision = Decision(
        id=decision_id(state),
        node="confirmation",
        question="Does it hold, timed in turn with the baseline?",
        options=(Option(name=winner.name, evidence=(compared.id, edges.id)),),
        chosen=winner.name if holds else None,
        rule="the whole 95 % interval of the ratio to the baseline lies above 1",
        reason=describe(compared),
    )
    return {"decisions": [context.record(decision)]}


def _leader(context: Context, recipe: Recipe) -> Configured | None:
    """Return the recipe at its best batch size, as far as is known now."""
    view = context.view()
    options = configurations([view.tried[recipe.digest]])
    return cheapest(options, view.spec.objective, view.spec.hardware.price_per_hour_usd)[0]
