"""What the grid shows, as the evidence of a session."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from simulations.search.grid import Grid, Observation
from simulations.search.space import Cell, recipe_of
from tools.contracts import (
    Accuracy,
    AdviceResult,
    ArtifactRef,
    BatchPoint,
    DatasetRef,
    Evidence,
    EvidenceKind,
    Failed,
    Finding,
    Interval,
    Latency,
    Measured,
    ModelFormat,
    Outcome,
    Precision,
    Recipe,
    TensorSpec,
    TrialResult,
    WorkloadInfo,
)
from tools.spec import TuningSpec
from tools.view import SessionView

_Z = 1.96
_NOWHERE = "recorded"
"""Stands where a session has directories and digests: of the grid, only figures are kept."""
_IMAGE = TensorSpec(name="input_0", dtype="float32", shape=(3, 32, 32))
_DATA = DatasetRef(digest=_NOWHERE, directory=_NOWHERE, n=597, inputs=(_IMAGE,), has_targets=True)


@cache
def recipe_of_cell(cell: Cell) -> Recipe:
    """Return the recipe that a cell is a batch size of."""
    recipe = recipe_of(cell, distill_s=60.0)
    return recipe.model_copy(update={"settings": {"threads": cell.threads}})


def trial_of(grid: Grid, seen: Observation, *, first: bool, p99_spread: float) -> Evidence:
    """Return an observation as a trial, or, of a recipe that was tried already, as a sweep.

    Args:
        grid: where it was seen.
        seen: the observation.
        first: whether it is the first of its recipe.
        p99_spread: the upper end of its p99, over its value.
    """
    cell = seen.cell
    timing, accuracy = grid.recording.cells[cell.key], grid.recording.accuracy[cell.judgement]
    low, high = 1 / (1 + _Z * seen.sd), 1 + _Z * seen.sd
    rps = cell.batch * 1e3 / seen.median_ms
    p99 = Interval(value=timing.p99_ms, low=timing.p99_ms, high=timing.p99_ms * p99_spread, n=timing.calls)
    p50 = Interval(value=seen.median_ms, low=seen.median_ms * low, high=seen.median_ms * high, n=timing.calls)
    point = BatchPoint(
        batch_size=cell.batch,
        latency_ms=Latency(p50=p50, p95=p99, p99=p99),
        throughput_rps=Interval(value=rps, low=rps * low, high=rps * high, n=timing.calls),
        peak_memory_mb=0.0,
        mean_ms=seen.median_ms,
        stable=True,
    )
    result = TrialResult(
        artifact=_artifact(Precision(cell.precision)),
        points=(point,),
        accuracy=Accuracy(metric="top1", value=_exact(accuracy.value), drop=_exact(accuracy.drop), changed_items=0),
        load_ms=timing.load_s * 1e3,
        build_s=sum(seen.paid_s.values()),
    )
    return _evidence(
        EvidenceKind.TRIAL if first else EvidenceKind.SWEEP,
        recipe_of_cell(cell),
        {"batch_sizes": [cell.batch]},
        Measured(result=result),
        seconds=timing.measure_s,
    )


def advice_of(keys: Sequence[str], outcome: AdviceResult | Failed, *, seconds: float, place: int) -> Evidence:
    """Return an advisor's answer, or why there is none.

    Args:
        keys: of the options that it was offered.
        outcome: the answer.
        seconds: that it took.
        place: of this evidence in the session.
    """
    parameters = {"options": list(keys), "asked_before": place}
    told: Outcome = outcome if isinstance(outcome, Failed) else Measured(result=outcome)
    return _evidence(EvidenceKind.ADVICE, Recipe(runtime="advisor"), parameters, told, seconds=seconds)


def view_of(grid: Grid, evidence: Sequence[Evidence], *, elapsed_s: float, time_s: float) -> SessionView:
    """Return what a session on the grid knows."""
    source = grid.recording.provenance
    spec = TuningSpec.model_validate(
        {
            "workload": {
                "name": source.workload,
                "model": {"factory": "model.py:build"},
                "evaluation": {"npz": "data.npz"},
            },
            "objective": {"p99_ms": source.p99_ms, "max_accuracy_drop": source.max_accuracy_drop},
            "hardware": {"price_per_hour_usd": source.price_per_hour_usd},
            "budget": {"time_s": time_s},
        }
    )
    return SessionView(
        spec=spec,
        workload=_workload(source.workload),
        hardware=source.hardware,
        availability={},
        evidence=tuple(evidence),
        elapsed_s=elapsed_s,
        advises=True,
    )


def _evidence(
    kind: EvidenceKind, recipe: Recipe, parameters: dict[str, object], outcome: Outcome, *, seconds: float
) -> Evidence:
    return Evidence.of(
        Finding(
            question=_NOWHERE,
            kind=kind,
            workload=_NOWHERE,
            recipe=recipe,
            parameters=parameters,
            hardware=_NOWHERE,
            versions={},
            session=_NOWHERE,
            outcome=outcome,
            seconds=seconds,
            created="",
        )
    )


@cache
def _artifact(precision: Precision) -> ArtifactRef:
    return ArtifactRef(digest=_NOWHERE, directory=_NOWHERE, format=ModelFormat.TORCH, precision=precision, size_mb=1.0)


@cache
def _workload(name: str) -> WorkloadInfo:
    return WorkloadInfo(
        name=name,
        digest=_NOWHERE,
        source=_artifact(Precision.FP32),
        inputs=(_IMAGE,),
        outputs=(TensorSpec(name="output_0", dtype="float32", shape=(10,)),),
        evaluation=_DATA,
        calibration=_DATA,
        metric="top1",
        higher_is_better=True,
        parameters=1,
    )


def _exact(value: float) -> Interval:
    return Interval(value=value, low=value, high=value, n=1)
