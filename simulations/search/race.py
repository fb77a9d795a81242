"""The race: seconds of trials until a search would recommend a good cell."""

from __future__ import annotations

import itertools
import math
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table

from simulations.search.grid import GOOD, Grid, Meter, Observation, load_grid
from simulations.search.peers import HillClimbing, Random, Tpe
from simulations.search.policy import Infertune
from simulations.search.space import BASELINE
from simulations.search.strategies import Briefing, Strategy, incumbent

SEEDS = 50
PROCESSES = 2

STRATEGIES: dict[str, Callable[[Briefing, int], Strategy]] = {
    "infertune": Infertune,
    "random": Random,
    "hill climbing": HillClimbing,
    "Optuna TPE": Tpe,
}
"""How each search is made, by the name that the table has for it."""


@dataclass(frozen=True)
class Run:
    """One search of the grid, up to its goal.

    Attributes:
        strategy: its name.
        noisy: whether what it saw was noisy.
        seconds: of trials until it would have recommended a good cell; infinite when it stopped before.
        trials: how many those were, the model as given among them.
        reached: the true figure of what it would recommend at the end, over the best; infinite without anything that
            keeps every constraint.
    """

    strategy: str
    noisy: bool
    seconds: float
    trials: int
    reached: float


def search(
    grid: Grid, strategy: Strategy, rng: np.random.Generator | None
) -> Iterator[tuple[Meter, list[Observation]]]:
    """Try what a strategy names, one cell after the other, beginning with the model as given.

    Args:
        grid: what answers.
        strategy: what asks.
        rng: draws the noise; None for none.

    Yields:
        The meter and all that was seen, after each trial.
    """
    meter, history = Meter(grid), list[Observation]()
    cell = BASELINE
    while True:
        paid_s = meter.pay(cell)
        history.append(replace(grid.measure(cell, rng), paid_s=paid_s))
        yield meter, history
        following = strategy.next(history)
        if following is None:
            return
        cell = following


def run(grid: Grid, name: str, seed: int, *, noisy: bool) -> Run:
    """Search until what would be recommended is a good cell in truth."""
    strategy = STRATEGIES[name](Briefing.of(grid), seed)
    rng = np.random.default_rng((seed, 1)) if noisy else None
    trials, reached = 0, math.inf
    for meter, history in search(grid, strategy, rng):
        trials, found = len(history), incumbent(history)
        if found is None:
            continue
        reached = grid.truth(found.cell).cost_usd / grid.best.cost_usd
        if grid.is_good(found.cell):
            return Run(name, noisy, meter.spent_s, trials, reached)
    return Run(name, noisy, math.inf, trials, reached)


def race(path: Path, seeds: int = SEEDS) -> list[Run]:
    """Let every strategy search the grid of a file with every seed, with and without noise, in a few processes."""
    tasks = [
        (path, name, seed, noisy) for name, seed, noisy in itertools.product(STRATEGIES, range(seeds), (False, True))
    ]
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(_run_one, tasks, chunksize=5))


def table(grid: Grid, runs: Sequence[Run], *, noisy: bool) -> Table:
    """Return a row for each strategy: median and quartiles of the seconds and of the trials."""
    printed = Table(
        title=f"Seconds of trials until within {GOOD - 1:.0%} of the best of {len(grid.cells)} cells, "
        f"{'with' if noisy else 'without'} the recorded noise: median (quartiles)",
        title_justify="left",
        box=box.MARKDOWN,
    )
    printed.add_column("")
    for heading in ("s", "to infertune's", "trials", "stopped before (with at worst)"):
        printed.add_column(heading, justify="right")
    by_name = {name: [run for run in runs if (run.strategy, run.noisy) == (name, noisy)] for name in STRATEGIES}
    for name, some in by_name.items():
        seconds, trials = _spread([run.seconds for run in some]), _spread([run.trials for run in some])
        printed.add_row(name, seconds, _ratio(some, by_name["infertune"]), trials, _missed(some))
    return printed


def describe(grid: Grid) -> str:
    """Say what was recorded, where, and what there is to be found."""
    source = grid.recording.provenance
    versions = ", ".join(f"{name} {version}" for name, version in source.versions.items())
    total = math.fsum(grid.recording.parts_s.values()) + math.fsum(grid.measuring_s(cell) for cell in grid.cells)
    good = sum(grid.is_good(cell) for cell in grid.cells)
    feasible = sum(grid.truth(cell).feasible for cell in grid.cells)
    gain = grid.truth(BASELINE).cost_usd / grid.best.cost_usd
    return (
        f"{source.workload} on {source.hardware.cpu}, {source.hardware.cores} cores, {source.created}; {versions}. "
        f"All of it took {total:.0f} s. {feasible} of {len(grid.cells)} cells keep p99 {source.p99_ms:g} ms and an "
        f"accuracy drop of {source.max_accuracy_drop:g}; {good} are good. "
        f"The best is {grid.best.cell.key}: {gain:.1f} times as cheap as the model as given."
    )


def _run_one(task: tuple[Path, str, int, bool]) -> Run:
    path, name, seed, noisy = task
    return run(_grid(path), name, seed, noisy=noisy)


@cache
def _grid(path: Path) -> Grid:
    return load_grid(path)


def _ratio(runs: Sequence[Run], ours: Sequence[Run]) -> str:
    """Return the ratio of the median seconds, where both found a good cell in half of their runs."""
    theirs_s, ours_s = (_quantile([run.seconds for run in some], 0.5) for some in (runs, ours))
    return f"{theirs_s / ours_s:.1f}x" if math.isfinite(theirs_s) and math.isfinite(ours_s) else "-"


def _missed(runs: Sequence[Run]) -> str:
    """Say how many stopped before they found a good cell, and how many times the best figure they ended with."""
    missed = [run.reached for run in runs if math.isinf(run.seconds)]
    return f"{len(missed)} of {len(runs)}" + (f" ({max(missed):.2f}x)" if missed else "")


def _spread(values: Sequence[float]) -> str:
    low, middle, high = (_told(_quantile(values, q)) for q in (0.25, 0.5, 0.75))
    return f"{middle} ({low} to {high})"


def _told(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else "never"


def _quantile(values: Sequence[float], q: float) -> float:
    """Return a quantile that is one of the values, so that infinite ones do no harm."""
    return sorted(values)[min(int(q * len(values)), len(values) - 1)]
