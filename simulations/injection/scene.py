"""A session that somebody could have run, in a home of its own: what it measured is invented, what it writes is real.

Other people's words stand in it wherever they can: `Words` has one field for each such place.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.contracts import (
    Accuracy,
    ArtifactRef,
    BatchPoint,
    BuildResult,
    ComparisonResult,
    DatasetRef,
    Decision,
    EdgeCase,
    EdgeCaseResult,
    EndToEnd,
    Evidence,
    EvidenceKind,
    Failed,
    Finding,
    Hardware,
    Interval,
    Latency,
    LayerProfile,
    LayerSensitivity,
    Measured,
    ModelFormat,
    Option,
    Precision,
    ProfileResult,
    Recipe,
    Result,
    Roofline,
    Step,
    TensorSpec,
    TrialResult,
    WorkloadInfo,
)
from tools.evidence import EVIDENCE, EvidenceStore
from tools.journal import Journal
from tools.ledger import Ledger
from tools.limits import BenchLimits
from tools.measure.profile_bottleneck import bottleneck
from tools.mirror import save
from tools.record import JOURNAL, Loaded, Started
from tools.result import MlflowRef, Seconds, SessionResult
from tools.selection import as_option, cheapest, configurations, not_run_option
from tools.spec import TuningSpec
from tools.summary import summarize
from tools.view import SessionView

SESSION = "20261122-000000-abcd"
CREATED = "2026-11-22T00:00:00+00:00"
PRICE_USD = 0.1


@dataclass(frozen=True)
class Words:
    """What other people wrote, each a place that a text can be planted in."""

    session: str = SESSION
    """Name of the folder."""
    target: str = "tuning.yaml"
    """Name of the spec's file."""
    cpu: str = "a CPU"
    layer: str = "layer1.conv"
    failure: str = "no kernel for this operator"
    """Why a trial failed."""
    baseline_failure: str | None = None
    """Why the model as given failed; then nothing ran."""
    setting: str = "fast"
    """A setting that a plugin gave its runtime."""
    student: str = "resnet18"
    transform_note: str = "one layer stays in float"
    unusual: str = "finite"
    """What came of an unusual input."""
    option: str = "INT8"
    """An option that a plugin offers, and why it is not tried."""
    note: str = "the machine was quiet"
    mlflow: str = "MLflow was away"


@dataclass(frozen=True)
class Scene:
    """A session on disk, and what it knew."""

    home: Path
    folder: Path
    view: SessionView
    result: SessionResult
    ledger: Ledger
    """To which nodes can still add."""


def make(home: Path, words: Words) -> Scene:
    """Write a finished session.

    Raises:
        InfertuneError: a word cannot be written there.
        ValueError: likewise (pydantic's, or that of a path).
    """
    view = SessionView(
        spec=_spec(),
        workload=_workload(),
        hardware=_hardware(words),
        availability={},
        evidence=tuple(_evidence(words)),
    )
    folder = home / "sessions" / words.session
    journal = Journal(folder / JOURNAL)
    started = Started(
        session=words.session,
        target=f"/specs/{words.target}",
        created=CREATED,
        tracking_uri="sqlite://",
        fresh=False,
        time_budget_s=None,
        hardware=view.hardware,
        versions={},
        availability={},
        policy="1",
        protocol="2",
    )
    journal.append("started", started.model_dump(mode="json"))
    loaded = Loaded(spec=view.spec, workload=view.workload, loading_s=1.0, training_s=0.0, limits=BenchLimits())
    journal.append("loaded", loaded.model_dump(mode="json"))
    ledger, store = Ledger(journal), EvidenceStore(home / EVIDENCE)
    for evidence in view.evidence:
        store.put(evidence)
        ledger.use(evidence)
    ledger.note(words.note)
    for decision in _decisions(view, words):
        ledger.decide(decision)
    result = finish(folder, view, ledger, words)
    journal.append("result", result.model_dump(mode="json"))
    journal.append("finished", {})
    return Scene(home, folder, view, result, ledger)


def finish(folder: Path, view: SessionView, ledger: Ledger, words: Words, **more: Any) -> SessionResult:
    """Put the result on disk; `more` are fields of the result."""
    result = summarize(
        view,
        session=words.session,
        created=CREATED,
        versions={},
        decisions=ledger.decisions,
        scaling=None,
        seconds=Seconds(total=60.0, trials=50.0, overhead=10.0),
        files={},
    )
    mlflow = MlflowRef(tracking_uri="sqlite://", run_id=None, note=words.mlflow)
    result = result.model_copy(update={"notes": (*result.notes, words.note), "mlflow": mlflow, **more})
    save(result, folder)
    return result


def _spec() -> TuningSpec:
    return TuningSpec.model_validate(
        {
            "workload": {"name": "shop", "model": {"factory": "model.py:build"}, "evaluation": {"npz": "data.npz"}},
            "objective": {"p99_ms": 50},
            "hardware": {"price_per_hour_usd": PRICE_USD},
        }
    )


def _workload() -> WorkloadInfo:
    item = TensorSpec(name="input_0", dtype="float32", shape=(3, 32, 32))
    data = DatasetRef(digest="d", directory="/data/d", n=597, inputs=(item,), has_targets=True)
    return WorkloadInfo(
        name="shop",
        digest="w",
        source=_artifact(),
        inputs=(item,),
        outputs=(TensorSpec(name="output_0", dtype="float32", shape=(10,)),),
        evaluation=data,
        calibration=data,
        metric="top1",
        higher_is_better=True,
        parameters=1000,
    )


def _hardware(words: Words) -> Hardware:
    return Hardware(cpu=words.cpu, architecture="x86_64", cores=2, memory_mb=8000, flags=("avx512_vnni",))


def _artifact() -> ArtifactRef:
    return ArtifactRef(
        digest="source", directory="/artifacts/source", format=ModelFormat.TORCH, precision=Precision.FP32, size_mb=10
    )


def _evidence(words: Words) -> list[Evidence]:
    numbers = itertools.count()

    def found(recipe: Recipe, kind: EvidenceKind, outcome: Result | Failed, **parameters: Any) -> Evidence:
        return Evidence.of(
            Finding(
                question=f"q{next(numbers)}",
                kind=kind,
                workload="w",
                recipe=recipe,
                parameters=parameters,
                hardware="h",
                versions={},
                session=words.session,
                outcome=outcome if isinstance(outcome, Failed) else Measured(result=outcome),
                seconds=1.0,
                created=CREATED,
            )
        )

    def trial(recipe: Recipe, outcome: Result | Failed) -> Evidence:
        return found(recipe, EvidenceKind.TRIAL, outcome, batch_sizes=[1])

    eager, tuned = Recipe(runtime="eager"), Recipe(runtime="openvino", settings={"scheme": words.setting})
    if words.baseline_failure is not None:
        return [trial(eager, Failed(stage="loading", reason=words.baseline_failure))]
    step = Step(transform="distill", settings={"student": words.student})
    broken = Recipe(runtime="onnxruntime", precision=Precision.INT8_STATIC, steps=(step,))
    built = BuildResult(
        artifact=_artifact(),
        notes=(words.transform_note,),
        sensitivity=(LayerSensitivity(layer=words.layer, drop=0.01, float_ms=0.1, kept_float=True),),
    )
    ratio = ComparisonResult(
        baseline_batch=1, candidate_batch=1, p50=_interval(3.0), throughput=_interval(3.0), rounds=15
    )
    return [
        trial(eager, _measured(12.0)),
        found(eager, EvidenceKind.PROFILE, _profile(words)),
        found(Recipe(runtime="build", steps=(step,)), EvidenceKind.BUILD, built),
        trial(tuned, _measured(4.0)),
        trial(broken, Failed(stage="exporting", reason=words.failure, kind="RuntimeError")),
        found(
            tuned, EvidenceKind.COMPARISON, ratio, baseline=eager.digest, baseline_batch=1, candidate_batch=1
        ),
        found(tuned, EvidenceKind.EDGE_CASES, EdgeCaseResult(
            cases=(EdgeCase(name="zeros", passed=False, detail=words.unusual),)
        )),
    ]  # fmt: skip


def _interval(value: float) -> Interval:
    return Interval(value=value, low=value * 0.99, high=value * 1.01, n=400)


def _measured(p50_ms: float) -> TrialResult:
    point = BatchPoint(
        batch_size=1,
        latency_ms=Latency(p50=_interval(p50_ms), p95=_interval(p50_ms * 1.1), p99=_interval(p50_ms * 1.2)),
        throughput_rps=_interval(1000 / p50_ms),
        peak_memory_mb=200,
        mean_ms=p50_ms,
        stable=True,
    )
    drop = Interval(value=0.0, low=-0.005, high=0.005, n=597)
    accuracy = Accuracy(metric="top1", value=_interval(0.97), drop=drop, changed_items=0)
    return TrialResult(artifact=_artifact(), points=(point,), accuracy=accuracy, load_ms=1, build_s=1)


def _profile(words: Words) -> ProfileResult:
    layer = LayerProfile(
        path=words.layer, operator="convolution", ms=8, share=0.7, flops=1e8, bytes_moved=1e6, gflops_per_s=12
    )
    roofline = Roofline(fp32_gflops=100.0, memory_gb_per_s=10.0)
    return ProfileResult(
        layers=(layer,),
        forward_ms=11.5,
        flops=1e8,
        share_of_peak=0.3,
        roofline=roofline,
        end_to_end=EndToEnd(preprocess_ms=None, transfer_ms=0.1, forward_ms=11.5, postprocess_ms=0.0),
        operators={"convolution": 0.7},
        bottleneck=bottleneck((layer,), roofline, _hardware(words)),
    )


def _decisions(view: SessionView, words: Words) -> list[Decision]:
    """Return what nodes would have decided, by the parts that they decide with."""
    objective = view.spec.objective
    measured = configurations(view.ran)
    winner, why = cheapest(measured, objective, PRICE_USD)
    options = [as_option(one, objective, PRICE_USD) for one in measured]
    options += [not_run_option(tried) for tried in view.tried.values() if not tried.ran]
    options.append(Option(name=words.option, rejected_because=words.option))
    profiled = (*view.of_kind(EvidenceKind.TRIAL)[:1], *view.of_kind(EvidenceKind.PROFILE))
    slow = "" if view.profile is None else view.profile.bottleneck
    first = Decision(
        id="d01",
        node="profiler",
        question="What is compared against, and where does its time go?",
        options=(Option(name="eager fp32", evidence=tuple(one.id for one in profiled)),),
        chosen="eager fp32",
        rule="the baseline is the model as given",
        reason=slow or f"the model as given ran: failed while loading: {words.baseline_failure}",
    )
    second = Decision(
        id="d02",
        node="quantization_evaluation",
        question="Which precision?",
        options=tuple(options),
        chosen=None if winner is None else winner.name,
        rule="smallest cost",
        reason=why,
    )
    return [first, second]


def with_words(**words: str) -> Words:
    """Return harmless words but for these."""
    return dataclasses.replace(Words(), **words)
