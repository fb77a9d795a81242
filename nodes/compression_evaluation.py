"""Which smaller model: a student, or what pruning leaves?"""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from nodes.context import Context, Proposal, TuningState
from nodes.evaluation import decide_among, try_all


def compression_evaluation(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Train or prune smaller versions of the model, and hold them against the model as given on the same runtimes."""
    context = runtime.context
    proposal = Proposal.model_validate(state["proposal"])
    try_all(context, proposal)
    decision = decide_among(
        state,
        context,
        node="compression_evaluation",
        question="Which smaller model?",
        tried=context.view().tried.values(),
        proposal=proposal,
    )
    return {"decisions": [context.record(decision)]}
