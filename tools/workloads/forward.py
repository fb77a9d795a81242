"""Forward passes of changed modules: that they run, and that their outputs are what they should be.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

import torch
from torch import nn

from tools.errors import TransformError
from tools.workloads.couplings import Example
from tools.workloads.modules import named_outputs

_TOLERANCE = {torch.bfloat16: 0.1, torch.float16: 0.02}
"""How far outputs may differ that should be the same, relative to the largest; 1e-3 for other types."""


def is_close(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two outputs are the same but for rounding, which is judged by the largest value."""
    scale = float(second.double().nan_to_num(0, 0, 0).abs().max()) if second.numel() else 0.0
    tolerance = _TOLERANCE.get(second.dtype, 1e-3) * scale
    return torch.allclose(first.double(), second.double(), rtol=0, atol=tolerance, equal_nan=True)


def check_outputs(before: nn.Module, after: nn.Module, example: Example) -> None:
    """Check that a changed module still gives outputs of the same names and shapes.

    Raises:
        TransformError: it does not, or a forward pass fails.
    """
    wanted, found = outputs_of(before, example), outputs_of(after, example)
    for name, output in wanted.items():
        if name not in found or found[name].shape != output.shape:
            shape = tuple(found[name].shape) if name in found else None
            raise TransformError(f"the smaller model's `{name}` has shape {shape}, not {tuple(output.shape)}.")


def outputs_of(module: nn.Module, example: Example) -> dict[str, torch.Tensor]:
    """Return the outputs of one forward pass by name, with the random numbers seeded.

    Raises:
        TransformError: it fails; the message names the layer.
    """
    paths = {layer: path for path, layer in module.named_modules()}
    entered: list[nn.Module] = []

    def enter(layer: nn.Module, _arguments: object) -> None:
        entered.append(layer)

    def leave(_layer: nn.Module, _arguments: object, _output: object) -> None:
        entered.pop()

    handles = [
        hook for layer in paths for hook in (layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave))
    ]
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            return named_outputs(module(*example[0], **example[1]))
    except Exception as error:  # the forward pass is a person's code, and raises anything
        where = paths[entered[-1]] if entered and entered[-1] is not module else type(module).__name__
        text = " ".join(str(error).split())[:200]
        raise TransformError(f"the forward pass fails in `{where}` ({type(error).__name__}: {text}).") from error
    finally:
        for handle in handles:
            handle.remove()
