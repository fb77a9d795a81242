"""Ask a language model in which order it would try what the policy left."""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from nodes.context import Context, Proposal, TuningState, decision_id
from tools.contracts import AdviceResult, Decision, Evidence, Measured, Option
from tools.outcomes import describe
from tools.worker import TaskOutcome

RULE = (
    "the advisor's order of numbered options, the first few of them tried within its share of the time; one is "
    "recommended only if it is better beyond the noise than all that was tried before"
)


def advice(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Offer what the policy left, and record the order that comes back, or why there is none."""
    context = runtime.context
    proposal = Proposal.model_validate(state["proposal"])
    options, limit_s = proposal.considered, proposal.limit_s
    assert limit_s is not None, "the policy says how long it may take"
    view, asked_at_s = context.view(), context.elapsed_s

    def ask() -> TaskOutcome:
        assert context.advisor is not None, "a session that is replayed finds the answer"
        return context.advisor.order(view, options, asked_at_s=asked_at_s, limit_s=limit_s)

    evidence = context.bench.advice(
        {"options": [option.facts["key"] for option in options], "asked_before": _asked_before(state)},
        ask,
        headline=f"the order of {len(options)} options that the policy left",
    )
    decision = _decision(state, options, evidence)
    return {"decisions": [context.record(decision)]}


def _asked_before(state: TuningState) -> int:
    return sum(decision["node"] == "advice" for decision in state.get("decisions", []))


def _decision(state: TuningState, options: tuple[Option, ...], evidence: Evidence) -> Decision:
    chosen, reason = None, f"no advice that can be used: {describe(evidence)}; the policy's own search stands"
    match evidence.outcome:
        case Measured(result=AdviceResult(order=order, exchange=exchange)):
            chosen = options[order[0]].name if order else None
            reason = f"{exchange.model} names {describe(evidence)}"
    answered = isinstance(evidence.outcome, Measured)
    return Decision(
        id=decision_id(state),
        node="advice",
        question="What of the candidates that the policy left?",
        options=tuple(option.model_copy(update={"evidence": (evidence.id,)}) for option in options),
        chosen=chosen,
        rule=RULE,
        reason=reason,
        by="model" if answered else "policy",
    )
