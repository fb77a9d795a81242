"""Which float runtime is the yardstick?"""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from nodes.context import Context, Proposal, TuningState
from nodes.evaluation import decide_among, try_all


def runtime_evaluation(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Run the same float arithmetic on other runtimes: integer recipes must beat the best of them."""
    context = runtime.context
    proposal = Proposal.model_validate(state["proposal"])
    try_all(context, proposal)
    decision = decide_among(
        state,
        context,
        node="runtime_evaluation",
        question="Which float runtime?",
        tried=[t for t in context.view().tried.values() if t.recipe.precision.is_float],
        proposal=proposal,
    )
    return {"decisions": [context.record(decision)]}
