"""One batch as several parts that run at the same time: the arithmetic, and a runner made of runners."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tools.contracts import ArtifactRef
from tools.errors import TransformError
from tools.runtimes.base import Arrays, Runner


def divide(total: int, parts: int) -> list[int]:
    """Return `parts` nearly equal whole numbers that add up to `total`, larger ones first."""
    share, rest = divmod(total, parts)
    return [share + (index < rest) for index in range(parts)]


def part_sizes(artifact: ArtifactRef, batch_size: int, streams: int) -> list[int]:
    """Return how many items each part of a batch has.

    Raises:
        TransformError: the program accepts one batch size only, so that nothing can be split.
    """
    if streams > 1 and artifact.fixed_batch is not None:
        raise TransformError(
            f"streams={streams} cannot split batches: the model was exported for batch {artifact.fixed_batch} only."
        )
    return divide(batch_size, min(streams, batch_size))


def slices_of(sizes: Sequence[int]) -> list[slice]:
    """Return where the parts of these sizes lie in a batch."""
    ends = list(itertools.accumulate(sizes))
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


class ParallelRunner:
    """Runs each part of a batch on a runner of its own, at the same time.

    The last part runs on the calling thread, which would only wait otherwise. Runners have to release the
    interpreter's lock while they compute.
    """

    def __init__(self, runners: Sequence[Runner], sizes: Sequence[int]) -> None:
        """Start a thread for every runner but the last.

        Args:
            runners: one for each part; they may be the same one if it can be called from several threads.
            sizes: items of each part.
        """
        *self._others, self._own = runners
        self._slices = slices_of(sizes)
        self._pool = ThreadPoolExecutor(len(self._others), thread_name_prefix="stream")

    def __call__(self, inputs: Arrays) -> tuple[np.ndarray, ...]:
        """Run one batch; outputs are joined along their first axis."""
        *others, own = ({name: array[part] for name, array in inputs.items()} for part in self._slices)
        running = [self._pool.submit(runner, part) for runner, part in zip(self._others, others, strict=True)]
        last = self._own(own)
        return joined([*(future.result() for future in running), last])


def joined(parts: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Join the outputs of a batch's parts, each along its first axis."""
    return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))
