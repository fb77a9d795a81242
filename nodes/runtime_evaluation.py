"""Which float runtime is the yardstick?"""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from nodes.context import Context, TuningState
from nodes.evaluation import evaluate


def runtime_evaluation(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Run the same float arithmetic on other runtimes: integer recipes must beat the best of them."""
    return evaluate(
        state,
        runtime.context,
        node="runtime_evaluation",
        question="Which float runtime?",
        among=lambda t: t.recipe.precision.is_float,
    )
