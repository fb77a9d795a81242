"""Which smaller model: a student, or what pruning leaves?"""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from nodes.context import Context, TuningState
from nodes.evaluation import evaluate


def compression_evaluation(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Train or prune smaller versions of the model, and hold them against the model as given on the same runtimes."""
    return evaluate(state, runtime.context, node="compression_evaluation", question="Which smaller model?")
