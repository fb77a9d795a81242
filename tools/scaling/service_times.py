"""How long a batch takes, for a simulated server: a fixed table, exponential, or spread as it was measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]

ServiceTime: TypeAlias = Callable[[int], float]
"""Seconds that a batch of so many requests takes. Asked once for each batch, in the order in which they start."""

BAD_TIME = "a service time is negative or not finite"

_BLOCK = 4096
_BODY, _TOP = 0.49, 0.01
"""Shares of the batches between the median and the 99th percentile, and at the latter."""
_SHAPES = (0.01, 1000.0)
"""From nearly all of the upper half at the 99th percentile, to nearly all of it at the median."""


def fixed(times_s: Sequence[float]) -> ServiceTime:
    """Return a service time that is always `times_s[n - 1]` for a batch of n: the D in M/D/1."""
    return (math.nan, *times_s).__getitem__


def exponential(mean_s: float, rng: np.random.Generator) -> ServiceTime:
    """Return an exponential service time with this mean, whatever the batch: the M in M/M/c."""
    draws = _drawn(rng.standard_exponential)
    return lambda _: mean_s * next(draws)


def spread(p50_s: FloatArray, p99_s: FloatArray, mean_s: FloatArray, rng: np.random.Generator) -> ServiceTime:
    """Return a random service time with the measured median, 99th percentile and mean of each batch size.

    Half of the batches take the median. The others lie between the median and the 99th percentile, where the last
    hundredth stays: `p50 + (p99 - p50) * v ** shape` with v uniform from 0 to 1. The shape is the one that gives the
    mean; where none does, all times of that size are stretched until the mean is right. One batch says nothing about
    the next.

    Args:
        p50_s: for a batch of 1, of 2, ...
        p99_s: not below the median.
        mean_s: positive.
        rng: where the chance comes from.
    """
    low, high, mean = (np.concatenate([[math.nan], values]) for values in (p50_s, p99_s, mean_s))
    width = high - low
    # The mean of v ** shape over all batches is 0.49 / (shape + 1) + 0.01: half have v = 0, and a hundredth v = 1.
    with np.errstate(divide="ignore", invalid="ignore"):
        body = (mean - low) / width - _TOP
        shape = np.where(body > 0, _BODY / body - 1, _SHAPES[1])
    shape = np.clip(np.where(width > 0, shape, 1.0), *_SHAPES)
    stretch = mean / (low + width * (_BODY / (shape + 1) + _TOP))
    bases: list[float] = (low * stretch).tolist()
    widths: list[float] = (width * stretch).tolist()
    shapes: list[float] = shape.tolist()
    above = _drawn(lambda size: np.clip((rng.random(size) - (1 - _BODY - _TOP)) / _BODY, 0, 1))

    def draw(count: int) -> float:
        return bases[count] + widths[count] * math.pow(next(above), shapes[count])

    return draw


def _drawn(draw: Callable[[int], FloatArray]) -> Iterator[float]:
    # A block at a time is much faster than one by one.
    while True:
        yield from draw(_BLOCK).tolist()
