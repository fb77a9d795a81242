"""Situations on the recorded grid: the best decision, found in all of its cells, and what the policy decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, partial

from agent.policy import BUDGET_SHARE, THRESHOLD
from simulations.evaluation.planting import varied
from simulations.evaluation.session import Ask, GridSession, Policy
from simulations.evaluation.situation import Answer, SearchSituation, SituationError
from simulations.search.grid import Grid, Meter, Recording, load_grid
from simulations.search.space import BASELINE, Cell
from tools.contracts import Verdict

STOP, GO_ON = "stop", "go on"
NOTHING = "nothing keeps every promise"


def best_of_all(situation: SearchSituation) -> Answer:
    """Return the best decision, from all that the grid holds."""
    grid = grid_of(situation)
    if situation.kind == "verdict":
        return Answer(_true_verdict(grid, situation).value)
    meter, known = _begun(grid, situation)
    left_s = BUDGET_SHARE * situation.time_s - meter.spent_s
    within = [*known, *(cell for cell in grid.cells if cell not in known and meter.price_s(cell) <= left_s)]
    best = min(_feasible(grid, within), key=lambda cell: grid.truth(cell).cost_usd, default=None)
    if situation.kind == "configuration":
        return Answer(NOTHING) if best is None else Answer(best.key, grid.truth(best).cost_usd)
    now = min((grid.truth(cell).cost_usd for cell in _feasible(grid, known)), default=math.inf)
    better = best is not None and now / grid.truth(best).cost_usd >= math.exp(THRESHOLD)
    return Answer(GO_ON if better else STOP)


def decided(situation: SearchSituation, ask: Ask | None = None) -> Answer:
    """Return what the policy decides.

    Args:
        situation: what is known and asked.
        ask: asks an advisor when the policy's own search has ended; None for no advisor.
    """
    grid = grid_of(situation)
    session = GridSession(
        grid,
        Policy(grid, None),
        situation.time_s,
        known=cells_named(grid, situation),
        most_trials=situation.most_trials,
        p99_spread=situation.p99_spread,
    )
    session.search()
    if ask is not None:
        session.advise(ask)
    made = partial(Answer, trials=len(session.trials), because=session.ended)
    if situation.kind == "verdict":
        return made(session.verdict.value)
    if situation.kind == "stop":
        return made(GO_ON if session.trials else STOP)
    chosen = session.chosen
    if chosen is None:
        return made(NOTHING)
    truth = grid.truth(chosen)
    return made(chosen.key, truth.cost_usd if truth.feasible else math.inf)


def grid_of(situation: SearchSituation) -> Grid:
    """Return the grid as the situation has it."""
    return varied(
        _recording(),
        p99_ms=situation.p99_ms,
        max_accuracy_drop=situation.max_accuracy_drop,
        planted=situation.planted,
    )


def cells_named(grid: Grid, situation: SearchSituation) -> tuple[Cell, ...]:
    """Return the cells that were tried before.

    Raises:
        SituationError: one of them is none of the grid.
    """
    cells = {cell.key: cell for cell in grid.cells}
    unknown = [name for name in situation.known if name not in cells]
    if unknown:
        raise SituationError(f"`known` names no cell of the grid: {unknown[0]}.", where=situation.name)
    return tuple(cells[name] for name in situation.known)


def _begun(grid: Grid, situation: SearchSituation) -> tuple[Meter, tuple[Cell, ...]]:
    known = (BASELINE, *cells_named(grid, situation))
    meter = Meter(grid)
    for cell in known:
        meter.pay(cell)
    return meter, known


def _feasible(grid: Grid, cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if grid.truth(cell).feasible]


def _true_verdict(grid: Grid, situation: SearchSituation) -> Verdict:
    """Return MET if a cell keeps everything for sure, INFEASIBLE if none does, UNSTABLE if there is no telling."""
    slownesses = [grid.truth(cell).slowness for cell in grid.cells if grid.truth(cell).accurate]
    if any((1 + slowness) * situation.p99_spread <= 1 for slowness in slownesses):
        return Verdict.MET
    return Verdict.UNSTABLE if any(slowness <= 0 for slowness in slownesses) else Verdict.INFEASIBLE


@cache
def _recording() -> Recording:
    return load_grid().recording
