"""Look at the evidence and pick the next experiment, or stop."""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from nodes.context import Context, TuningState, decision_id
from tools.contracts import Decision, Option

RULE = "the float runtimes first; then the largest expected improvement per second, until none is worth a trial"
ADVISED_RULE = "what the advisor names of the policy's leftovers, within its share of the time"


def planner(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Ask the policy, and record what it proposes and what it leaves out."""
    context = runtime.context
    context.observer.budget(context.elapsed_s, context.spec.budget.time_s)
    proposal = context.policy.next(context.view())
    options = (*(Option(name=recipe.name) for recipe in proposal.recipes), *proposal.considered, *proposal.skipped)
    decision = Decision(
        id=decision_id(state),
        node="planner",
        question="What next?",
        options=options,
        chosen=proposal.node,
        rule=RULE if proposal.by == "policy" else ADVISED_RULE,
        reason=proposal.reason,
        by=proposal.by,
    )
    return {"proposal": proposal.model_dump(mode="json"), "decisions": [context.record(decision)]}


def next_experiment(state: TuningState) -> str:
    """Return the node that the proposal names: the planner's outgoing edge."""
    return str(state["proposal"]["node"])
