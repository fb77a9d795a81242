"""By how much dependence from call to call widens an interval, as far as the samples give evidence of it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]

_FEWEST_FOR_DEPENDENCE = 10
_FEWEST_BEYOND = 30
"""Dependence is not looked for among fewer samples than this beyond a quantile: a p99 of 300 has three."""


def effective_samples(samples: Samples, q: float) -> float:
    """Return how many independent samples would tell as much about the quantile as these do: 1 to n.

    A p99 has an upper bound only from `P99_MIN_SAMPLES` of these on.

    Args:
        samples: shape (n,), n >= 1, in the order in which they were taken.
        q: between 0 and 1.
    """
    values = np.asarray(samples, dtype=np.float64)
    return max(1.0, len(values) / dependence_at(values, q)[0])


def dependence_at(values: Samples, q: float) -> tuple[float, float]:
    """Return `dependence` of "below the quantile or not"; for a tail quantile, also a little closer to the median.

    Beyond a p99 lie few samples, among which no dependence shows: the larger of the two inflations counts.
    """
    n = len(values)
    reach = min(0.5, _FEWEST_BEYOND / n)
    levels = {q, min(max(q, reach), 1 - reach)}
    return max(dependence((values <= np.quantile(values, level)).astype(np.float64)) for level in sorted(levels))


def dependence(series: Samples) -> tuple[float, float]:
    """Return by how much dependence inflates the variance of the series' mean, and that estimate's degrees of freedom.

    The inflation is 1 + 2 * (sum of autocorrelations), cut where the sum of a pair of neighbouring lags is no longer
    positive: the initial positive sequence of Geyer (1992), Practical Markov Chain Monte Carlo, Statistical Science
    7(4), section 3. Subtracting the sample's mean makes the sum over lags below M too small by a factor of about
    1 - 2 M / n, which is undone; the sum has about n / (2 M) degrees of freedom (Priestley 1981, Spectral Analysis and
    Time Series, chapter 6, truncated window at frequency zero). It counts only above the standard error, 2 sqrt(M / n),
    that it would have were the series independent: without evidence there is no widening, (1, inf). Three independent
    series of four show none; the others are widened a little.

    Tried in its place: Sokal's window, which stops too early for rare long runs of slow calls, and the means of 20
    blocks, which are too short for strong dependence in 300 samples. Both cover less.
    """
    n = len(series)
    centred = series - series.mean()
    spread = float(np.abs(centred).max())
    if n < _FEWEST_FOR_DEPENDENCE or spread == 0:
        return 1.0, math.inf
    lags = n // 4 * 2
    spectrum = np.fft.rfft(centred / spread, 1 << (n + lags - 1).bit_length())
    covariance = np.fft.irfft(spectrum.real**2 + spectrum.imag**2)[:lags]
    pairs = covariance.reshape(-1, 2).sum(axis=1) / covariance[0]
    ends = np.flatnonzero(pairs <= 0)
    kept = int(ends[0]) if len(ends) else len(pairs)
    window = 2 * kept
    inflation = (2 * float(pairs[:kept].sum()) - 1) / max(1 - 2 * window / n, 0.25)
    if inflation - 1 <= 2 * math.sqrt(window / n):
        return 1.0, math.inf
    return inflation, n / (2 * window)
