"""Example arguments for tracing and exporting a torch module, and the axes of them that may have any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.contracts import WorkloadInfo

if TYPE_CHECKING:
    import torch

EXPORT_BATCH = 2
"""A batch of one would be specialized to one: torch.export takes 0 and 1 for constants."""


def example_call(
    workload: WorkloadInfo, size: int, *, padded: bool = False
) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """Return positional and keyword arguments of one call with a batch of `size` calibration items.

    Args:
        workload: whose items.
        size: items in the batch.
        padded: keep sequences at the length that all items are padded to; else the batch is as long as its longest.
    """
    import torch

    from tools.workloads.datasets import batch_of
    from tools.workloads.modules import is_positional
    from tools.workloads.sequences import served_batch

    ref = workload.calibration
    batch = batch_of(ref, size) if padded else served_batch(workload, ref, size)
    tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
    if is_positional(tensors):
        return tuple(tensors.values()), {}
    return (), tensors


def any_size(workload: WorkloadInfo, *, batch: bool, length: bool) -> dict[str, tuple[int, ...]]:
    """Return, for each input by name, the axes that may have any size.

    Args:
        workload: whose inputs.
        batch: whether the first one is among them.
        length: whether the one along which sequences vary is.
    """
    first = (0,) if batch else ()
    sequence = workload.sequence if length else None
    return {
        spec.name: (*first, 1 if spec.name == sequence.mask else sequence.axis)
        if sequence is not None and spec.name in sequence.inputs
        else first
        for spec in workload.inputs
    }


def fixed_length_note(length: int) -> str:
    """Say that a program was made for one length of its sequences."""
    return f"It takes sequences of {length} only: every batch is padded to that, however short its items are."
