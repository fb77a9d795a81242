"""The adversary: any model as the advisor, over time budgets and promises, against the same session without one.

The grid is the recorded one, but for its students, which pay for being small (`HARDER_STUDENTS`): so that the accuracy
that is promised decides which of them may be chosen.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from statistics import median

from rich import box
from rich.table import Table

from agent.advisor import LONGEST_S, SILENT_S, TRIES, read_order, read_why
from simulations.evaluation.models import MODELS, USUAL_S, Model, Question
from simulations.evaluation.planting import HARDER_STUDENTS, varied
from simulations.evaluation.session import Answered, Ask, GridSession, Policy
from simulations.search.grid import Grid, load_grid
from tools.contracts import AdviceResult, Exchange, Option, Verdict
from tools.view import SessionView

BUDGETS_S = (20.0, 40.0, 60.0, 90.0, 150.0, 300.0, 600.0)
P99S_MS = (2.0, 10.0, 50.0)
MAX_DROPS = (0.0, 0.01, 0.02)
SEEDS = 1
"""Draws of the recorded noise."""
PROCESSES = 2
_SAME = 1e-9
_OFF = "off"


@dataclass(frozen=True)
class Trap:
    """What is asked of a session: its promises, its budget, and the draw of noise, if any."""

    p99_ms: float
    max_accuracy_drop: float
    time_s: float
    seed: int | None


@dataclass(frozen=True)
class Outcome:
    """What a session with one model came to, against the same session without.

    Attributes:
        model: its name; `off` for the session without.
        trap: what was asked.
        verdict_worse: whether something kept every constraint without it, and nothing does with it.
        ratio: true cost of the choice over that without: 1 where neither chose anything, 0 where only it did.
        measured_ratio: the same of the cost as the session measured it.
        advice_share: seconds spent on advice, over the time budget.
    """

    model: str
    trap: Trap
    verdict_worse: bool
    ratio: float
    measured_ratio: float
    advice_share: float

    @property
    def is_worse(self) -> bool:
        """Whether verdict or choice are worse than without."""
        return self.verdict_worse or self.ratio > 1 + _SAME


def traps(seeds: int = SEEDS) -> tuple[Trap, ...]:
    """Return all that is asked: without noise, and with some draws of it."""
    noises = (None, *range(seeds))
    return tuple(Trap(*one) for one in itertools.product(P99S_MS, MAX_DROPS, BUDGETS_S, noises))


def scripted(model: Model, grid: Grid, seed: int) -> Ask:
    """Return what asks a scripted model without a server in between; its text is read as the advisor reads any."""
    cells = {cell.key: cell for cell in grid.cells}

    def ask(view: SessionView, options: Sequence[Option], limit_s: float) -> Answered:
        question = Question(tuple(cells[option.name] for option in options), grid, seed)
        text = model.answer(question)
        order = None if text is None else read_order(text, len(options))
        if text is None or order is None:
            return Answered(None, model.wasted_s(limit_s))
        result = AdviceResult(
            options=tuple(option.name for option in options),
            order=order,
            why=read_why(text),
            asked_at_s=view.elapsed_s,
            exchange=Exchange(model=model.name, prompt="", answer=text),
        )
        return Answered(result, model.seconds)

    return ask


def sprung(trap: Trap, models: Sequence[str] = tuple(MODELS)) -> Iterator[Outcome]:
    """Yield what each model makes of what is asked, the session without one first."""
    alone = begun(trap)
    yield against(alone, alone, _OFF, trap)
    for name in models:
        yield advised(MODELS[name], trap, alone)


def advised(model: Model, trap: Trap, alone: GridSession) -> Outcome:
    """Return what a model makes of what is asked.

    Args:
        model: advises.
        trap: what is asked.
        alone: the same session without it, at its end.
    """
    session = begun(trap)
    session.advise(scripted(model, session.grid, trap.seed or 0))
    return against(session, alone, model.name, trap)


def begun(trap: Trap) -> GridSession:
    """Return a session whose policy has ended its own search."""
    grid = grid_of(trap.p99_ms, trap.max_accuracy_drop)
    session = GridSession(grid, _policy(grid, trap.seed), trap.time_s)
    session.search()
    return session


def against(session: GridSession, alone: GridSession, model: str, trap: Trap) -> Outcome:
    """Hold a session with a model against the same one without."""
    return Outcome(
        model=model,
        trap=trap,
        verdict_worse=alone.verdict is Verdict.MET and session.verdict is not Verdict.MET,
        ratio=_ratio(session.true_cost_usd, alone.true_cost_usd),
        measured_ratio=_ratio(session.measured_cost_usd, alone.measured_cost_usd),
        advice_share=session.advice_s / trap.time_s,
    )


def pool() -> ProcessPoolExecutor:
    """Return fresh processes, for `run`; a context manager."""
    return ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn"))


def run(executor: Executor, seeds: int = SEEDS) -> Callable[[], list[Outcome]]:
    """Let every model advise in everything that is asked; return what waits for the outcomes.

    What is asked of one grid stays in one process, which thinks about a history once.
    """
    tasks = [executor.submit(_spring, some) for some in _parts(traps(seeds), len(BUDGETS_S) * (1 + seeds))]
    return lambda: [outcome for task in tasks for outcome in task.result()]


def worse(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return those in which a model made verdict or choice worse although nothing was noisy: there should be none."""
    return [one for one in outcomes if one.trap.seed is None and one.is_worse]


def describe() -> str:
    """Say what is asked of the sessions."""
    budgets, p99s = (", ".join(f"{value:g}" for value in values) for values in (BUDGETS_S, P99S_MS))
    drops = ", ".join(f"{value:g}" for value in MAX_DROPS)
    losses = ", ".join(f"{one.where['student']} {one.drop:g}" for one in HARDER_STUDENTS)
    return (
        f"Time budgets of {budgets} s; a p99 of {p99s} ms; an accuracy drop of {drops}, on the recorded grid with more "
        f"drop for {losses}. Each figure is that without noise, then with it. A model takes {USUAL_S:g} s to answer, "
        f"but for the silent one ({SILENT_S:g} s) and slow prose ({LONGEST_S - 1:g} s, {TRIES} times)."
    )


def table(outcomes: Sequence[Outcome]) -> Table:
    """Return a row for each model."""
    quiet, noisy = ([o for o in outcomes if (o.trap.seed is None) is still] for still in (True, False))
    count = len({o.trap for o in quiet}), len({o.trap for o in noisy})
    printed = Table(
        title=f"A model as the advisor, against the same session without: {count[0]} sessions without noise, "
        f"then {count[1]} with the recorded noise",
        title_justify="left",
        box=box.MARKDOWN,
    )
    printed.add_column("model")
    for heading in ("worse verdicts", "worse choices", "true cost: worst, median, best", "advice, share of budget"):
        printed.add_column(heading, justify="right")
    for name in (_OFF, *MODELS):
        mine = [[o for o in some if o.model == name] for some in (quiet, noisy)]
        printed.add_row(
            name,
            ", ".join(str(sum(o.verdict_worse for o in some)) for some in mine),
            ", ".join(str(sum(o.ratio > 1 + _SAME for o in some)) for some in mine),
            "; ".join(_spread([o.ratio for o in some]) for some in mine),
            f"{max(o.advice_share for some in mine for o in some):.0%}",
        )
    return printed


def _spread(ratios: Sequence[float]) -> str:
    return ", ".join(f"{figure(ratios):.3f}" for figure in (max, median, min)) if ratios else "-"


def _ratio(ours: float, theirs: float) -> float:
    """Return a ratio of costs, where infinite stands for nothing that could be chosen."""
    if math.isinf(theirs):
        return 1.0 if math.isinf(ours) else 0.0
    return ours / theirs


def _parts(some: Sequence[Trap], size: int) -> list[Sequence[Trap]]:
    return [some[start : start + size] for start in range(0, len(some), size)]


def _spring(some: Sequence[Trap]) -> list[Outcome]:
    return [outcome for trap in some for outcome in sprung(trap)]


@cache
def grid_of(p99_ms: float, max_accuracy_drop: float) -> Grid:
    """Return the recorded grid with other promises, and with students that pay for being small."""
    recording = load_grid().recording
    return varied(recording, p99_ms=p99_ms, max_accuracy_drop=max_accuracy_drop, planted=HARDER_STUDENTS)


@cache
def _policy(grid: Grid, seed: int | None) -> Policy:
    return Policy(grid, seed)
