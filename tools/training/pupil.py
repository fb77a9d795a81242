"""The pupil: a module that is being trained, and how it is called.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch

from tools.contracts import Precision
from tools.training.features import last_linear
from tools.training.lessons import Lessons
from tools.training.schedule import Indices
from tools.workloads.datasets import repeated
from tools.workloads.modules import flatten_outputs, precision_of, to_numpy
from tools.workloads.sequences import joined

Array = npt.NDArray[Any]
State = dict[str, torch.Tensor]

_JUDGED_AT_ONCE = 64
_DTYPES = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}
_LAYERS = (
    torch.nn.Linear,
    torch.nn.Conv1d,
    torch.nn.Conv2d,
    torch.nn.Conv3d,
    torch.nn.ConvTranspose1d,
    torch.nn.ConvTranspose2d,
    torch.nn.ConvTranspose3d,
)


class Pupil:
    """A module in training: in float32, with gradients, weights of images with the channels last in memory.

    Args:
        module: changed in place.
        lessons: what it is called with.
        fixed_batch: the only batch size that it takes, if there is one.
    """

    def __init__(self, module: torch.nn.Module, lessons: Lessons, fixed_batch: int | None) -> None:
        self.module = module
        self.lessons = lessons
        self.fixed_batch = fixed_batch
        self._precision = precision_of(module)
        if self._precision in _DTYPES:
            module.float()
        module.to(memory_format=torch.channels_last)
        for parameter in module.parameters():
            parameter.requires_grad = parameter.is_floating_point()

    def forward(self, items: Indices) -> list[torch.Tensor]:
        """Run a batch; outputs that a module has in training only, like those of auxiliary heads, are left out."""
        positional, keywords = self.lessons.arguments(self.module, items)
        outputs = flatten_outputs(self.module(*positional, **keywords))[: len(self.lessons.answers.outputs)]
        padding = self.lessons.padding
        return outputs if padding is None else padding.blanked(outputs, items)

    def answers(self, items: Indices) -> tuple[Array, ...]:
        """Return the outputs for these items as it will give them when it is served: in eval mode and float32."""
        size = self.fixed_batch or min(_JUDGED_AT_ONCE, len(items))
        parts = []
        self.module.eval()
        with torch.no_grad():
            for start in range(0, len(items), size):
                chosen = items[start : start + size]
                outputs = self.forward(repeated({"items": chosen}, size)["items"])
                parts.append([to_numpy(output)[: len(chosen)] for output in outputs])
        self.module.train()
        padding = self.lessons.padding
        varying = (False,) * len(parts[0]) if padding is None else padding.varying
        collected = zip(zip(*parts, strict=True), varying, strict=True)
        return tuple(joined(found, self.lessons.sequence, varies=varies) for found, varies in collected)

    def last_linear(self) -> torch.nn.Linear | None:
        """Return the linear layer that is called last, if there is one."""
        few = self.lessons.train[: self.fixed_batch or 2]
        return last_linear(self.module, lambda: self.answers(few))

    def state(self) -> State:
        """Return a copy of all that it has learnt."""
        return {name: value.detach().clone() for name, value in self.module.state_dict().items()}

    def restore(self, state: State) -> None:
        """Go back to what `state` returned."""
        self.module.load_state_dict(state)

    def graduate(self) -> None:
        """Make the module as it was loaded: for inference, in its own precision, weights in the usual layout."""
        self.module.to(memory_format=torch.contiguous_format)
        if self._precision in _DTYPES:
            self.module.to(_DTYPES[self._precision])
        self.module.eval()
        for parameter in self.module.parameters():
            parameter.requires_grad = False


def layer_weights(module: torch.nn.Module) -> list[torch.Tensor]:
    """Return the weights of convolutions and linear layers."""
    return [layer.weight for layer in module.modules() if isinstance(layer, _LAYERS)]


def zero_share(module: torch.nn.Module) -> float:
    """Return the share of the weights of convolutions and linear layers that are exactly zero."""
    weights = layer_weights(module)
    total = sum(weight.numel() for weight in weights)
    return sum(int((weight == 0).sum()) for weight in weights) / total if total else 0.0
