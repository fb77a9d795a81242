"""Technique by technique and combined: what quantizing, pruning and distilling bring, alone and together.

Every row but the first runs on OpenVINO, in INT8 where it is quantized and else in its best float precision, so that a
row shows its technique and not its runtime. All is measured by the protocol of a session, and kept as evidence in the
home directory: a second run repeats nothing. Ratios are to the model as given in PyTorch's eager mode, timed in turn.

Run: `python -m simulations.techniques [--home DIR] [--fast]` (about half an hour on two cores, most of it trainings and
comparisons; `--fast` takes a small net and short measurements, to see that all of it works).
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from agent.home import home_directory
from agent.live import observer_for
from agent.loading import TRAINING_LIMIT_S
from agent.running import run_or_raise
from tools.bench import Bench
from tools.contracts import ComparisonResult, Evidence, EvidenceKind, Measured, Precision, Recipe, Step, WorkloadInfo
from tools.evidence import EVIDENCE, EvidenceStore
from tools.hardware import detect, has_bf16_kernels, library_versions
from tools.limits import BenchLimits
from tools.machine import Machine
from tools.observer import Observer
from tools.outcomes import trial_result
from tools.report import format as fmt
from tools.result import TrialSummary
from tools.spec import TuningSpec
from tools.summary_trials import trial_summaries
from tools.transforms import check_order
from tools.view import SessionView
from tools.worker import LIGHT_MODULES, TORCH_MODULES, Worker
from tools.workloads.bundled import bundled_spec

BATCH = 32
"""Where throughput is measured."""
CHANNELS = 0.5
"""Share of the channels that structured pruning takes."""
WEIGHTS = 0.4
"""Share of the weights that unstructured pruning sets to zero, over all layers."""
HEADINGS = (
    "", "size MB", "parameters", "MFLOP", "p50 ms", "p99 ms", f"items/s at {BATCH}", "p50 ratio", "throughput ratio",
    "accuracy", "drop",
)  # fmt: skip

_METRIC = "top1"
"""Of the bundled workloads."""
_EAGER = Recipe(runtime="eager")
_EXPORTED = (Step(transform="export-onnx"), Step(transform="convert-openvino"))


@dataclass(frozen=True)
class Study:
    """What is compared, and how carefully.

    Attributes:
        workload: a bundled one.
        student: as in a spec's `search.students`.
        training_s: what each training may take.
        limits: of the measurements.
    """

    workload: str
    student: str
    training_s: float
    limits: BenchLimits


FULL = Study("digits-resnet50", "torchvision.models:resnet18", 60.0, BenchLimits())
FAST = Study(
    "digits-tiny",
    "same@width=0.5",
    20.0,
    BenchLimits(
        screen_point_s=1.0,
        sweep_point_s=0.5,
        comparison_processes=3,
        comparison_rounds=1,
        comparison_block_s=0.05,
        tolerate_noise=True,
    ),
)


@dataclass(frozen=True)
class Technique:
    """One row.

    Attributes:
        name: what the table calls it.
        steps: what is done to the model itself.
        quantized: whether it is then calibrated and quantized to INT8.
    """

    name: str
    steps: tuple[Step, ...] = ()
    quantized: bool = False

    def recipe(self, precision: Precision) -> Recipe:
        """Return it on OpenVINO, in this precision unless it is quantized."""
        steps = (*self.steps, *_EXPORTED)
        if self.quantized:
            steps, precision = (*steps, Step(transform="quantize-nncf")), Precision.INT8_STATIC
        return Recipe(runtime="openvino", steps=steps, precision=precision)


@dataclass(frozen=True)
class Measurement:
    """What came of a row: the candidate, and how it compares with the model as given.

    Attributes:
        name: of the technique.
        trial: all that was measured of it by itself.
        compared: timed in turn; None for the model as given, and where that did not work.
    """

    name: str
    trial: TrialSummary
    compared: ComparisonResult | None


def main() -> None:
    """Measure every technique, and print the table."""
    parser = argparse.ArgumentParser(description="Technique by technique and combined.")
    parser.add_argument("--home", type=Path, help="where weights, artifacts and evidence are kept")
    parser.add_argument("--fast", action="store_true", help="a small net and short measurements")
    asked = parser.parse_args()
    study = FAST if asked.fast else FULL
    hardware = detect()
    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    say(f"{hardware.cpu}, {hardware.cores} cores; {versions}\n")
    with observer_for(Console(stderr=True), workload=study.workload) as observer:
        measured = measure(study, home_directory(asked.home), observer)
    say(
        f"{study.workload}: p50 and p99 are of one item alone. Ratios are to the model as given in eager mode, timed "
        f"in turn (p50 at batch 1, throughput at batch {BATCH}), with 95 % intervals.\n"
    )
    say(table(measured))


def say(text: str) -> None:
    """Write to standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def techniques(student: str, training_s: float) -> tuple[Technique, ...]:
    """Return the rows after the model as given: each technique, each pair, all three.

    Args:
        student: its name in the workload.
        training_s: what each training may take.
    """
    distill = Step(transform="distill", settings={"student": student, "max_s": training_s})
    prune = Step(transform="prune-channels", settings={"ratio": CHANNELS})
    thin = Step(transform="prune-weights", settings={"ratio": WEIGHTS, "scope": "global"})
    finetune = Step(transform="finetune", settings={"max_s": training_s})
    return (
        Technique("as given, on OpenVINO"),
        Technique("quantization", quantized=True),
        Technique(f"pruning ({CHANNELS:.0%} of the channels)", (prune, finetune)),
        Technique(f"unstructured pruning ({WEIGHTS:.0%} of the weights)", (thin, finetune)),
        Technique(f"distillation ({student})", (distill,)),
        Technique("pruning + quantization", (prune, finetune), quantized=True),
        Technique("distillation + quantization", (distill,), quantized=True),
        Technique("distillation + pruning", (distill, prune, finetune)),
        Technique("all three", (distill, prune, finetune), quantized=True),
    )


def measure(study: Study, home: Path, observer: Observer, rows: Sequence[Technique] | None = None) -> list[Measurement]:
    """Measure the model as given and each technique.

    Args:
        study: of what.
        home: where weights, artifacts and evidence are kept.
        observer: is told what happens.
        rows: the techniques; all of them if None.

    Raises:
        WorkloadError: the workload cannot be trained or loaded.
        StorageError: the home directory cannot be written.
    """
    with ExitStack() as stack:
        logs = home / "logs"
        heavy, light = (stack.enter_context(Worker(kind, logs)) for kind in (TORCH_MODULES, LIGHT_MODULES))
        spec, workload, flops = _load(study, home, heavy, observer)
        hardware = detect()
        evidence: list[Evidence] = []
        store = EvidenceStore(home / EVIDENCE)
        bench = Bench(
            home=home,
            session=f"techniques-{secrets.token_hex(2)}",
            workload=workload,
            hardware=hardware,
            versions=library_versions(),
            threads=hardware.cores,
            store=store,
            observer=observer,
            machine=Machine(heavy, light, observer, study.limits.trial_s),
            limits=study.limits,
            on_evidence=evidence.append,
        )
        float_precision = Precision.BF16 if has_bf16_kernels(hardware) else Precision.FP32
        baseline = bench.trial(_EAGER, reference=None)
        bench.sweep(_EAGER, [BATCH])
        compared: dict[str, ComparisonResult | None] = {_EAGER.digest: None}
        names = {_EAGER.digest: "as given, in eager mode"}
        for row in techniques(workload.students[0].name, study.training_s) if rows is None else rows:
            recipe = row.recipe(float_precision)
            names[recipe.digest] = row.name
            compared[recipe.digest] = _measure_one(bench, recipe, baseline)
    known = [e for e in _builds(store, bench) if e.id not in {used.id for used in evidence}]
    view = SessionView(spec, workload, hardware, availability={}, evidence=(*evidence, *known))
    trials = [t if t.variant else t.model_copy(update={"flops": flops}) for t in trial_summaries(view, None)]
    return [
        Measurement(names[digest], trial, compared[digest]) for digest, trial in zip(view.tried, trials, strict=True)
    ]


def count_given_flops(workload: dict[str, Any]) -> float:
    """Return the FLOPs of one item through the model as given, counted as the steps count theirs; a worker task.

    Args:
        workload: `WorkloadInfo`, dumped.
    """
    from tools.measure.flops_torch import count_flops
    from tools.workloads.datasets import batch_of
    from tools.workloads.modules import load_module

    info = WorkloadInfo.model_validate(workload)
    return count_flops(load_module(info.source), batch_of(info.calibration, 1))


def table(measured: Sequence[Measurement]) -> str:
    """Return the rows as a table in markdown, and below it why a row is empty, or not to be relied on."""
    lines = [_line(HEADINGS), "|".join(["", "---", *["--:" for _ in HEADINGS[1:]], ""])]
    lines += [_line((row.name, *_cells(row))) for row in measured]
    lines += [f"\n{row.name}: {row.trial.reason}" for row in measured if row.trial.reason is not None]
    return "\n".join(lines)


def _load(study: Study, home: Path, worker: Worker, observer: Observer) -> tuple[TuningSpec, WorkloadInfo, float]:
    """Return the spec, the workload, and the FLOPs of one item through the model as given."""

    def run(task: str, label: str, **arguments: Any) -> Any:
        return run_or_raise(worker, task, arguments, label=label, limit_s=TRAINING_LIMIT_S, observer=observer)

    weights = run("tools.workloads.bundled:prepare", "prepare", name=study.workload, home=str(home))
    spec = bundled_spec(study.workload, Path(weights))
    loaded = run(
        "tools.workloads.loading:materialize",
        "load",
        spec=spec.workload.model_dump(mode="json"),
        home=str(home),
        students=[study.student],
    )
    flops = run("simulations.techniques:count_given_flops", "flops", workload=loaded)
    return spec, WorkloadInfo.model_validate(loaded), float(flops)


def _measure_one(bench: Bench, recipe: Recipe, baseline: Evidence) -> ComparisonResult | None:
    """Measure a recipe alone, at `BATCH`, and in turn with the model as given; None where there is no comparison."""
    check_order(bench.workload.source.format, recipe.steps)
    trial = bench.trial(recipe, reference=baseline)
    if trial_result(trial) is None:
        return None
    bench.sweep(recipe, [BATCH])
    match bench.compare(baseline, BATCH, trial, BATCH).outcome:
        case Measured(result=ComparisonResult() as result):
            return result
    return None


def _builds(store: EvidenceStore, bench: Bench) -> list[Evidence]:
    """Return what is stored of the steps that recipes rest on: a trial that was found measured asks for none."""
    found = store.get_all([row.id for row in store.rows() if row.kind == EvidenceKind.BUILD])
    here = (bench.workload.digest, bench.hardware.digest, bench.versions)
    return [e for e in found if (e.workload, e.hardware, e.versions) == here]


def _cells(row: Measurement) -> list[str]:
    trial = row.trial
    if not trial.points or trial.accuracy is None or trial.accuracy_drop is None:
        return [fmt.NOTHING] * (len(HEADINGS) - 1)
    points = {point.batch_size: point for point in trial.points}
    alone, many = points[1], points.get(BATCH)
    return [
        fmt.number(trial.size_mb or 0.0),
        _parameters(trial),
        fmt.NOTHING if trial.flops is None else fmt.number(trial.flops / 1e6),
        fmt.number(alone.latency_ms.p50.value),
        fmt.number(alone.latency_ms.p99.value),
        fmt.NOTHING if many is None else fmt.number(many.throughput_rps.value),
        *(("", "") if row.compared is None else map(fmt.ratio, (row.compared.p50, row.compared.throughput))),
        fmt.accuracy(trial.accuracy, _METRIC),
        f"{fmt.drop(trial.accuracy_drop.value, _METRIC)} {fmt.drop_span(trial.accuracy_drop, _METRIC)}",
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _parameters(trial: TrialSummary) -> str:
    if trial.parameters is None:
        return fmt.NOTHING
    zeros = f" ({fmt.percent(trial.sparsity, 0)} zero)" if trial.sparsity is not None and trial.sparsity > 0.01 else ""
    return f"{fmt.count(trial.parameters)}{zeros}"


if __name__ == "__main__":
    main()
