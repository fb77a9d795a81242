"""Worker tasks that load a workload: `materialize` once a session, `dry_load` for a quick check.

Imported by workers only. Afterwards nothing needs the user's data code any more: the items are `.npy` files, the
model is an artifact, and both are named by what is in them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from tools.artifacts import write_artifact
from tools.contracts import DatasetRef, ModelFormat, Normalization, WorkloadInfo, digest_of
from tools.contracts.workload import SequenceInfo
from tools.errors import WorkloadError
from tools.spec import BUILTIN_LOSSES, BUILTIN_METRICS, DataSpec, WorkloadSpec
from tools.worker import stage
from tools.workloads import code, metrics, probing
from tools.workloads.batches import Items, read_items
from tools.workloads.datasets import describe, tensor_specs, write_dataset
from tools.workloads.pixels import describe_normalization
from tools.workloads.sequences import check_padding, describe_sequence
from tools.workloads.sources import Source, fit_items, open_source
from tools.workloads.students import identify

_SPLIT_SEED = 0
_SLICE = 16
"""Items that metric and postprocessing are tried on."""


def materialize(
    spec: dict[str, Any], home: str, limit_calibration: int = 300, students: list[str] | None = None
) -> dict[str, Any]:
    """Load model and data, check that they fit together, and write both below `home`.

    Args:
        spec: a `WorkloadSpec`, JSON-ready, with absolute paths.
        home: the model goes to `artifacts/`, the data to `data/`.
        limit_calibration: calibrate with at most this many items.
        students: what may learn from the model, as in a spec; None for smaller ones of its family.

    Returns:
        A `WorkloadInfo`, JSON-ready.

    Raises:
        WorkloadError: what is wrong with the model, the data, the metric, or how they fit together.
        StorageError: `home` cannot be written.
    """
    workload = WorkloadSpec.model_validate(spec)
    better = metrics.higher_is_better(workload.metric, workload.higher_is_better)
    stage("loading the model")
    source = open_source(workload.model)
    stage("loading the data")
    evaluation, calibration, notes = _read(workload, source, limit_calibration)
    stage("running one batch")
    sequence = _sequence(workload, evaluation, calibration)
    found = probing.probe(source, evaluation, sequence)
    notes += found.notes
    stage("scoring a few items")
    sample = probing.run_items(source.run, evaluation, min(evaluation.n, _SLICE), found.fixed_batch)
    notes += probing.check_scoring(workload, sample, evaluation)
    stage("writing the model")
    artifact = write_artifact(
        Path(home) / "artifacts",
        source.format,
        source.precision,
        source.fill,
        factory=source.factory,
        code=None if source.factory is None else code.source_digest(source.factory),
        fixed_batch=found.fixed_batch,
    )
    if source.format is ModelFormat.TORCH:
        probing.check_reload(artifact, sample, evaluation)
    stage("writing the data")
    data = Path(home) / "data"
    evaluation_ref = write_dataset(data, evaluation.inputs, evaluation.targets)
    calibration_ref = write_dataset(data, calibration.inputs, calibration.targets)
    training_ref, training_notes = _training(workload, source, evaluation, data)
    digests = code_digests(spec)
    digest = digest_of(
        {
            "model": artifact.digest,
            "evaluation": evaluation_ref.digest,
            "calibration": calibration_ref.digest,
            "higher_is_better": better,
            "outputs": [o.name for o in found.outputs],
            "code": {role: name for role, name in digests.items() if role != "loss"},
            **({} if found.sequence is None else {"sequence": found.sequence.model_dump(mode="json")}),
        }
    )
    return WorkloadInfo(
        name=workload.name,
        digest=digest,
        source=artifact,
        inputs=evaluation_ref.inputs,
        outputs=found.outputs,
        evaluation=evaluation_ref,
        calibration=calibration_ref,
        metric=workload.metric,
        higher_is_better=better,
        preprocess=workload.preprocess,
        postprocess=workload.postprocess,
        raw_evaluation=(workload.evaluation.factory or workload.evaluation.npz) if workload.preprocess else None,
        parameters=source.parameters,
        code=digests,
        architecture=source.architecture,
        training=training_ref,
        loss=workload.loss,
        students=identify(students, source.architecture),
        normalization=_normalization(workload, evaluation),
        sequence=found.sequence,
        notes=(*notes, *training_notes),
    ).model_dump(mode="json")


def _sequence(workload: WorkloadSpec, evaluation: Items, calibration: Items) -> SequenceInfo | None:
    """Find out how the items' lengths vary, if the spec says that they do."""
    if workload.sequence is None:
        return None
    sequence = describe_sequence(workload.sequence, evaluation.inputs, _named(workload.evaluation))
    check_padding(sequence, calibration.inputs, _named(workload.calibration or workload.evaluation))
    return sequence


def _normalization(workload: WorkloadSpec, items: Items) -> Normalization | None:
    if workload.normalization is None:
        return None
    return describe_normalization(workload.normalization, items.inputs, _named(workload.evaluation))


def _training(
    workload: WorkloadSpec, source: Source, evaluation: Items, root: Path
) -> tuple[DatasetRef | None, tuple[str, ...]]:
    """Write the training items, where there are any, and say what is odd about them."""
    if workload.training is None:
        return None, ()
    where = _named(workload.training)
    items = fit_items(source, read_items(workload.training, preprocess=workload.preprocess), where)
    _check_alike(evaluation, items, "training")
    if workload.loss is not None and items.targets is None:
        raise WorkloadError(
            f"has no targets, and the loss {workload.loss} needs them.",
            where=where,
            fix="Yield (inputs, targets), or leave `workload.loss` out to learn from the model's outputs alone.",
        )
    notes = list(items.notes)
    shared = len(_item_digests(evaluation) & _item_digests(items))
    if shared:
        notes.append(
            f"{shared} training items are evaluation items too: the accuracy of what is trained is judged too kindly."
        )
    return write_dataset(root, items.inputs, items.targets), tuple(notes)


def code_digests(spec: dict[str, Any]) -> dict[str, str]:
    """Return what the user's functions are, by role: the function's name, and a digest of the source it needs.

    Where the files lie makes no difference: two checkouts of one project are the same workload.

    Args:
        spec: a `WorkloadSpec`, JSON-ready, with absolute paths.

    Raises:
        WorkloadError: there is no such file or module.
    """
    workload = WorkloadSpec.model_validate(spec)
    roles = {
        "model": workload.model.factory,
        "metric": workload.metric,
        "preprocess": workload.preprocess,
        "postprocess": workload.postprocess,
        "loss": workload.loss,
    }
    return {role: _identity(reference) for role, reference in roles.items() if reference is not None}


def dry_load(spec: dict[str, Any], home: str) -> dict[str, Any]:  # noqa: ARG001  the same call as `materialize`
    """Load the model, run and score the first batch, and write nothing.

    Returns:
        Facts: `format`, `precision`, `parameters`, `inputs` and `outputs` (as `TensorSpec`), `fixed_batch`,
        `items_seen`, `metric` (mean score of these items), `notes`.

    Raises:
        WorkloadError: as `materialize`, as far as the first items show it.
    """
    workload = WorkloadSpec.model_validate(spec)
    metrics.higher_is_better(workload.metric, workload.higher_is_better)
    stage("loading the model")
    source = open_source(workload.model)
    stage("loading the data")
    where = _named(workload.evaluation)
    items = fit_items(source, read_items(workload.evaluation, preprocess=workload.preprocess, limit=_SLICE), where)
    if workload.calibration is not None:
        calibration = read_items(workload.calibration, preprocess=workload.preprocess, limit=_SLICE)
        _check_alike(items, fit_items(source, calibration, _named(workload.calibration)))
    stage("running one batch")
    sequence = None if workload.sequence is None else describe_sequence(workload.sequence, items.inputs, where)
    found = probing.probe(source, items, sequence)
    sample = probing.run_items(source.run, items, items.n, found.fixed_batch)
    _normalization(workload, items)
    notes = (*source.notes, *items.notes, *found.notes, *probing.check_scoring(workload, sample, items))
    scores = metrics.score(workload.metric, tuple(sample.values()), items.targets, baseline=tuple(sample.values()))
    return {
        "format": source.format.value,
        "precision": source.precision.value,
        "parameters": source.parameters,
        "inputs": [s.model_dump(mode="json") for s in tensor_specs(items.inputs)],
        "outputs": [s.model_dump(mode="json") for s in found.outputs],
        "fixed_batch": found.fixed_batch,
        "items_seen": items.n,
        "metric": float(scores.mean()),
        "notes": list(notes),
    }


def _read(workload: WorkloadSpec, source: Source, limit: int) -> tuple[Items, Items, tuple[str, ...]]:
    """Return evaluation items, calibration items, and what was decided about them."""
    where = _named(workload.evaluation)
    evaluation = fit_items(source, read_items(workload.evaluation, preprocess=workload.preprocess), where)
    notes = [*source.notes, *evaluation.notes]
    if workload.evaluation.limit is not None and evaluation.n == workload.evaluation.limit:
        notes.append(f"The evaluation uses the first {evaluation.n} items, as `limit` says.")
    if workload.calibration is None:
        evaluation, calibration = _split(evaluation, limit, where)
        notes.append(
            f"No calibration data are given: {calibration.n} of the evaluation items, drawn with a fixed seed, "
            f"calibrate, and the other {evaluation.n} are held out to evaluate."
        )
        return evaluation, calibration, tuple(notes)
    calibration = read_items(workload.calibration, preprocess=workload.preprocess, limit=limit)
    calibration = fit_items(source, calibration, _named(workload.calibration))
    _check_alike(evaluation, calibration)
    notes += calibration.notes
    shared = len(_item_digests(evaluation) & _item_digests(calibration))
    if shared:
        notes.append(
            f"{shared} calibration items are evaluation items too: the accuracy of static quantization is judged "
            "a little too kindly."
        )
    return evaluation, calibration, tuple(notes)


def _split(items: Items, limit: int, where: str) -> tuple[Items, Items]:
    count = min(limit, items.n // 4)
    if count == 0:
        raise WorkloadError(
            f"{items.n} items are too few to hold any out for calibration.",
            where=where,
            fix="Give at least 4 items, or `calibration` data of their own.",
        )
    order = np.random.default_rng(_SPLIT_SEED).permutation(items.n)
    return items.take(np.sort(order[count:])), items.take(np.sort(order[:count]))


def _check_alike(evaluation: Items, other: Items, role: str = "calibration") -> None:
    expected, found = tensor_specs(evaluation.inputs), tensor_specs(other.inputs)
    if {s.name: s for s in expected} != {s.name: s for s in found}:
        raise WorkloadError(
            f"{role} and evaluation items differ: {describe(found)}, and {describe(expected)}.",
            where=f"workload.{role}",
        )


def _item_digests(items: Items) -> set[bytes]:
    digests = set()
    for index in range(items.n):
        digest = hashlib.blake2b(digest_size=16)
        for value in items.inputs.values():
            digest.update(value[index].tobytes())
        digests.add(digest.digest())
    return digests


def _identity(reference: str) -> str:
    """Return a built-in metric's name, or the name of a function with the digest of its source."""
    if reference in (*BUILTIN_METRICS, *BUILTIN_LOSSES):
        return reference
    return f"{reference.rpartition(':')[2]} {code.source_digest(reference)}"


def _named(data: DataSpec) -> str:
    return data.factory or data.npz or ""
