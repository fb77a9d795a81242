"""Example arguments for tracing and exporting a torch module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.contracts import WorkloadInfo

if TYPE_CHECKING:
    import torch

EXPORT_BATCH = 2
"""A batch of one would be specialized to one: torch.export takes 0 and 1 for constants."""


def example_call(workload: WorkloadInfo, size: int) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """Return positional and keyword arguments of one call with a batch of `size` calibration items."""
    import torch

    from tools.workloads.datasets import batch_of
    from tools.workloads.modules import is_positional

    batch = batch_of(workload.calibration, size)
    tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
    if is_positional(tensors):
        return tuple(tensors.values()), {}
    return (), tensors
