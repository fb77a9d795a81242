"""The worker task that gives the chosen candidate unusual inputs: what production sends sooner or later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tools.contracts import ArtifactRef, EdgeCase, EdgeCaseResult, Recipe, WorkloadInfo
from tools.contracts.workload import SequenceInfo
from tools.measure.served import load_runner
from tools.runtimes import Arrays, Runner, get_runtime
from tools.worker import stage
from tools.workloads.sequences import lengths_of, resized, served_batch, varying_outputs

AGREEMENT = 0.02
"""Batch independence: outputs of one item alone and in a batch may differ by this share of their spread."""


def run_edge_cases(
    workload: dict[str, Any], artifact: dict[str, Any], recipe: dict[str, Any], batch_sizes: list[int], threads: int
) -> dict[str, Any]:
    """Run the smallest and the largest batch, odd shapes and lengths, and constant and extreme values.

    Constant and extreme inputs must give finite outputs. A wrong shape must be refused or served, not crash: the
    process is a worker, so a crash is the outcome of the whole task.

    Returns:
        An `EdgeCaseResult`, dumped.
    """
    info = WorkloadInfo.model_validate(workload)
    made = ArtifactRef.model_validate(artifact)
    parsed = Recipe.model_validate(recipe)
    runtime = get_runtime(parsed.runtime)

    def load(size: int) -> tuple[Runner, dict[str, np.ndarray]]:
        example = served_batch(info, info.evaluation, size)
        return load_runner(runtime, made, parsed, info, example, threads), example

    cases = []
    smallest, largest = min(batch_sizes), max(batch_sizes)
    runner, example = load(smallest)
    alone = runner(example)
    cases.append(_case(f"smallest batch ({smallest})", lambda: _finite(alone)))
    unusual = _unusual(example, info)
    if info.sequence is not None:
        unusual |= _unusual_lengths(example, info.sequence)
    for name, inputs in unusual.items():
        stage(name)
        cases.append(_case(name, lambda inputs=inputs: _finite(runner(inputs))))  # type: ignore[misc]
    if largest != smallest:
        stage(f"largest batch ({largest})")
        cases.append(_case(f"largest batch ({largest})", lambda: _same_in_batch(load(largest), alone, example, info)))
    stage("odd shape")
    cases.append(_odd_shape(runner, example, info.sequence))
    return EdgeCaseResult(cases=tuple(cases)).model_dump(mode="json")


def _unusual(example: Arrays, workload: WorkloadInfo) -> dict[str, dict[str, np.ndarray]]:
    """Inputs that differ from real ones in value only; integers stay within the values seen, and masks as they are."""
    floats = {spec.name for spec in workload.inputs if spec.dtype.startswith("float")}
    mask = None if workload.sequence is None else workload.sequence.mask

    def changed(name: str, array: np.ndarray, make: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        if name == mask:
            return array
        return np.ascontiguousarray(make(array)) if name in floats else np.full_like(array, array.min())

    def fill(make: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
        return {name: changed(name, array, make) for name, array in example.items()}

    return {
        "all zeros": fill(np.zeros_like),
        "constant at the largest value seen": fill(lambda a: np.full_like(a, a.max())),
        "extreme values (1000 times the largest seen)": fill(
            lambda a: np.where(np.indices(a.shape).sum(0) % 2, 1, -1).astype(a.dtype) * np.abs(a).max() * 1000
        ),
    }


def _unusual_lengths(example: Arrays, sequence: SequenceInfo) -> dict[str, dict[str, np.ndarray]]:
    """The shortest batch that there can be, and the longest that the data have room for."""
    return {
        "one token": resized(sequence, example, 1),
        f"the longest sequence ({sequence.length})": _repeated_to(sequence.length, example, sequence),
    }


def _repeated_to(length: int, example: Arrays, sequence: SequenceInfo) -> dict[str, np.ndarray]:
    """Return a batch of so many tokens an item, the items' own over and over."""
    tokens = int(lengths_of(sequence, example).min())
    chosen = np.resize(np.arange(tokens), length)
    return {
        name: np.ascontiguousarray(np.take(array, chosen, axis=1 if name == sequence.mask else sequence.axis))
        if name in sequence.inputs
        else array
        for name, array in example.items()
    }


def _case(name: str, check: Callable[[], str]) -> EdgeCase:
    try:
        return EdgeCase(name=name, passed=True, detail=check())
    except Exception as error:  # noqa: BLE001  any refusal of an input is what is being asked about
        return EdgeCase(name=name, passed=False, detail=" ".join(str(error).split())[:300])


def _finite(outputs: tuple[np.ndarray, ...]) -> str:
    for index, output in enumerate(outputs):
        if not np.isfinite(output).all():
            raise ValueError(f"output {index} holds NaN or infinite values")
    return "finite outputs"


def _same_in_batch(
    loaded: tuple[Runner, dict[str, np.ndarray]],
    alone: tuple[np.ndarray, ...],
    example: Arrays,
    workload: WorkloadInfo,
) -> str:
    runner, inputs = loaded
    together = runner(inputs)
    _finite(together)
    expected, found = alone[0], together[0][: len(alone[0])]
    if workload.sequence is not None and varying_outputs(workload)[0]:
        shortest = int(lengths_of(workload.sequence, example).min())  # what is behind an item's last token is anything
        span = (slice(None),) * workload.sequence.axis + (slice(shortest),)
        expected, found = expected[span], found[span]
    spread = max(float(np.std(together[0])), 1e-12)
    difference = float(np.abs(found - expected).max()) / spread
    if difference > AGREEMENT:
        raise ValueError(f"an item's output depends on the batch it is in: differs by {difference:.1%} of the spread")
    return f"the first item's output is the same as alone, within {difference:.2%} of the spread"


def _odd_shape(runner: Runner, example: Arrays, sequence: SequenceInfo | None) -> EdgeCase:
    """One element more in the last dimension, or one token more than any item has: served, or refused with an error."""
    if sequence is not None:
        odd = _repeated_to(sequence.length + 1, example, sequence)
    else:
        odd = {
            name: np.ascontiguousarray(np.concatenate([array, array[..., :1]], axis=-1)) if array.ndim > 1 else array
            for name, array in example.items()
        }
    try:
        _finite(runner(odd))
    except Exception as error:  # noqa: BLE001  a refusal is the good answer here, whatever its type
        return EdgeCase(
            name="odd shape", passed=True, detail=f"refused with an error: {' '.join(str(error).split())[:120]}"
        )
    return EdgeCase(name="odd shape", passed=True, detail="served")
