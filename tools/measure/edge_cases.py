"""The worker task that gives the chosen candidate unusual inputs: what production sends sooner or later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tools.contracts import ArtifactRef, EdgeCase, EdgeCaseResult, Recipe, TensorSpec, WorkloadInfo
from tools.measure.trial import load_for
from tools.runtimes import Arrays, Runner, get_runtime
from tools.worker import stage

AGREEMENT = 0.02
"""Batch independence: outputs of one item alone and in a batch may differ by this share of their spread."""


def run_edge_cases(
    workload: dict[str, Any], artifact: dict[str, Any], recipe: dict[str, Any], batch_sizes: list[int], threads: int
) -> dict[str, Any]:
    """Run the smallest and the largest batch, odd shapes, and constant and extreme values.

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
        return load_for(runtime, made, parsed, info, size, threads)

    cases = []
    smallest, largest = min(batch_sizes), max(batch_sizes)
    runner, example = load(smallest)
    alone = runner(example)
    cases.append(_case(f"smallest batch ({smallest})", lambda: _finite(alone)))
    for name, inputs in _unusual(example, info.inputs).items():
        stage(name)
        cases.append(_case(name, lambda inputs=inputs: _finite(runner(inputs))))  # type: ignore[misc]
    if largest != smallest:
        stage(f"largest batch ({largest})")
        cases.append(_case(f"largest batch ({largest})", lambda: _same_in_batch(load(largest), alone, smallest)))
    stage("odd shape")
    cases.append(_odd_shape(runner, example))
    return EdgeCaseResult(cases=tuple(cases)).model_dump(mode="json")


def _unusual(example: Arrays, specs: tuple[TensorSpec, ...]) -> dict[str, dict[str, np.ndarray]]:
    """Inputs that differ from real ones in value only; integer inputs stay within the values seen."""
    floats = {spec.name for spec in specs if spec.dtype.startswith("float")}

    def fill(make: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
        return {
            name: np.ascontiguousarray(make(array)) if name in floats else np.full_like(array, array.min())
            for name, array in example.items()
        }

    return {
        "all zeros": fill(np.zeros_like),
        "constant at the largest value seen": fill(lambda a: np.full_like(a, a.max())),
        "extreme values (1000 times the largest seen)": fill(
            lambda a: np.where(np.indices(a.shape).sum(0) % 2, 1, -1).astype(a.dtype) * np.abs(a).max() * 1000
        ),
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


def _same_in_batch(loaded: tuple[Runner, dict[str, np.ndarray]], alone: tuple[np.ndarray, ...], size: int) -> str:
    runner, example = loaded
    together = runner(example)
    _finite(together)
    spread = max(float(np.std(together[0])), 1e-12)
    difference = float(np.abs(together[0][:size] - alone[0]).max()) / spread
    if difference > AGREEMENT:
        raise ValueError(f"an item's output depends on the batch it is in: differs by {difference:.1%} of the spread")
    return f"the first item's output is the same as alone, within {difference:.2%} of the spread"


def _odd_shape(runner: Runner, example: Arrays) -> EdgeCase:
    """One element more in the last dimension: served if the model allows it, else refused with an error."""
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
