"""What could be tried: every recipe that makes sense for this model on this machine, and why others do not. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from agent.space_backends import Steps, backends, keeps_accuracy, onnx_steps, openvino_steps, training_s
from tools.contracts import JsonScalar, ModelFormat, Normalization, Option, Precision, Recipe, Step
from tools.hardware import has_bf16_kernels
from tools.transforms.fold_normalization import folding_settings
from tools.view import SessionView

RATIOS = (0.3, 0.5)
"""Shares of the channels that are pruned."""
SETTINGS = ("threads", "streams", "max_length")
"""Of runtimes, which the search tries."""
SETTLED_PRECISIONS = (Precision.FP32, Precision.BF16, Precision.INT8_STATIC, Precision.INT8_MIXED)
"""What threads and streams are tried with."""

ZEROS = (
    "single weights that are zero are stored and multiplied like all others on this hardware: "
    "it saves neither size nor time"
)

PLUMBING = frozenset({"export-onnx", "convert-openvino", "script", "cast", "finetune"})
"""Transforms that are a means to something else."""
GROUPS = {"quantize": "quantization", "prune": "pruning", "distill": "distillation", "fold": "fold-normalization"}
"""What people call all transforms whose names begin so."""


@dataclass(frozen=True)
class Space:
    """Recipes to choose from, and what was left out."""

    recipes: tuple[Recipe, ...]
    skipped: tuple[Option, ...]


def space(view: SessionView) -> Space:
    """Return what could be tried, whether it was already or not.

    It grows with the evidence: an INT8 recipe that misses the accuracy budget brings gentler ones along, a student
    that keeps it may be pruned too, and the fastest recipes are tried with other settings of their runtime.
    """
    wanted: list[Recipe] = []
    skipped: list[Option] = []
    variants, missing = _variants(view)
    skipped += missing
    skipped.append(Option(name="prune-weights", rejected_because=ZEROS))
    for steps in variants:
        recipes, unsupported = backends(view, steps)
        wanted += recipes
        if not steps:
            skipped += unsupported
    wanted += [*_settings(view), *view.proposed]
    unique = {r.digest: r for r in wanted}
    wished = {digest: _unwished(view, r) for digest, r in unique.items()}
    skipped += [Option(name=unique[d].name, rejected_because=why) for d, why in wished.items() if why is not None]
    unique = {digest: r for digest, r in unique.items() if wished[digest] is None}
    absent = [r for r in unique.values() if not view.availability[r.runtime].available]
    skipped += [
        Option(name=r.name, rejected_because=view.availability[r.runtime].reason) for r in absent if not r.variant
    ]
    return Space(tuple(r for r in unique.values() if r not in absent), tuple(skipped))


def yardsticks(view: SessionView) -> tuple[Recipe, ...]:
    """Return the float recipes that everything else is measured against: the usual inference runtimes."""
    source = view.workload.source.format
    onnx = (
        [Recipe(runtime="onnxruntime", steps=onnx_steps(source, ()))] if source is not ModelFormat.TORCHSCRIPT else []
    )
    wanted = [*onnx, Recipe(runtime="openvino", steps=openvino_steps(view, ()))]
    return tuple(r for r in wanted if view.availability[r.runtime].available and _unwished(view, r) is None)


def in_float(view: SessionView, recipe: Recipe) -> tuple[Recipe, ...]:
    """Return the same model in float on the same runtime: what an integer recipe has to beat."""
    steps = tuple(s for s in recipe.steps if not s.transform.startswith("quantize"))
    settings = {k: v for k, v in recipe.settings.items() if k in ("threads", "streams", "buckets", "max_length")}
    precisions = [Precision.FP32]
    if recipe.runtime == "openvino" and has_bf16_kernels(view.hardware):
        precisions = [Precision.BF16]  # it never loses to FP32 where the CPU has it
    return tuple(Recipe(runtime=recipe.runtime, steps=steps, precision=p, settings=settings) for p in precisions)


def _variants(view: SessionView) -> tuple[list[Steps], list[Option]]:
    """Return the model as given, its students, and pruned versions of it."""
    workload, seconds = view.workload, training_s(view)
    finetune = Step(transform="finetune", settings={"max_s": seconds})
    students = [Step(transform="distill", settings={"student": s.name, "max_s": seconds}) for s in workload.students]
    if workload.training is None:
        why = "the spec has no `workload.training`, and without items to learn from"
        return [()], [
            Option(
                name="distill",
                rejected_because=f"{why} there is no student; one of half the width does about a quarter of the work",
            ),
            Option(
                name="prune-channels",
                rejected_because=f"{why} what pruning loses stays lost; without half of the "
                "channels about a quarter of the work is left",
            ),
        ]
    variants: list[Steps] = [(), *((student,) for student in students)]
    skipped: list[Option] = []
    if workload.source.format is ModelFormat.TORCH:
        pruned = [(Step(transform="prune-channels", settings={"ratio": ratio}), finetune) for ratio in RATIOS]
        variants += pruned
        good = [s for s in students if any(keeps_accuracy(view, t) for t in view.ran if t.recipe.steps[:1] == (s,))]
        variants += [(student, *steps) for student in good for steps in pruned]
    else:
        why = f"pruning needs the model as a factory, and this one is {workload.source.format.value}"
        skipped.append(Option(name="prune-channels", rejected_because=why))
    return variants, skipped


def _settings(view: SessionView) -> list[Recipe]:
    """Return other settings of the runtimes of what runs well: fewer threads, concurrent streams, shorter texts."""
    threads = view.spec.hardware.threads or view.hardware.cores
    wanted: list[dict[str, JsonScalar]] = [{"threads": 1}, {"streams": threads}] if threads > 1 else []
    sequence = view.workload.sequence
    if sequence is not None:
        wanted.append({"max_length": sequence.length // 2})
    settled = [
        t.recipe
        for t in view.ran
        if not t.recipe.settings
        and t.given_up is None
        and t.recipe.runtime in ("openvino", "onnxruntime")
        and t.recipe.precision in SETTLED_PRECISIONS
    ]
    return [
        *(r.model_copy(update={"settings": settings}) for r in settled for settings in wanted),
        *(_taking_pixels(r, view.workload.normalization) for r in settled if view.workload.normalization is not None),
    ]


def _taking_pixels(recipe: Recipe, normalization: Normalization) -> Recipe:
    """Return a recipe whose model takes pixels and normalizes them; it is the recipe itself if that one does."""
    fold = "fold-normalization" if recipe.runtime == "openvino" else "fold-normalization-onnx"
    if any(step.transform == fold for step in recipe.steps):
        return recipe
    folding = Step(transform=fold, settings=folding_settings(normalization))
    return recipe.model_copy(update={"steps": (*recipe.steps, folding)})


def techniques_of(recipe: Recipe) -> tuple[frozenset[str], ...]:
    """Return the techniques of a recipe, each with all the names by which a person may ask for it."""
    found = []
    for step in recipe.steps:
        name = step.transform
        if name in PLUMBING:
            continue
        names = {name} | {group for prefix, group in GROUPS.items() if name.startswith(prefix)}
        if name.startswith("quantize"):
            names |= {recipe.precision.value, recipe.precision.value.partition("-")[0]}
        found.append(frozenset(names))
    if recipe.precision in (Precision.BF16, Precision.FP16, Precision.FP8):
        found.append(frozenset({recipe.precision.value}))
    found += [frozenset({name}) for name in recipe.settings]
    return tuple(found)


def _unwished(view: SessionView, recipe: Recipe) -> str | None:
    """Return why a person does not want this recipe; None when there is nothing against it."""
    search, techniques = view.spec.search, techniques_of(recipe)
    left_out = sorted(frozenset({recipe.runtime}).union(*techniques) & set(search.exclude))
    if left_out:
        return f"left out, as asked: {', '.join(left_out)}"
    runtimes = set(search.only) & set(view.availability)
    allowed = set(search.only) - runtimes
    if runtimes and recipe.runtime not in runtimes:
        return f"only {', '.join(sorted(runtimes))} may be tried, as asked"
    if allowed and any(not names & allowed for names in techniques):
        return f"only {', '.join(sorted(allowed))} may be tried, as asked"
    return None
