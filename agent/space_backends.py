"""The ways to run one variant of a model: runtimes, precisions, and what each of them takes. Pure."""

from __future__ import annotations

from tools.contracts import JsonScalar, ModelFormat, Option, Precision, Recipe, Step
from tools.hardware import has_bf16_kernels, has_fp8_kernels, has_fp16_kernels, has_int8_kernels
from tools.view import SessionView, Tried

TORCH_FORMATS = (ModelFormat.TORCH, ModelFormat.PT2)
LINEAR_SHARE = 0.3
"""Of the time that linear layers take, from which INT4 weights are tried."""
TRAINING_SHARE = 0.2
"""Of the session's time that one training may take."""
LONGEST_TRAINING_S = 120
NO_FP8 = "this GPU multiplies no 8-bit floats (compute capability 8.9 and later do)"

_EXPORT = Step(transform="export-onnx")
_SCRIPT = Step(transform="script")
_TO_OPENVINO = Step(transform="convert-openvino")
Steps = tuple[Step, ...]


def backends(view: SessionView, variant: Steps) -> tuple[list[Recipe], list[Option]]:
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
        wanted += _onnx_backends(view, onnx_steps(source, variant))
    on_gpu, unsupported = _gpu_backends(view, source, variant)
    wanted += on_gpu
    skipped += unsupported
    wanted += _int8_openvino(view, variant)
    if _is_mostly_linear(view):
        compress = Step(transform="quantize-weights")
        wanted.append(Recipe(runtime="openvino", steps=(*openvino, compress), precision=Precision.INT4_WEIGHTS))
    return wanted, skipped


def openvino_steps(view: SessionView, variant: Steps) -> Steps:
    """Return how a variant of the model reaches OpenVINO: through ONNX, or where that failed through PyTorch."""
    source = view.workload.source.format
    if source is ModelFormat.TORCHSCRIPT and not variant:
        return (_TO_OPENVINO,)
    export = onnx_steps(source, variant)
    tried = next(
        (t for t in view.tried.values() if t.recipe.runtime == "onnxruntime" and t.recipe.steps == export), None
    )
    if source in TORCH_FORMATS and tried is not None and not tried.ran:
        # ONNX could not take it: OpenVINO reads TorchScript (traced) or the exported program by itself
        through = () if source is ModelFormat.PT2 and not variant else (_SCRIPT,)
        return (*variant, *through, _TO_OPENVINO)
    return (*export, _TO_OPENVINO)


def onnx_steps(source: ModelFormat, variant: Steps) -> Steps:
    """Return how a variant of the model reaches ONNX; a model that is ONNX already needs nothing."""
    return variant if source is ModelFormat.ONNX and not variant else (*variant, _EXPORT)


def training_s(view: SessionView) -> int:
    """Return how many seconds one training may take."""
    return max(10, min(LONGEST_TRAINING_S, round(TRAINING_SHARE * view.spec.budget.time_s)))


def keeps_accuracy(view: SessionView, tried: Tried) -> bool:
    """Return whether what was tried is known to keep the accuracy budget."""
    accuracy = tried.accuracy
    return accuracy is not None and accuracy.drop.value <= view.spec.objective.max_accuracy_drop


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
        exported = onnx_steps(source, variant)
        wanted.append(Recipe(runtime="onnxruntime-cuda", steps=exported))
        wanted += [
            Recipe(runtime="onnxruntime-tensorrt", steps=exported, precision=precision)
            for precision in (Precision.FP32, Precision.FP16)
        ]
    return wanted, skipped


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


def _headroom(view: SessionView) -> dict[str, JsonScalar]:
    """Return the setting that keeps products of 8 bits from saturating where there are no instructions for them."""
    return {} if has_int8_kernels(view.hardware) else {"reduce_range": True}


def _has_attention(view: SessionView) -> bool:
    """Whether the model is a transformer: INT8 then needs the activations smoothed, and some products in float."""
    return view.profile is not None and "attention" in view.profile.operators


def _is_mostly_linear(view: SessionView) -> bool:
    """Whether linear layers take enough of the time for smaller weights of theirs to matter."""
    return view.profile is not None and view.profile.operators.get("linear", 0.0) >= LINEAR_SHARE


def _misses_accuracy(view: SessionView, recipe: Recipe) -> bool:
    tried = view.tried.get(recipe.digest)
    return tried is not None and tried.accuracy is not None and not keeps_accuracy(view, tried)
