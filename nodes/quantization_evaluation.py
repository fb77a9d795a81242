"""Which precision?"""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from nodes.context import Context, Proposal, TuningState
from nodes.evaluation import decide_among, try_all


def quantization_evaluation(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Try the precisions that this machine has kernels for, against the best float recipe and the accuracy budget."""
    context = runtime.context
    proposal = Proposal.model_validate(state["proposal"])
    try_all(context, proposal)
    decision = decide_among(
        state,
        context,
        node="quantization_evaluation",
        question="Which precision?",
        tried=context.view().tried.values(),
        proposal=proposal,
    )
    return {"decisions": [context.record(decision)]}
