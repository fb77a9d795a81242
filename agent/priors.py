"""What is expected of a candidate before anything was measured. Pure.

These are beliefs, not results: rough figures that people who do this for a living would bet on, each with a generous
standard deviation, so that a few measurements outweigh them. All are natural logarithms of the gain over the model as
given, in PyTorch's eager mode at batch 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

_RUNTIMES = {
    "eager": (0.0, 0.05),
    "torchscript": (0.3, 0.3),
    "compiled": (0.6, 0.5),
    "onnxruntime": (0.8, 0.5),
    "openvino": (0.9, 0.5),
    "onnxruntime-cuda": (2.0, 1.0),
    "onnxruntime-tensorrt": (2.5, 1.0),
    "eager-cuda": (1.5, 1.0),
    "compiled-cuda": (2.0, 1.0),
}
_UNKNOWN_RUNTIME = (0.7, 0.8)

_WITH_KERNELS = {
    "fp32": (0.0, 0.0),
    "bf16": (0.6, 0.4),
    "fp16": (0.6, 0.4),
    "fp8": (0.8, 0.5),
    "int8-dynamic": (0.0, 0.6),
    "int8-static": (1.0, 0.4),
    "int8-mixed": (0.8, 0.4),
    "int4-weights": (0.0, 0.5),
}
"""Precisions that the hardware multiplies by itself, against FP32 on the same runtime."""
_EMULATED = {
    "bf16": (-0.7, 0.5),
    "fp16": (-0.7, 0.5),
    "int8-static": (0.2, 0.5),
    "int8-mixed": (0.1, 0.5),
    "int8-dynamic": (-0.2, 0.5),
}
_EAGER_HALF = (0.2, 0.4)
"""Half precision in eager mode: what the framework costs around the kernels stays."""

_FLOPS_EXPONENT = 0.75
"""Time falls slower than the work: smaller layers use the machine less well."""
_STUDENT_SD = 0.4
_THREADS_EXPONENT = 0.65
"""Of the speed-up by more threads."""
_THREADS_SD = 0.2
_STREAMS_GAIN = (0.05, 0.15)
_SHORTER_GAIN = (0.2, 0.3)
"""Of cutting texts to half of the longest: most are shorter anyway."""
_BATCH_SD = 0.12
"""Standard deviation that each doubling of the batch adds."""
_SETTING = (0.0, 0.1)
"""Any other setting of a runtime: little is to be expected of it."""

_KNOWN = frozenset({"student", "runtime", "precision", "batch", "threads", "streams", "max_length"})

_SMALLER = {
    "int8-dynamic": math.log(4),
    "int8-static": math.log(4),
    "int8-mixed": math.log(3),
    "int4-weights": math.log(6),
}
"""Where weights are stored in fewer bits, most of the size goes."""

_FEASIBLE = {"fp32": 0.98, "bf16": 0.97, "fp16": 0.95, "int8-dynamic": 0.85, "int4-weights": 0.8}
_FEASIBLE_INT8 = 0.85
_FEASIBLE_STUDENT = 0.75


@dataclass(frozen=True)
class Facts:
    """What is known of machine and model before the first trial."""

    precisions: frozenset[str]
    """Those that the hardware has kernels for."""
    threads: int
    flops: Mapping[str, float] = field(default_factory=dict)
    """FLOPs of each student over those of the model as given."""
    fixed_share: float = 0.45
    """Share of the time of batch 1 that does not grow with the batch: launching, and loading weights."""


def prior(levels: Mapping[str, str], facts: Facts) -> tuple[float, dict[str, float]]:
    """Return what to expect of ln(gain over the model as given at batch 1), and how uncertain that is by factor.

    Args:
        levels: `student` ("" for the model as given), `runtime`, `precision`, and where they differ from the default
            `threads`, `streams` and `batch`, as numbers in strings; other factors are settings.
        facts: see there.

    Returns:
        The mean, and the standard deviation that comes from each factor.
    """
    runtime, precision = levels["runtime"], levels["precision"]
    parts = {
        "runtime": _RUNTIMES.get(runtime, _UNKNOWN_RUNTIME),
        "precision": _of_precision(runtime, precision, facts),
    }
    student = levels.get("student", "")
    if student:
        parts["student"] = (-_FLOPS_EXPONENT * math.log(facts.flops.get(student, 0.5)), _STUDENT_SD)
    batch = float(levels.get("batch", 1))
    parts["batch"] = (_batch_gain(batch, facts.fixed_share), _BATCH_SD * math.log2(batch))
    threads = float(levels.get("threads", facts.threads))
    if threads != facts.threads:
        parts["threads"] = (_THREADS_EXPONENT * math.log(threads / facts.threads), _THREADS_SD)
    if float(levels.get("streams", 1)) > 1:
        parts["streams"] = _STREAMS_GAIN
    if levels.get("max_length"):
        parts["max_length"] = _SHORTER_GAIN
    parts |= {factor: _SETTING for factor, level in levels.items() if factor not in _KNOWN and level}
    return sum(mean for mean, _ in parts.values()), {factor: sd for factor, (_, sd) in parts.items() if sd > 0}


def size_prior(levels: Mapping[str, str], facts: Facts) -> tuple[float, dict[str, float]]:
    """Return what to expect of ln(size of the model as given / size), with the levels of `prior`, likewise."""
    student = levels.get("student", "")
    fewer = -math.log(facts.flops.get(student, 0.5)) if student else 0.0
    spread = {"precision": 0.2, **({"student": 0.5} if student else {})}
    return _SMALLER.get(levels["precision"], 0.0) + fewer, spread


def feasible_prior(levels: Mapping[str, str]) -> float:
    """Return the belief that a candidate keeps its accuracy."""
    chance = _FEASIBLE.get(levels["precision"], _FEASIBLE_INT8)
    return chance * (_FEASIBLE_STUDENT if levels.get("student") else 1.0)


def _of_precision(runtime: str, precision: str, facts: Facts) -> tuple[float, float]:
    if precision not in facts.precisions and precision in _EMULATED:
        return _EMULATED[precision]
    if runtime == "eager" and precision in ("bf16", "fp16"):
        return _EAGER_HALF
    return _WITH_KERNELS.get(precision, (0.0, 0.5))


def _batch_gain(batch: float, fixed_share: float) -> float:
    """Return ln of the gain in items per second when a share of the time is paid once a batch (Amdahl's law)."""
    return -math.log(fixed_share / batch + 1.0 - fixed_share)
