"""Timing one callable: warm up until it is stable, then sample in windows until the answer is narrow enough.

A window is a quarter of a second of calls with a look at the machine before and after. What was measured while
something else used the machine is set aside, and said so; a machine that is never quiet gives no figure to rely on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tools.contracts import Interval
from tools.measure.dependence import Samples
from tools.measure.energy import EnergyCounter
from tools.measure.noise import QUIET_MAX_S, NoiseMeter
from tools.measure.statistics import P99_MIN_SAMPLES, quantile_interval

Clock = Callable[[], int]
"""Nanoseconds that only grow."""

HOPELESS_SAMPLES = 50
"""Enough to tell that a candidate is slower than the model as given, when it clearly is."""
WARMUP_WINDOW = 8
WARMUP_TOLERANCE = 0.03
"""Warm when the median of a window is no longer this much below that of the window before."""
MEDIAN_TOLERANCE = 0.02
"""Narrow enough when the half-width of the median's interval is below this share of the median."""
UNSTABLE_ABOVE = 0.15
"""Where the half-width is above this share when the time is up, there is no telling what the median is. Between the two
the interval says how far it can be trusted, and decisions rest on intervals."""
WINDOW_S = 0.25
"""Long enough for the kernel's ticks of 10 ms to show who used the CPUs, short enough to throw away."""
WINDOW_CALLS = 4
"""Fewest calls that count in a window, however slow they are."""
LONG_CALL_MS = 50.0
"""A call this long does not notice the cool caches that it starts with: it counts even as a window's first."""
FEWEST_SAMPLES = 10
MOST_DISTURBED = 0.5
"""With a larger share of its windows disturbed, a measurement is not stable, whatever the rest look like."""


@dataclass(frozen=True)
class SamplingLimits:
    """How long to sample one point. Times in seconds."""

    min_samples: int = P99_MIN_SAMPLES + 1
    max_s: float = 12.0
    """Extended by the time that disturbed windows cost, to twice as much at most."""
    enough_s: float = math.inf
    """Once there are `min_samples`, sampling goes on no longer than this for the median to settle."""
    warmup_max_s: float = 2.0
    quiet_max_s: float = QUIET_MAX_S
    """How long to wait for a quiet machine, when the first window finds it noisy."""
    hopeless_above_ms: float = math.inf
    """Sampling ends early once the whole interval of the median lies above this: no sample more could help."""


@dataclass(frozen=True)
class Sampled:
    """Raw times and how they were taken."""

    samples_ms: Samples
    """What counts, in the order in which it was taken."""
    discarded_ms: Samples
    """Taken while the machine was disturbed, and set aside."""
    disturbed: float
    """Share of the windows that were disturbed, 0 to 1."""
    unstable_because: str | None
    """Why the samples cannot be relied on, as a sentence; None when they can."""
    joules_per_call: float | None
    """Energy of the CPU packages over the windows that count."""
    warmup_calls: int

    @property
    def stable(self) -> bool:
        """Whether the median is known to within `UNSTABLE_ABOVE`, on a machine that was mostly quiet.

        How far a p99 can be trusted, its n says.
        """
        return self.unstable_because is None


@dataclass(frozen=True)
class _Window:
    times_ms: Samples
    calls: int
    seconds: float
    joules: float | None


@dataclass
class _Sampling:
    """All windows so far, and which of them count."""

    meter: NoiseMeter
    windows: list[_Window] = field(default_factory=list)

    def chosen(self, *, disturbed: bool) -> list[_Window]:
        reasons = self.meter.reasons()
        return [w for w, why in zip(self.windows, reasons, strict=True) if (why is not None) is disturbed]

    @property
    def disturbed(self) -> float:
        return len(self.chosen(disturbed=True)) / len(self.windows)

    @property
    def lost_s(self) -> float:
        return sum(window.seconds for window in self.chosen(disturbed=True))

    def complaint(self) -> str:
        *_, last = (why for why in self.meter.reasons() if why is not None)
        return f"the machine was disturbed in {self.disturbed:.0%} of the time windows; in the last of them {last}"


def sample(
    call: Callable[[], object],
    limits: SamplingLimits,
    meter: NoiseMeter,
    *,
    energy: EnergyCounter | None = None,
    clock_ns: Clock = time.perf_counter_ns,
) -> Sampled:
    """Time `call` by the wall clock, in milliseconds a call.

    Sampling ends once there are `min_samples` undisturbed ones and their median is narrow enough, or when the time is
    up. At least ten samples are taken in any case.

    Args:
        call: what to time.
        limits: how long.
        meter: a fresh one: windows are compared with the others of the same measurement only.
        energy: the machine's energy counter, where it has one.
        clock_ns: the clock.
    """
    warmup_calls = warm_up(call, limits.warmup_max_s, clock_ns)
    taken = _Sampling(meter)
    taken.windows.append(_window(call, meter, energy, clock_ns, limits.max_s))
    if taken.disturbed:
        meter.wait_until_quiet(limits.quiet_max_s)
        warmup_calls += warm_up(call, limits.warmup_max_s, clock_ns)
    started = clock_ns() - int(sum(window.seconds for window in taken.windows) * 1e9)
    check_at, asked_whether_hopeless = limits.min_samples, False
    while True:
        kept = _times(taken.chosen(disturbed=False))
        if len(kept) >= HOPELESS_SAMPLES and not asked_whether_hopeless:
            asked_whether_hopeless = True
            if math.isfinite(limits.hopeless_above_ms) and _median(kept).low > limits.hopeless_above_ms:
                break
        if len(kept) >= check_at and taken.disturbed <= MOST_DISTURBED:
            if _settled(kept):
                break
            check_at = int(len(kept) * 1.25) + 1
        max_s = limits.max_s if len(kept) < limits.min_samples else min(limits.max_s, limits.enough_s)
        left_s = max_s + min(taken.lost_s, max_s) - (clock_ns() - started) / 1e9
        if left_s <= 0 and len(_times(taken.windows)) >= FEWEST_SAMPLES:
            break
        taken.windows.append(_window(call, meter, energy, clock_ns, left_s))
    return _sampled(taken, warmup_calls)


def _window(
    call: Callable[[], object], meter: NoiseMeter, energy: EnergyCounter | None, clock_ns: Clock, left_s: float
) -> _Window:
    """Take one window of calls. A short first call finds caches that the meter's kernel cooled: it does not count."""
    meter.begin()
    before_uj = energy.read_uj() if energy is not None else None
    began = clock_ns()
    ends = began + int(min(WINDOW_S, left_s) * 1e9)
    call()
    after = clock_ns()
    times_ms = [(after - began) / 1e6] if after - began > LONG_CALL_MS * 1e6 else []
    calls = 1
    while after < ends or len(times_ms) < WINDOW_CALLS:
        before = clock_ns()
        call()
        after = clock_ns()
        times_ms.append((after - before) / 1e6)
        calls += 1
    joules = energy.joules(before_uj, energy.read_uj()) if energy is not None else None
    meter.end()
    return _Window(np.asarray(times_ms), calls, (clock_ns() - began) / 1e9, joules)


def _sampled(taken: _Sampling, warmup_calls: int) -> Sampled:
    """Judge what was taken. Where next to nothing is left, all of it is reported, and called unstable."""
    counted, set_aside = taken.chosen(disturbed=False), taken.chosen(disturbed=True)
    because = None
    if set_aside and len(_times(counted)) < FEWEST_SAMPLES:
        counted, set_aside = taken.windows, []
        because = taken.complaint()
    elif taken.disturbed > MOST_DISTURBED:
        because = taken.complaint()
    elif _half_width(_times(counted)) > UNSTABLE_ABOVE:
        because = f"the median did not settle to within {UNSTABLE_ABOVE:.0%} in its time"
    return Sampled(
        samples_ms=_times(counted),
        discarded_ms=_times(set_aside),
        disturbed=taken.disturbed,
        unstable_because=because,
        joules_per_call=_joules_per_call(counted),
        warmup_calls=warmup_calls,
    )


def _times(windows: list[_Window]) -> Samples:
    return np.concatenate([np.empty(0), *(window.times_ms for window in windows)])


def _joules_per_call(windows: list[_Window]) -> float | None:
    joules = [window.joules for window in windows if window.joules is not None]
    if len(joules) < len(windows):
        return None
    return sum(joules) / sum(window.calls for window in windows)


def _median(times_ms: Samples) -> Interval:
    return quantile_interval(times_ms, 0.5)


def _settled(times_ms: Samples) -> bool:
    return _half_width(times_ms) <= MEDIAN_TOLERANCE


def _half_width(times_ms: Samples) -> float:
    """Return half the width of the median's interval, as a share of the median."""
    median = _median(times_ms)
    return (median.high - median.low) / 2 / median.value


def warm_up(call: Callable[[], object], max_s: float, clock_ns: Clock = time.perf_counter_ns) -> int:
    """Call until the time of a window stops falling, or the time is up. Returns the number of calls."""
    started = clock_ns()
    previous = float("inf")
    calls = 0
    while True:
        window = []
        for _ in range(WARMUP_WINDOW):
            before = clock_ns()
            call()
            window.append(clock_ns() - before)
            calls += 1
            if clock_ns() - started > max_s * 1e9:
                return calls
        median = float(np.median(window))
        if median > previous * (1 - WARMUP_TOLERANCE):
            return calls
        previous = median
