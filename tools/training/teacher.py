"""The teacher: the original model's outputs on the training items, computed once.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tools.contracts import ArtifactRef, ModelFormat, WorkloadInfo
from tools.training.features import FeatureTap, last_linear
from tools.training.padding import Padding
from tools.workloads.datasets import repeated
from tools.workloads.modules import call_module, load_module, to_numpy
from tools.workloads.sequences import Arrays, joined, resized, trimmed

Array = npt.NDArray[Any]

_BATCH = 32


@dataclass(frozen=True)
class Answers:
    """What the original says to each item.

    Attributes:
        outputs: (n, ...) each, floats as float32.
        features: (n, features), what goes into its last linear layer; None where that was not asked for or not found.
    """

    outputs: tuple[Array, ...]
    features: Array | None


def ask(workload: WorkloadInfo, inputs: Arrays, *, features: bool) -> Answers:
    """Run the original on all items.

    Args:
        workload: its model, in the format in which the user gave it.
        inputs: (n, *shape) by name; memory-mapped is fine.
        features: whether features are wanted too.
    """
    n = len(next(iter(inputs.values())))
    size = workload.source.fixed_batch or min(_BATCH, n)
    padding = Padding.of(workload, inputs)
    run, tap = _runner(workload.source, _cut(workload, repeated(inputs, size)) if features else None)
    parts: list[list[Array]] = []
    kept_features: list[Array] = []
    with tap if tap is not None else contextlib.nullcontext():
        for start in range(0, n, size):
            count = min(size, n - start)
            batch = repeated({name: value[start : start + count] for name, value in inputs.items()}, size)
            found = [torch.from_numpy(_as_float32(output[:count])) for output in run(_cut(workload, batch))]
            blanked = found if padding is None else padding.blanked(found, np.arange(start, start + count))
            parts.append([to_numpy(output) for output in blanked])
            if tap is not None:
                kept_features.append(np.array(to_numpy(tap.value)[:count]))
    varying = (False,) * len(parts[0]) if padding is None else padding.varying
    outputs = zip(zip(*parts, strict=True), varying, strict=True)
    return Answers(
        outputs=tuple(joined(found, workload.sequence, varies=varies) for found, varies in outputs),
        features=np.concatenate(kept_features) if kept_features else None,
    )


def _cut(workload: WorkloadInfo, batch: Arrays) -> Arrays:
    """Return a batch as long as its longest item, or as the original wants it."""
    fixed = workload.source.fixed_length
    if workload.sequence is not None and fixed is not None:
        return resized(workload.sequence, batch, fixed)
    return trimmed(workload.sequence, batch)


def _as_float32(output: Array) -> Array:
    """Training is in float32, whatever the original computes in. Copied: runtimes use their buffers again."""
    return output.astype(np.float32) if output.dtype.kind == "f" else np.array(output)


def _runner(
    source: ArtifactRef, example: Arrays | None
) -> tuple[Callable[[Arrays], tuple[Array, ...]], FeatureTap | None]:
    """Return what runs a batch, and what keeps its features where an example is given to find them with."""
    if source.format is ModelFormat.ONNX:
        from tools.runtimes.onnxruntime import create_session, session_runner

        return session_runner(create_session(source, torch.get_num_threads(), ["CPUExecutionProvider"])), None
    module = load_module(source)
    layer = None if example is None else last_linear(module, lambda: call_module(module, example))
    return (lambda batch: call_module(module, batch)), None if layer is None else FeatureTap(layer)
