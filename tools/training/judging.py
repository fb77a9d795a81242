"""Judging a student by the items held out from its training.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tools.contracts import WorkloadInfo
from tools.errors import WorkloadError
from tools.training.lessons import Lessons
from tools.training.losses import Losses
from tools.workloads import metrics

Array = npt.NDArray[Any]


@dataclass(frozen=True, order=True)
class Mark:
    """How good a student is; the greater the better.

    Attributes:
        score: mean of the workload's metric over the held-out items, negative for one where less is better.
        closeness: negative distance of its outputs to the original's: few items often give equal scores.
        agreement: share of items with the same first choice as the original's, or R^2.
    """

    score: float
    closeness: float
    agreement: float


WORST = Mark(score=-math.inf, closeness=-math.inf, agreement=-math.inf)
"""Any student is better."""


class Judge:
    """Scores outputs for the held-out items as the workload's metric does; without targets by agreement.

    Args:
        workload: whose metric.
        lessons: whose held-out items.
        losses: tell how outputs are compared with the original's.

    Attributes:
        original: the original's own score.
        metric: what is scored.
        notes: why that is not the workload's metric, where it is not.
    """

    def __init__(self, workload: WorkloadInfo, lessons: Lessons, losses: Losses) -> None:
        self._losses = losses
        self._outputs = tuple(output[lessons.held] for output in lessons.answers.outputs)
        self._targets = None if lessons.targets is None else lessons.targets[lessons.held]
        self._sign = 1.0 if workload.higher_is_better else -1.0
        self.metric = workload.metric
        self.notes: tuple[str, ...] = ()
        try:
            self.original = self._score(self._outputs)
        except WorkloadError as error:  # a metric may need targets, or more items than are held out
            if self._targets is not None:
                self.notes = (f"{workload.metric} cannot score the {len(lessons.held)} items held out: {error}",)
            self.metric, self._sign = "agreement", 1.0
            self.original = 1.0

    def mark(self, outputs: Sequence[Array]) -> Mark:
        """Mark a student.

        Args:
            outputs: its finite outputs for the held-out items.
        """
        agreement = self._agreement(outputs)
        closeness = -float(self._losses.soft(_tensors(outputs), _tensors(self._outputs)))
        score = agreement if self.metric == "agreement" else self._score(outputs)
        return Mark(score, closeness, agreement)

    def _agreement(self, outputs: Sequence[Array]) -> float:
        first = self._losses.outputs[0]
        return first.agreement(outputs[first.index], self._outputs[first.index])

    def _score(self, outputs: Sequence[Array]) -> float:
        scores = metrics.score(self.metric, outputs, self._targets, baseline=self._outputs)
        return self._sign * float(np.mean(scores))


def _tensors(outputs: Sequence[Array]) -> list[torch.Tensor]:
    return [torch.from_numpy(output) for output in outputs]
