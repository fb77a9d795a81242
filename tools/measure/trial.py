"""The worker task that measures one candidate: latency at each batch size, then accuracy on the held-out items."""

from __future__ import annotations

import contextlib
import io
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.artifacts import write_file
from tools.contracts import Accuracy, ArtifactRef, BatchPoint, Recipe, TrialResult, WorkloadInfo
from tools.errors import TransformError
from tools.hardware import device_memory_mb
from tools.measure.dependence import Samples, effective_samples
from tools.measure.energy import EnergyCounter, find_counter
from tools.measure.latency import Sampled, SamplingLimits, sample
from tools.measure.noise import NoiseMeter
from tools.measure.served import load_for, load_runner
from tools.measure.statistics import (
    P99_MIN_SAMPLES,
    latency,
    paired_drop,
    quantile_interval,
    score_interval,
    throughput,
)
from tools.runtimes import Runtime, get_runtime
from tools.worker import emit, stage
from tools.workloads.sequences import Cycle, joined, served_batch, trimmed, varying_outputs

DEVICE_CALLS = 20
"""Timed on the accelerator alone, after those by the wall clock."""
EVALUATION_BATCH = 32
SLICE = 64
"""Held-out items after which it is first asked whether a candidate is clearly too inaccurate."""
FLAT_GAIN = 1.02
"""A doubling of the batch that raises throughput by less than this is flat; a sweep stops after two of them."""


def run_trial(
    *,
    workload: dict[str, Any],
    artifact: dict[str, Any],
    recipe: dict[str, Any],
    batch_sizes: list[int],
    threads: int,
    point_max_s: float,
    raw: str,
    reference: str | None,
    with_accuracy: bool,
    build_s: float,
    enough_s: float = math.inf,
    calls: int = P99_MIN_SAMPLES + 1,
    tolerate_noise: bool = False,
    give_up_ms: float = math.inf,
    give_up_drop: float = math.inf,
    to_the_end: bool = False,
) -> dict[str, Any]:
    """Measure a candidate and write its raw samples.

    Args:
        workload: `WorkloadInfo`, dumped.
        artifact: `ArtifactRef`, dumped.
        recipe: `Recipe`, dumped.
        batch_sizes: rising.
        threads: CPU threads of the runtime.
        point_max_s: how long to sample one batch size.
        raw: `.npz` to write: `latency_ms_<b>` for each batch size, and `discarded_ms_<b>` for what was measured while
            the machine was disturbed; with accuracy `scores` and `output_<i>`.
        reference: the baseline's raw file, to pair with; None for the baseline itself.
        with_accuracy: whether to run the evaluation items.
        build_s: what making the artifact cost, for the record.
        enough_s: how long to go on, once there are enough samples for a p99, until the median settles.
        calls: at least so many are timed at each batch size, if the time allows.
        tolerate_noise: keep what was timed while other processes took the CPUs.
        give_up_ms: a candidate whose median at the first batch size is clearly above this is measured no further.
        give_up_drop: likewise one whose metric clearly drops by more.
        to_the_end: whether to measure even what is clearly slower than the baseline, which is given up otherwise.

    Returns:
        A `TrialResult`, dumped.
    """
    info = WorkloadInfo.model_validate(workload)
    made = ArtifactRef.model_validate(artifact)
    parsed = Recipe.model_validate(recipe)
    runtime = get_runtime(parsed.runtime)
    arrays: dict[str, np.ndarray] = {}
    points: list[BatchPoint] = []
    load_ms = 0.0
    found = find_counter()
    energy = found if isinstance(found, EnergyCounter) else None
    ceiling_ms = min(math.inf if to_the_end else _ceiling_ms(reference, batch_sizes[0]), give_up_ms)
    limits = SamplingLimits(min_samples=calls, max_s=point_max_s, enough_s=enough_s, hopeless_above_ms=ceiling_ms)
    given_up: str | None = None
    for size in _accepted(batch_sizes, made):
        stage(f"loading at batch {size}")
        before = time.perf_counter()
        call = load_for(runtime, made, parsed, info, size, threads)
        if not points:
            load_ms = (time.perf_counter() - before) * 1e3
        stage(f"timing batch {size}")
        meter = NoiseMeter(threads, tolerant=tolerate_noise)
        taken = sample(call, limits, meter, energy=energy)
        point = _point(taken, size, on_gpu=runtime.device == "cuda", device_ms=_device_ms(call))
        points.append(point)
        arrays[f"latency_ms_{size}"] = taken.samples_ms
        if len(taken.discarded_ms):
            arrays[f"discarded_ms_{size}"] = taken.discarded_ms
        emit(
            "point",
            batch_size=size,
            p50_ms=point.latency_ms.p50.value,
            p99_ms=point.latency_ms.p99.value,
            throughput_rps=point.throughput_rps.value,
        )
        first = points[0].latency_ms.p50
        if first.low > ceiling_ms:
            given_up = f"its median is clearly above {ceiling_ms:.3g} ms: it was timed with {first.n} calls only"
            break
        if _flat(points):
            break
        del call
    accuracy, difference = None, None
    if with_accuracy:
        stage("evaluating accuracy")
        size = made.fixed_batch or (1 if runtime.compiles_per_batch else EVALUATION_BATCH)
        judge = Judge(info, reference, give_up_drop)
        outputs = evaluate(
            runtime, made, parsed, info, size, threads, enough=judge.look, slice_only=given_up is not None
        )
        accuracy, difference, scores = judge.accuracy(outputs)
        if judge.seen < info.evaluation.n:
            scored = f"{judge.seen} of {info.evaluation.n} held-out items were scored"
            given_up = f"{given_up}, and {scored}" if given_up else f"its {info.metric} clearly drops too far: {scored}"
        arrays["scores"] = scores
        if reference is None:
            arrays |= {f"output_{i}": output for i, output in enumerate(outputs)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_file(Path(raw), buffer.getvalue())
    return TrialResult(
        artifact=made,
        points=tuple(points),
        accuracy=accuracy,
        output_difference=difference,
        load_ms=load_ms,
        build_s=build_s,
        given_up=given_up,
    ).model_dump(mode="json")


def _ceiling_ms(reference: str | None, size: int) -> float:
    """Return the upper end of the baseline's median at this batch size: above it, a candidate is no improvement."""
    if reference is None:
        return math.inf
    with np.load(reference) as saved:
        name = f"latency_ms_{size}"
        return quantile_interval(saved[name], 0.5).high if name in saved else math.inf


def _accepted(batch_sizes: list[int], artifact: ArtifactRef) -> list[int]:
    """Leave out the batch sizes that a program exported for one batch size does not take."""
    sizes = [size for size in batch_sizes if artifact.fixed_batch in (None, size)]
    if not sizes:
        raise TransformError(f"was exported for batch {artifact.fixed_batch} only.")
    return sizes


def evaluate(  # noqa: PLR0917  as `load_for`
    runtime: Runtime,
    artifact: ArtifactRef,
    recipe: Recipe,
    workload: WorkloadInfo,
    size: int,
    threads: int,
    *,
    enough: Callable[[tuple[np.ndarray, ...]], bool] = lambda _: False,
    slice_only: bool = False,
) -> tuple[np.ndarray, ...]:
    """Run the held-out items and return the outputs, each of shape (n, ...).

    The last batch is filled up by repeating items, since some runtimes accept one batch size only.

    Args:
        runtime: loads the artifact.
        artifact: what is evaluated.
        recipe: its precision and settings.
        workload: whose items.
        size: items in a batch.
        threads: CPU threads.
        enough: asked after `SLICE` items, and each time there are twice as many: whether no more are needed.
        slice_only: stop after the first `SLICE` items.

    Raises:
        WorkloadError: an output is not finite.
    """
    from tools.workloads.metrics import check_finite

    runner = load_runner(
        runtime, artifact, recipe, workload, served_batch(workload, workload.evaluation, size), threads
    )
    varies = varying_outputs(workload)
    collected: list[list[np.ndarray]] = []

    def so_far() -> tuple[np.ndarray, ...]:
        return tuple(joined(parts, workload.sequence, varies=v) for parts, v in zip(collected, varies, strict=True))

    seen, look_at = 0, SLICE
    for inputs, kept in _batches(workload, size):
        outputs = runner(inputs)
        if not collected:
            collected = [[] for _ in outputs]
        for parts, output in zip(collected, outputs, strict=True):
            parts.append(np.array(output[:kept]))
        seen += kept
        if look_at <= seen < workload.evaluation.n:
            look_at = 2 * seen
            if slice_only or enough(so_far()):
                break
    outputs = so_far()
    check_finite(outputs, [spec.name for spec in workload.outputs])
    return outputs


def _batches(workload: WorkloadInfo, size: int) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    from tools.workloads.datasets import load_inputs

    total = workload.evaluation.n
    for start in range(0, total, size):
        kept = min(size, total - start)
        inputs = load_inputs(workload.evaluation, start, kept)
        if kept < size:
            repeat = np.resize(np.arange(kept), size)
            inputs = {name: array[repeat] for name, array in inputs.items()}
        batch = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        yield trimmed(workload.sequence, batch), kept


def _device_ms(call: Cycle) -> float | None:
    """Return the median time of some more calls on the accelerator alone; None where the runtime does not tell."""
    times_ms = []
    for _ in range(DEVICE_CALLS):
        call()
        taken_ms = getattr(call.runner, "device_ms", None)
        if taken_ms is None:
            return None
        times_ms.append(taken_ms)
    return float(np.median(times_ms))


def _point(taken: Sampled, size: int, *, on_gpu: bool, device_ms: float | None) -> BatchPoint:
    joules = taken.joules_per_call
    return BatchPoint(
        batch_size=size,
        latency_ms=latency(taken.samples_ms),
        independent_calls=effective_samples(taken.samples_ms, 0.99),
        throughput_rps=throughput(taken.samples_ms, size),
        peak_memory_mb=peak_memory_mb(),
        mean_ms=float(taken.samples_ms.mean()),
        stable=taken.stable,
        unstable_because=taken.unstable_because,
        disturbed=taken.disturbed,
        joules_per_request=None if joules is None else joules / size,
        device_ms=device_ms,
        device_memory_mb=device_memory_mb(os.getpid()) if on_gpu else None,
    )


def peak_memory_mb() -> float:
    """Return this process's peak resident memory since its start as a child (Linux), in 10^6 bytes."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _flat(points: list[BatchPoint]) -> bool:
    if len(points) < 4:
        return False
    last = [p.throughput_rps.value for p in points[-3:]]
    return last[1] < last[0] * FLAT_GAIN and last[2] < max(last[:2]) * FLAT_GAIN


class Judge:
    """Scores a candidate's outputs against the targets, and pairs the scores with the baseline's.

    Args:
        workload: whose metric and targets.
        reference: the baseline's raw file; None for the baseline itself.
        give_up_drop: a drop that is clearly above this needs no more items.
    """

    def __init__(self, workload: WorkloadInfo, reference: str | None, give_up_drop: float) -> None:
        from tools.workloads.datasets import load_targets

        self._workload = workload
        self._give_up_drop = give_up_drop
        self._targets = load_targets(workload.evaluation)
        self._before: tuple[np.ndarray, ...] | None = None
        self._before_scores: Samples | None = None
        self.seen = 0
        if reference is not None:
            with np.load(reference) as saved:
                self._before = tuple(saved[f"output_{i}"] for i in range(len(workload.outputs)))
                self._before_scores = saved["scores"]

    def look(self, outputs: tuple[np.ndarray, ...]) -> bool:
        """Whether the first items already tell that the metric drops too far, by all of its interval."""
        if self._before is None or not math.isfinite(self._give_up_drop):
            return False
        accuracy, _, _ = self.accuracy(outputs)
        return accuracy.drop.low > self._give_up_drop

    def accuracy(self, outputs: tuple[np.ndarray, ...]) -> tuple[Accuracy, float | None, Samples]:
        """Return the accuracy on the items that these outputs are of, the output difference, and each item's score.

        Args:
            outputs: each of shape (n, ...), of the first n items.
        """
        from tools.workloads.metrics import score

        workload, n = self._workload, len(outputs[0])
        self.seen = n
        targets = None if self._targets is None else self._targets[:n]
        before = None if self._before is None else tuple(output[:n] for output in self._before)
        # without labels, the baseline's own outputs are what to come close to
        scores = score(workload.metric, outputs, targets, baseline=before or outputs)
        against = scores if self._before_scores is None else self._before_scores[:n]
        accuracy = Accuracy(
            metric=workload.metric,
            value=score_interval(scores),
            drop=paired_drop(against, scores, higher_is_better=workload.higher_is_better),
            changed_items=int((against != scores).sum()),
        )
        difference = None
        if before is not None:
            spread = float(before[0].std()) or 1.0
            difference = float(np.abs(outputs[0] - before[0]).max()) / spread
        return accuracy, difference, scores
