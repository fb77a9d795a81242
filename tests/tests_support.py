"""Invented evidence for tests of pure decisions."""

import itertools

from tools.contracts import (
    Accuracy,
    ArtifactRef,
    BatchPoint,
    ComparisonResult,
    Crashed,
    DatasetRef,
    Evidence,
    EvidenceKind,
    Failed,
    Finding,
    Hardware,
    Interval,
    Latency,
    Measured,
    ModelFormat,
    Precision,
    TensorSpec,
    TrialResult,
    WorkloadInfo,
)
from tools.spec import TuningSpec

_numbers = itertools.count()
IMAGE = TensorSpec(name="input_0", dtype="float32", shape=(3, 32, 32))


def spec(**objective):
    return TuningSpec.model_validate(
        {
            "workload": {
                "name": "w",
                "model": {"factory": "model.py:build"},
                "evaluation": {"npz": "data.npz"},
            },
            "objective": {"p99_ms": 50, **objective},
            "hardware": {"price_per_hour_usd": 0.1},
        }
    )


def hardware(flags=()):
    return Hardware(cpu="a CPU", architecture="x86_64", cores=2, memory_mb=8000, flags=tuple(flags))


def artifact(model_format=ModelFormat.TORCH, fixed_batch=None):
    return ArtifactRef(
        digest="source",
        directory="/artifacts/source",
        format=model_format,
        precision=Precision.FP32,
        size_mb=10,
        fixed_batch=fixed_batch,
    )


def workload(source=ModelFormat.TORCH, fixed_batch=None):
    data = DatasetRef(digest="d", directory="/data/d", n=597, inputs=(IMAGE,), has_targets=True)
    return WorkloadInfo(
        name="w",
        digest="w",
        source=artifact(source, fixed_batch),
        inputs=(IMAGE,),
        outputs=(TensorSpec(name="output_0", dtype="float32", shape=(10,)),),
        evaluation=data,
        calibration=data,
        metric="top1",
        higher_is_better=True,
        parameters=1000,
    )


def _interval(value, n=400):
    return Interval(value=value, low=value * 0.99, high=value * 1.01, n=n)


def measured_trial(recipe, p50_ms, *, drop=0.0, batches=(1,), n=400, sweep=False):
    """A trial (or, with several batches, a sweep) whose time grows with the batch, sub-linearly."""
    points = tuple(
        BatchPoint(
            batch_size=b,
            latency_ms=Latency(
                p50=_interval(p50_ms * b**0.7, n),
                p95=_interval(p50_ms * b**0.7 * 1.1, n),
                p99=_interval(p50_ms * b**0.7 * 1.2, n),
            ),
            throughput_rps=_interval(b * 1e3 / (p50_ms * b**0.7)),
            peak_memory_mb=200,
            mean_ms=p50_ms * b**0.7,
            stable=True,
        )
        for b in batches
    )
    accuracy = Accuracy(
        metric="top1",
        value=_interval(0.97),
        drop=Interval(value=drop, low=drop - 0.005, high=drop + 0.005, n=597),
        changed_items=0,
    )
    return _evidence(
        recipe,
        EvidenceKind.SWEEP if sweep or len(batches) > 1 else EvidenceKind.TRIAL,
        Measured(
            result=TrialResult(
                artifact=artifact(),
                points=points,
                accuracy=None if sweep or len(batches) > 1 else accuracy,
                load_ms=1,
                build_s=1,
            )
        ),
        {"batch_sizes": list(batches)},
    )


def compared(recipe, rival, ratio, *, batch=1, rival_batch=1, spread=None):
    """The recipe timed in turn with a rival: so many times its throughput; `spread` is the factor to both ends."""
    interval = _interval(ratio)
    if spread is not None:
        interval = interval.model_copy(update={"low": ratio / spread, "high": ratio * spread})
    result = ComparisonResult(
        baseline_batch=rival_batch,
        candidate_batch=batch,
        p50=interval,
        throughput=interval,
        rounds=15,
    )
    parameters = {"baseline": rival.digest, "baseline_batch": rival_batch, "candidate_batch": batch}
    return _evidence(recipe, EvidenceKind.COMPARISON, Measured(result=result), parameters)


def crashed(recipe, *, sweep=False):
    return _evidence(
        recipe,
        EvidenceKind.SWEEP if sweep else EvidenceKind.TRIAL,
        Crashed(stage="exporting", signal="SIGSEGV"),
        {"batch_sizes": [1, 2] if sweep else [1]},
    )


def build_failed(recipe):
    """A transform that could not work on the model."""
    return _evidence(recipe, EvidenceKind.BUILD, Failed(stage="applying", reason="no layer can be narrowed"), {})


def _evidence(recipe, kind, outcome, parameters=None):
    return Evidence.of(
        Finding(
            question=f"q{next(_numbers)}",
            kind=kind,
            workload="w",
            recipe=recipe,
            parameters=parameters or {},
            hardware="h",
            versions={},
            session="s",
            outcome=outcome,
            seconds=1.0,
            created="2026-11-22T00:00:00+00:00",
        )
    )
