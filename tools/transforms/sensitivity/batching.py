"""Running and timing many items through something that takes one batch size."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from tools.transforms.sensitivity.judge import Array, Outputs

JUDGING_BATCH = 50
MOST_ROUNDS = 30
ENOUGH_S = 3.0
"""After which no further round of timing or profiling starts, if there were `FEWEST_ROUNDS`."""
FEWEST_ROUNDS = 5

Call = Callable[[Mapping[str, Array]], Outputs]
"""Runs one batch, of the size that it was loaded for."""


def run_all(call: Call, inputs: Mapping[str, Array], size: int) -> Outputs:
    """Run items in batches of exactly `size`, the last one filled up by repetition, and return (n, ...) outputs.

    Args:
        call: runs a batch.
        inputs: (n, *shape) by name.
        size: of a batch.
    """
    total = len(next(iter(inputs.values())))
    parts: list[Outputs] = []
    for start in range(0, total, size):
        rows = np.arange(start, start + size) % total
        outputs = call({name: np.ascontiguousarray(array[rows]) for name, array in inputs.items()})
        parts.append(tuple(np.array(output[: total - start]) for output in outputs))
    return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))


def rounds() -> Iterator[int]:
    """Count rounds of timing or profiling, until there are enough or it has taken long."""
    started = time.perf_counter()
    for number in range(MOST_ROUNDS):
        yield number
        if number + 1 >= FEWEST_ROUNDS and time.perf_counter() - started > ENOUGH_S:
            return


def median_ms(calls: Sequence[Call], inputs: Mapping[str, Array]) -> tuple[float, ...]:
    """Return each call's median time over rounds in which they take turns.

    Args:
        calls: run a batch.
        inputs: that batch.
    """
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call(inputs)  # the first run allocates
    for _ in rounds():
        for taken, call in zip(times, calls, strict=True):
            before = time.perf_counter_ns()
            call(inputs)
            taken.append((time.perf_counter_ns() - before) / 1e6)
    return tuple(statistics.median(taken) for taken in times)


def first(inputs: Mapping[str, Array], size: int) -> dict[str, Array]:
    """Return a batch of the first `size` items, which repeat where there are fewer."""
    return {
        name: np.ascontiguousarray(np.take(array, range(size), axis=0, mode="wrap")) for name, array in inputs.items()
    }
