"""Materialized data: items written once as `.npy`, and read back by every trial without any user code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from tools.artifacts import write_directory
from tools.contracts import DatasetRef, TensorSpec

Array = npt.NDArray[Any]

_TARGETS = "targets"


def write_dataset(root: Path, inputs: Mapping[str, Array], targets: Array | None) -> DatasetRef:
    """Write items into a content-addressed directory below `root`.

    Args:
        root: where datasets live.
        inputs: (n, *shape) by name.
        targets: (n, ...), if there are any.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """

    def fill(folder: Path) -> None:
        for name, value in inputs.items():
            np.save(folder / _file(name), value)
        if targets is not None:
            np.save(folder / _file(_TARGETS), targets)

    digest, path = write_directory(root, fill)
    return DatasetRef(
        digest=digest,
        directory=str(path),
        n=len(next(iter(inputs.values()))),
        inputs=tensor_specs(inputs),
        has_targets=targets is not None,
    )


def tensor_specs(arrays: Mapping[str, Array]) -> tuple[TensorSpec, ...]:
    """Describe arrays that have a batch dimension."""
    return tuple(
        TensorSpec(name=name, dtype=str(value.dtype), shape=tuple(value.shape[1:])) for name, value in arrays.items()
    )


def describe(specs: tuple[TensorSpec, ...]) -> str:
    """Say what tensors are, for messages."""
    return ", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in specs)


def load_inputs(ref: DatasetRef, start: int = 0, count: int | None = None) -> dict[str, Array]:
    """Return `count` items from `start` (all the rest by default), memory-mapped and read-only, by input name."""
    stop = None if count is None else start + count
    return {
        spec.name: np.load(Path(ref.directory) / _file(spec.name), mmap_mode="r")[start:stop] for spec in ref.inputs
    }


def load_targets(ref: DatasetRef) -> Array | None:
    """Return the targets of all items, if there are any."""
    if not ref.has_targets:
        return None
    targets: Array = np.load(Path(ref.directory) / _file(_TARGETS))
    return targets


def batch_of(ref: DatasetRef, size: int) -> dict[str, Array]:
    """Return the first `size` items as contiguous, writable arrays; they repeat when there are fewer."""
    return repeated(load_inputs(ref), size)


def repeated(inputs: Mapping[str, Array], size: int) -> dict[str, Array]:
    """Return a batch of exactly `size` items, copied, repeating from the first one as often as needed."""
    return {
        name: np.ascontiguousarray(np.take(value, np.arange(size), axis=0, mode="wrap"))
        for name, value in inputs.items()
    }


def _file(name: str) -> str:
    """File of an input; names that a graph may have, like `a/b`, are escaped."""
    return f"{quote(name, safe=' ')}.npy"
