"""One request from raw item to answer, split into its stages. Medians, at batch 1."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.contracts import EndToEnd, WorkloadInfo

BUDGET_S = 0.15
"""How long one stage is repeated for."""
MIN_REPEATS = 3
MAX_REPEATS = 200

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Stages:
    """The stages of a request that depend on the library that runs the model.

    Attributes:
        transfer: turns the arrays of a batch into what the library takes.
        forward_ms: median of the forward pass.
        read_out: turns what the library returned into arrays.
        notes: what cannot be told apart.
    """

    transfer: Callable[[], object]
    forward_ms: float
    read_out: Callable[[], Sequence[Array]]
    notes: tuple[str, ...] = ()


def end_to_end(workload: WorkloadInfo, stages: Stages) -> EndToEnd:
    """Time the stages around the forward pass.

    Raises:
        WorkloadError: the user's `preprocess` or `postprocess` raised.
    """
    notes = list(stages.notes)
    batch = workload.source.fixed_batch
    if batch is not None and batch != 1:
        notes.append(f"The program accepts batches of {batch} only: all but `preprocess_ms` is the time of one such.")
    return EndToEnd(
        preprocess_ms=_preprocess_ms(workload, notes),
        transfer_ms=median_ms(stages.transfer),
        forward_ms=stages.forward_ms,
        postprocess_ms=_postprocess_ms(workload, stages.read_out, notes),
        notes=tuple(notes),
    )


def median_ms(call: Callable[[], object]) -> float:
    """Return the median time of a call in milliseconds, after one that does not count."""
    call()
    times: list[int] = []
    deadline = time.perf_counter() + BUDGET_S
    while len(times) < MIN_REPEATS or (len(times) < MAX_REPEATS and time.perf_counter() < deadline):
        before = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - before)
    return statistics.median(times) / 1e6


def _preprocess_ms(workload: WorkloadInfo, notes: list[str]) -> float | None:
    """Time the user's preprocessing of the first raw item."""
    if workload.preprocess is None or workload.raw_evaluation is None:
        notes.append("The workload names no `preprocess`, so the way from raw item to inputs is not in these figures.")
        return None
    from tools.workloads import code
    from tools.workloads.batches import raw_batches

    reference = workload.preprocess
    raw, _ = next(raw_batches(workload.raw_evaluation))
    item = _first_item(raw)
    function = code.resolve(reference)
    with code.user_code(reference, "preprocessing the first batch", function):
        whole = _length(function(raw))
    try:
        alone = _length(function(item)) == 1
    except Exception:  # noqa: BLE001  user code that only takes whole batches may raise anything for another shape
        alone = False
    with code.user_code(reference, "preprocessing the first batch again", function):
        if alone:
            return median_ms(lambda: function(item))
        notes.append(f"`preprocess` takes no single item: its time is that of a batch of {whole}, divided by {whole}.")
        return median_ms(lambda: function(raw)) / whole


def _postprocess_ms(workload: WorkloadInfo, read_out: Callable[[], Sequence[Array]], notes: list[str]) -> float:
    """Time reading the answer out, and what is made of it."""
    if workload.postprocess is not None:
        from tools.workloads import code
        from tools.workloads.metrics import as_returned

        reference = workload.postprocess
        function = code.resolve(reference)
        with code.user_code(reference, "postprocessing one answer", function):
            return median_ms(lambda: function(as_returned(read_out())))
    if workload.metric in ("top1", "top5"):
        notes.append("The workload names no `postprocess`: its time is that of reading out the answer and its argmax.")
        return median_ms(lambda: np.argmax(read_out()[0], axis=-1))
    notes.append("The workload names no `postprocess`: its time is that of reading out the answer.")
    return median_ms(read_out)


def _first_item(raw: Any) -> Any:
    """Return the batch of only the first item: in a dict or tuple of inputs of each, of a list of raw items the first.

    A list may also hold one array for each input; `preprocess` then returns another length or raises, which the caller
    sees.
    """
    if isinstance(raw, Mapping):
        return {name: _first_item(value) for name, value in raw.items()}
    if isinstance(raw, tuple):
        return tuple(_first_item(value) for value in raw)
    return raw[:1]


def _length(inputs: Any) -> int:
    """Return the number of items in what `preprocess` returned: arrays or tensors, alone, in a sequence or a dict."""
    if isinstance(inputs, Mapping):
        return _length(next(iter(inputs.values())))
    if isinstance(inputs, tuple | list):
        return _length(inputs[0])
    return len(inputs)
