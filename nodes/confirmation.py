"""Does the leader hold, side by side with the baseline and under unusual inputs?"""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from nodes.context import Context, Proposal, TuningState, decision_id
from nodes.evaluation import baseline_trial
from tools.bench import describe
from tools.contracts import Decision, EvidenceKind, Option
from tools.selection import cheapest, configurations, held


def confirmation(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Time baseline and leader in turn, then feed the leader edge cases."""
    context = runtime.context
    proposal = Proposal.model_validate(state["proposal"])
    recipe = proposal.recipes[0]
    view = context.view()
    tried = view.tried[recipe.digest]
    winner, _ = cheapest(configurations([tried]), view.spec.objective, view.spec.hardware.price_per_hour_usd)
    assert winner is not None, "only a feasible leader is proposed"
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
