"""Smaller versions of a model: channels and blocks are taken out, and the weights of the others are kept.

Whatever is made here, `tools.workloads.structure.fit` makes again from the shapes of its weights: that is how it is
made here, too.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from tools.errors import TransformError
from tools.workloads.couplings import Coupling, Example, find_couplings
from tools.workloads.forward import check_outputs, is_close, outputs_of
from tools.workloads.structure import fit, shapes_of, tensors_of

CHANNEL_STEP = 8
"""Layers keep a multiple of this many channels: what vector instructions work on at once, in any precision."""

Removed = Sequence[tuple[Coupling, frozenset[int]]]
"""Channels that go, by coupling."""


class NothingToNarrowError(TransformError):
    """Each layer has as few channels as it may have already."""


def shrink(module: nn.Module, example: Example, *, width: float = 1.0, depth: float = 1.0) -> nn.Module:
    """Return a smaller version of a module with the weights that it keeps.

    Args:
        module: for inference; not changed.
        example: positional and keyword arguments of one forward pass.
        width: share of each layer's channels that is kept, those with the largest weights; outputs, inputs, attention
            and recurrent layers keep all. Rounded to a multiple of `CHANNEL_STEP`, and at least that.
        depth: share of each run of repeated blocks that is kept, evenly spread, at least one.

    Raises:
        TransformError: there is nothing to narrow or to leave out, or the model does not work without it.
    """
    smaller = module
    if depth < 1:
        smaller = leave_out(smaller, example, share=depth)
    if width < 1:
        smaller = narrow(smaller, example, share=width)
    return rebuild(module, tensors_of(smaller))


def leave_out(module: nn.Module, example: Example, *, share: float) -> nn.Module:
    """Return a copy in which each run of repeated blocks keeps this share of them, evenly spread, at least one.

    A run is a row of blocks in one `Sequential` or `ModuleList` that are of one class and have weights of the same
    shapes. Blocks inside of others that repeat are left alone.

    Raises:
        TransformError: there are no such runs, or the forward pass needs the blocks.
    """
    dropped = [
        prefix
        for run in _runs(module)
        for index, prefix in enumerate(run)
        if index not in _spread(len(run), max(1, math.floor(len(run) * share + 0.5)))
    ]
    state = tensors_of(module)
    smaller = rebuild(module, {name: value for name, value in state.items() if not name.startswith(tuple(dropped))})
    if shapes_of(smaller).keys() == state.keys():  # nothing repeats, or what does is tied to what stays
        raise TransformError(f"no blocks repeat in this {type(module).__name__} that could be left out.")
    check_outputs(module, smaller, example)
    return smaller


def channel_counts(module: nn.Module, example: Example) -> dict[str, int]:
    """Return how many channels can be narrowed together, by the first layer that makes them.

    Raises:
        TransformError: the module cannot be traced.
    """
    return {coupling.layer: coupling.channels for coupling in find_couplings(module, example)}


def narrow(
    module: nn.Module,
    example: Example,
    *,
    share: float,
    scope: str = "local",
    counts: Mapping[str, int] | None = None,
) -> nn.Module:
    """Return a copy whose layers keep this share of their channels, those with the largest weights.

    The size of a channel's weights is their L2 norm over all the layers that it goes through, relative to the mean of
    the channels that could go in its place.

    Args:
        module: for inference; not changed.
        example: arguments of one forward pass.
        share: of the channels that is kept.
        scope: `local` for this share in each layer, `global` for this share of all channels together.
        counts: what the share is of, as `channel_counts` told before some went; None for the channels that are there.

    Raises:
        NothingToNarrowError: no layer can be narrowed.
        TransformError: the model cannot be traced, or does not work narrower.
    """
    couplings: Sequence[Coupling] = find_couplings(module, example)
    removed = _choose(couplings, tensors_of(module), share, scope, counts or {})
    if not removed:
        raise NothingToNarrowError(
            f"no layer of this {type(module).__name__} can be narrowed: outputs, inputs, attention and recurrent "
            f"layers keep their channels, and others need more than {CHANNEL_STEP}."
        )
    try:
        return _checked(module, removed, example)
    except TransformError as error:
        print(f"narrowing all layers at once does not work: {error}")  # noqa: T201  to the log
    sound = _sound(module, removed, example)
    return _checked(module, _choose(sound, tensors_of(module), share, scope, counts or {}), example)


def rebuild(module: nn.Module, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Return a copy of a module that has this state, whose tensors may be narrower and fewer.

    Raises:
        TransformError: the module cannot become that.
    """
    made = copy.deepcopy(module)
    fit(made, {name: tuple(tensor.shape) for name, tensor in state.items()})
    with torch.no_grad():
        for name, tensor in tensors_of(made).items():
            if name in state:  # else tied to one that is
                tensor.copy_(state[name])
    return made


def kept_channels(channels: int, wanted: float, *, groups: int = 1) -> int:
    """Return how many of a layer's channels stay: the multiple of `CHANNEL_STEP` nearest to what is wanted.

    Args:
        channels: how many there are: at most these stay, and at least one step.
        wanted: how many should stay.
        groups: in so many parts that must stay equal.
    """
    step = math.lcm(CHANNEL_STEP, groups)
    return min(channels, max(step, math.floor(wanted / step + 0.5) * step))


def _runs(module: nn.Module) -> Iterator[list[str]]:
    """Yield the prefixes of the state's names of each run of repeated blocks; nothing of what is inside a run."""
    inside: list[str] = []
    for path, container in module.named_modules():
        if not isinstance(container, nn.Sequential | nn.ModuleList) or f"{path}.".startswith(tuple(inside)):
            continue
        run: list[str] = []
        last: object = None
        for name, child in container.named_children():
            kind = (type(child), tuple(shapes_of(child).items()))
            if kind != last or not kind[1]:
                yield from _long(run, inside)
                run = []
            run.append(f"{path}.{name}." if path else f"{name}.")
            last = kind
        yield from _long(run, inside)


def _long(run: list[str], inside: list[str]) -> Iterator[list[str]]:
    if len(run) > 1:
        inside.extend(run)
        yield run


def _spread(total: int, kept: int) -> set[int]:
    """Return which of `total` stay: the first, the last, and as even a spread as there is between them."""
    return {0} if kept == 1 else {math.floor(i * (total - 1) / (kept - 1) + 0.5) for i in range(kept)}


def _choose(
    couplings: Sequence[Coupling],
    state: Mapping[str, torch.Tensor],
    share: float,
    scope: str,
    counts: Mapping[str, int],
) -> list[tuple[Coupling, frozenset[int]]]:
    """Return which channels go; couplings that keep all are left out."""
    sizes = [_sizes(coupling, state) for coupling in couplings]
    wanted = [share * counts.get(coupling.layer, coupling.channels) for coupling in couplings]
    if scope == "global":
        wanted = _shared_out(couplings, sizes, sum(wanted))
    removed = []
    for coupling, size, target in zip(couplings, sizes, wanted, strict=True):
        kept = kept_channels(coupling.channels, target, groups=coupling.groups) // coupling.groups
        gone = torch.argsort(size, stable=True, descending=True)[kept:].tolist()
        period = coupling.channels // coupling.groups
        if gone:
            removed.append((coupling, frozenset(i + g * period for i in gone for g in range(coupling.groups))))
    return removed


def _sizes(coupling: Coupling, state: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the L2 norm of each channel's weights relative to the mean; grouped channels count together.

    The shape is (channels / groups,).
    """
    total = torch.zeros(coupling.channels, dtype=torch.float64)
    for part in coupling.slices:
        if part.tensor.rpartition(".")[2] == "weight":  # biases and statistics say nothing of what a channel is worth
            weight = state[part.tensor].detach().double().movedim(part.dim, 0)
            squares = weight.square().reshape(len(weight), -1).sum(1)
            total.index_add_(0, torch.tensor(part.channels), squares[list(part.indices)])
    norms = total.view(coupling.groups, -1).sum(0).sqrt()
    return norms / norms.mean().clamp_min(torch.finfo(torch.float64).tiny)


def _shared_out(couplings: Sequence[Coupling], sizes: Sequence[torch.Tensor], total: float) -> list[float]:
    """Return how many channels each coupling keeps when the smallest of all go, until a total is left."""
    ranked = sorted(
        (size, index, coupling.groups) for index, coupling in enumerate(couplings) for size in sizes[index].tolist()
    )
    kept = [float(coupling.channels) for coupling in couplings]
    surplus = sum(kept) - total
    for _, index, groups in ranked:
        if surplus < groups:
            break
        kept[index] -= groups
        surplus -= groups
    return kept


def _cut(state: Mapping[str, torch.Tensor], removed: Removed, *, by_zeros: bool = False) -> dict[str, torch.Tensor]:
    """Return a state without these channels, or with zeros in their place."""
    gone: defaultdict[str, defaultdict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for coupling, channels in removed:
        for part in coupling.slices:
            pairs = zip(part.indices, part.channels, strict=True)
            gone[part.tensor][part.dim].update(index for index, channel in pairs if channel in channels)
    made = dict(state)
    for name, dims in gone.items():
        for dim, indices in dims.items():
            if by_zeros:
                made[name] = made[name].detach().index_fill(dim, torch.tensor(sorted(indices), dtype=torch.long), 0)
            else:
                kept = [index for index in range(state[name].shape[dim]) if index not in indices]
                made[name] = made[name].detach().index_select(dim, torch.tensor(kept, dtype=torch.long))
    return made


def _checked(module: nn.Module, removed: Removed, example: Example) -> nn.Module:
    """Cut, and check that the result still runs, and does what it should.

    A model without some channels computes what it computes with zeros in their place. That would not hold if channels
    were counted wrongly, which no error may tell. It does not hold either where a norm goes across the channels.
    """
    state = tensors_of(module)
    narrowed = rebuild(module, _cut(state, removed))
    check_outputs(module, narrowed, example)
    exact = [one for one in removed if not one[0].mixed]
    if exact:
        silenced = outputs_of(rebuild(module, _cut(state, exact, by_zeros=True)), example)
        partly = narrowed if len(exact) == len(removed) else rebuild(module, _cut(state, exact))
        for name, output in outputs_of(partly, example).items():
            if not is_close(output, silenced[name]):
                raise TransformError(
                    "the channels could not be followed through the model: without them it does not compute what it "
                    "computes with zeros in their place."
                )
    return narrowed


def _sound(module: nn.Module, removed: Removed, example: Example) -> list[Coupling]:
    """Return the couplings that can be cut alone; when there is none, raise what went wrong with the first."""
    sound: list[Coupling] = []
    errors: list[TransformError] = []
    for one in removed:
        try:
            _checked(module, [one], example)
        except TransformError as error:
            print(f"`{one[0].layer}` keeps its channels: {error}")  # noqa: T201  to the log
            errors.append(error)
        else:
            sound.append(one[0])
    if not sound:
        raise TransformError(f"`{removed[0][0].layer}` cannot be narrowed: {errors[0]}")
    return sound
