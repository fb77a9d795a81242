"""Items of varying length: what a model says behind the last token is nobody's business, and nothing to learn.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from tools.contracts import WorkloadInfo
from tools.training.schedule import Indices
from tools.workloads.sequences import Arrays, lengths_of, resize, varying_outputs

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Padding:
    """Where the items end.

    Attributes:
        lengths: (n,) tokens of each item.
        axis: of outputs, along which the lengths vary.
        full: the length that all items are padded to.
        varying: of each output, whether it has that axis.
    """

    lengths: npt.NDArray[np.int64]
    axis: int
    full: int
    varying: tuple[bool, ...]

    @classmethod
    def of(cls, workload: WorkloadInfo, inputs: Arrays) -> Self | None:
        """Find where items end; None for items of one shape."""
        sequence = workload.sequence
        if sequence is None:
            return None
        return cls(lengths_of(sequence, inputs), sequence.axis, sequence.length, varying_outputs(workload))

    def is_full(self, targets: Array) -> bool:
        """Whether targets are those of tokens, padded as the outputs are."""
        return any(self.varying) and targets.shape[self.axis : self.axis + 1] == (self.full,)

    def cut(self, value: Array, items: Indices) -> Array:
        """Return padded values of some items, cut to the longest of them."""
        return resize(value, self.axis, int(self.lengths[items].max()), 0)

    def blanked(self, outputs: list[torch.Tensor], items: Indices) -> list[torch.Tensor]:
        """Return the outputs for some items with zeros behind the end of each."""
        return [
            self._blank(output, items) if varies else output
            for output, varies in zip(outputs, self.varying, strict=True)
        ]

    def _blank(self, output: torch.Tensor, items: Indices) -> torch.Tensor:
        lengths = torch.from_numpy(self.lengths[items])
        shape = [1] * output.ndim
        shape[0], shape[self.axis] = output.shape[0], output.shape[self.axis]
        there = (torch.arange(output.shape[self.axis]) < lengths[:, None]).reshape(shape)
        return torch.where(there, output, torch.zeros((), dtype=output.dtype))
