"""Does the leader hold, side by side with what it must beat and under unusual inputs?"""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from nodes.context import Context, Proposal, TuningState, decision_id
from tools.contracts import Decision, Evidence, EvidenceKind, JsonScalar, Option
from tools.outcomes import describe, trial_result
from tools.selection import Configured, attempts, final_choice, held, rivals, unsettled
from tools.view import SessionView


def confirmation(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Time the leader in turn with its rivals, then feed it edge cases.

    Where its median did not settle, or too few calls bound its p99, it is first measured for longer, and may turn out
    to break the SLO after all.
    """
    context = runtime.context
    proposal = Proposal.model_validate(state["proposal"])
    recipe = proposal.recipes[0]
    winner, _ = final_choice(context.view())
    assert winner is not None, "only a feasible leader is proposed"
    assert winner.tried.recipe == recipe, "the leader that was proposed"
    if unsettled(context.view(), winner) is not None:
        longer = context.bench.for_longer(recipe, winner.point.batch_size)
        leader, _ = final_choice(context.view())
        if leader is None or (leader.tried.recipe, leader.point.batch_size) != (recipe, winner.point.batch_size):
            decision = Decision(
                id=decision_id(state),
                node="confirmation",
                question="Does it hold, measured for longer?",
                options=(Option(name=recipe.name, evidence=(longer.id,)),),
                chosen=None,
                rule="the p99's upper end must fit the SLO",
                reason=f"{describe(longer)}: {winner.name} leads no longer",
            )
            return {"decisions": [context.record(decision)]}
        winner = leader
    view = context.view()
    trial = _trial(view, winner)
    facing = rivals(view, winner)
    compared = [
        context.bench.compare(
            _trial(view, rival),
            rival.point.batch_size,
            trial,
            winner.point.batch_size,
            attempt=len(attempts(view, winner, rival)) + 1,
        )
        for rival in facing
    ]
    edges = context.bench.edge_cases(trial, sorted({min(winner.tried.points), max(winner.tried.points)}))
    facts: dict[str, JsonScalar] = {
        f"against {rival.name}": describe(evidence) for rival, evidence in zip(facing, compared, strict=True)
    }
    facts["under unusual inputs"] = describe(edges)
    seen = [f"{describe(e)} against {r.name}" for r, e in zip(facing, compared, strict=True)]
    decision = Decision(
        id=decision_id(state),
        node="confirmation",
        question="Does it hold, timed in turn with what it must beat?",
        options=(Option(name=winner.name, evidence=(*(e.id for e in compared), edges.id), facts=facts),),
        chosen=winner.name if held(context.view(), winner) is not False else None,
        rule="the whole 95 % interval of every ratio lies above 1; for the objective size, speed decides nothing",
        reason="; ".join(seen) or "it is the model as given: nothing else beat it",
    )
    return {"decisions": [context.record(decision)]}


def _trial(view: SessionView, configured: Configured) -> Evidence:
    recipe = configured.tried.recipe
    return next(e for e in view.of_kind(EvidenceKind.TRIAL) if e.recipe == recipe and trial_result(e) is not None)
