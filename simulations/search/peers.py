"""The peers that infertune's policy races with: random search, hill climbing, and Optuna's TPE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from simulations.search.grid import Observation
from simulations.search.space import Cell
from simulations.search.strategies import Briefing
from tools.errors import UnavailableError

if TYPE_CHECKING:
    import optuna

REPEATS = 50
"""So often in a row TPE may ask for what was tried before, at no cost; then it is given a cell that is new."""


class Random:
    """Every cell once, in random order.

    Args:
        briefing: what is known.
        seed: of the order.
    """

    def __init__(self, briefing: Briefing, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._order = [briefing.cells[i] for i in rng.permutation(len(briefing.cells))]

    def next(self, history: Sequence[Observation]) -> Cell | None:
        """Return the next cell of the order that was not tried."""
        seen = {one.cell for one in history}
        return next((cell for cell in self._order if cell not in seen), None)


class HillClimbing:
    """Changes one factor at a time, moves as soon as that is better, and starts anew at random where nothing is.

    Batch sizes are changed to their neighbours, all other factors to any other level, in random order. A cell that
    was tried before costs nothing.

    Args:
        briefing: what is known.
        seed: of starts and orders.
    """

    def __init__(self, briefing: Briefing, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._cells = briefing.cells
        self._batches = sorted({cell.batch for cell in briefing.cells})
        self._here: Cell | None = None
        self._left: list[Cell] = []

    def next(self, history: Sequence[Observation]) -> Cell | None:
        """Return the start or the neighbour that has to be looked at, or None when all cells were."""
        seen = {one.cell: one for one in history}
        while True:
            if self._here is None:
                unseen = [cell for cell in self._cells if cell not in seen]
                if not unseen:
                    return None
                self._move(unseen[self._rng.integers(len(unseen))])
            assert self._here is not None
            if self._here not in seen:
                return self._here
            if not self._left:
                self._here = None
            elif self._left[-1] not in seen:
                return self._left[-1]
            elif _rank(seen[self._left[-1]]) < _rank(seen[self._here]):
                self._move(self._left[-1])
            else:
                self._left.pop()

    def _move(self, to: Cell) -> None:
        neighbours = [cell for cell in self._cells if self._is_near(to, cell)]
        self._here, self._left = to, [neighbours[i] for i in self._rng.permutation(len(neighbours))]

    def _is_near(self, here: Cell, there: Cell) -> bool:
        changed = [
            name for name in ("student", "format", "threads", "batch") if getattr(here, name) != getattr(there, name)
        ]
        if changed == ["batch"]:
            return abs(self._batches.index(here.batch) - self._batches.index(there.batch)) == 1
        return len(changed) == 1


class Tpe:
    """Optuna's tree-structured Parzen estimator, with what helps it on this grid.

    Runtime and precision are one categorical factor, so that nothing invalid is sampled; batch sizes are an ordered
    one; constraints are told as constraints. It learns from the model as given like all others. What it asks for again
    is told from what is known, at no cost.

    Args:
        briefing: what is known.
        seed: of its sampler.

    Raises:
        UnavailableError: Optuna is not installed.
    """

    def __init__(self, briefing: Briefing, seed: int) -> None:
        try:
            import optuna
        except ModuleNotFoundError:
            raise UnavailableError(
                "the Python package optuna is not installed.", fix="pip install 'infertune[bench]'"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._rng = np.random.default_rng(seed)
        self._cells = {(c.student, c.format, c.threads, c.batch): c for c in briefing.cells}
        self._levels: tuple[list[Any], ...] = tuple(sorted(set(level)) for level in zip(*self._cells, strict=True))
        self._failed = optuna.trial.TrialState.FAIL
        self._study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True))
        self._asked: optuna.Trial | None = None

    def next(self, history: Sequence[Observation]) -> Cell | None:
        """Tell what was seen, and return the first cell that Optuna asks for and that was not tried yet."""
        seen = {one.cell: one for one in history}
        if len(seen) == len(self._cells):
            return None
        if self._asked is None:
            self._enqueue(history[0].cell)
        else:
            self._tell(self._asked, history[-1])
        for _ in range(REPEATS):
            trial, cell = self._ask()
            if cell is None:
                self._study.tell(trial, state=self._failed)
            elif cell in seen:
                self._tell(trial, seen[cell])
            else:
                self._asked = trial
                return cell
        unseen = [cell for cell in self._cells.values() if cell not in seen]
        self._enqueue(unseen[self._rng.integers(len(unseen))])
        self._asked, cell = self._ask()
        return cell

    def _ask(self) -> tuple[optuna.Trial, Cell | None]:
        students, formats, threads, batches = self._levels
        trial = self._study.ask()
        levels = (
            trial.suggest_categorical("student", students),
            trial.suggest_categorical("format", formats),
            trial.suggest_categorical("threads", threads),
            batches[trial.suggest_int("batch", 0, len(batches) - 1)],
        )
        return trial, self._cells.get(levels)

    def _enqueue(self, cell: Cell) -> None:
        batch = self._levels[-1].index(cell.batch)
        self._study.enqueue_trial(
            {"student": cell.student, "format": cell.format, "threads": cell.threads, "batch": batch}
        )

    def _tell(self, trial: optuna.Trial, seen: Observation) -> None:
        trial.set_constraint("latency", seen.slowness)
        trial.set_constraint("accuracy", seen.inaccuracy if not seen.accurate else 0.0)
        self._study.tell(trial, math.log(seen.cost_usd))


def _rank(seen: Observation) -> tuple[bool, float, float, float]:
    """Return an order in which feasible cells come first, cheap ones before others, then those that miss by less."""
    if seen.feasible:
        return False, 0.0, 0.0, seen.cost_usd
    return True, max(seen.inaccuracy, 0.0), max(seen.slowness, 0.0), seen.cost_usd
