"""Which batch size, for traffic under the SLO and for batch jobs?"""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from nodes.context import Context, Proposal, TuningState, decision_id
from tools.contracts import Decision
from tools.selection import as_option, cheapest, configurations


def batch_tuning(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Sweep the batch sizes of the recipes that lead, and choose recipe and batch together."""
    context = runtime.context
    proposal = Proposal.model_validate(state["proposal"])
    for recipe in proposal.recipes:
        if context.bench.stopped or context.elapsed_s > context.spec.budget.time_s:
            break
        context.bench.sweep(recipe, proposal.batch_sizes)
    view = context.view()
    objective, price = view.spec.objective, view.spec.hardware.price_per_hour_usd
    swept = configurations(t for t in view.ran if t.recipe in proposal.recipes)
    winner, why = cheapest(swept, objective, price)
    decision = Decision(
        id=decision_id(state),
        node="batch_tuning",
        question="Which batch size?",
        options=tuple(as_option(c, objective, price) for c in swept),
        chosen=None if winner is None else winner.name,
        rule=(
            f"smallest {objective.minimize}; the p99's upper end must fit the SLO, twice over for a batch of several: "
            "a request may wait for the batch before its own"
        ),
        reason=why,
    )
    return {"decisions": [context.record(decision)]}
