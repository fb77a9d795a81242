"""What the evaluations share: try the proposed recipes, then choose at the smallest batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nodes.context import Context, Proposal, TuningState, decision_id
from tools.contracts import Decision, Evidence, EvidenceKind
from tools.selection import as_option, cheapest, configurations, final_choice, not_run_option
from tools.view import SessionView, Tried

HOPELESS_TIMES = 3.0
"""A recipe this much slower than the leader at the smallest batch does not catch up at larger ones."""
CLEARLY_TOO_MUCH = 2.0
"""A metric that drops by more than this many times what is allowed, by all of its interval, needs no more items."""


def evaluate(
    state: TuningState,
    context: Context,
    *,
    node: str,
    question: str,
    among: Callable[[Tried], bool] = lambda _: True,
) -> dict[str, Any]:
    """Try what was proposed, choose the best of all recipes that were tried so far, and return the state's update.

    Args:
        state: holds the proposal.
        context: what the node works with.
        node: who decides.
        question: what is decided.
        among: which of the recipes that were tried are options.
    """
    proposal = Proposal.model_validate(state["proposal"])
    try_all(context, proposal)
    tried = [t for t in context.view().tried.values() if among(t)]
    decision = decide_among(state, context, node=node, question=question, tried=tried, proposal=proposal)
    return {"decisions": [context.record(decision)]}


def try_all(context: Context, proposal: Proposal) -> None:
    """Build the proposed recipes, then measure each while there is time; whatever becomes of it is evidence."""
    context.bench.prepare(proposal.recipes)
    for recipe in proposal.recipes:
        view = context.view()
        if context.bench.stopped or context.elapsed_s > context.spec.budget.time_s:
            return
        context.bench.trial(
            recipe,
            reference=baseline_trial(context),
            batch_size=view.low_batch,
            give_up_ms=hopeless_above_ms(view),
            give_up_drop=CLEARLY_TOO_MUCH * view.spec.objective.max_accuracy_drop,
        )


def hopeless_above_ms(view: SessionView) -> float | None:
    """Return the time at the smallest batch above which a candidate cannot win, whatever larger batches bring it."""
    best, _ = final_choice(view)
    if best is None or view.spec.objective.minimize == "size":
        return None
    return HOPELESS_TIMES * best.tried.first_point.latency_ms.p50.value


def baseline_trial(context: Context) -> Evidence:
    """Return the evidence that accuracy is paired with."""
    return context.view().of_kind(EvidenceKind.TRIAL)[0]


def decide_among(
    state: TuningState, context: Context, *, node: str, question: str, tried: Iterable[Tried], proposal: Proposal
) -> Decision:
    """Choose the best of these recipes at the smallest batch, with every other one as an option beside it."""
    view = context.view()
    objective, price = view.spec.objective, view.spec.hardware.price_per_hour_usd
    considered = list(tried)
    measured = [c for c in configurations(considered) if c.point.batch_size == view.low_batch]
    winner, why = cheapest(measured, objective, price)
    options = [as_option(c, objective, price) for c in measured]
    options += [not_run_option(t) for t in considered if not t.ran]
    return Decision(
        id=decision_id(state),
        node=node,
        question=question,
        options=(*options, *proposal.skipped),
        chosen=None if winner is None else winner.name,
        rule=f"smallest {objective.minimize} within every constraint; ties within the noise go to the simpler recipe",
        reason=why,
    )
