"""Scores of a model's outputs, one number an item, so that two models can be compared item by item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.errors import WorkloadError
from tools.spec import BUILTIN_METRICS
from tools.workloads import code

Array = npt.NDArray[Any]
Scores = npt.NDArray[np.float64]

_CLASSES_COUNTED = {"top1": 1, "top5": 5}


def score(
    metric: str,
    outputs: Sequence[Array],
    targets: Array | None,
    *,
    baseline: Sequence[Array] | None = None,
) -> Scores:
    """Score every item.

    `top1` and `top5` are 1 for an item whose label is among the 1 or 5 largest of the first output (ties go to the
    lower class), else 0. `mse` is the mean squared error and `cosine` the cosine similarity of the first output to
    the target; without targets, of all outputs to the baseline's: fidelity.

    Args:
        metric: a built-in metric, or a reference to a function(outputs, targets). It gets the output as an array, or
            a tuple of them if there are several, and returns (n,) scores, or one number for all of them.
        outputs: (n, ...) arrays.
        targets: (n, ...) array, if the data have any.
        baseline: the baseline's outputs, for fidelity.

    Returns:
        (n,) scores, or (1,) from a function that returns one number: see `is_per_item`.

    Raises:
        WorkloadError: an output is not finite, or outputs, targets and metric do not fit together.
    """
    check_finite(outputs)
    n = len(outputs[0])
    if targets is not None and len(targets) != n:
        raise WorkloadError(f"{n} outputs cannot be scored with {len(targets)} targets.")
    if metric in _CLASSES_COUNTED:
        return _top(metric, outputs[0], targets)
    if metric not in BUILTIN_METRICS:
        return _own(metric, outputs, targets, n)
    if targets is not None:
        found, wanted = _per_item([outputs[0]]), _per_item([targets])
    elif baseline is not None:
        found, wanted = _per_item(outputs), _per_item(baseline)
    else:
        raise WorkloadError(f"{metric} needs targets, or a baseline's outputs to compare with.")
    if found.shape != wanted.shape:
        raise WorkloadError(
            f"{metric} compares outputs of {found.shape[1]} numbers an item with targets of {wanted.shape[1]}.",
            fix="Give targets of the output's shape, or a metric of your own.",
        )
    scores: Scores = np.square(found - wanted).mean(axis=1) if metric == "mse" else _cosine(found, wanted)
    return scores


def higher_is_better(metric: str, declared: bool | None) -> bool:  # noqa: FBT001  the spec's own field
    """Return which way a metric points: the built-in ones know, one of the user's is as declared (default: up).

    Raises:
        WorkloadError: the spec contradicts a built-in metric.
    """
    if metric not in BUILTIN_METRICS:
        return True if declared is None else declared
    known = metric != "mse"
    if declared is not None and declared is not known:
        raise WorkloadError(
            f"`higher_is_better: {str(declared).lower()}` contradicts the built-in metric {metric}.",
            fix="Leave it out.",
        )
    return known


def is_per_item(scores: Scores, n: int) -> bool:
    """Whether there is one score an item; a single number for many items cannot be compared in pairs."""
    return len(scores) == n


def as_returned(outputs: Sequence[Array]) -> Array | tuple[Array, ...]:
    """Return outputs as user code gets them (metric, postprocess): one array, or a tuple of several."""
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


def check_finite(outputs: Sequence[Array], names: Sequence[str] | None = None) -> None:
    """Refuse NaN and infinity.

    Raises:
        WorkloadError: it says in how many items, and in which output.
    """
    for index, output in enumerate(outputs):
        if output.dtype.kind != "f":
            continue
        bad = ~np.isfinite(output).all(axis=tuple(range(1, output.ndim)))
        if bad.any():
            name = names[index] if names is not None else f"output_{index}"
            raise WorkloadError(
                f"{int(bad.sum())} of {len(output)} items have NaN or infinity in `{name}` "
                f"(the first is item {int(bad.argmax())} of the batch)."
            )


def check_targets(metric: str, outputs: Sequence[Array], targets: Array | None) -> None:
    """Refuse targets that a metric cannot score; `outputs` may be those of a few items only.

    Raises:
        WorkloadError: there are none, or labels are not integers, or not among the classes.
    """
    if metric in _CLASSES_COUNTED:
        _labels(metric, outputs[0], targets)


def _top(metric: str, output: Array, targets: Array | None) -> Scores:
    labels = _labels(metric, output, targets)
    of_label = np.take_along_axis(output, labels[:, None], axis=1)
    better = (output > of_label).sum(axis=1)
    tied_before = ((output == of_label) & (np.arange(output.shape[1]) < labels[:, None])).sum(axis=1)
    scores: Scores = (better + tied_before < _CLASSES_COUNTED[metric]).astype(np.float64)
    return scores


def _labels(metric: str, output: Array, targets: Array | None) -> npt.NDArray[np.int64]:
    """Return targets as (n,) class numbers after checking them against (m, classes) outputs."""
    if targets is None:
        raise WorkloadError(
            f"{metric} needs targets, and the data have none.",
            fix="Yield labels as targets, or use `cosine` or `mse`, which then compare with the model as given.",
        )
    if output.ndim != 2 or output.shape[1] < 2:
        raise WorkloadError(
            f"{metric} needs outputs of shape (n, classes), and the first output is {_shape(output)}.",
            fix="Use a metric of your own: file.py:function(outputs, targets).",
        )
    classes = output.shape[1]
    if metric == "top5" and classes < 5:
        raise WorkloadError(f"top5 needs at least 5 classes, and the model has {classes}.", fix="Use top1.")
    labels = targets.reshape(len(targets)) if targets.shape == (len(targets), 1) else targets
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise WorkloadError(
            f"{metric} needs integer labels of shape (n,), and the targets are {targets.dtype} {_shape(targets)}.",
            fix="One-hot targets: `.argmax(1)`; floats: `.astype('int64')`.",
        )
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        raise WorkloadError(
            f"{int(outside.sum())} of {len(labels)} targets are no class of the model "
            f"(item {int(outside.argmax())} has {labels[outside.argmax()]}; classes are 0 to {classes - 1})."
        )
    return labels.astype(np.int64)


def _per_item(arrays: Sequence[Array]) -> Scores:
    """Return (n, numbers) float64, all outputs of an item side by side."""
    return np.concatenate([a.reshape(len(a), -1).astype(np.float64) for a in arrays], axis=1)


def _cosine(found: Scores, wanted: Scores) -> Scores:
    """Return cosine similarities; of two zero vectors 1, of one zero vector 0."""
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    similar = (found * wanted).sum(axis=1) / np.where(norms == 0, 1.0, norms)
    both_zero = ~found.any(axis=1) & ~wanted.any(axis=1)
    return np.where(both_zero, 1.0, np.clip(similar, -1.0, 1.0))


def _own(metric: str, outputs: Sequence[Array], targets: Array | None, n: int) -> Scores:
    value = code.call(metric, as_returned(outputs), targets)
    with code.user_code(metric, "reading what it returned"):
        scores = np.atleast_1d(np.asarray(value, dtype=np.float64))
    if scores.shape not in ((n,), (1,)):
        raise WorkloadError(
            f"returned {_shape(scores)} for {n} items.",
            where=metric,
            fix="Return one score an item, of shape (n,), or a single number.",
        )
    if not np.isfinite(scores).all():
        raise WorkloadError(f"returned {int((~np.isfinite(scores)).sum())} scores that are not finite.", where=metric)
    return scores


def _shape(array: Array) -> str:
    return f"of shape {tuple(array.shape)}"
