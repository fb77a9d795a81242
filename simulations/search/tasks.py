"""Worker tasks of the recording: timing one student in one format at every batch size, and judging its accuracy."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from tools.contracts import ArtifactRef, Recipe, WorkloadInfo
from tools.measure.latency import SamplingLimits, sample
from tools.measure.noise import NoiseMeter
from tools.measure.served import load_for
from tools.measure.trial import EVALUATION_BATCH, Judge, evaluate
from tools.runtimes import get_runtime
from tools.worker import stage

KEPT = 100
"""Times of single calls that are kept for a cell."""
WARMUP_S = 0.4
QUIET_S = 1.0
"""How long a cell waits for a quiet machine."""
_ALWAYS = 10**9
"""More calls than there is time for: a cell is sampled for all of its time, so that the noise of all of it shows."""


def time_cells(
    *,
    workload: dict[str, Any],
    artifact: dict[str, Any],
    recipe: dict[str, Any],
    threads: int,
    batches: list[int],
    cell_s: float,
) -> dict[str, Any]:
    """Load and time an artifact at several batch sizes.

    Args:
        workload: `WorkloadInfo`, dumped.
        artifact: `ArtifactRef`, dumped.
        recipe: `Recipe`, dumped.
        threads: CPU threads of the runtime.
        batches: batch sizes.
        cell_s: seconds to sample each of them.

    Returns:
        A `Timing` by batch size, dumped; the keys are text, as JSON wants.
    """
    info, made = WorkloadInfo.model_validate(workload), ArtifactRef.model_validate(artifact)
    parsed = Recipe.model_validate(recipe)
    limits = SamplingLimits(min_samples=_ALWAYS, max_s=cell_s, warmup_max_s=WARMUP_S, quiet_max_s=QUIET_S)
    timings = {}
    for size in batches:
        stage(f"timing batch {size}")
        before = time.perf_counter()
        call = load_for(get_runtime(parsed.runtime), made, parsed, info, size, threads)
        loaded = time.perf_counter()
        taken = sample(call, limits, NoiseMeter(threads))
        timings[str(size)] = {
            "load_s": round(loaded - before, 4),
            "measure_s": round(time.perf_counter() - loaded, 4),
            "p99_ms": float(f"{np.quantile(taken.samples_ms, 0.99):.5g}"),
            "calls": len(taken.samples_ms),
            "disturbed": round(taken.disturbed, 3),
            "samples_us": thinned_us(taken.samples_ms),
        }
        del call
    return timings


def judge(
    *,
    workload: dict[str, Any],
    artifact: dict[str, Any],
    recipe: dict[str, Any],
    threads: int,
    reference: str,
    is_baseline: bool,
) -> dict[str, float]:
    """Score an artifact on the held-out items.

    Args:
        workload: `WorkloadInfo`, dumped.
        artifact: `ArtifactRef`, dumped.
        recipe: `Recipe`, dumped.
        threads: CPU threads of the runtime.
        reference: `.npz` with the baseline's scores and outputs: written for the baseline, read for all others.
        is_baseline: whether this is the model as given.

    Returns:
        An `Accuracy`, dumped.
    """
    info, made = WorkloadInfo.model_validate(workload), ArtifactRef.model_validate(artifact)
    parsed = Recipe.model_validate(recipe)
    outputs = evaluate(get_runtime(parsed.runtime), made, parsed, info, EVALUATION_BATCH, threads)
    against = Judge(info, None if is_baseline else reference, math.inf)
    accuracy, _, scores = against.accuracy(outputs)
    if is_baseline:
        named = {f"output_{index}": output for index, output in enumerate(outputs)}
        np.savez(Path(reference), scores=scores, **named)  # type: ignore[arg-type]
    return {"value": accuracy.value.value, "drop": accuracy.drop.value}


def flops_of(*, workload: dict[str, Any], artifact: dict[str, Any]) -> float:
    """Count the FLOPs of one item, a multiply-add as two.

    Args:
        workload: `WorkloadInfo`, dumped.
        artifact: `ArtifactRef` of a PyTorch model, dumped.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from tools.workloads.datasets import batch_of
    from tools.workloads.modules import call_arguments, load_module

    info = WorkloadInfo.model_validate(workload)
    module = load_module(ArtifactRef.model_validate(artifact))
    arguments, keywords = call_arguments(module, batch_of(info.evaluation, 1))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*arguments, **keywords)
    return float(counter.get_total_flops())


def thinned_us(samples_ms: np.ndarray) -> list[float]:
    """Return at most `KEPT` of the samples, evenly spread over time, in microseconds to four digits."""
    chosen = np.linspace(0, len(samples_ms) - 1, min(KEPT, len(samples_ms))).round().astype(int)
    return [float(f"{value * 1e3:.4g}") for value in samples_ms[chosen]]
