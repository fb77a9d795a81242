"""Items of varying length: how long they are, and how batches of them are served.

The materialized items are padded at the end to one length. Nobody serves them like that: a batch is as long as its
longest item, for the model as given too. So what is timed is not one batch but many, of the lengths that the data have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tools.contracts import DatasetRef, WorkloadInfo
from tools.contracts.workload import SequenceInfo
from tools.errors import WorkloadError
from tools.workloads.datasets import batch_of, load_inputs

if TYPE_CHECKING:  # a replica's process needs no YAML
    from tools.spec import SequenceSpec

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]

MOST_BATCHES = 512
"""More than the 299 calls that a p99 takes, so that it rests on as many different batches."""
FEWEST_BATCHES = 16
BATCHES_MB = 16.0
"""They count towards the process's memory, so large batches are fewer."""


# --- what a workload's sequences are ---------------------------------------------------------------------------------


def describe_sequence(spec: SequenceSpec, inputs: Arrays, where: str) -> SequenceInfo:
    """Find out what varies in length, and check that all padding is at the end.

    Args:
        spec: what the person says about it.
        inputs: (n, *shape) of all items, by name.
        where: the data, for messages.

    Raises:
        WorkloadError: a name is no input; shapes do not fit; an item has padding before or between its tokens.
    """
    marker = spec.mask or spec.input or ""
    for name in (marker, *(spec.inputs or ())):
        if name not in inputs:
            raise WorkloadError(
                f"there is no input `{name}`; there are {', '.join(inputs)}.", where=f"{where}, `workload.sequence`"
            )
    length = _marked(spec, inputs[marker], where).shape[1]
    names = spec.inputs or tuple(
        name for name, value in inputs.items() if value.ndim > spec.axis and value.shape[spec.axis] == length
    )
    names = tuple(dict.fromkeys((*names, marker)))
    info = SequenceInfo(
        mask=spec.mask,
        input=spec.input,
        pad=spec.pad,
        axis=spec.axis,
        inputs=names,
        fill=dict.fromkeys(names, 0),
        length=length,
    )
    for name in names:
        value = inputs[name]
        if value.ndim <= _axis(info, name) or value.shape[_axis(info, name)] != length:
            raise WorkloadError(
                f"`{name}` has items of {value.shape[1:]}, and its axis {_axis(info, name)} should have the length "
                f"{length} of `{marker}`.",
                where=f"{where}, `workload.sequence`",
            )
    check_padding(info, inputs, where)
    return info.model_copy(update={"fill": {name: _fill_of(info, name, inputs) for name in names}})


def check_padding(sequence: SequenceInfo, inputs: Arrays, where: str) -> None:
    """Refuse items with padding before or between tokens: cutting a batch at its longest item would lose some.

    Raises:
        WorkloadError: it names the first such item.
    """
    marked = _tokens(sequence, inputs)
    # a value that pads may be among the tokens too: then only an item that begins with it is wrong
    before = marked[:, :1] if sequence.mask is None else marked[:, :-1]
    wrong = np.asarray((marked[:, 1:] & ~before).any(axis=1))
    if wrong.any():
        raise WorkloadError(
            f"{int(wrong.sum())} of {len(wrong)} items have padding before or between their tokens (the first is item "
            f"{int(wrong.argmax())}).",
            where=f"{where}, `workload.sequence`",
            fix="Pad at the end only (`padding_side='right'`).",
        )


def lengths_of(sequence: SequenceInfo, inputs: Arrays) -> npt.NDArray[np.int64]:
    """Return how many tokens each item has, shape (n,): up to the last one. An item without any counts as one."""
    marked = _tokens(sequence, inputs)
    ends = marked.shape[1] - marked[:, ::-1].argmax(axis=1)
    return np.where(marked.any(axis=1), ends, 1).astype(np.int64)


def _tokens(sequence: SequenceInfo, inputs: Arrays) -> npt.NDArray[np.bool_]:
    """Return where there are tokens, (n, length)."""
    if sequence.mask is not None:
        marked: npt.NDArray[np.bool_] = inputs[sequence.mask] != 0
        return marked
    assert sequence.input is not None
    there = np.moveaxis(inputs[sequence.input] != sequence.pad, sequence.axis, 1)
    any_there: npt.NDArray[np.bool_] = there.reshape(*there.shape[:2], -1).any(axis=2)
    return any_there


def _marked(spec: SequenceSpec, value: Array, where: str) -> Array:
    """Return the mask, or the input that is padded with its varying axis second, after checking its shape."""
    if spec.mask is not None and value.ndim != 2:
        raise WorkloadError(
            f"the mask `{spec.mask}` has items of {value.shape[1:]}, and one number for each token is expected.",
            where=f"{where}, `workload.sequence`",
        )
    if spec.mask is None and value.ndim <= spec.axis:
        raise WorkloadError(
            f"`{spec.input}` has items of {value.shape[1:]}: there is no axis {spec.axis}.",
            where=f"{where}, `workload.sequence`",
        )
    return value if spec.mask is not None else np.moveaxis(value, spec.axis, 1)


def _fill_of(sequence: SequenceInfo, name: str, inputs: Arrays) -> int | float:
    """Return what stands behind the last token of the shortest item; 0 where no item is padded."""
    if sequence.mask is None and name == sequence.input:
        assert sequence.pad is not None
        return sequence.pad
    lengths = lengths_of(sequence, inputs)
    shortest = int(lengths.argmin())
    if lengths[shortest] == sequence.length:
        return 0
    behind = np.moveaxis(inputs[name][shortest], _axis(sequence, name) - 1, 0)[lengths[shortest] :]
    value: int | float = behind.flat[0].item()
    return int(value) if isinstance(value, bool) else value


def _axis(sequence: SequenceInfo, name: str) -> int:
    return 1 if name == sequence.mask else sequence.axis


# --- batches as they are served --------------------------------------------------------------------------------------


def trimmed(sequence: SequenceInfo | None, batch: Arrays) -> dict[str, Array]:
    """Return a batch cut to its longest item, as it is served; without a sequence, as it is."""
    if sequence is None:
        return dict(batch)
    return resized(sequence, batch, int(lengths_of(sequence, batch).max()))


def resized(sequence: SequenceInfo, batch: Arrays, length: int) -> dict[str, Array]:
    """Return a batch cut or padded to a length, as contiguous arrays."""
    made = dict(batch)
    for name in sequence.inputs:
        made[name] = resize(batch[name], _axis(sequence, name), length, sequence.fill[name])
    return made


def batch_length(sequence: SequenceInfo, batch: Arrays) -> int:
    """Return the length of a batch, padding included."""
    name = sequence.inputs[0]
    return int(batch[name].shape[_axis(sequence, name)])


def served_batch(workload: WorkloadInfo, ref: DatasetRef, size: int) -> dict[str, Array]:
    """Return the first `size` items of a dataset as one batch of them is served."""
    return trimmed(workload.sequence, batch_of(ref, size))


def longest_batch(workload: WorkloadInfo, ref: DatasetRef, size: int) -> dict[str, Array]:
    """Return the `size` longest items of a dataset with sequences as one batch of them is served."""
    assert workload.sequence is not None
    items = load_inputs(ref)
    longest_first = np.argsort(-lengths_of(workload.sequence, items), kind="stable")
    chosen = np.resize(longest_first, size) if len(longest_first) < size else longest_first[:size]
    return trimmed(workload.sequence, {name: np.ascontiguousarray(value[chosen]) for name, value in items.items()})


def served_batches(workload: WorkloadInfo, size: int, *, seed: int = 0) -> list[dict[str, Array]]:
    """Return what is timed: one batch, or, where lengths vary, many of the evaluation items.

    They are slices of one stream of items in a random order: every candidate, and every batch size, serves the same
    requests. At most `MOST_BATCHES` and about `BATCHES_MB`.

    Args:
        workload: whose items.
        size: items in a batch.
        seed: which of the random orders.
    """
    sequence = workload.sequence
    if sequence is None:
        return [batch_of(workload.evaluation, size)]
    items = load_inputs(workload.evaluation)
    size_mb = sum(value[:1].nbytes for value in items.values()) * size / 1e6
    count = int(np.clip(BATCHES_MB / size_mb, FEWEST_BATCHES, MOST_BATCHES))
    stream = _stream(workload.evaluation.n, count * size, seed).reshape(count, size)
    return [trimmed(sequence, {name: value[chosen] for name, value in items.items()}) for chosen in stream]


def _stream(n: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Return `count` item numbers below n: one random order after the other."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(n) for _ in range(-(-count // n))])[:count]


class Cycle:
    """A call that runs one batch after the other, over and over.

    The batches come in a random order, drawn once. So neighbouring calls are no more alike than distant ones, and
    whoever looks for dependence between calls finds none but the machine's; that every batch comes back after a full
    turn is stratified sampling, whose quantiles spread less than those of independent draws. Intervals made for
    independent calls therefore hold for the batches in the cycle, and are a little too wide at worst.
    """

    def __init__(self, runner: Callable[[Arrays], tuple[Array, ...]], batches: Sequence[Arrays]) -> None:
        self.runner = runner
        """What runs a batch."""
        self._batches = batches
        self._next = 0
        self.length = len(batches)
        """How many calls make one turn."""

    def __call__(self) -> tuple[Array, ...]:
        """Run the next batch."""
        index = self._next
        self._next = index + 1 if index + 1 < self.length else 0
        return self.runner(self._batches[index])

    def restart(self, length: int | None = None) -> None:
        """Begin with the first batch again; from now on with the first `length` of them only."""
        self._next = 0
        if length is not None:
            self.length = min(length, len(self._batches))


def joined(outputs: Sequence[Array], sequence: SequenceInfo | None, *, varies: bool) -> Array:
    """Join the outputs of batches; those of different lengths are padded with zeros to the items' own."""
    if sequence is None or not varies:
        return np.concatenate(outputs)
    return np.concatenate([resize(output, sequence.axis, sequence.length, 0) for output in outputs])


def varying_outputs(workload: WorkloadInfo) -> tuple[bool, ...]:
    """Return, for each output, whether it is as long as the batch."""
    names = () if workload.sequence is None else workload.sequence.outputs
    return tuple(spec.name in names for spec in workload.outputs)


def resize(value: Array, axis: int, length: int, fill: float) -> Array:
    """Return an array cut or padded to a length along an axis, contiguous."""
    have = value.shape[axis]
    if have >= length:
        return np.ascontiguousarray(value[(slice(None),) * axis + (slice(length),)])
    shape = (*value.shape[:axis], length, *value.shape[axis + 1 :])
    made = np.full(shape, fill, dtype=value.dtype)
    made[(slice(None),) * axis + (slice(have),)] = value
    return made
