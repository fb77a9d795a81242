"""Which precision?"""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from nodes.context import Context, TuningState
from nodes.evaluation import evaluate


def quantization_evaluation(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Try the precisions that this machine has kernels for, against the best float recipe and the accuracy budget."""
    return evaluate(state, runtime.context, node="quantization_evaluation", question="Which precision?")
