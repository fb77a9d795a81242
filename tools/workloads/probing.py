"""What a few items tell about a model: its outputs, its batch sizes, whether metric and outputs fit together.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.contracts import ArtifactRef, TensorSpec
from tools.contracts.workload import SequenceInfo
from tools.errors import WorkloadError
from tools.spec import BUILTIN_METRICS, WorkloadSpec
from tools.workloads import code, metrics, modules
from tools.workloads.batches import Items
from tools.workloads.datasets import describe, repeated, tensor_specs
from tools.workloads.sequences import lengths_of, resize, resized
from tools.workloads.sources import Source

Array = npt.NDArray[Any]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]

_NOT_FINITE = "The model as given must give finite numbers: check its weights, and its preprocessing."
_SAME = 0.05
"""Two results are the same item's when they differ by less than this part of the outputs' spread. Wide enough for
bfloat16 and for kernels that differ by batch size, far below what another item or a dropout mask changes."""


@dataclass(frozen=True)
class Probe:
    """What running batches of one and two items told."""

    outputs: tuple[TensorSpec, ...]
    fixed_batch: int | None
    notes: tuple[str, ...]
    sequence: SequenceInfo | None = None
    """With the outputs that are as long as the batch, where lengths vary."""


def probe(source: Source, items: Items, sequence: SequenceInfo | None = None) -> Probe:
    """Run batches of two and of one item, or of the size written into the program; and a short one, if lengths vary.

    Raises:
        WorkloadError: no batch runs, an output is not batch-first, or is not finite; the model takes one length only.
    """
    found = _probe_batches(source, items)
    return found if sequence is None else _probe_length(source, items, sequence, found)


def _probe_batches(source: Source, items: Items) -> Probe:
    if source.fixed_batch is not None:
        outputs = _run_batch(source, items, source.fixed_batch)
        _check_outputs(source, outputs, source.fixed_batch)
        note = f"The program accepts batches of {source.fixed_batch} only: it was exported with that size."
        return Probe(outputs=tensor_specs(outputs), fixed_batch=source.fixed_batch, notes=(note,))
    results: dict[int, dict[str, Array]] = {}
    problems: dict[int, WorkloadError] = {}
    for size in (2, 1):
        try:
            results[size] = _run_batch(source, items, size)
        except WorkloadError as error:
            problems[size] = error
    if not results:
        raise problems[2]
    for size, outputs in results.items():
        _check_outputs(source, outputs, size)
    if problems:
        ((size, outputs),) = results.items()
        (problem,) = problems.values()
        note = f"The model accepts batches of {size} only; with another size: {problem.what}"
        return Probe(outputs=tensor_specs(outputs), fixed_batch=size, notes=(note,))
    notes: tuple[str, ...] = ()
    if _difference(results[1], {name: value[:1] for name, value in results[2].items()}) > _SAME:
        note = (
            "An item's output depends on the batch that it is in, or on chance: accuracy may differ between batch "
            "sizes. Is there a dropout or a batch normalization that ignores eval mode?"
        )
        notes = (note,)
    return Probe(outputs=tensor_specs(results[2]), fixed_batch=None, notes=notes)


def _probe_length(source: Source, items: Items, sequence: SequenceInfo, found: Probe) -> Probe:
    """Run the shortest item with its padding and without: which outputs vary, and does the padding matter?"""
    lengths = lengths_of(sequence, items.inputs)
    length = int(lengths.min())
    if length == sequence.length:
        note = f"All items have the length {length}: `sequence` changes nothing."
        return replace(found, sequence=sequence, notes=(*found.notes, note))
    size = found.fixed_batch or 1
    shortest = repeated(items.take(np.array([lengths.argmin()])).inputs, size)
    padded = source.run(shortest)
    try:
        cut = source.run(resized(sequence, shortest, length))
    except WorkloadError as error:
        raise WorkloadError(
            f"{error.what.rstrip('.')}; the batch was cut from {sequence.length} to its longest item, {length}.",
            where=error.where or source.where,
            fix="Let the model take any length, or leave `sequence` out: all batches are then padded to one length.",
        ) from error
    axis = sequence.axis
    varies = [
        name
        for name, value in cut.items()
        if value.ndim > axis and value.shape[axis] == length and padded[name].shape[axis] == sequence.length
    ]
    expected = {name: resize(value, axis, length, 0) if name in varies else value for name, value in padded.items()}
    changed = [name for name in cut if cut[name].shape != expected[name].shape]
    if changed:
        raise WorkloadError(
            f"the output `{changed[0]}` of a batch cut from {sequence.length} to {length} has shape "
            f"{cut[changed[0]].shape}, and {padded[changed[0]].shape} before: nothing is as long as the batch.",
            where=source.where,
        )
    notes = found.notes
    if _difference(expected, cut) > _SAME:
        note = (
            "An item's output depends on how far it is padded: accuracy is that of batches padded to their longest "
            "item. Does the model use the mask?"
        )
        notes = (*notes, note)
    return replace(found, sequence=sequence.model_copy(update={"outputs": tuple(varies)}), notes=notes)


def run_items(run: Run, items: Items, count: int, fixed_batch: int | None) -> dict[str, Array]:
    """Run the first `count` items, in one batch or in batches of the only size that the program accepts."""
    size = fixed_batch or count
    parts = []
    for start in range(0, count, size):
        chunk = {name: value[start : start + size] for name, value in items.inputs.items()}
        parts.append(run(repeated(chunk, size)))
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}


def check_scoring(workload: WorkloadSpec, sample: dict[str, Array], items: Items) -> tuple[str, ...]:
    """Score, and postprocess, the outputs of a few items; check the labels of all of them.

    Args:
        workload: names metric and postprocessing.
        sample: outputs of the first items, by name.
        items: all items.

    Returns:
        Notes: sentences about how the workload is scored.

    Raises:
        WorkloadError: metric, outputs and targets do not fit together, or user code raises.
    """
    outputs = tuple(sample.values())
    n = len(outputs[0])
    metrics.check_finite(outputs, list(sample))
    metrics.check_targets(workload.metric, outputs, items.targets)
    targets = None if items.targets is None else items.targets[:n]
    scores = metrics.score(workload.metric, outputs, targets, baseline=outputs)
    if workload.postprocess is not None:
        code.call(workload.postprocess, metrics.as_returned(outputs))
    notes = []
    if not metrics.is_per_item(scores, n):
        notes.append("The metric returns one number for all items: drops in accuracy cannot be compared in pairs.")
    if targets is None and workload.metric in BUILTIN_METRICS:
        notes.append(f"The data have no targets: {workload.metric} compares with the outputs of the model as given.")
    return tuple(notes)


def check_reload(artifact: ArtifactRef, sample: dict[str, Array], items: Items) -> None:
    """Every trial builds the model anew: check that this gives what was loaded.

    Raises:
        WorkloadError: it does not, because something that matters is not in the state dict.
    """
    module = modules.load_module(artifact)
    count = len(next(iter(sample.values())))

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return dict(zip(sample, modules.call_module(module, inputs), strict=True))

    again = run_items(run, items, count, artifact.fixed_batch)
    if _difference(sample, again) <= _SAME:
        return
    if _difference(again, run_items(run, items, count, artifact.fixed_batch)) > _SAME:
        return  # its outputs are random anyway, which `probe` has noted
    raise WorkloadError(
        "built once more, and with the same weights, the model gives other outputs.",
        where=artifact.factory,
        fix="Keep all that it has learnt in parameters and persistent buffers, so that it is in the state dict.",
    )


def _run_batch(source: Source, items: Items, size: int) -> dict[str, Array]:
    batch = repeated(items.inputs, size)
    try:
        return source.run(batch)
    except WorkloadError as error:
        raise WorkloadError(
            f"{error.what.rstrip('.')}; the batch was {describe(tensor_specs(batch))}, {size} items.",
            where=error.where or source.where,
            fix=error.fix,
        ) from error


def _check_outputs(source: Source, outputs: dict[str, Array], size: int) -> None:
    for name, value in outputs.items():
        if value.ndim == 0 or len(value) != size:
            raise WorkloadError(
                f"the output `{name}` of {size} items has shape {value.shape}, and its first dimension must be the "
                "batch.",
                where=source.where,
                fix="Return batch-first outputs only.",
            )
    try:
        metrics.check_finite(tuple(outputs.values()), list(outputs))
    except WorkloadError as error:
        raise WorkloadError(error.what, where=source.where, fix=_NOT_FINITE) from None


def _difference(expected: dict[str, Array], found: dict[str, Array]) -> float:
    """Largest difference between outputs, relative to their spread (standard deviation, or size if that is zero)."""
    worst = 0.0
    for name, value in expected.items():
        wanted = value.astype(np.float64)
        spread = float(wanted.std()) or float(np.abs(wanted).max(initial=0.0)) or 1.0
        worst = max(worst, float(np.abs(wanted - found[name].astype(np.float64)).max(initial=0.0)) / spread)
    return worst
