"""Which channels of which layers must go together when a model is narrowed.

The dependency graph is torch-pruning's (Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023): it walks
the autograd graph of one forward pass. Nothing else of it is used. What it finds is turned into plain facts here: names
of tensors, dimensions and indices. Cutting is done elsewhere, and checked by running the result.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from tools.errors import TransformError
from tools.workloads.modules import flatten_outputs
from tools.workloads.structure import can_narrow, is_depthwise, tensors_of

Example = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of one forward pass."""

_HEADS = ("num_heads", "n_heads", "n_head", "num_attention_heads", "heads")
_NORM_ACROSS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Slice:
    """Where one dimension of one tensor belongs to a coupling.

    Attributes:
        tensor: its name in the state.
        dim: which dimension.
        indices: along it.
        channels: for each of these, which channel of the coupling it is.
    """

    tensor: str
    dim: int
    indices: tuple[int, ...]
    channels: tuple[int, ...]


@dataclass(frozen=True)
class Coupling:
    """Channels that go through several layers: one that is removed must be removed from each.

    Attributes:
        layer: the first layer that makes them.
        channels: how many there are.
        groups: they come in so many equal parts (grouped convolutions and norms), which must stay equal.
        slices: all tensors that they are part of.
        mixed: whether a norm goes across them, so that those which stay are changed by those that go.
    """

    layer: str
    channels: int
    groups: int
    slices: tuple[Slice, ...]
    mixed: bool


def find_couplings(module: nn.Module, example: Example) -> tuple[Coupling, ...]:
    """Trace a module and return what can be narrowed in it, in an order that is the same each time.

    Left out, because they keep their channels: what reaches the output, the input, attention (heads and the embedding
    that goes through it), recurrent layers, and layers whose weights are computed from others.

    Args:
        module: is not changed.
        example: arguments of one forward pass.

    Raises:
        TransformError: it cannot be traced.
    """
    traced = _Traced(copy.deepcopy(module), example)
    graph = _dependency_graph(traced, example)
    names = _Names(traced.inner)
    found = (_coupling(graph, group, names) for group in _groups(graph))
    return tuple(coupling for coupling in found if coupling is not None)


class _Traced(nn.Module):
    """A module between doors: its inputs and outputs become nodes of the graph, with channels that nobody may cut.

    Without them, a concatenation with the input itself would be read without the input's share, and an output that is
    also used inside would not be known as one.
    """

    def __init__(self, inner: nn.Module, example: Example) -> None:
        super().__init__()
        self.inner = inner
        for parameter in inner.parameters():
            parameter.requires_grad = parameter.dtype.is_floating_point
        self.doors = nn.ModuleDict(
            {key: door for key, value in _arguments(example).items() if (door := _door(value)) is not None}
        )

    def forward(self, *positional: Any, **keywords: Any) -> list[torch.Tensor]:
        """Run the module, and return its outputs that depend on its parameters."""
        given = _arguments((positional, keywords))
        passed = {key: self.doors[key](value) if key in self.doors else value for key, value in given.items()}
        output = self.inner(
            *(passed[f"at {index}"] for index in range(len(positional))),
            **{name: passed[f"as {name}"] for name in keywords},
        )
        return [tensor * 1 for tensor in flatten_outputs(output) if tensor.grad_fn is not None]


def _arguments(example: Example) -> dict[str, Any]:
    positional, keywords = example
    return {f"at {i}": value for i, value in enumerate(positional)} | {f"as {n}": v for n, v in keywords.items()}


def _door(value: Any) -> nn.Module | None:
    """Return a layer that changes nothing and has as many channels as the input; None where these are not known."""
    kinds: dict[int, type[nn.Module]] = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.dim() not in kinds:
        return None
    return kinds[value.dim()](value.shape[1], eps=0.0, dtype=value.dtype)


def _dependency_graph(traced: _Traced, example: Example) -> Any:
    import torch_pruning

    opaque = {
        type(layer): torch_pruning.ops.CustomizedPruner() for layer in traced.inner.modules() if _is_opaque(layer)
    }

    def run(model: nn.Module, arguments: Example) -> Any:
        return model(*arguments[0], **arguments[1])

    try:
        with warnings.catch_warnings(), torch.inference_mode(mode=False), torch.enable_grad():
            warnings.simplefilter("ignore")  # about what it cannot follow; the result is checked
            graph = torch_pruning.DependencyGraph()
            graph.build_dependency(
                traced,
                example_inputs=example,
                forward_fn=run,
                unwrapped_parameters=[],
                customized_pruners=opaque,
                ignored_layers=[],
                ignored_params=[],
                verbose=False,
            )
    except Exception as error:  # it walks the graph of any code, and raises whatever it stumbles over
        text = " ".join(str(error).split())[:200]
        raise TransformError(
            f"how this model's layers depend on each other cannot be traced ({type(error).__name__}: {text})."
        ) from error
    return graph


def _groups(graph: Any) -> Iterator[Any]:
    """Yield torch-pruning's groups: all that depends on the output channels of each convolution and linear layer.

    Its own loop over them ends at the first group that it stumbles over.
    """
    seen: set[int] = set()
    for layer in list(graph.module2node):
        if not isinstance(layer, _ConvNd | nn.Linear) or id(layer) in seen:
            continue
        pruner = graph.get_pruner_of_module(layer)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                group = graph.get_pruning_group(
                    layer, pruner.prune_out_channels, list(range(pruner.get_out_channels(layer)))
                )
        except Exception as error:  # noqa: BLE001  as above
            print(f"the channels of {layer} are not followed: {error!r}")  # noqa: T201  to the log
            continue
        seen.update(
            id(item.dep.target.module) for item in group.items if graph.is_out_channel_pruning_fn(item.dep.handler)
        )
        yield group


def _is_opaque(layer: nn.Module) -> bool:
    """Whether torch-pruning has to be told not to look into a layer: recurrent layers, and attention of one's own.

    Attention is known by its number of heads, which no module inside of it has. What PyTorch has itself of both,
    torch-pruning knows: `LSTM` and `MultiheadAttention`.
    """

    def has_heads(candidate: nn.Module) -> bool:
        return any(type(getattr(candidate, name, None)) is int for name in _HEADS)

    if isinstance(layer, nn.LSTM | nn.MultiheadAttention):
        return False
    if isinstance(layer, nn.RNNBase | nn.RNNCellBase):
        return True
    return has_heads(layer) and sum(has_heads(inside) for inside in layer.modules()) == 1


def _coupling(graph: Any, group: Any, names: _Names) -> Coupling | None:
    """Turn a group of the graph into facts; None when something in it must keep its channels."""
    from torch_pruning.ops import OPTYPE

    kinds = ("CONCAT", "SPLIT", "ELEMENTWISE", "RESHAPE", "UNBIND", "EXPAND", "SLICE")
    passing = [OPTYPE[kind] for kind in kinds]
    channels = len(group[0].idxs)
    slices: list[Slice] = []
    parts, mixed = {1}, False
    for item in group.items:
        node = item.dep.target
        if node.type in passing:
            continue
        owner, places = names.places(node, outward=graph.is_out_channel_pruning_fn(item.dep.handler))
        indices, roots = tuple(item.idxs), tuple(item.root_idxs)
        if places is None or None in roots:
            return None
        if (part := _parts(owner)) > 1:
            if indices != tuple(range(channels)) or roots != indices or channels % part:
                return None
            parts.add(part)
        mixed = mixed or isinstance(owner, _NORM_ACROSS)
        for tensor, dim, size in places:
            # A filter of a grouped convolution sees the inputs of its own group only.
            at, of = (range(size), range(size)) if part > 1 and size < channels else (indices, roots)
            if max(at) >= size:
                return None
            slices.append(Slice(tensor, dim, tuple(at), tuple(of)))
    if any(max(parts) % part for part in parts):
        return None
    return Coupling(names.of(group[0].dep.target.module), channels, max(parts), tuple(slices), mixed)


class _Names:
    """Finds the tensors behind a node of the graph."""

    def __init__(self, module: nn.Module) -> None:
        self._state = tensors_of(module)
        self._layers: dict[nn.Module, str] = {layer: path for path, layer in module.named_modules()}
        self._owners = {
            id(parameter): (layer, f"{path}.{name}" if path else name)
            for path, layer in module.named_modules()
            for name, parameter in layer.named_parameters(recurse=False)
        }

    def of(self, layer: nn.Module) -> str:
        """Return a layer's name."""
        return self._layers[layer]

    def places(self, node: Any, *, outward: bool) -> tuple[Any, list[tuple[str, int, int]] | None]:
        """Return the layer of a node, and its tensors that have the channels: name, dimension and size along it.

        Instead of the tensors it is None for what must keep its channels, or has no tensor that would tell of them.
        """
        layer = node.module
        if isinstance(layer, nn.Parameter):
            owner, label = self._owners[id(layer)]
            return owner, [(label, node.pruning_dim, layer.shape[node.pruning_dim])] if can_narrow(owner) else None
        dims = _dims(layer, outward=outward)
        if dims is None or layer not in self._layers or not can_narrow(layer):
            return layer, None
        path = self._layers[layer]
        labels = {f"{path}.{name}" if path else name: dim for name, dim in dims.items()}
        found = [(label, dim, self._state[label].shape[dim]) for label, dim in labels.items() if label in self._state]
        return layer, found if found or not dims else None


def _dims(layer: nn.Module, *, outward: bool) -> dict[str, int] | None:
    """Return which dimension of which tensor of a layer its output (or input) channels are; None for other layers."""
    if isinstance(layer, _ConvNd):
        return _convolution_dims(layer, outward=outward)
    if isinstance(layer, nn.Linear):
        return {"weight": 0, "bias": 0} if outward else {"weight": 1}
    if isinstance(layer, nn.Embedding):
        return {"weight": 1}
    if isinstance(layer, nn.PReLU) and layer.num_parameters == 1:
        return {}
    one_dimensional = not isinstance(layer, nn.LayerNorm) or len(layer.normalized_shape) == 1
    if isinstance(layer, _NormBase | nn.LayerNorm | nn.GroupNorm | nn.PReLU) and one_dimensional:
        return {"weight": 0, "bias": 0, "running_mean": 0, "running_var": 0}
    return None


def _convolution_dims(layer: _ConvNd, *, outward: bool) -> dict[str, int] | None:
    if is_depthwise(layer):
        return {"weight": 0, "bias": 0}
    if layer.groups > 1 and (layer.transposed or layer.groups in (layer.in_channels, layer.out_channels)):
        return None
    if outward:
        return {"weight": 1 if layer.transposed else 0, "bias": 0}
    return {"weight": 0 if layer.transposed else 1}


def _parts(layer: Any) -> int:
    """Return in how many equal parts a layer treats its channels."""
    if isinstance(layer, nn.GroupNorm):
        return layer.num_groups
    return layer.groups if isinstance(layer, _ConvNd) and not is_depthwise(layer) else 1
