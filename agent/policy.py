"""Which experiment next, and when to stop: pure functions of the evidence."""

from __future__ import annotations

from nodes.context import Proposal
from tools.contracts import EvidenceKind, ModelFormat, Option, Precision, Recipe, Step
from tools.hardware import has_bf16_kernels, has_fp16_kernels, has_int8_kernels
from tools.selection import Configured, breaches, configurations, figure, final_choice, rivals, unsettled
from tools.view import SessionView, Tried

POLICY_VERSION = "2"
BUDGET_SHARE = 0.85
"""Of the session's time: past this no new experiment is proposed, so that choosing and confirming still fit."""
SWEPT = 2
"""How many recipes get a batch sweep: the best float and the best of all; the rest lost at batch 1 by a margin."""
HALF_PRECISION_GAIN = 2.0
"""What half the bits can save at best where memory traffic or vector width is the limit."""
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)

_TORCH_FORMATS = (ModelFormat.TORCH, ModelFormat.PT2)
_EXPORT = {
    ModelFormat.TORCH: (Step(transform="export-onnx"),),
    ModelFormat.PT2: (Step(transform="export-onnx"),),
    ModelFormat.ONNX: (),
}
_TO_OPENVINO = Step(transform="convert-openvino")


class DefaultPolicy:
    """Float runtimes first, then precisions on the runtimes that can run them, then batch sizes, then confirm."""

    def baseline(self, view: SessionView) -> Recipe:
        """Return the recipe that runs the model as given: eager for PyTorch, ONNX Runtime for ONNX."""
        return Recipe(runtime="onnxruntime" if view.workload.source.format is ModelFormat.ONNX else "eager")

    def next(self, view: SessionView) -> Proposal:
        """Return the next experiment."""
        baseline = view.baseline
        if baseline is None or not baseline.ran or view.stopped:
            why = "the session was interrupted" if view.stopped else "the baseline could not be measured"
            return Proposal(node="scaling_recommendation", reason=why)
        out_of_time = view.elapsed_s > BUDGET_SHARE * view.spec.budget.time_s
        if not out_of_time:
            for propose in (_float_runtimes, _precisions, _more_accurate, _batch_sizes):
                proposal = propose(view)
                if proposal is not None:
                    return proposal
        winner, _ = final_choice(view)
        if winner is not None and (rivals(view, winner) or _wants_longer(view, winner)):
            return Proposal(
                node="confirmation",
                recipes=(winner.tried.recipe,),
                reason=f"{winner.name} leads; it is now timed in turn with what it must beat",
            )
        why = (
            f"{BUDGET_SHARE:.0%} of the time budget is used" if out_of_time else "no experiment is left that could win"
        )
        return Proposal(node="scaling_recommendation", reason=why)


def _wants_longer(view: SessionView, leader: Configured) -> bool:
    """Whether a leader's numbers did not settle, or too few calls bound its p99, and it was not timed longer yet."""
    longer = [
        e
        for e in view.of_kind(EvidenceKind.SWEEP)
        if e.recipe == leader.tried.recipe and e.parameters["batch_sizes"] == [leader.point.batch_size]
    ]
    return unsettled(view, leader) is not None and not longer


def _float_runtimes(view: SessionView) -> Proposal | None:
    """The same arithmetic on other runtimes: what any integer recipe will have to beat."""
    source = view.workload.source.format
    wanted = []
    if source in _EXPORT:
        wanted += [
            Recipe(runtime="onnxruntime", steps=_EXPORT[source]),
            Recipe(runtime="onnxruntime-cuda", steps=_EXPORT[source]),
        ]
    wanted.append(Recipe(runtime="openvino", steps=_openvino_steps(view)))
    if source in _TORCH_FORMATS:  # torch.compile last: it takes longest to make
        wanted += [Recipe(runtime="torchscript", steps=(Step(transform="script"),)), Recipe(runtime="compiled")]
    elif source is ModelFormat.TORCHSCRIPT:
        wanted.append(Recipe(runtime="torchscript"))
    return _proposal(view, "runtime_evaluation", wanted, "a float runtime is the yardstick for everything else")


def _precisions(view: SessionView) -> Proposal | None:
    """Lower precisions that this CPU has kernels for."""
    source = view.workload.source.format
    openvino = _openvino_steps(view)
    wanted: list[Recipe] = []
    skipped: list[Option] = []
    for precision, reason in _half_precisions(view):
        recipes = [(Recipe(runtime="openvino", steps=openvino, precision=precision), reason)]
        if source is ModelFormat.TORCH:
            cast = Step(transform="cast", settings={"precision": precision.value})
            eager = Recipe(runtime="eager", steps=(cast,), precision=precision)
            recipes.append((eager, reason or _eager_is_beaten(view)))
        wanted += [r for r, why_not in recipes if why_not is None]
        skipped += [Option(name=r.name, rejected_because=why_not) for r, why_not in recipes if why_not is not None]
    if source in _EXPORT:
        reduce_range = not has_int8_kernels(view.hardware)
        wanted += [
            Recipe(
                runtime="onnxruntime",
                steps=(*_EXPORT[source], Step(transform="quantize-dynamic")),
                precision=Precision.INT8_DYNAMIC,
            ),
            Recipe(
                runtime="onnxruntime",
                steps=(
                    *_EXPORT[source],
                    Step(transform="quantize-static", settings={"reduce_range": True} if reduce_range else {}),
                ),
                precision=Precision.INT8_STATIC,
            ),
        ]
    wanted.append(_nncf(view))
    return _proposal(view, "quantization_evaluation", wanted, "lower precision moves fewer bytes", tuple(skipped))


def _eager_is_beaten(view: SessionView) -> str | None:
    """Return why half precision cannot save eager, if it cannot: half the bits save half the time at best."""
    eager = view.baseline
    assert eager is not None
    floats = [t for t in view.ran if t.recipe.precision.is_float and t.recipe.runtime != "eager"]
    best = min(floats, key=lambda t: t.first_point.latency_ms.p50.value, default=eager)
    times = eager.first_point.latency_ms.p50.value / best.first_point.latency_ms.p50.value
    if times <= HALF_PRECISION_GAIN:
        return None
    return (
        f"{best.name} is {times:.1f}x faster than eager already; half precision gives {HALF_PRECISION_GAIN:g}x at best"
    )


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


def _more_accurate(view: SessionView) -> Proposal | None:
    """Asymmetric activations, when the fastest INT8 recipe missed the accuracy budget."""
    performance = view.tried.get(_nncf(view).digest)
    if performance is None or performance.accuracy is None:
        return None
    if performance.accuracy.drop.value <= view.spec.objective.max_accuracy_drop:
        return None
    return _proposal(
        view,
        "quantization_evaluation",
        [_nncf(view, "mixed")],
        "symmetric INT8 lost too much accuracy; asymmetric activations may lose less",
    )


def _batch_sizes(view: SessionView) -> Proposal | None:
    """Sweeps for the recipes worth it: the best float, and the best of those that keep the accuracy."""
    if view.workload.source.fixed_batch is not None:
        return None
    asked = {e.recipe.digest for e in view.of_kind(EvidenceKind.SWEEP)}
    answered = sum(len(view.tried[digest].points) > 1 for digest in asked)
    # A sweep refines the point at the smallest batch too, and so may change the order: that is no reason for a third.
    # One that failed leaves its place to the next in line, and is not asked again.
    wanted = [t.recipe for t in worth_sweeping(view) if t.recipe.digest not in asked][: max(SWEPT - answered, 0)]
    if not wanted:
        return None
    names = " and ".join(r.name for r in wanted)
    return Proposal(
        node="batch_tuning",
        recipes=tuple(wanted),
        batch_sizes=BATCH_SIZES,
        reason=f"{names} lead at batch {view.low_batch}",
    )


def worth_sweeping(view: SessionView) -> list[Tried]:
    """Return the recipes whose batch curve is worth its time, the fastest first.

    Accuracy, memory and size must be kept already; latency may still change with the batch, and so may be broken only
    if even the smallest batch breaks it.
    """
    objective, price = view.spec.objective, view.spec.hardware.price_per_hour_usd
    fitting = [
        c for c in configurations(view.ran) if c.point.batch_size == view.low_batch and not breaches(c, objective)
    ]
    ordered = [c.tried for c in sorted(fitting, key=lambda c: figure(c, objective, price).value)]
    floats = [t for t in ordered if t.recipe.precision.is_float]
    return list({t.recipe.digest: t for t in (*ordered[:1], *floats[:1], *ordered[1:])}.values())


def _openvino_steps(view: SessionView) -> tuple[Step, ...]:
    source = view.workload.source.format
    if source is ModelFormat.TORCHSCRIPT:
        return (_TO_OPENVINO,)
    export = _EXPORT[source]
    exported = next(
        (t for t in view.tried.values() if t.recipe.runtime == "onnxruntime" and t.recipe.steps == export), None
    )
    if source in _TORCH_FORMATS and exported is not None and not exported.ran:
        # ONNX could not take it: OpenVINO reads TorchScript (traced) or the exported program by itself
        return (_TO_OPENVINO,) if source is ModelFormat.PT2 else (Step(transform="script"), _TO_OPENVINO)
    return (*export, _TO_OPENVINO)


def _nncf(view: SessionView, preset: str | None = None) -> Recipe:
    return Recipe(
        runtime="openvino",
        steps=(*_openvino_steps(view), Step(transform="quantize-nncf", settings={"preset": preset} if preset else {})),
        precision=Precision.INT8_STATIC,
    )


def _proposal(
    view: SessionView, node: str, wanted: list[Recipe], reason: str, skipped: tuple[Option, ...] = ()
) -> Proposal | None:
    """Keep what is new and can run here; None when nothing is."""
    new = [r for r in wanted if r.digest not in view.tried]
    runnable = tuple(r for r in new if view.availability[r.runtime].available)
    absent = tuple(
        Option(name=r.name, rejected_because=view.availability[r.runtime].reason)
        for r in new
        if not view.availability[r.runtime].available
    )
    if not runnable:
        return None
    return Proposal(node=node, recipes=runnable, skipped=(*skipped, *absent), reason=reason)
