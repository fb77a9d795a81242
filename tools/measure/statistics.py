"""Intervals for what was measured. Pure functions of arrays; 95 % unless said otherwise.

Samples of one process, in the order in which they were taken, are rarely independent: slow calls come in runs.
Intervals of quantiles and means are therefore widened by as much dependence as the samples themselves give evidence of,
and not at all where they give none. Quantiles use order statistics, which assume nothing about the shape of the
distribution. What is compared in rounds is resampled by rounds. `python -m simulations.coverage` shows how often these
intervals hold the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tools.contracts import Interval, Latency
from tools.measure.dependence import Samples, dependence, dependence_at

CONFIDENCE = 0.95
P99_MIN_SAMPLES = 299
"""Fewest independent samples for which the largest is above the p99 with 95 % confidence: 0.99^299 < 0.05.

Dependent samples are worth less: compare it with `effective_samples`, not with their number.
"""
RESAMPLES = 999
"""Bootstrap resamples: 0.95 * (RESAMPLES + 1) is whole, as the quantile of a studentized bootstrap wants."""
TRIM = 0.2
"""Share of the rounds left out at each end: what Wilcox recommends, and one disturbed round of five leaves no trace."""

_Z = 1.959964
_FEWEST_TO_RESAMPLE = 7
"""With fewer values, too many resamples repeat one of them over and over, and have no variance."""
_CRITICAL = math.ceil(CONFIDENCE * (RESAMPLES + 1)) - 1
_BLOCKS = 8
_FEW_WORTH = 60
"""Below so many effective samples the order statistics of a central quantile reach far into the tails."""
_FEWEST_FOR_BLOCKS = 100
_BLOCKS_FACTOR = 1.6
_CENTRAL = (0.25, 0.75)
_MOST_CORRELATED = 0.8
_UNKNOWN_FACTOR = 1e3
"""What is not known to this factor is not known; wild intervals of rates and ratios stay finite and positive."""


def quantile_interval(samples: Samples, q: float, confidence: float = CONFIDENCE) -> Interval:
    """Return a quantile with its distribution-free interval from binomial order statistics.

    The number of independent samples below the true quantile is Binomial(n, q); the interval runs between the order
    statistics at that distribution's tail quantiles (David and Nagaraja, Order Statistics, 3rd ed., 7.1). Dependent
    samples count as fewer, m = n / inflation: the ranks are then those of m samples, stretched to n. Where m is too
    small for an upper bound to exist, `high` is the largest sample: see `effective_samples`. A median whose m is small
    reaches no further than blocks of the samples say.

    Args:
        samples: shape (n,), n >= 1, in the order in which they were taken.
        q: between 0 and 1.
        confidence: coverage asked for.
    """
    from scipy.special import ndtr, stdtrit

    values = np.asarray(samples, dtype=np.float64)
    inflation, freedom = dependence_at(values, q)
    ordered = np.sort(values)
    n = len(ordered)
    worth = max(1, int(n / inflation))
    tail = (1 - confidence) / 2
    if math.isfinite(freedom):
        tail = float(ndtr(stdtrit(freedom, tail)))  # an estimated variance: t quantiles for the normal's
    low = _binomial_quantile(tail, worth, q) * (n + 1) // (worth + 1)
    high = _binomial_quantile(tail, worth, 1 - q) * (n + 1) // (worth + 1)  # counted from the largest
    value = float(np.quantile(ordered, q))  # interpolated: with very few samples it may lie between order statistics
    reach = _reach_of_blocks(values, q, confidence) if inflation > 1 and worth < _FEW_WORTH else math.inf
    return Interval(
        value=value,
        low=min(value, max(float(ordered[max(low - 1, 0)]), value - reach)),
        high=max(value, min(float(ordered[min(n - high, n - 1)]), value + reach)),
        n=n,
    )


def _reach_of_blocks(values: Samples, q: float, confidence: float) -> float:
    """Return how far a central quantile's interval reaches at most: 1.6 times what the quantiles of blocks say.

    Where calls get slower and faster over seconds, whole stretches lie above the median and others below, by a percent
    or two. Counted as "above or below" they are worth a handful of samples, whose order statistics are the smallest
    and the largest call of all, outliers included. How much the blocks themselves differ says more: a t interval of
    their quantiles, with the variance inflated for the correlation of neighbours. In `simulations.coverage` 1.6 times
    that leaves the coverage as it was from 300 samples on, at a seventh of the width where a machine wanders.
    """
    from scipy.special import stdtrit

    if len(values) < _FEWEST_FOR_BLOCKS or not _CENTRAL[0] <= q <= _CENTRAL[1]:
        return math.inf
    centres = np.array([np.quantile(block, q) for block in np.array_split(values, _BLOCKS)])
    centred = centres - centres.mean()
    total = float(centred @ centred)
    if total == 0:
        return math.inf
    neighbours = float(centred[1:] @ centred[:-1]) / total + 1 / _BLOCKS  # undoes the bias of the subtracted mean
    neighbours = min(max(neighbours, 0.0), _MOST_CORRELATED)
    error = float(centres.std(ddof=1)) * math.sqrt((1 + neighbours) / (1 - neighbours) / _BLOCKS)
    return _BLOCKS_FACTOR * float(stdtrit(_BLOCKS - 1, (1 + confidence) / 2)) * error


def _binomial_quantile(tail: float, n: int, p: float) -> int:
    """Return the smallest k with P(Binomial(n, p) <= k) >= tail. `scipy.stats.binom.ppf`, at a tenth of its time."""
    from scipy.special import bdtr, bdtrik

    start = float(bdtrik(tail, n, p))
    k = min(max(math.ceil(start), 0), n) if math.isfinite(start) else 0
    while k > 0 and bdtr(k - 1, n, p) >= tail:
        k -= 1
    while k < n and bdtr(k, n, p) < tail:
        k += 1
    return k


def latency(samples_ms: Samples) -> Latency:
    """Return p50, p95 and p99 of a sample of latencies in milliseconds."""
    return Latency(
        p50=quantile_interval(samples_ms, 0.5),
        p95=quantile_interval(samples_ms, 0.95),
        p99=quantile_interval(samples_ms, 0.99),
    )


def mean_interval(samples: Samples) -> Interval:
    """Return the mean with a t interval, widened by the dependence of the samples, which are in order of time.

    Where they are dependent, the interval is also no narrower than that of the means of eight blocks: rare long runs of
    slow calls show in those before they show in the autocorrelations.
    """
    values = np.asarray(samples, dtype=np.float64)
    inflation, freedom = dependence(values)
    half = _mean_half_width(values, inflation, freedom)
    if inflation > 1:
        means = np.array([block.mean() for block in np.array_split(values, _BLOCKS)])
        half = max(half, _mean_half_width(means, 1.0, math.inf))
    mean = float(values.mean())
    return Interval(value=mean, low=mean - half, high=mean + half, n=len(values))


def _mean_half_width(values: Samples, inflation: float, freedom: float) -> float:
    from scipy.special import stdtrit

    n = len(values)
    if n < 2:
        return 0.0
    t = float(stdtrit(max(1.0, min(freedom, n - 1)), (1 + CONFIDENCE) / 2))
    return t * float(values.std(ddof=1)) * math.sqrt(inflation / n)


def throughput(samples_ms: Samples, batch_size: int) -> Interval:
    """Return items per second: batch size over the mean time of a call, its interval taken on the logarithm.

    On that scale no interval, however wide, reaches zero or infinity.
    """
    mean = mean_interval(samples_ms)
    factor = math.exp(min((mean.high - mean.value) / mean.value, math.log(_UNKNOWN_FACTOR)))
    bounded = Interval(value=mean.value, low=mean.value / factor, high=mean.value * factor, n=mean.n)
    return bounded.inverse(batch_size * 1e3)


def ratio_interval(
    baseline: list[Samples], candidate: list[Samples], *, statistic: Literal["median", "mean"], seed: int = 0
) -> Interval:
    """Return the typical round's `statistic(baseline) / statistic(candidate)`, with its interval over rounds.

    What slows both sides of a round down at once cancels in that round's ratio; what hits one side of one round moves
    one ratio, and that is trimmed away. The estimate is the 20 % trimmed mean of the logarithms of the rounds' ratios;
    its interval is a symmetric studentized bootstrap over rounds (Wilcox, Introduction to Robust Estimation and
    Hypothesis Testing, chapter 4). Rounds are far enough apart to be independent of each other, and dependence
    within a round is part of what differs between rounds, so that nothing is resampled inside one. Percentile
    bootstraps, of this mean or of the median, cover 90 to 92 % with eight rounds. The order statistics of the rounds'
    median cover 99 % there, with an interval that reaches to a disturbed round; with twelve, the two are alike.

    Fewer than seven rounds are too few to resample: Tukey and McLaughlin's t interval (1963) stands in.

    Args:
        baseline: one array of times for each round.
        candidate: the same number of rounds, taken in turn with the baseline's.
        statistic: what is compared within a round.
        seed: of the bootstrap.

    Raises:
        ValueError: the two sides differ in their number of rounds.
    """
    if len(baseline) != len(candidate):
        raise ValueError(f"rounds differ: {len(baseline)} and {len(candidate)}")
    return typical_ratio(ratios_by_round(baseline, candidate, statistic=statistic), seed=seed)


def ratios_by_round(
    baseline: list[Samples], candidate: list[Samples], *, statistic: Literal["median", "mean"]
) -> list[float]:
    """Return `statistic(baseline) / statistic(candidate)` of each round."""
    reduce: Callable[[Samples], Any] = np.median if statistic == "median" else np.mean
    return [float(reduce(before) / reduce(after)) for before, after in zip(baseline, candidate, strict=True)]


def typical_ratio(ratios: Sequence[float], *, seed: int = 0) -> Interval:
    """Return the typical one of some ratios that do not depend on each other; see `ratio_interval`.

    Args:
        ratios: all above 0, one of each round or of each process.
        seed: of the bootstrap.
    """
    logs = np.sort(np.log(ratios))
    rounds = len(logs)
    centre, error = (float(x) for x in _trimmed(logs))
    if rounds == 1 or error == 0:
        low, high = logs[0], logs[-1]
    else:
        half = min(_critical(logs, centre, seed) * error, math.log(_UNKNOWN_FACTOR))
        low, high = centre - half, centre + half
    return Interval(value=math.exp(centre), low=math.exp(min(low, centre)), high=math.exp(max(high, centre)), n=rounds)


def _cut(rounds: int) -> int:
    """Return how many rounds are trimmed at each end: one at least, from four rounds on."""
    return max(int(TRIM * rounds), int(rounds >= 4))


def _trimmed(ordered: Samples) -> tuple[Samples, Samples]:
    """Return trimmed means along the last, sorted axis, and their standard errors from winsorized variances."""
    rounds = ordered.shape[-1]
    cut = _cut(rounds)
    kept = ordered[..., cut : rounds - cut]
    winsorized = np.clip(ordered, kept[..., :1], kept[..., -1:])
    spread = winsorized.std(axis=-1, ddof=1) if rounds > 1 else np.zeros(ordered.shape[:-1])
    return kept.mean(axis=-1), spread / ((1 - 2 * cut / rounds) * math.sqrt(rounds))


def _critical(logs: Samples, centre: float, seed: int) -> float:
    """Return how many standard errors the interval reaches to either side.

    Twice Student's is enough for every case of `simulations.coverage`; with eight rounds, one resampling in fifteen
    would ask for more because a few of its draws hardly vary.
    """
    from scipy.special import stdtrit

    rounds = len(logs)
    student = float(stdtrit(rounds - 2 * _cut(rounds) - 1, (1 + CONFIDENCE) / 2))
    if rounds < _FEWEST_TO_RESAMPLE:
        return student
    means, errors = _trimmed(np.sort(logs[_resampled_rounds(rounds, seed)], axis=1))
    studentized = np.divide(np.abs(means - centre), errors, out=np.full_like(errors, np.inf), where=errors > 0)
    return min(float(np.sort(studentized)[_CRITICAL]), 2 * student)


@lru_cache(maxsize=8)
def _resampled_rounds(rounds: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, rounds, (RESAMPLES, rounds))


def paired_drop(baseline: Samples, candidate: Samples, *, higher_is_better: bool, seed: int = 0) -> Interval:
    """Return how much worse the candidate scores, item by item, with its interval; positive is worse.

    For scores that are 0 or 1 (top1, top5) the interval is that of Agresti and Min (2005) for the difference of
    matched proportions: half a pair is added to each cell of the table, so that no change in n items still leaves an
    upper bound near 2/n instead of a false zero. For other scores it is a symmetric studentized bootstrap over items
    (Hall 1992, The Bootstrap and Edgeworth Expansion, 3.6), which holds where most items do not change at all and the
    percentile bootstrap is too narrow; with fewer than seven changed items, half a pair as far apart as scores can be
    is added on either side.

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
        half = _Z * math.sqrt((lost + won) - (lost - won) ** 2 / total) / total
        return Interval(value=value, low=min(centre - half, value), high=max(centre + half, value), n=n)
    half = _paired_half_width(worse, max(float(np.ptp(baseline)), float(np.abs(worse).max())), seed)
    return Interval(value=value, low=value - half, high=value + half, n=n)


def _paired_half_width(worse: Samples, spread: float, seed: int) -> float:
    """Return the half-width of the interval of the mean; `spread` is how far two scores can be apart."""
    n = len(worse)
    few = _Z * math.sqrt(n * float(worse.var()) + spread**2) / n
    if np.count_nonzero(worse) < _FEWEST_TO_RESAMPLE:
        return few
    generator = np.random.default_rng(seed)
    studentized = np.full(RESAMPLES, np.inf)
    for index in range(RESAMPLES):
        drawn = worse[generator.integers(0, n, n)]
        deviation = float(drawn.std())
        if deviation > 1e-9 * spread:  # below, it is rounding
            studentized[index] = abs(drawn.mean() - worse.mean()) / deviation
    critical = float(np.sort(studentized)[_CRITICAL])
    return critical * float(worse.std()) if math.isfinite(critical) else few


def score_interval(scores: Samples) -> Interval:
    """Return the mean score with its interval over independent items: Wilson's for proportions, else a t interval."""
    n = len(scores)
    mean = float(scores.mean())
    if np.isin(scores, (0.0, 1.0)).all():
        centre = (mean + _Z * _Z / (2 * n)) / (1 + _Z * _Z / n)
        half = _Z * math.sqrt(mean * (1 - mean) / n + _Z * _Z / (4 * n * n)) / (1 + _Z * _Z / n)
        return Interval(
            value=mean, low=min(mean, max(0.0, centre - half)), high=max(mean, min(1.0, centre + half)), n=n
        )
    half = _mean_half_width(scores, 1.0, math.inf)
    return Interval(value=mean, low=mean - half, high=mean + half, n=n)
