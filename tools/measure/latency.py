"""Timing one callable: warm up until it is stable, then sample until the answer is narrow enough."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tools.contracts import Interval
from tools.measure.statistics import P99_MIN_SAMPLES, Samples, quantile_interval

HOPELESS_SAMPLES = 50
"""Enough to tell that a candidate is slower than the model as given, when it clearly is."""
WARMUP_WINDOW = 8
WARMUP_TOLERANCE = 0.03
"""Warm when the median of a window is no longer this much below that of the window before."""
MEDIAN_TOLERANCE = 0.02
"""Narrow enough when the half-width of the median's interval is below this share of the median."""


@dataclass(frozen=True)
class SamplingLimits:
    """How long to sample one point. Times in seconds."""

    min_samples: int = P99_MIN_SAMPLES + 1
    max_s: float = 12.0
    warmup_max_s: float = 2.0
    hopeless_above_ms: float = math.inf
    """Sampling ends early once the whole interval of the median lies above this: no sample more could help."""


@dataclass(frozen=True)
class Sampled:
    """Raw times and how they were taken."""

    samples_ms: Samples
    warmup_calls: int
    stable: bool
    """Whether the median became as narrow as `MEDIAN_TOLERANCE` asks. How far a p99 can be trusted, its n says."""


def sample(call: Callable[[], object], limits: SamplingLimits) -> Sampled:
    """Time `call` by the wall clock, in milliseconds a call.

    Sampling ends once there are `min_samples` and the median is narrow enough, or when the time is up. At least ten
    samples are taken in any case.
    """
    warmup_calls = warm_up(call, limits.warmup_max_s)
    times: list[float] = []
    started = time.perf_counter()
    check_at = limits.min_samples
    while True:
        before = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - before) / 1e6)
        if len(times) == HOPELESS_SAMPLES and _median(times).low > limits.hopeless_above_ms:
            break
        if len(times) >= check_at:
            if _settled(times):
                break
            check_at = int(check_at * 1.25) + 1
        if time.perf_counter() - started > limits.max_s and len(times) >= 10:
            break
    return Sampled(np.asarray(times), warmup_calls, _settled(times))


def _median(times_ms: list[float]) -> Interval:
    return quantile_interval(np.asarray(times_ms), 0.5)


def _settled(times_ms: list[float]) -> bool:
    median = _median(times_ms)
    return (median.high - median.low) / 2 <= MEDIAN_TOLERANCE * median.value


def warm_up(call: Callable[[], object], max_s: float) -> int:
    """Call until the time of a window stops falling, or the time is up. Returns the number of calls."""
    started = time.perf_counter()
    previous = float("inf")
    calls = 0
    while True:
        window = []
        for _ in range(WARMUP_WINDOW):
            before = time.perf_counter_ns()
            call()
            window.append(time.perf_counter_ns() - before)
            calls += 1
            if time.perf_counter() - started > max_s:
                return calls
        median = float(np.median(window))
        if median > previous * (1 - WARMUP_TOLERANCE):
            return calls
        previous = median
