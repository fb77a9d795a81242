"""What a training makes small: the distance to the original's outputs, and the user's own loss.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from tools.contracts import WorkloadInfo
from tools.errors import TransformError
from tools.spec import BUILTIN_LOSSES
from tools.workloads import code

Array = npt.NDArray[Any]
Tensors = Sequence[torch.Tensor]

_SMALLEST = 1e-7
"""A probability of zero has no logarithm."""
_SUMS_TO_ONE = 1e-3


def soft_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float, axis: int) -> torch.Tensor:
    """Return T^2 times KL(teacher || student) of distributions softened by T, the mean over items and positions.

    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015; the square keeps the gradient's
    size the same for every temperature.

    Args:
        student: logits.
        teacher: logits of the same shape.
        temperature: T.
        axis: where the classes are.
    """
    found = functional.log_softmax(student / temperature, axis)
    wanted = functional.log_softmax(teacher / temperature, axis)
    return functional.kl_div(found, wanted, log_target=True, reduction="none").sum(axis).mean() * temperature**2


@dataclass(frozen=True)
class Output:
    """How one output is compared with the original's.

    Attributes:
        index: which output it is.
        axis: where its classes are; None where it is compared as numbers.
        variance: of the original's values, which squared errors are divided by: outputs of any scale count the same.
        probabilities: whether the original gives probabilities, and whether the student does.
    """

    index: int
    axis: int | None
    variance: float
    probabilities: tuple[bool, bool] = (False, False)

    def distance(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """Return the soft loss of one output: `soft_kl` of classes, the relative squared error of numbers."""
        if self.axis is None:
            return functional.mse_loss(student, teacher) / self.variance
        return soft_kl(self.logits(student), _logits(teacher, told=self.probabilities[0]), temperature, self.axis)

    def logits(self, student: torch.Tensor) -> torch.Tensor:
        """Return a student's output as logits."""
        return _logits(student, told=self.probabilities[1])

    def agreement(self, student: Array, teacher: Array) -> float:
        """Return how far a student agrees: the share of equal first choices of classes, R^2 of numbers."""
        if self.axis is None:
            return 1.0 - float(np.square(student - teacher, dtype=np.float64).mean()) / self.variance
        return float((student.argmax(self.axis) == teacher.argmax(self.axis)).mean())


@dataclass(frozen=True)
class Losses:
    """The losses of one training.

    Attributes:
        outputs: those that are compared, the first one first.
        own: the user's loss of outputs and targets, where there is one.
        temperature: of the soft loss.
        alpha: weight of the soft loss where there is an own one.
        notes: what a person should know.
    """

    outputs: tuple[Output, ...]
    own: Callable[[Tensors, torch.Tensor], torch.Tensor] | None
    temperature: float
    alpha: float
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        workload: WorkloadInfo,
        teacher: Sequence[Array],
        student: Sequence[Array],
        targets: Array | None,
        *,
        temperature: float,
        alpha: float,
    ) -> Self:
        """Choose what fits the workload.

        Args:
            workload: its metric and its loss say whether the first output is classes.
            teacher: the original's outputs on all training items.
            student: the untrained student's, on a few of them.
            targets: of all training items, if there are any.
            temperature: of the soft loss.
            alpha: weight of the soft loss where there is an own one.

        Raises:
            TransformError: no output is made of floating-point numbers, or the loss does not fit the outputs.
        """
        classifies = workload.metric in ("top1", "top5") or workload.loss == "cross_entropy"
        axis = class_axis(teacher[0], targets) if classifies and teacher[0].dtype.kind == "f" else None
        told = (False, False)
        notes = []
        if axis is not None:
            told = _are_probabilities(teacher[0], axis), _are_probabilities(student[0], axis)
            if told[0] is not told[1]:
                kinds = ("probabilities", "logits") if told[0] else ("logits", "probabilities")
                notes.append(f"The model gives {kinds[0]}, and what learnt from it gives {kinds[1]}.")
        outputs = [
            Output(i, None, float(value.var(dtype=np.float64)) or 1.0)
            for i, value in enumerate(teacher)
            if value.dtype.kind == "f"
        ]
        if not outputs:
            raise TransformError("no output of the model is made of floating-point numbers: nothing to learn from.")
        if axis is not None:
            outputs[0] = replace(outputs[0], axis=axis, probabilities=told)
        own = None
        if workload.loss is not None and targets is not None:
            own = _own_loss(workload.loss, outputs[0])
        return cls(tuple(outputs), own, temperature, alpha, tuple(notes))

    def soft(self, student: Tensors, teacher: Tensors) -> torch.Tensor:
        """Return the sum over outputs of their distance to the original's."""
        distances = [o.distance(student[o.index], teacher[o.index], self.temperature) for o in self.outputs]
        return torch.stack(distances).sum()

    def __call__(self, student: Tensors, teacher: Tensors, targets: torch.Tensor | None) -> torch.Tensor:
        """Return the whole loss of a batch."""
        soft = self.soft(student, teacher)
        if self.own is None or targets is None:
            return soft
        return self.alpha * soft + (1 - self.alpha) * self.own(student, targets)


def class_axis(output: Array, targets: Array | None) -> int | None:
    """Return where the classes of an output are; None where it has no more than one.

    In the second dimension, as for PyTorch's cross entropy, where the rest of the shape is that of the targets; in the
    last one otherwise: token by token.

    Args:
        output: (n, ...).
        targets: (n, ...), if there are any.
    """
    if output.ndim < 2:
        return None
    second = output.ndim == 2 or (targets is not None and output.shape[2:] == targets.shape[1:])
    axis = 1 if second else output.ndim - 1
    return axis if output.shape[axis] > 1 else None


def _own_loss(loss: str, first: Output) -> Callable[[Tensors, torch.Tensor], torch.Tensor]:
    if loss == "mse":
        return functools.partial(_relative_mse, first)
    if loss in BUILTIN_LOSSES:
        if first.axis is None:
            raise TransformError(
                f"the loss {loss} needs an output of two classes or more.", fix="Give a loss of your own."
            )
        return functools.partial(_cross_entropy, first)
    function = code.resolve(loss)

    def own(outputs: Tensors, targets: torch.Tensor) -> torch.Tensor:
        with code.user_code(loss, "calling it", function):
            value = function(outputs[0] if len(outputs) == 1 else tuple(outputs), targets)
        if not isinstance(value, torch.Tensor) or value.numel() != 1 or not value.requires_grad:
            raise TransformError("must return one number as a tensor that depends on the outputs.", where=loss)
        return value.reshape(())

    return own


def _relative_mse(first: Output, outputs: Tensors, targets: torch.Tensor) -> torch.Tensor:
    """Return the squared error over the original's variance, to be of one scale with the soft loss."""
    found = outputs[first.index]
    return functional.mse_loss(found, targets.float().reshape(found.shape)) / first.variance


def _cross_entropy(first: Output, outputs: Tensors, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy with class numbers, (n,) or (n, 1) or one a position, or with distributions like the outputs."""
    assert first.axis is not None, "checked before"
    logits = first.logits(outputs[first.index]).movedim(first.axis, 1)
    if targets.is_floating_point():
        return functional.cross_entropy(logits, targets.movedim(first.axis, 1))
    return functional.cross_entropy(logits, targets.long().reshape(logits.shape[:1] + logits.shape[2:]))


def _logits(output: torch.Tensor, *, told: bool) -> torch.Tensor:
    """Return logits of an output that is known to be probabilities, or not."""
    return output.clamp_min(_SMALLEST).log() if told else output


def _are_probabilities(output: Array, axis: int) -> bool:
    return bool(output.min() >= 0 and np.abs(output.sum(axis) - 1).max() < _SUMS_TO_ONE)
