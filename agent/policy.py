"""Which experiment next, and when to stop: pure functions of the evidence."""

from __future__ import annotations

from agent.advice import LEAST_S, SHARE, as_offered, left_s, may_ask, next_pick, offered
from agent.prospecting import Prospecting, prospecting
from agent.search import LEAST_CHANCE, Choice, Prospect, next_candidate, prospects_of
from agent.space import in_float, space, yardsticks
from nodes.context import Proposal
from tools.contracts import EvidenceKind, ModelFormat, Option, Recipe
from tools.selection import Configured, breaches, configurations, figure, final_choice, rivals, unsettled
from tools.view import SessionView, Tried

POLICY_VERSION = "6"
BUDGET_SHARE = 0.85
"""Of the session's time: past this the policy proposes no new experiment, so that choosing and confirming still fit."""
THRESHOLD = 0.03
"""An improvement of the objective below this is not worth a trial."""
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
SHOWN = 8
"""Of the candidates that were considered, as many go into the record of a decision."""


class DefaultPolicy:
    """The float runtimes first, then whatever promises most for its time; then sweeps, and the leader is confirmed."""

    def baseline(self, view: SessionView) -> Recipe:
        """Return the recipe that runs the model as given: eager for PyTorch, ONNX Runtime for ONNX."""
        return Recipe(runtime="onnxruntime" if view.workload.source.format is ModelFormat.ONNX else "eager")

    def next(self, view: SessionView) -> Proposal:
        """Return the next experiment."""
        baseline = view.baseline
        if baseline is None or not baseline.ran or view.stopped:
            why = "the session was interrupted" if view.stopped else "the baseline could not be measured"
            return Proposal(node="scaling_recommendation", reason=why)
        proposal, why_not = _experiment(view)
        proposal = proposal or _advised(view)
        if proposal is not None:
            return proposal
        winner, _ = final_choice(view)
        if winner is not None and (rivals(view, winner) or _wants_longer(view, winner)):
            return Proposal(
                node="confirmation",
                recipes=(winner.tried.recipe,),
                reason=f"{winner.name} leads; it is now timed in turn with what it must beat",
            )
        return Proposal(node="scaling_recommendation", reason=why_not)


def _experiment(view: SessionView) -> tuple[Proposal | None, str]:
    """Propose what the policy itself wants to try; None, and why, when it wants nothing more."""
    if view.elapsed_s > BUDGET_SHARE * view.spec.budget.time_s:
        return None, f"{BUDGET_SHARE:.0%} of the time budget is used"
    no_trials = _trials_used(view)
    if no_trials is not None:
        return _batch_sizes(view), no_trials  # more batch sizes of what was tried are no trial
    proposal = _yardsticks(view)
    if proposal is not None:
        return proposal, proposal.reason
    proposal, why_not = _search(view)
    return proposal or _float_sibling(view) or _batch_sizes(view), why_not


def _trials_used(view: SessionView) -> str | None:
    """Return that the number of trials that are allowed were made; None while they were not."""
    left = _trials_left(view)
    if left is not None and left <= 0:
        return f"{len(view.of_kind(EvidenceKind.TRIAL))} trials were made, and no more are allowed"
    return None


def _trials_left(view: SessionView) -> int | None:
    """Return how many more trials are allowed; None where there is no limit."""
    most = view.spec.search.max_trials
    return None if most is None else most - len(view.of_kind(EvidenceKind.TRIAL))


def _trial_share_s(view: SessionView) -> float:
    """Return what a trial counts for at least: its share of the whole time, whatever of that is used already.

    What a session decides must follow from its evidence: a second one finds the same in no time, and decides alike.
    """
    trials = _trials_left(view)
    return 0.0 if trials is None else BUDGET_SHARE * view.spec.budget.time_s / max(trials, 1)


def _yardsticks(view: SessionView) -> Proposal | None:
    """The same arithmetic on the usual inference runtimes: what everything else will have to beat."""
    new = tuple(r for r in yardsticks(view) if r.digest not in view.tried)
    if not new:
        return None
    return Proposal(
        node="runtime_evaluation",
        recipes=new,
        skipped=space(view).skipped,
        reason="a float runtime is the yardstick for everything else",
    )


def _search(view: SessionView) -> tuple[Proposal | None, str]:
    """Propose what promises most for its time; None, and why, when nothing is worth a trial any more."""
    found = space(view)
    problem = prospecting(view, found.recipes)
    left_s = BUDGET_SHARE * view.spec.budget.time_s - view.elapsed_s
    choice = next_candidate(
        problem.candidates,
        problem.seen,
        set(problem.built),
        threshold=THRESHOLD,
        left_s=left_s,
        trial_share_s=_trial_share_s(view),
    )
    if choice.candidate is None:
        return None, choice.reason
    target = problem.targets[choice.candidate.key]
    considered = tuple(_as_option(p, problem) for p in choice.prospects[:SHOWN] if p.candidate != choice.candidate)
    if target.swept:
        return _sweep((target.recipe,), choice.reason, considered), choice.reason
    recipes = (target.recipe, *_beside(target.recipe, choice, problem, view.builders - 1))
    node = _node_for(target.recipe)
    return Proposal(node=node, recipes=recipes, considered=considered, reason=choice.reason), choice.reason


def _advised(view: SessionView) -> Proposal | None:
    """Ask the advisor about what is left, or try what it named; None without one, or once its share is used."""
    seconds = left_s(view, (BUDGET_SHARE + SHARE) * view.spec.budget.time_s)
    if not view.advises or seconds < LEAST_S or _trials_used(view) is not None:
        return None
    problem = prospecting(view, space(view).recipes)
    prospects = prospects_of(problem.candidates, problem.seen, set(problem.built), THRESHOLD)
    target = next_pick(view, problem, prospects, seconds)
    if target is not None and target.swept:
        return _sweep((target.recipe,), f"the advisor names {target.recipe.name}", ()).model_copy(
            update={"by": "model"}
        )
    if target is not None:
        reason = f"the advisor names {target.recipe.name}, of what the policy left"
        return Proposal(node=_node_for(target.recipe), recipes=(target.recipe,), reason=reason, by="model")
    options = offered(prospects, seconds)
    if not options or not may_ask(view):
        return None
    considered = tuple(as_offered(prospect) for prospect in options)
    reason = "the policy's own search has ended"
    return Proposal(node="advice", considered=considered, reason=reason, limit_s=seconds)


def _beside(first: Recipe, choice: Choice, problem: Prospecting, most: int) -> list[Recipe]:
    """Return what is worth building at the same time, where several things can be: other models, to be trained yet."""
    found: dict[str, Recipe] = {}
    for prospect in choice.prospects:
        target = problem.targets[prospect.candidate.key]
        recipe = target.recipe
        fresh = recipe.variant and not target.swept and recipe.variant != first.variant
        if fresh and prospect.chance >= LEAST_CHANCE and set(prospect.candidate.parts) - problem.built:
            found.setdefault(recipe.variant, recipe)
    return list(found.values())[:most]


def _node_for(recipe: Recipe) -> str:
    if recipe.variant:
        return "compression_evaluation"
    return "runtime_evaluation" if recipe.precision.value == "fp32" else "quantization_evaluation"


def _as_option(prospect: Prospect, problem: Prospecting) -> Option:
    target = problem.targets[prospect.candidate.key]
    return Option(
        name=f"batch sizes of {target.recipe.name}" if target.swept else target.recipe.name,
        facts={
            "expected_gain": round(prospect.gain, 3),
            "sd": round(prospect.sd, 3),
            "chance": round(prospect.chance, 3),
            "seconds": round(prospect.seconds, 1),
        },
    )


def _float_sibling(view: SessionView) -> Proposal | None:
    """The same model in float, when an integer recipe leads: its gain must not be the runtime's alone."""
    winner, _ = final_choice(view)
    if winner is None or winner.tried.recipe.precision.is_float:
        return None
    new = tuple(
        r
        for r in in_float(view, winner.tried.recipe)
        if r.digest not in view.tried and view.availability[r.runtime].available
    )
    if not new:
        return None
    name = winner.tried.name
    return Proposal(node=_node_for(new[0]), recipes=new, reason=f"{name} leads, and must beat the same model in float")


def _batch_sizes(view: SessionView) -> Proposal | None:
    """Sweeps for the recipes worth it: the best float, and the best of those that keep the accuracy."""
    if view.workload.source.fixed_batch is not None:
        return None
    asked = {e.recipe.digest for e in view.of_kind(EvidenceKind.SWEEP)}
    # A sweep refines the point at the smallest batch too, and so may change the order: that is no reason for a third.
    # One that failed leaves its place to the next in line, and is not asked again.
    best = [t.recipe for t in worth_sweeping(view)]
    floats = [r for r in best if r.precision.is_float]
    missing = [
        next((r for r in kind if r.digest not in asked), None)
        for kind in (best, floats)
        if not any(r.digest in asked and len(view.tried[r.digest].points) > 1 for r in kind)
    ]
    wanted = tuple({r.digest: r for r in missing if r is not None}.values())
    if not wanted:
        return None
    names = " and ".join(r.name for r in wanted)
    return _sweep(wanted, f"{names} lead at batch {view.low_batch}", ())


def _sweep(recipes: tuple[Recipe, ...], reason: str, considered: tuple[Option, ...]) -> Proposal:
    return Proposal(node="batch_tuning", recipes=recipes, batch_sizes=BATCH_SIZES, considered=considered, reason=reason)


def worth_sweeping(view: SessionView) -> list[Tried]:
    """Return the recipes whose batch curve is worth its time, the fastest first.

    Accuracy, memory and size must be kept already; latency may still change with the batch, and so may be broken only
    if even the smallest batch breaks it.
    """
    objective, price = view.spec.objective, view.spec.hardware.price_per_hour_usd
    fitting = [
        c
        for c in configurations(t for t in view.ran if t.given_up is None)
        if c.point.batch_size == view.low_batch and not breaches(c, objective)
    ]
    return [c.tried for c in sorted(fitting, key=lambda c: figure(c, objective, price).value)]


def _wants_longer(view: SessionView, leader: Configured) -> bool:
    """Whether a leader's numbers did not settle, or too few calls bound its p99, and it was not timed longer yet."""
    longer = [
        e
        for e in view.of_kind(EvidenceKind.SWEEP)
        if e.recipe == leader.tried.recipe and e.parameters["batch_sizes"] == [leader.point.batch_size]
    ]
    return unsettled(view, leader) is not None and not longer
