"""Carry out an approved plan."""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from nodes.changing import changing, decided
from nodes.context import Context, TuningState

NOT_APPLIED = ("rejected", "expired", "failed", "abandoned")
"""States of a plan that came to nothing: there is nothing to watch."""


def apply(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Patch the HPA, once, whatever happened before: the store of plans says how far an earlier run came."""
    from tools.cluster.change import apply as carry_out

    context = runtime.context
    context.observer.started("apply", detail=f"plan {state['plan']}")
    with changing(context) as change:
        # It may have come to nothing before: in a run that was killed then, or by a person who took the approval back.
        done = change.store.state(state["plan"]) in NOT_APPLIED
        outcome = change.outcome(change.store.get(state["plan"])) if done else carry_out(state["plan"], change)
    return decided(
        state,
        context,
        outcome,
        node="apply",
        question=f"What came of applying plan {state['plan']}?",
        rule="unchanged since the plan, allowed by the fence, tried on the server, recorded; then one patch",
    )


def is_applied(state: TuningState) -> str:
    """Return where to go on: the node's outgoing edge."""
    return "report" if state["change"] in NOT_APPLIED else "verify"
