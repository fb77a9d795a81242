"""Features: what goes into a module's last linear layer, and learning from those of the original.

Romero et al., "FitNets: Hints for Thin Deep Nets", 2015: a projection, learnt along, makes up for different widths.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

Array = npt.NDArray[Any]


class FeatureTap:
    """Keeps what went into one linear layer in the last forward pass, for as long as it is entered.

    Args:
        layer: as `last_linear` found it.
    """

    def __init__(self, layer: torch.nn.Linear) -> None:
        self.layer = layer
        self._value: torch.Tensor | None = None
        self._handle: Any = None

    @property
    def value(self) -> torch.Tensor:
        """(b, features) float32, the mean over all dimensions between the first and the last."""
        assert self._value is not None, "a forward pass went before"
        value = self._value.float()
        return value.flatten(1, -2).mean(1) if value.ndim > 2 else value

    def __enter__(self) -> Self:
        def keep(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            self._value = inputs[0]

        self._handle = self.layer.register_forward_pre_hook(keep)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()
        self._value = None


class FeatureLoss:
    """The distance of a student's features, projected, to the original's: their squared error over its variance.

    Args:
        tap: keeps the student's features; to be entered.
        wanted: (n, features) of the original, for all items.
    """

    def __init__(self, tap: FeatureTap, wanted: Array) -> None:
        self.tap = tap
        self._wanted = wanted
        self._variance = float(wanted.var(dtype=np.float64)) or 1.0
        self._projection = torch.nn.Linear(tap.layer.in_features, wanted.shape[1])

    def reset(self) -> None:
        """Forget what the projection learnt."""
        self._projection.reset_parameters()

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        """Return what is learnt along."""
        return self._projection.parameters()

    def __call__(self, items: npt.NDArray[np.int64]) -> torch.Tensor:
        """Return the loss of the batch that went through the student last."""
        wanted = torch.from_numpy(self._wanted[items])
        return functional.mse_loss(self._projection(self.tap.value), wanted) / self._variance


def last_linear(module: torch.nn.Module, call: Callable[[], Any]) -> torch.nn.Linear | None:
    """Return the linear layer that a forward pass calls last, if there is one and it gets a whole batch.

    Args:
        module: whose layers are watched. Those of an exported program are none.
        call: runs one forward pass of it.
    """
    called: list[torch.nn.Linear] = []

    def note(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(layer, torch.nn.Linear) and inputs and inputs[0].ndim > 1:
            called.append(layer)

    linear = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]
    handles = [layer.register_forward_pre_hook(note) for layer in linear]
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    return called[-1] if called else None
