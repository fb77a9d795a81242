"""What structured pruning leaves behind: modules of other widths and depths, which their weights describe.

A pruned model's architecture is in no code. Its weights tell all of it: each layer's shape, and which blocks have no
weights any more. So a pruned artifact is its factory's module, made to fit.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from tools.errors import TransformError

Shape = tuple[int, ...]

_FIX = "The weights must be those of the same factory's model, pruned by infertune."


class Skip(nn.Module):
    """Stands where a block was left out, so that the others keep their names. Returns its first argument."""

    def forward(self, value: Any, *_others: Any, **_named: Any) -> Any:
        """Return `value`, as a residual block does whose branch adds nothing."""
        return value


def fit(module: nn.Module, shapes: Mapping[str, Shape]) -> None:
    """Narrow a module's layers, and leave blocks out, until its state has these shapes.

    What the tensors hold afterwards means nothing: the weights are loaded next. A block is left out when it is a child
    of a `Sequential` or `ModuleList` and `shapes` has none of its tensors, nor one that is tied to them.

    Args:
        module: as its factory builds it; changed in place.
        shapes: of each tensor of the state, by name. A tied tensor may be there once, by any of its names.

    Raises:
        TransformError: a layer differs in another way than its width, or is of a kind that cannot be narrowed.
    """
    present = {identity(tensor) for name, tensor in tensors_of(module).items() if name in shapes}
    _leave_out(module, shapes, present)
    state = tensors_of(module)
    unknown = [name for name in shapes if name not in state]
    if unknown:
        raise TransformError(f"the model has no `{unknown[0]}`, and its weights do.", fix=_FIX)
    wanted: dict[Any, Shape] = {}
    for name, tensor in state.items():
        if name in shapes and wanted.setdefault(identity(tensor), shapes[name]) != shapes[name]:
            raise TransformError(f"`{name}` is tied to another tensor, which has another shape in the weights.")
    narrowed: dict[Any, torch.Tensor] = {}
    for path, layer in module.named_modules():
        _fit_layer(path, layer, wanted, narrowed)


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors of a module's state themselves (parameters and persistent buffers), by name."""
    state = module.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def shapes_of(module: nn.Module) -> dict[str, Shape]:
    """Return the shape of each tensor of a module's state, by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors_of(module).items()}


def identity(tensor: torch.Tensor) -> Any:
    """Equal for two names of one tensor (tied weights), different for tensors without memory."""
    return id(tensor) if tensor.numel() == 0 or tensor.is_meta else (tensor.data_ptr(), tuple(tensor.shape))


def is_depthwise(layer: nn.Module) -> bool:
    """Whether a convolution has one filter for each channel, so that its input and output are narrowed together."""
    return isinstance(layer, _ConvNd) and layer.groups == layer.in_channels == layer.out_channels and layer.groups > 1


def can_narrow(layer: nn.Module) -> bool:
    """Whether the tensors that a layer holds itself may become narrower.

    Recurrent layers and attention may not: their widths hang together in ways of their own. A weight that is computed
    from others (weight norm, parametrizations) may not either. A person's own module may hold plain parameters.
    """
    if _resize_of(layer) is not None:
        return "weight" in layer._parameters  # noqa: SLF001  computed weights are plain attributes
    return not any(
        base.__module__.startswith("torch.nn.") and base.__module__ not in _CONTAINERS for base in type(layer).__mro__
    )


def _leave_out(module: nn.Module, shapes: Mapping[str, Shape], present: set[Any]) -> None:
    for path, container in list(module.named_modules()):
        if not isinstance(container, nn.Sequential | nn.ModuleList):
            continue
        for name, child in list(container.named_children()):
            prefix = f"{path}.{name}." if path else f"{name}."
            own = tensors_of(child)
            kept = any(prefix + key in shapes or identity(tensor) in present for key, tensor in own.items())
            if own and not kept:
                setattr(container, name, Skip())


def _fit_layer(path: str, layer: nn.Module, wanted: Mapping[Any, Shape], narrowed: dict[Any, torch.Tensor]) -> None:
    """Narrow the tensors that a layer holds itself, and then the attributes that repeat their shapes."""
    held = layer._non_persistent_buffers_set  # noqa: SLF001  nothing public tells them from the others
    own: list[tuple[str, torch.Tensor]] = [*layer.named_parameters(recurse=False, remove_duplicate=False)]
    own += [(name, value) for name, value in layer.named_buffers(recurse=False) if name not in held]
    changed = False
    for name, tensor in own:
        label = f"{path}.{name}" if path else name
        key = identity(tensor)
        if key not in wanted:
            raise TransformError(f"`{label}` is missing in the weights.", fix=_FIX)
        if wanted[key] == tuple(tensor.shape):
            continue
        if not can_narrow(layer):
            raise TransformError(f"`{path}` is a {type(layer).__name__}, and such layers cannot be narrowed.")
        setattr(layer, name, narrowed.setdefault(key, _narrow(tensor, wanted[key], label)))
        changed = True
    resize = _resize_of(layer)
    if changed and resize is not None:
        resize(layer)


def _narrow(tensor: torch.Tensor, shape: Shape, label: str) -> torch.Tensor:
    """Return the first elements along each dimension, in memory of their own."""
    if len(shape) != tensor.dim() or any(new > old or new < 1 for new, old in zip(shape, tensor.shape, strict=True)):
        raise TransformError(f"`{label}` has shape {shape}, and the model's {tuple(tensor.shape)} cannot become that.")
    part = tensor.detach()[tuple(slice(size) for size in shape)].clone(memory_format=torch.contiguous_format)
    return nn.Parameter(part, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else part


def _resize_of(layer: nn.Module) -> Callable[[Any], None] | None:
    return next((resize for kind, resize in _RESIZE.items() if isinstance(layer, kind)), None)


def _resize_convolution(layer: Any) -> None:
    """Weights are (out, in / groups, ...), transposed (in, out / groups, ...)."""
    first, second = layer.weight.shape[:2]
    if is_depthwise(layer):
        layer.in_channels = layer.out_channels = layer.groups = first
    elif layer.transposed:
        layer.in_channels, layer.out_channels = first, second * layer.groups
    else:
        layer.in_channels, layer.out_channels = second * layer.groups, first


def _resize_linear(layer: Any) -> None:
    layer.out_features, layer.in_features = layer.weight.shape


def _resize_norm(layer: Any) -> None:
    layer.num_features = len(layer.running_mean if layer.weight is None else layer.weight)


def _resize_layer_norm(layer: Any) -> None:
    layer.normalized_shape = tuple(layer.weight.shape)


def _resize_group_norm(layer: Any) -> None:
    layer.num_channels = len(layer.weight)


def _resize_prelu(layer: Any) -> None:
    layer.num_parameters = len(layer.weight)


def _resize_embedding(layer: Any) -> None:
    layer.num_embeddings, layer.embedding_dim = layer.weight.shape


_RESIZE: dict[type[nn.Module], Callable[[Any], None]] = {
    _ConvNd: _resize_convolution,
    nn.Linear: _resize_linear,
    _NormBase: _resize_norm,
    nn.LayerNorm: _resize_layer_norm,
    nn.RMSNorm: _resize_layer_norm,
    nn.GroupNorm: _resize_group_norm,
    nn.PReLU: _resize_prelu,
    nn.Embedding: _resize_embedding,
}
"""What repeats a layer's shape in its attributes, by the kind of layer. Instance norms are `_NormBase` too."""

_CONTAINERS = ("torch.nn.modules.module", "torch.nn.modules.container")
