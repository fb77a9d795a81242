"""The parts of a result that list things: what was tried, what each step built, and what was left out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from tools.contracts import (
    BuildResult,
    Decision,
    Evidence,
    EvidenceKind,
    JsonScalar,
    Measured,
    Option,
    Recipe,
    Step,
)
from tools.cost import cost_per_1000_usd
from tools.outcomes import reason
from tools.result import BuildSummary, TrialSummary
from tools.selection import Configured, breaches, configurations
from tools.view import SessionView, Tried

OVERTAKEN = "others promised more for the time that it takes"


def trial_summaries(view: SessionView, chosen: Configured | None) -> tuple[TrialSummary, ...]:
    """Return every candidate, in the order of its first trial."""
    return tuple(_trial(tried, view, chosen) for tried in view.tried.values())


def build_summaries(view: SessionView) -> tuple[BuildSummary, ...]:
    """Return what each step did, in the order of building; of a step that ran more than once, the last time."""
    last = {evidence.recipe.digest: evidence for evidence in view.of_kind(EvidenceKind.BUILD)}
    return tuple(_build(evidence) for evidence in last.values())


def left_out(view: SessionView, decisions: Sequence[Decision]) -> tuple[Option, ...]:
    """Return what the planner skipped, or considered and never came to, once each, as it was last spoken of."""
    tried = {t.name for t in view.tried.values()}
    tried |= {
        f"batch sizes of {e.recipe.name}"
        for e in view.of_kind(EvidenceKind.SWEEP)
        if len(e.parameters["batch_sizes"]) > 1
    }
    found: dict[str, Option] = {}
    for decision in decisions:
        if decision.node != "planner":
            continue
        for option in decision.options:
            if option.name not in tried and (option.rejected_because or option.facts):
                why = option.rejected_because or OVERTAKEN
                found[option.name] = option.model_copy(update={"rejected_because": why})
    return tuple(found.values())


class _Structure(TypedDict):
    flops: float | None
    parameters: int | None
    nonzero_parameters: int | None
    sparsity: float | None


def _trial(tried: Tried, view: SessionView, chosen: Configured | None) -> TrialSummary:
    price, objective = view.spec.hardware.price_per_hour_usd, view.spec.objective
    return TrialSummary(
        recipe=tried.name,
        definition=tried.recipe,
        outcome=tried.outcome,
        reason=tried.reason,
        evidence=tried.evidence,
        points=tuple(tried.points.values()),
        cost_per_1000_usd={b: cost_per_1000_usd(price, p.throughput_rps) for b, p in tried.points.items()},
        accuracy=tried.accuracy.value.value if tried.accuracy is not None else None,
        accuracy_drop=tried.accuracy.drop if tried.accuracy is not None else None,
        output_difference=tried.output_difference,
        size_mb=tried.artifact.size_mb if tried.artifact is not None else None,
        seconds=tried.seconds,
        chosen=chosen is not None and tried.recipe == chosen.tried.recipe,
        feasible=tried.given_up is None and any(not breaches(c, objective) for c in configurations([tried])),
        variant=tried.recipe.variant,
        given_up=tried.given_up,
        **_structure(view, tried.recipe),
    )


def _structure(view: SessionView, recipe: Recipe) -> _Structure:
    """Return how large the model is that a recipe runs: as its steps tell, else as the workload's own model is."""
    told = [build.facts for build in view.builds(recipe)]
    work = next((f for f in reversed(told) if "flops" in f), None)
    size: dict[str, JsonScalar] = next((f for f in reversed(told) if "parameters" in f), {})
    flops = None if work is None else _number(work["flops"])
    parameters = _number(size.get("parameters"))
    if not recipe.variant:
        if flops is None and view.profile is not None:
            flops = view.profile.flops / view.low_batch
        parameters = view.workload.parameters if parameters is None else parameters
    nonzero = _number(size.get("nonzero_parameters"))
    return _Structure(
        flops=flops,
        parameters=None if parameters is None else int(parameters),
        nonzero_parameters=None if nonzero is None else int(nonzero),
        sparsity=_number(size.get("sparsity")),
    )


def _number(value: JsonScalar) -> float | None:
    """Return a fact as a number; a plugin may tell anything under any name."""
    return float(value) if isinstance(value, int | float) else None


def _build(evidence: Evidence) -> BuildSummary:
    made: dict[str, Any] = {}
    match evidence.outcome:
        case Measured(result=BuildResult() as result):
            made = {
                "size_mb": result.artifact.size_mb,
                "facts": result.facts,
                "notes": result.notes,
                "sensitivity": result.sensitivity,
            }
    steps = evidence.recipe.steps
    return BuildSummary(
        steps=tuple(_in_words(step) for step in steps),
        transform=steps[-1].transform,
        outcome=evidence.outcome.outcome,
        reason=reason(evidence.outcome) or None,
        seconds=evidence.seconds,
        evidence=evidence.id,
        **made,
    )


def _in_words(step: Step) -> str:
    changed = Recipe(steps=(step,), runtime="build").variant
    return changed or " ".join([step.transform, *(f"{k}={v}" for k, v in sorted(step.settings.items()))])
