"""Wait for a person's word on a plan. This node changes nothing: the word is kept in the store of plans."""

from __future__ import annotations

from typing import Any, Literal

from langgraph.runtime import Runtime
from langgraph.types import interrupt

from nodes.context import Context, TuningState, decision_id
from tools.contracts import Decision, Option

YES, NO = "apply it", "leave the HPA as it is"


def approval(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Stop until the store has an answer to exactly this plan.

    What wakes the graph only says which plan it is about. Whether that plan was approved, by whom and until when, is
    read from the store, whose events are sealed.
    """
    from tools.cluster.store import PlanStore

    context, digest = runtime.context, state["plan"]
    store = PlanStore(context.bench.home)
    while store.state(digest) == "proposed":
        interrupt({"plan": digest, "approve": f"infertune plan approve {digest} --by NAME"})
    answer = next((e for e in store.events(digest) if e.kind in ("approved", "rejected", "expired")), None)
    assert answer is not None, "a plan that is not proposed any more was answered"
    approved = answer.kind == "approved" and store.state(digest) not in ("rejected", "expired")
    decision = Decision(
        id=decision_id(state),
        node="approval",
        question=f"Is plan {digest} approved?",
        options=tuple(Option(name=name, rejected_because=None) for name in (YES, NO)),
        chosen=YES if approved else NO,
        rule="a named person's word, bound to the plan's digest; or the bounds that a person set for the policy",
        reason=f"{answer.kind} by {answer.by} at {answer.at}",
        by=_by(answer.by),
    )
    return {"decisions": [context.record(decision)]}


def _by(name: str) -> Literal["policy", "person"]:
    from tools.cluster.plans import INFERTUNE, POLICY

    return "policy" if name in (POLICY, INFERTUNE) else "person"


def is_approved(state: TuningState) -> str:
    """Return where to go on: the approval's outgoing edge."""
    return "apply" if state["decisions"][-1]["chosen"] == YES else "report"
