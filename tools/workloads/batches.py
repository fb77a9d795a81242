"""Reading a user's data: batches of a factory or an `.npz`, preprocessed, checked and joined into arrays.

Imported by workers only: what a factory yields may be torch tensors.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.errors import WorkloadError
from tools.spec import DataSpec
from tools.workloads import code
from tools.workloads.modules import to_numpy

Array = npt.NDArray[Any]

_TEXT = "US"
"""Kinds of arrays that `preprocess` may be given, beside numbers."""
_NPZ_CHUNK = 64
"""Items that `preprocess` gets at a time from an .npz."""
_HOW = "Yield (inputs, targets) batches, as arrays or tensors with the batch dimension first; targets may be None."


@dataclass(frozen=True)
class Items:
    """All items of a data source, in memory.

    Attributes:
        inputs: (n, *shape) by name; `input_0`, `input_1`, ... when they are passed by position.
        targets: (n, ...), if there are any.
        notes: what was converted, in sentences.
    """

    inputs: dict[str, Array]
    targets: Array | None
    notes: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Number of items."""
        return len(next(iter(self.inputs.values())))

    def take(self, indices: npt.NDArray[np.int64]) -> Items:
        """Return some of the items."""
        return Items(
            inputs={name: value[indices] for name, value in self.inputs.items()},
            targets=None if self.targets is None else self.targets[indices],
            notes=self.notes,
        )


def read_items(data: DataSpec, *, preprocess: str | None = None, limit: int | None = None) -> Items:
    """Run a data factory, or read an .npz, until it ends or `limit` items are there.

    Args:
        data: the source; its own limit holds too.
        preprocess: function(raw inputs of a batch) -> inputs.
        limit: use at most this many items; the source is asked for no more batches than that takes.

    Raises:
        WorkloadError: there are no items; the source or `preprocess` raises; batches do not fit together; inputs and
            targets differ in length; a value is NaN, infinite or of a type that no model takes.
    """
    where = data.factory or data.npz or ""
    limits = [value for value in (data.limit, limit) if value is not None]
    at_most = min(limits) if limits else None
    parts: list[tuple[dict[str, Array], Array | None]] = []
    n = 0
    for index, (raw, raw_targets) in enumerate(raw_batches(where)):
        place = f"{where}, batch {index}" if data.factory else where
        inputs = _named(raw if preprocess is None else code.call(preprocess, raw), place)
        targets = None if raw_targets is None else _array(raw_targets, "targets", place)
        length = _check_lengths(inputs, targets, place)
        if parts:
            _check_same(parts[0], (inputs, targets), place)
        parts.append((inputs, targets))
        n += length
        if at_most is not None and n >= at_most:
            break
    if n == 0:
        raise WorkloadError("there are no items.", where=where, fix=_HOW)
    return _joined(parts, at_most, where)


def raw_batches(source: str) -> Iterator[tuple[Any, Any]]:
    """Yield (inputs, targets) as the user's factory yields them, before any preprocessing.

    Args:
        source: a reference to a data factory, or the path of an .npz.

    Raises:
        WorkloadError: it raises, or yields something else than pairs.
    """
    if source.endswith(".npz"):
        yield from _npz_batches(Path(source))
        return
    produced = code.call(source)
    if _is_one_pair(produced):
        yield produced[0], produced[1]
        return
    with code.user_code(source, "iterating over it"):
        iterator = iter(produced)
    while True:
        with code.user_code(source, "producing a batch"):
            batch = next(iterator, None)
        if batch is None:
            return
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise WorkloadError(f"yields {_kind(batch)} where a pair is expected.", where=source, fix=_HOW)
        yield batch[0], batch[1]


def _is_one_pair(value: Any) -> bool:
    """Whether a factory returned `(inputs, targets)` itself, and not a sequence of such pairs."""
    return isinstance(value, tuple) and len(value) == 2 and (value[1] is None or hasattr(value[1], "__array__"))


def _npz_batches(path: Path) -> Iterator[tuple[Any, Any]]:
    if not path.is_file():
        raise WorkloadError("no such file.", where=str(path), fix="Check `npz` in the spec.")
    try:
        with zipfile.ZipFile(path):  # a lone .npy would load too, but has no names
            pass
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise WorkloadError(
            f"is not an .npz, or is damaged ({error}).", where=str(path), fix="Write it with numpy.savez."
        ) from error
    except ValueError as error:
        raise WorkloadError(
            f"holds something else than numbers ({error}).", where=str(path), fix="Convert the arrays before saving."
        ) from error
    targets = arrays.pop("targets", None)
    if not arrays:
        raise WorkloadError(
            "has no inputs.", where=str(path), fix="Save an array `inputs`, or one array for each input by its name."
        )
    everything = arrays if targets is None else {**arrays, "targets": targets}
    for name, value in everything.items():
        if value.dtype.kind not in _TEXT or value.ndim == 0:
            _array(value, f"`{name}`", str(path))
    lengths = {len(value) for value in everything.values()}
    if len(lengths) > 1:
        shapes = ", ".join(f"{name} {value.shape}" for name, value in everything.items())
        raise WorkloadError(f"its arrays differ in length: {shapes}.", where=str(path))
    for start in range(0, lengths.pop(), _NPZ_CHUNK):
        chunk = {name: value[start : start + _NPZ_CHUNK] for name, value in arrays.items()}
        wanted = None if targets is None else targets[start : start + _NPZ_CHUNK]
        yield (chunk["inputs"] if set(chunk) == {"inputs"} else chunk), wanted


def _named(value: Any, where: str) -> dict[str, Array]:
    """Give inputs their names: a dict's keys, or `input_0`, `input_1`, ... for positions."""
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str) or not key or key == "targets"]
        if wrong:
            raise WorkloadError(f"an input cannot be called {wrong[0]!r}.", where=where)
        named = dict(value)
    elif isinstance(value, tuple | list):
        named = {f"input_{index}": item for index, item in enumerate(value)}
    else:
        named = {"input_0": value}
    if not named:
        raise WorkloadError("a batch has no inputs.", where=where, fix=_HOW)
    return {name: _array(item, f"`{name}`", where) for name, item in named.items()}


def _array(value: Any, what: str, where: str) -> Array:
    """Convert to an array of numbers with a batch dimension; float64 is left to `_joined`."""
    if not hasattr(value, "__array__") and not (what == "targets" and isinstance(value, list)):
        raise WorkloadError(f"{what} is {_kind(value)}, not an array or tensor.", where=where, fix=_HOW)
    try:
        array = to_numpy(value)
    except ValueError as error:  # lists of unequal length
        raise WorkloadError(f"{what} is not an array ({error}).", where=where, fix=_HOW) from error
    if array.dtype.kind not in "biuf":
        text = array.dtype.kind in _TEXT and what != "targets"
        raise WorkloadError(
            f"{what} has dtype {array.dtype}; models take booleans, integers and floats.",
            where=where,
            fix="Text: name a `preprocess` in the spec that makes numbers of it."
            if text
            else "Items of different lengths: pad them to one shape.",
        )
    if array.ndim == 0:
        raise WorkloadError(f"{what} has no batch dimension.", where=where, fix=_HOW)
    if array.dtype.kind == "f":
        bad = ~np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
        if bad.any():
            raise WorkloadError(
                f"{what} has NaN or infinity in {int(bad.sum())} of {len(array)} items "
                f"(the first is item {int(bad.argmax())}).",
                where=where,
                fix="Clean the data, or leave those items out.",
            )
    return array


def _check_lengths(inputs: dict[str, Array], targets: Array | None, where: str) -> int:
    lengths = {name: len(value) for name, value in inputs.items()}
    if targets is not None:
        lengths["targets"] = len(targets)
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise WorkloadError(f"inputs and targets differ in length: {listed}.", where=where)
    return next(iter(lengths.values()))


def _check_same(
    first: tuple[dict[str, Array], Array | None], now: tuple[dict[str, Array], Array | None], where: str
) -> None:
    """Refuse a batch whose items are of another kind than the first batch's."""
    if set(first[0]) != set(now[0]):
        raise WorkloadError(f"has the inputs {sorted(now[0])}, earlier batches {sorted(first[0])}.", where=where)
    if (first[1] is None) != (now[1] is None):
        raise WorkloadError("some batches have targets and some have none.", where=where)
    pairs = {f"`{name}`": (first[0][name], now[0][name]) for name in first[0]}
    if first[1] is not None and now[1] is not None:
        pairs["targets"] = (first[1], now[1])
    for what, (old, new) in pairs.items():
        if (old.shape[1:], old.dtype) != (new.shape[1:], new.dtype):
            raise WorkloadError(
                f"{what} has items of {new.dtype} {new.shape[1:]}, earlier batches of {old.dtype} {old.shape[1:]}.",
                where=where,
                fix="Give all items one shape and dtype: resize or pad them.",
            )


def _joined(parts: list[tuple[dict[str, Array], Array | None]], at_most: int | None, where: str) -> Items:
    notes = []
    inputs = {}
    for name in parts[0][0]:
        value = np.concatenate([part[0][name] for part in parts])[:at_most]
        if value.dtype == np.float64:
            notes.append(f"`{name}` of {where} was float64 and is used as float32.")
            value = value.astype(np.float32)
        inputs[name] = np.ascontiguousarray(value)
    given = [part[1] for part in parts if part[1] is not None]
    targets = np.ascontiguousarray(np.concatenate(given)[:at_most]) if given else None
    return Items(inputs=inputs, targets=targets, notes=tuple(notes))


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    return f"a {kind} of shape {tuple(shape)}" if isinstance(shape, tuple) else f"a {kind}"
