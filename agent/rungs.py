"""The steps of the challenge: what is tried in each, on top of what stands. Pure functions of the evidence.

All recipes are those that a session would try, so that what one measured is found and not measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.space import in_float, space
from tools.contracts import EvidenceKind, JsonScalar, Measured, Precision, Recipe, Step
from tools.view import SessionView

_HALF = (Precision.BF16, Precision.FP16)
_INTEGER_RUNTIMES = ("onnxruntime", "openvino", "compiled")
"""Where calibrated INT8 is tried, in this order: the first that is there."""
_RUNTIMES = ("onnxruntime", "openvino", "torchscript")
"""What the last step tries; others count where the session measured them."""
_RESHAPING = ("distill", "prune", "finetune")


@dataclass(frozen=True)
class Wanted:
    """What a step asks to be measured."""

    recipes: tuple[Recipe, ...] = ()
    rivals: tuple[Recipe, ...] = ()
    """What the best of them has to beat as well."""
    why_not: str = ""
    """Why there is nothing to try."""


@dataclass(frozen=True)
class Rung:
    """One step.

    Attributes:
        name: what a person calls it.
        wanted: what it tries on top of a recipe that stands; asked again after each measurement.
        swept: whether larger batches count.
    """

    name: str
    wanted: Callable[[SessionView, Recipe], Wanted]
    swept: bool


def half_precision(view: SessionView, standing: Recipe) -> Wanted:
    """Return the standing recipe in BF16 or FP16, where the hardware has kernels for it."""
    known = space(view)
    recipes = [r for r in known.recipes if r.precision in _HALF and r.runtime == standing.runtime and not r.settings]
    recipes = [r for r in recipes if reshaping(r) == reshaping(standing)]
    names = {f"{standing.runtime} {precision.value}": precision for precision in _HALF}
    reasons = {names[o.name]: o.rejected_because for o in known.skipped if o.name in names and o.rejected_because}
    why = "; ".join(f"{precision.value.upper()}: {reason}" for precision, reason in reasons.items())
    return Wanted(tuple(recipes), why_not=why or f"{standing.runtime} has no 16-bit floats for this model")


def integers(view: SessionView, standing: Recipe) -> Wanted:
    """Return calibrated INT8 on the first runtime that has it, to be held against floats on the same runtime."""
    found: dict[str, Recipe] = {}
    for recipe in space(view).recipes:
        if recipe.precision is Precision.INT8_STATIC and reshaping(recipe) == reshaping(standing):
            found.setdefault(recipe.runtime, recipe)
    chosen = next((found[runtime] for runtime in _INTEGER_RUNTIMES if runtime in found), None)
    if chosen is None:
        return Wanted(why_not="no runtime that is installed, and was not left out, runs calibrated INT8")
    return Wanted((chosen,), rivals=in_float(view, chosen))


def batching(view: SessionView, standing: Recipe) -> Wanted:
    """Return what stands, for its larger batches."""
    if view.workload.source.fixed_batch is not None:
        return Wanted(why_not=f"the model was exported for batches of {view.workload.source.fixed_batch} alone")
    return Wanted((standing,))


def pruning(view: SessionView, standing: Recipe) -> Wanted:
    """Return what stands with channels taken out: most of them first, fewer where that loses too much accuracy."""
    pruned = [v for v in _variants(view) if v[0].transform == "prune-channels"]
    pruned.reverse()
    ordered = sorted(pruned, key=lambda variant: not _is_built(view, variant))
    carried = _carried(view, standing, ordered, _why_none(view, "prune-channels"))
    tried: list[Recipe] = []
    for recipe in carried.recipes:
        tried.append(recipe)
        if not _misses_accuracy(view, recipe):
            break
    return Wanted(tuple(tried), why_not=carried.why_not)


def distillation(view: SessionView, standing: Recipe) -> Wanted:
    """Return a student in place of what stands, and, once it proves itself, pruned as that is."""
    variants = _variants(view)
    students: list[tuple[Step, ...]] = [v for v in variants if v[0].transform == "distill" and len(v) == 1]
    built = [v for v in students if _is_built(view, v)]
    wanted = built or students[:1]
    if reshaping(standing):
        wanted = [*wanted, *(v for v in variants if v[1:] == reshaping(standing) and v[:1] in wanted)]
    return _carried(view, standing, wanted, _why_none(view, "distill"))


def runtimes(view: SessionView, standing: Recipe) -> Wanted:
    """Return the same model on every usual runtime, and whatever else the session measured of it."""
    found: dict[tuple[str, Precision], Recipe] = {}
    for recipe in space(view).recipes:
        usual = recipe.runtime in _RUNTIMES and not recipe.settings
        if usual and reshaping(recipe) == reshaping(standing):
            found.setdefault((recipe.runtime, recipe.precision), recipe)
    precisions = (Precision.FP32, Precision.BF16, Precision.INT8_STATIC)
    wanted = [recipe for (_, precision), recipe in found.items() if precision in precisions]
    measured = [t.recipe for t in view.ran if reshaping(t.recipe) == reshaping(standing) and t.given_up is None]
    unique = {r.digest: r for r in (*wanted, *measured) if r != standing}
    return Wanted(tuple(unique.values()), why_not="there is no other runtime here that takes this model")


RUNGS: Sequence[Rung] = (
    Rung("16-bit floats", half_precision, swept=False),
    Rung("INT8", integers, swept=False),
    Rung("batching", batching, swept=True),
    Rung("pruning", pruning, swept=True),
    Rung("distillation", distillation, swept=True),
    Rung("best runtime", runtimes, swept=True),
)


def reshaping(recipe: Recipe) -> tuple[Step, ...]:
    """Return what a recipe does to the model itself."""
    return tuple(step for step in recipe.steps if step.transform.startswith(_RESHAPING))


def _variants(view: SessionView) -> list[tuple[Step, ...]]:
    """Return the ways to change the model itself, each once, in the order of the space."""
    found: list[tuple[Step, ...]] = []
    for recipe in space(view).recipes:
        variant = reshaping(recipe)
        if variant and variant not in found:
            found.append(variant)
    return found


def _carried(view: SessionView, standing: Recipe, variants: Sequence[tuple[Step, ...]], why_none: str) -> Wanted:
    """Return these variants of the model on the standing runtime, in the standing precision."""
    if standing.runtime == "eager" and standing.precision is Precision.FP32:
        return Wanted(tuple(Recipe(runtime="eager", steps=variant) for variant in variants), why_not=why_none)
    like = [r for r in space(view).recipes if (r.runtime, r.precision, r.settings) == _how(standing)]
    found = [next((r for r in like if reshaping(r) == variant), None) for variant in variants]
    recipes = tuple(recipe for recipe in found if recipe is not None)
    return Wanted(recipes, why_not=why_none if not variants else f"it does not go with {standing.name}")


def _how(recipe: Recipe) -> tuple[str, Precision, dict[str, JsonScalar]]:
    return recipe.runtime, recipe.precision, recipe.settings


def _misses_accuracy(view: SessionView, recipe: Recipe) -> bool:
    tried = view.tried.get(recipe.digest)
    accuracy = None if tried is None else tried.accuracy
    return accuracy is not None and accuracy.drop.value > view.spec.objective.max_accuracy_drop


def _is_built(view: SessionView, variant: tuple[Step, ...]) -> bool:
    """Whether the training that this takes was done: then nothing is trained again."""
    return any(e.recipe.steps == variant and isinstance(e.outcome, Measured) for e in view.of_kind(EvidenceKind.BUILD))


def _why_none(view: SessionView, technique: str) -> str:
    reasons = (o.rejected_because for o in space(view).skipped if o.name.startswith(technique))
    return next((why for why in reasons if why), "there is nothing to learn from, or it was left out")
