"""Intervals for what was measured. Pure functions of arrays; 95 % unless said otherwise.

Samples of one process are rarely independent; means are therefore judged by blocks. Quantiles use order statistics,
which assume nothing about the shape of the distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tools.contracts import Interval, Latency

CONFIDENCE = 0.95
P99_MIN_SAMPLES = 299
"""Fewest samples for which the largest is above the p99 with 95 % confidence: 0.99^299 < 0.05."""

Samples = NDArray[np.float64]


def quantile_interval(samples: Samples, q: float, confidence: float = CONFIDENCE) -> Interval:
    """Return a quantile with its distribution-free interval from binomial order statistics.

    The number of samples below the true quantile is Binomial(n, q); the interval runs between the order statistics at
    that distribution's tail quantiles (David and Nagaraja, Order Statistics, 3rd ed., 7.1). Where n is too small for
    an upper bound to exist, `high` is the largest sample: read it with `n` in mind (`P99_MIN_SAMPLES`).

    Args:
        samples: shape (n,), n >= 1.
        q: between 0 and 1.
        confidence: coverage asked for.
    """
    from scipy.stats import binom

    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    n = len(ordered)
    tail = (1 - confidence) / 2
    low = int(binom.ppf(tail, n, q)) - 1
    high = int(binom.ppf(1 - tail, n, q))
    value = float(np.quantile(ordered, q))  # interpolated: with very few samples it may lie between order statistics
    return Interval(
        value=value, low=min(value, float(ordered[max(low, 0)])), high=max(value, float(ordered[min(high, n - 1)])), n=n
    )


def latency(samples_ms: Samples) -> Latency:
    """Return p50, p95 and p99 of a sample of latencies in milliseconds."""
    return Latency(
        p50=quantile_interval(samples_ms, 0.5),
        p95=quantile_interval(samples_ms, 0.95),
        p99=quantile_interval(samples_ms, 0.99),
    )


def mean_interval(samples: Samples, blocks: int = 20) -> Interval:
    """Return the mean with a t interval over block means, so that slow drifts and runs of slow calls widen it."""
    from scipy.stats import t

    values = np.asarray(samples, dtype=np.float64)
    n = len(values)
    mean = float(values.mean())
    if n < 2:
        return Interval(value=mean, low=mean, high=mean, n=n)
    means = np.array([block.mean() for block in np.array_split(values, min(blocks, n))])
    half = float(t.ppf(0.5 + CONFIDENCE / 2, len(means) - 1) * means.std(ddof=1) / math.sqrt(len(means)))
    return Interval(value=mean, low=mean - half, high=mean + half, n=n)


def throughput(samples_ms: Samples, batch_size: int) -> Interval:
    """Return items per second: batch size over the mean time of a call."""
    mean = mean_interval(samples_ms)
    floor = mean.value / 10  # a wild interval must not reach zero time
    bounded = Interval(value=mean.value, low=max(mean.low, floor), high=mean.high, n=mean.n)
    return bounded.inverse(batch_size * 1e3)


def ratio_interval(
    baseline: list[Samples], candidate: list[Samples], *, statistic: Literal["median", "mean"]
) -> Interval:
    """Return the median over rounds of `statistic(baseline) / statistic(candidate)`, with its interval.

    What slows both sides of a round down at once cancels in that round's ratio; what hits one side of one round moves
    one ratio, and the median of all of them hardly. The interval is that of a median, from order statistics.

    Args:
        baseline: one array of times for each round.
        candidate: the same number of rounds, taken in turn with the baseline's.
        statistic: what is compared within a round.
    """
    if len(baseline) != len(candidate):
        raise ValueError(f"rounds differ: {len(baseline)} and {len(candidate)}")
    reduce: Callable[[Samples], Any] = np.median if statistic == "median" else np.mean
    ratios = [float(reduce(before) / reduce(after)) for before, after in zip(baseline, candidate, strict=True)]
    return quantile_interval(np.asarray(ratios), 0.5)


def paired_drop(baseline: Samples, candidate: Samples, *, higher_is_better: bool, seed: int = 0) -> Interval:
    """Return how much worse the candidate scores, item by item, with its interval; positive is worse.

    For scores that are 0 or 1 (top1, top5) the interval is that of Agresti and Min (2005) for the difference of
    matched proportions: half a pair is added to each cell of the table, so that no change in n items still leaves an
    upper bound near 2/n instead of a false zero. For other scores it is a bootstrap over items.

    Args:
        baseline: scores of shape (n,).
        candidate: scores of the same items in the same order.
        higher_is_better: direction of the metric.
        seed: of the bootstrap.
    """
    if baseline.shape != candidate.shape:
        raise ValueError(f"scores differ in shape: {baseline.shape} and {candidate.shape}")
    n = len(baseline)
    worse = (baseline - candidate) if higher_is_better else (candidate - baseline)
    value = float(worse.mean())
    if np.isin(baseline, (0.0, 1.0)).all() and np.isin(candidate, (0.0, 1.0)).all():
        lost, won = float((worse > 0).sum()) + 0.5, float((worse < 0).sum()) + 0.5
        total = n + 2.0
        centre = (lost - won) / total
        half = 1.959964 * math.sqrt((lost + won) - (lost - won) ** 2 / total) / total
        return Interval(value=value, low=min(centre - half, value), high=max(centre + half, value), n=n)
    generator = np.random.default_rng(seed)
    means = [float(worse[generator.integers(0, n, n)].mean()) for _ in range(1000)]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value=value, low=float(min(low, value)), high=float(max(high, value)), n=n)


def score_interval(scores: Samples) -> Interval:
    """Return the mean score with its interval: Wilson's for proportions, a t interval otherwise."""
    n = len(scores)
    mean = float(scores.mean())
    if np.isin(scores, (0.0, 1.0)).all():
        z = 1.959964
        centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return Interval(
            value=mean, low=min(mean, max(0.0, centre - half)), high=max(mean, min(1.0, centre + half)), n=n
        )
    return mean_interval(scores, blocks=n)
