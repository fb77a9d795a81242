"""What could be tried: every recipe that makes sense for this model on this machine, and why others do not. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tools.contracts import JsonScalar, ModelFormat, Normalization, Option, Precision, Recipe, Step
from tools.hardware import has_bf16_kernels, has_fp8_kernels, has_fp16_kernels, has_int8_kernels
from tools.transforms.fold_normalization import folding_settings
from tools.view import SessionView, Tried

TORCH_FORMATS = (ModelFormat.TORCH, ModelFormat.PT2)
RATIOS = (0.3, 0.5)
"""Shares of the channels that are pruned."""
LINEAR_SHARE = 0.3
"""Of the time that linear layers take, from which INT4 weights are tried."""
TRAINING_SHARE = 0.2
"""Of the session's time that one training may take."""
LONGEST_TRAINING_S = 120
SETTINGS = ("threads", "streams", "max_length")
"""Of runtimes, which the search tries."""
SETTLED_PRECISIONS = (Precision.FP32, Precision.BF16, Precision.INT8_STATIC, Precision.INT8_MIXED)
"""What threads and streams are tried with."""

ZEROS = (
    "single weights that are zero are stored and multiplied like all others on this hardware: "
    "it saves neither size nor time"
)

NO_FP8 = "this GPU multiplies no 8-bit floats (compute capability 8.9 and later do)"

_EXPORT = Step(transform="export-onnx")
_SCRIPT = Step(transform="script")
_TO_OPENVINO = Step(transform="convert-openvino")
PLUMBING = frozenset({"export-onnx", "convert-openvino", "script", "cast", "finetune"})
"""Transforms that are a means to something else."""
GROUPS = {"quantize": "quantization", "prune": "pruning", "distill": "distillation", "fold": "fold-normalization"}
"""What people call all transforms whose names begin so."""
Steps = tuple[Step, ...]


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
        recipes, unsupported = _backends(view, steps)
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
    onnx = [Recipe(runtime="onnxruntime", steps=_exported(source, ()))] if source is not ModelFormat.TORCHSCRIPT else []
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


def openvino_steps(view: SessionView, variant: Steps) -> Steps:
    """Return how a variant of the model reaches OpenVINO: through ONNX, or where that failed through PyTorch."""
    source = view.workload.source.format
    if source is ModelFormat.TORCHSCRIPT and not variant:
        return (_TO_OPENVINO,)
    export = _exported(source, variant)
    tried = next(
        (t for t in view.tried.values() if t.recipe.runtime == "onnxruntime" and t.recipe.steps == export), None
    )
    if source in TORCH_FORMATS and tried is not None and not tried.ran:
        # ONNX could not take it: OpenVINO reads TorchScript (traced) or the exported program by itself
        through = () if source is ModelFormat.PT2 and not variant else (_SCRIPT,)
        return (*variant, *through, _TO_OPENVINO)
    return (*export, _TO_OPENVINO)


def training_s(view: SessionView) -> int:
    """Return how many seconds one training may take."""
    return max(10, min(LONGEST_TRAINING_S, round(TRAINING_SHARE * view.spec.budget.time_s)))


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
        good = [s for s in students if any(_keeps_accuracy(view, t) for t in view.ran if t.recipe.steps[:1] == (s,))]
        variants += [(student, *steps) for student in good for steps in pruned]
    else:
        why = f"pruning needs the model as a factory, and this one is {workload.source.format.value}"
        skipped.append(Option(name="prune-channels", rejected_because=why))
    return variants, skipped


def _backends(view: SessionView, variant: Steps) -> tuple[list[Recipe], list[Option]]:
    """Return the ways to run one variant of the model: runtimes and precisions."""
    source = ModelFormat.TORCH if variant else view.workload.source.format
    openvino = openvino_steps(view, variant)
    wanted = [Recipe(runtime="openvino", steps=openvino)]
    skipped: list[Option] = []
    for precision, why_not in _half_precisions(view):
        recipes = [Recipe(runtime="openvino", steps=openvino, precision=precision)]
        if source is ModelFormat.TORCH:
            cast = Step(transform="cast", settings={"precision": precision.value})
            recipes.append(Recipe(runtime="eager", steps=(*variant, cast), precision=precision))
        if why_not is None:
            wanted += recipes
        else:
            skipped += [Option(name=r.name, rejected_because=why_not) for r in recipes]
    if source in TORCH_FORMATS:
        wanted += [
            Recipe(runtime="torchscript", steps=(*variant, _SCRIPT)),
            Recipe(runtime="compiled", steps=variant),
        ]
    elif source is ModelFormat.TORCHSCRIPT:
        wanted.append(Recipe(runtime="torchscript"))
    if source is ModelFormat.TORCH:
        wanted.append(
            Recipe(
                runtime="compiled",
                steps=(*variant, Step(transform="quantize-pt2e", settings=_headroom(view))),
                precision=Precision.INT8_STATIC,
            )
        )
    if source is not ModelFormat.TORCHSCRIPT:
        wanted += _onnx_backends(view, _exported(source, variant))
    on_gpu, unsupported = _gpu_backends(view, source, variant)
    wanted += on_gpu
    skipped += unsupported
    wanted += _int8_openvino(view, variant)
    if _is_mostly_linear(view):
        compress = Step(transform="quantize-weights")
        wanted.append(Recipe(runtime="openvino", steps=(*openvino, compress), precision=Precision.INT4_WEIGHTS))
    return wanted, skipped


def _gpu_backends(view: SessionView, source: ModelFormat, variant: Steps) -> tuple[list[Recipe], list[Option]]:
    """Return the ways to run a variant on an NVIDIA GPU, and FP8 with the reason against it, if there is one."""
    wanted, skipped = [], []
    if source is ModelFormat.TORCH:
        wanted += [
            Recipe(runtime=runtime, steps=variant, precision=precision)
            for runtime in ("eager-cuda", "compiled-cuda")
            for precision in (Precision.FP32, Precision.BF16, Precision.FP16)
        ]
        if _is_mostly_linear(view):
            in_fp8 = Recipe(runtime="compiled-cuda", steps=variant, precision=Precision.FP8)
            if not view.hardware.accelerators or has_fp8_kernels(view.hardware):
                wanted.append(in_fp8)
            else:
                skipped.append(Option(name=in_fp8.name, rejected_because=NO_FP8))
    if source is not ModelFormat.TORCHSCRIPT:
        exported = _exported(source, variant)
        wanted.append(Recipe(runtime="onnxruntime-cuda", steps=exported))
        wanted += [
            Recipe(runtime="onnxruntime-tensorrt", steps=exported, precision=precision)
            for precision in (Precision.FP32, Precision.FP16)
        ]
    return wanted, skipped


def _headroom(view: SessionView) -> dict[str, JsonScalar]:
    """Return the setting that keeps products of 8 bits from saturating where there are no instructions for them."""
    return {} if has_int8_kernels(view.hardware) else {"reduce_range": True}


def _has_attention(view: SessionView) -> bool:
    """Whether the model is a transformer: INT8 then needs the activations smoothed, and some products in float."""
    return view.profile is not None and "attention" in view.profile.operators


def _is_mostly_linear(view: SessionView) -> bool:
    """Whether linear layers take enough of the time for smaller weights of theirs to matter."""
    return view.profile is not None and view.profile.operators.get("linear", 0.0) >= LINEAR_SHARE


def _onnx_backends(view: SessionView, exported: Steps) -> list[Recipe]:
    static = _headroom(view)
    integer = Recipe(
        runtime="onnxruntime",
        steps=(*exported, Step(transform="quantize-static", settings=static)),
        precision=Precision.INT8_STATIC,
    )
    recipes = [
        Recipe(runtime="onnxruntime", steps=exported),
        Recipe(
            runtime="onnxruntime",
            steps=(*exported, Step(transform="quantize-dynamic")),
            precision=Precision.INT8_DYNAMIC,
        ),
        integer,
    ]
    if _misses_accuracy(view, integer):  # clipping outliers keeps the resolution of the rest
        recipes += [
            integer.model_copy(
                update={"steps": (*exported, Step(transform="quantize-static", settings={**static, "method": method}))}
            )
            for method in ("percentile", "entropy")
        ]
    return recipes


def _int8_openvino(view: SessionView, variant: Steps) -> list[Recipe]:
    """Return INT8 on OpenVINO, and the gentler ways where it loses too much: asymmetric, then layers in float."""
    steps = openvino_steps(view, variant)
    scheme: dict[str, JsonScalar] = {"model_type": "transformer"} if _has_attention(view) else {}
    symmetric, asymmetric = (
        Recipe(
            runtime="openvino",
            steps=(*steps, Step(transform="quantize-nncf", settings={**scheme, **preset})),
            precision=Precision.INT8_STATIC,
        )
        for preset in ({}, {"preset": "mixed"})
    )
    mixed = Recipe(
        runtime="openvino",
        steps=(
            *steps,
            Step(transform="quantize-mixed", settings={"max_drop": view.spec.objective.max_accuracy_drop}),
        ),
        precision=Precision.INT8_MIXED,
    )
    gentler = [asymmetric, mixed]
    if view.workload.training is not None and (variant or view.workload.source.format is ModelFormat.TORCH):
        aware = Step(transform="quantize-aware", settings={"max_s": training_s(view)})
        gentler.append(Recipe(runtime="openvino", steps=(*variant, aware), precision=Precision.INT8_STATIC))
    return [symmetric, *(gentler if _misses_accuracy(view, symmetric) else [])]


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


def _half_precisions(view: SessionView) -> list[tuple[Precision, str | None]]:
    """Return BF16 and FP16, each with the reason why it is not worth a trial here, if there is one."""
    bf16, fp16 = has_bf16_kernels(view.hardware), has_fp16_kernels(view.hardware)
    emulated = "this CPU has no {} kernels: it would be emulated"
    why_not_fp16 = None if fp16 else emulated.format("FP16 (avx512_fp16, amx_fp16 or asimdhp)")
    if fp16 and bf16:
        why_not_fp16 = "this CPU has BF16 too: as many bits to move, matrix units for it, and no overflow"
    return [
        (Precision.BF16, None if bf16 else emulated.format("BF16 (avx512_bf16, amx_bf16 or bf16)")),
        (Precision.FP16, why_not_fp16),
    ]


def _exported(source: ModelFormat, variant: Steps) -> Steps:
    return variant if source is ModelFormat.ONNX and not variant else (*variant, _EXPORT)


def _keeps_accuracy(view: SessionView, tried: Tried) -> bool:
    accuracy = tried.accuracy
    return accuracy is not None and accuracy.drop.value <= view.spec.objective.max_accuracy_drop


def _misses_accuracy(view: SessionView, recipe: Recipe) -> bool:
    tried = view.tried.get(recipe.digest)
    return tried is not None and tried.accuracy is not None and not _keeps_accuracy(view, tried)


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
