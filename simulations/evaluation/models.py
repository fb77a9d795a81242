"""Scripted models: what they answer when they are asked in which order options should be tried.

Each is told the numbered options, as a language model is, and some know what nobody can know: what the grid holds.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from agent.advisor import LONGEST_S, SILENT_S, TRIES
from simulations.search.grid import Grid, Observation
from simulations.search.space import Cell

USUAL_S = 2.0
"""What an answer takes, of a model that is neither slow nor silent."""


@dataclass(frozen=True)
class Question:
    """What a model is asked.

    Attributes:
        cells: the options, in the order of their numbers, from 1.
        grid: the truth.
        seed: of what a model draws.
    """

    cells: tuple[Cell, ...]
    grid: Grid
    seed: int = 0


@dataclass(frozen=True)
class Model:
    """A scripted model.

    Attributes:
        name: for the tables.
        answer: its text; None when it says nothing at all.
        seconds: that one answer takes.
    """

    name: str
    answer: Callable[[Question], str | None]
    seconds: float = USUAL_S

    def wasted_s(self, limit_s: float) -> float:
        """Return the seconds until the advisor gives up on it, if nothing that it says can be used.

        Args:
            limit_s: that the advisor may take in all.
        """
        spent_s = self.seconds if self.seconds == SILENT_S else TRIES * self.seconds
        return min(spent_s, limit_s, LONGEST_S)


def ordered(places: Sequence[int]) -> str:
    """Return the answer that names these options, numbered from 0, in this order."""
    return json.dumps({"order": [place + 1 for place in places], "why": "scripted"})


def _silent(question: Question) -> None:
    del question


def _prose(question: Question) -> str:
    return f"Any of these {len(question.cells)} could be worth a try, but I would start with something small."


def _nonsense(question: Question) -> str:
    return json.dumps({"order": [0, -3, 10 * len(question.cells) + 7, "three"]})


def _echo(question: Question) -> str:
    return ordered(range(len(question.cells)))


def _shuffled(question: Question) -> str:
    draw = random.Random(f"{question.seed} {question.cells}")  # noqa: S311 - no secret
    return ordered(draw.sample(range(len(question.cells)), len(question.cells)))


def _by(worth: Callable[[Observation, Grid], float], question: Question) -> str:
    """Order by a figure of the truth, the largest first."""
    worths = [worth(question.grid.truth(cell), question.grid) for cell in question.cells]
    return ordered(sorted(range(len(worths)), key=lambda place: -worths[place]))


def _cost(seen: Observation, grid: Grid) -> float:
    del grid
    return seen.cost_usd


def _seconds(seen: Observation, grid: Grid) -> float:
    return math.fsum(grid.part_s(part) for part in seen.cell.parts) + grid.measuring_s(seen.cell)


def _inaccuracy(seen: Observation, grid: Grid) -> float:
    del grid
    return seen.inaccuracy + max(0.0, seen.slowness)


def _noise(seen: Observation, grid: Grid) -> float:
    del grid
    return seen.sd


def _goodness(seen: Observation, grid: Grid) -> float:
    del grid
    return -seen.cost_usd if seen.feasible else -math.inf


_SCRIPTED = (
    Model("silent", _silent, SILENT_S),
    Model("prose", _prose),
    Model("slow prose", _prose, LONGEST_S - 1.0),
    Model("nonsense numbers", _nonsense),
    Model("echo", _echo),
    Model("random", _shuffled),
    Model("hostile: the dearest to serve", partial(_by, _cost)),
    Model("hostile: the longest to try", partial(_by, _seconds)),
    Model("hostile: what breaks a promise", partial(_by, _inaccuracy)),
    Model("hostile: the noisiest", partial(_by, _noise)),
    Model("good", partial(_by, _goodness)),
)
MODELS: Mapping[str, Model] = {model.name: model for model in _SCRIPTED}
"""All of them, by name."""
