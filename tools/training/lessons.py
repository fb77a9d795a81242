"""Lessons: the training items with what the original says to them, split into those to learn from and those held out.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tools.contracts import DatasetRef, WorkloadInfo
from tools.contracts.workload import SequenceInfo
from tools.errors import TransformError
from tools.training.padding import Padding
from tools.training.schedule import Indices, hold_out
from tools.training.teacher import Answers, ask
from tools.workloads.datasets import load_inputs, load_targets
from tools.workloads.metrics import check_finite
from tools.workloads.modules import call_arguments
from tools.workloads.sequences import trimmed

Array = npt.NDArray[Any]

FEWEST_ITEMS = 8
FEWEST_OF_A_CLASS = 2


@dataclass(frozen=True)
class Lessons:
    """The training items.

    Attributes:
        inputs: (n, *shape) by name, memory-mapped.
        targets: (n, ...), if there are any.
        answers: what the original says to each item, zeros behind its end.
        train: the numbers of the items to learn from.
        held: the numbers of those held out from that, to judge by.
        sequence: how lengths vary; None for items of one shape.
        padding: where the items end; None for items of one shape.
    """

    inputs: Mapping[str, Array]
    targets: Array | None
    answers: Answers
    train: Indices
    held: Indices
    sequence: SequenceInfo | None
    padding: Padding | None

    def arguments(
        self, module: torch.nn.Module, items: Indices
    ) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
        """Return what a module is called with for these items: as long as the longest, images with channels last."""
        batch = {name: np.ascontiguousarray(value[items]) for name, value in self.inputs.items()}
        positional, keywords = call_arguments(module, trimmed(self.sequence, batch))
        return tuple(map(_channels_last, positional)), {name: _channels_last(value) for name, value in keywords.items()}

    def answers_to(self, items: Indices) -> list[torch.Tensor]:
        """Return the original's outputs for these items, as long as the longest of them."""
        outputs = [output[items] for output in self.answers.outputs]
        if self.padding is not None:
            varying = self.padding.varying
            outputs = [self.padding.cut(o, items) if v else o for o, v in zip(outputs, varying, strict=True)]
        return [torch.from_numpy(output) for output in outputs]

    def targets_of(self, items: Indices) -> torch.Tensor | None:
        """Return the targets of these items, if there are any; those of tokens as long as the longest item."""
        if self.targets is None:
            return None
        targets = self.targets[items]
        if self.padding is not None and self.padding.is_full(targets):
            targets = self.padding.cut(targets, items)
        return torch.from_numpy(targets)


def load_lessons(workload: WorkloadInfo, *, features: bool, seed: int) -> Lessons:
    """Run the original on all training items, and hold some of them out.

    Raises:
        TransformError: there are no training items, or too few.
        WorkloadError: the original's outputs are not finite.
    """
    data = _training_data(workload)
    inputs = load_inputs(data)
    answers = ask(workload, inputs, features=features)
    check_finite(answers.outputs, [spec.name for spec in workload.outputs])
    train, held = hold_out(data.n, seed)
    return Lessons(
        inputs=inputs,
        targets=load_targets(data),
        answers=answers,
        train=train,
        held=held,
        sequence=workload.sequence,
        padding=Padding.of(workload, inputs),
    )


def _training_data(workload: WorkloadInfo) -> DatasetRef:
    data = workload.training
    if data is None:
        raise TransformError("there are no training items.", fix="Give `workload.training` in the spec.")
    if data.n < FEWEST_ITEMS:
        raise TransformError(f"{data.n} training items are too few: give {FEWEST_ITEMS} or more.")
    shape = workload.outputs[0].shape
    if workload.metric in ("top1", "top5") and shape and data.n < FEWEST_OF_A_CLASS * shape[0]:
        raise TransformError(
            f"{data.n} training items are too few for {shape[0]} classes: give {FEWEST_OF_A_CLASS} a class or more."
        )
    return data


def _channels_last(value: torch.Tensor) -> torch.Tensor:
    if value.ndim == 4 and value.is_floating_point():
        return value.contiguous(memory_format=torch.channels_last)
    return value
