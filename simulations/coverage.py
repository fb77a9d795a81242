"""How often the intervals of `tools.measure.statistics` hold the truth, on samples whose truth is known.

Times of calls are drawn from shapes that serving shows: one mode, two modes, a drift, dependence from call to call,
runs of slow calls. An interval of 95 % is worth its name if it holds the truth in about 95 % of the draws. The last
table does the same for two habits of benchmarks.

No interval knows what its window does not show. Runs of 20 slow calls come once in 133 calls: 300 samples hold two or
three of them, or none, and 95 % are then promised in vain. "p99 bounded" is the share of draws with enough effective
samples to bound a p99 at all; the others are not to be relied on, and a caller can tell (`effective_samples`).

Run: `python -m simulations.coverage` (a little over a minute on one core; the figures repeat exactly).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.optimize import brentq
from scipy.special import ndtr

from tools.contracts import Interval
from tools.measure.dependence import Samples, effective_samples
from tools.measure.statistics import P99_MIN_SAMPLES, mean_interval, quantile_interval, ratio_interval

SEED = 20
SIZES = (50, 300, 1000, 3000)
"""Samples a point: those of the early stop, the fewest of a measurement, and two that a longer one reaches."""
LARGE = 3000
"""From this size on, half the replications."""
HABIT_RUNS = 20
Z = 1.959964
WANDER = 0.98


@dataclass(frozen=True)
class Case:
    """A process of call times with a known marginal distribution: a mixture of lognormals with equal spread."""

    name: str
    sigma: float
    """Standard deviation of the logarithm within a mode."""
    modes: tuple[tuple[float, float], ...] = ((1.0, 1.0),)
    """Weight and median time of each mode."""
    phi: float = 0.0
    """Autocorrelation from call to call of the logarithm within a mode."""
    slow_run: float = 0.0
    """Mean number of consecutive calls in the second mode; 0: the mode of a call does not depend on the last."""
    drift: float = 0.0
    """By which share the times grow over the window."""
    wander: float = 0.0
    """Standard deviation of the logarithm of a slow factor, whose autocorrelation from call to call is 0.98."""

    def draw(self, generator: np.random.Generator, replications: int, n: int) -> Samples:
        """Return times of shape (replications, n)."""
        scale = np.ones((n, replications))
        if len(self.modes) > 1:
            slow = self._slow(generator, replications, n)
            scale = np.where(slow, self.modes[1][1], self.modes[0][1])
        noise = generator.standard_normal((n, replications))
        for index in range(1, n if self.phi else 0):
            noise[index] = self.phi * noise[index - 1] + math.sqrt(1 - self.phi**2) * noise[index]
        slowly = generator.standard_normal((n, replications)) if self.wander else np.zeros((n, replications))
        for index in range(1, n if self.wander else 0):
            slowly[index] = WANDER * slowly[index - 1] + math.sqrt(1 - WANDER**2) * slowly[index]
        scale *= np.exp(self.wander * slowly)
        growth = 1 + self.drift * (np.arange(n) + 0.5) / n
        return np.ascontiguousarray((scale * np.exp(self.sigma * noise) * growth[:, None]).T)

    def _slow(self, generator: np.random.Generator, replications: int, n: int) -> np.ndarray:
        share = self.modes[1][0]
        chance = generator.random((n, replications))
        slow = chance < share
        leave = 1 / self.slow_run if self.slow_run else 1 - share
        enter = leave * share / (1 - share)
        for index in range(1, n if self.slow_run else 0):
            slow[index] = np.where(slow[index - 1], chance[index] >= leave, chance[index] < enter)
        return slow

    def quantile(self, q: float) -> float:
        """Return the true quantile, over the whole window where there is a drift."""
        growth = 1 + self.drift * (np.arange(1000) + 0.5) / 1000

        def excess(log_time: float) -> float:
            below = [w * ndtr((log_time - np.log(m * growth)) / self._spread).mean() for w, m in self.modes]
            return float(sum(below)) - q

        return math.exp(brentq(excess, -5, 5, xtol=1e-12))

    @property
    def _spread(self) -> float:
        """Standard deviation of the logarithm within a mode, with the slow factor."""
        return math.hypot(self.sigma, self.wander)

    def mean(self) -> float:
        """Return the true mean."""
        return math.exp(self._spread**2 / 2) * (1 + self.drift / 2) * sum(w * m for w, m in self.modes)


FAST_AND_SLOW = ((0.85, 1.0), (0.15, 1.6))
CASES = (
    Case("lognormal", 0.2),
    Case("85 % fast, 15 % slow", 0.05, FAST_AND_SLOW),
    Case("52 % fast, 48 % slow", 0.05, ((0.52, 1.0), (0.48, 1.6))),
    Case("drift of 5 %", 0.1, drift=0.05),
    Case("autocorrelation 0.5", 0.2, phi=0.5),
    Case("autocorrelation 0.8", 0.2, phi=0.8),
    Case("autocorrelation 0.9", 0.2, phi=0.9),
    Case("runs of 8 slow calls", 0.05, FAST_AND_SLOW, slow_run=8),
    Case("runs of 20 slow calls", 0.05, FAST_AND_SLOW, slow_run=20),
    Case("slow wandering by 3 %, 2 % outliers", 0.01, ((0.98, 1.0), (0.02, 2.0)), wander=0.03),
)


@dataclass(frozen=True)
class RatioCase:
    """Two sides timed in turn: the candidate takes half the baseline's time and scatters half as much."""

    process: Case
    rounds: int
    samples: int
    """Of one side in one round."""
    disturbed: bool = False
    """Whether one side of one round takes three times as long."""

    @property
    def name(self) -> str:
        """What sets the case apart."""
        return self.process.name + (", one side of a round 3x" if self.disturbed else "")

    def draw(self, generator: np.random.Generator, replications: int) -> tuple[Samples, Samples]:
        """Return times of both sides, each of shape (replications, rounds, samples)."""
        common = generator.lognormal(0, 0.3, (replications, self.rounds, 1))
        sides = [
            side.draw(generator, replications * self.rounds, self.samples).reshape(replications, self.rounds, -1)
            for side in self._sides()
        ]
        baseline, candidate = sides[0] * 2 * common, sides[1] * common
        if self.disturbed:
            baseline[:, self.rounds // 3] *= 3
        return baseline, candidate

    def truth(self, statistic: str) -> float:
        """Return the true ratio of the medians or of the means."""
        ends = [side.quantile(0.5) if statistic == "median" else side.mean() for side in self._sides()]
        return 2 * ends[0] / ends[1]

    def _sides(self) -> tuple[Case, Case]:
        return self.process, replace(self.process, sigma=self.process.sigma / 2)


RATIO_CASES = (
    RatioCase(CASES[0], 12, 20),
    RatioCase(CASES[0], 12, 300),
    RatioCase(CASES[1], 12, 20),
    RatioCase(CASES[4], 12, 100),
    RatioCase(CASES[6], 12, 20),
    RatioCase(CASES[6], 12, 100),
    RatioCase(CASES[7], 12, 100),
    RatioCase(CASES[0], 12, 20, disturbed=True),
    RatioCase(CASES[6], 12, 100, disturbed=True),
    RatioCase(CASES[0], 8, 20),
    RatioCase(CASES[6], 8, 20),
    RatioCase(CASES[0], 8, 20, disturbed=True),
    RatioCase(CASES[0], 30, 20),
    RatioCase(CASES[6], 30, 20),
    RatioCase(CASES[0], 30, 20, disturbed=True),
)


def coverage_tables(replications: int = 2000) -> list[Table]:
    """Return three tables in Markdown: quantiles and means, ratios of rounds, and two habits for contrast.

    Args:
        replications: draws of each case; half as many at the largest size. The standard error of a share of 95 %
            among 2,000 is 0.5 %.
    """
    samples, habits = _table(_SAMPLE_COLUMNS), _table(_HABIT_COLUMNS)
    for case, n, drawn in _draws(replications):
        samples.add_row(case.name, f"{n:,}", *_sample_row(case, drawn))
        habits.add_row(case.name, f"{n:,}", *_habit_row(case, drawn))
    ratios = _table(_RATIO_COLUMNS)
    for index, ratio_case in enumerate(RATIO_CASES):
        generator = np.random.default_rng((SEED, 1, index))
        ratios.add_row(*_ratio_row(ratio_case, *ratio_case.draw(generator, replications)))
    return [samples, ratios, habits]


_SAMPLE_COLUMNS = ("case", "n", "p50", "width", "p99", "width", "p99 bounded", "p99 if bounded", "mean", "width")
_RATIO_COLUMNS = ("case", "rounds", "samples", "medians", "width", "off by", "means", "width", "off by")
_HABIT_COLUMNS = ("case", "n", f"p50 of {HABIT_RUNS}", f"p99 of {HABIT_RUNS}", "mean of n ± 1.96 s/√n")


def _table(columns: tuple[str, ...]) -> Table:
    table = Table(box=box.MARKDOWN)
    for name in columns:
        table.add_column(name, justify="left" if name == "case" else "right", no_wrap=True)
    return table


def _draws(replications: int) -> Iterator[tuple[Case, int, Samples]]:
    for index, case in enumerate(CASES):
        for n in SIZES:
            count = replications // 2 if n >= LARGE else replications
            yield case, n, case.draw(np.random.default_rng((SEED, 0, index, n)), max(count, 1), n)


def _sample_row(case: Case, drawn: Samples) -> list[str]:
    p50 = _Score.of(drawn, case.quantile(0.5), lambda x: quantile_interval(x, 0.5))
    p99 = _Score.of(drawn, case.quantile(0.99), lambda x: quantile_interval(x, 0.99))
    mean = _Score.of(drawn, case.mean(), mean_interval)
    bounded = np.array([effective_samples(x, 0.99) >= P99_MIN_SAMPLES for x in drawn])
    # Among a handful of draws that were taken for bounded by mistake, the share means nothing.
    among = _percent(p99.held[bounded].mean()) if bounded.mean() >= 0.1 else "-"
    return [*p50.cells(), *p99.cells(), f"{100 * bounded.mean():.0f} %", among, *mean.cells()]


def _ratio_row(case: RatioCase, baseline: Samples, candidate: Samples) -> list[str]:
    cells = [case.name, str(case.rounds), str(case.samples)]
    pairs = [(list(a), list(b)) for a, b in zip(baseline, candidate, strict=True)]
    for statistic in ("median", "mean"):
        found = [ratio_interval(a, b, statistic=statistic) for a, b in pairs]
        score = _Score.judge(found, case.truth(statistic))
        cells += [*score.cells(), f"{100 * score.error:+.1f} %"]
    return cells


def _habit_row(case: Case, drawn: Samples) -> list[str]:
    few = drawn[:, :HABIT_RUNS]
    half = Z * few.std(axis=1, ddof=1) / math.sqrt(HABIT_RUNS)
    cells = [_percent(np.mean(np.abs(np.quantile(few, q, axis=1) - case.quantile(q)) <= half)) for q in (0.5, 0.99)]
    half = Z * drawn.std(axis=1, ddof=1) / math.sqrt(drawn.shape[1])
    return [*cells, _percent(np.mean(np.abs(drawn.mean(axis=1) - case.mean()) <= half))]


@dataclass(frozen=True)
class _Score:
    held: np.ndarray
    """Whether each interval holds the truth."""
    width: float
    """Mean width of the intervals, as a share of the truth."""
    error: float
    """Mean of estimate / truth, less 1."""

    @classmethod
    def of(cls, drawn: Samples, truth: float, interval: Callable[[Samples], Interval]) -> _Score:
        return cls.judge([interval(row) for row in drawn], truth)

    @classmethod
    def judge(cls, found: list[Interval], truth: float) -> _Score:
        return cls(
            held=np.array([i.low <= truth <= i.high for i in found]),
            width=float(np.mean([i.high - i.low for i in found])) / truth,
            error=float(np.mean([i.value for i in found])) / truth - 1,
        )

    def cells(self) -> list[str]:
        return [_percent(self.held.mean()), _percent(self.width)]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def main() -> None:
    """Print the tables."""
    console = Console(width=160)
    for table in coverage_tables():
        console.print(table)


if __name__ == "__main__":
    main()
