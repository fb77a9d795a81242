"""A session on the recorded grid: the policy's search within a time budget, then the advisor's share of the time.

The grid answers in place of the machine, and what it says becomes evidence as a session has it, so that what an advisor
may decide (`agent.advice`) and what is recommended at the end (`tools.selection`) are the agent's own functions.
Leaders are not timed in turn with their rivals here: the grid holds no such recordings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agent.advice import LEAST_S, SHARE, as_offered, left_s, may_ask, next_pick, offered
from agent.policy import BUDGET_SHARE
from agent.prospecting import Prospecting, Target
from agent.search import Candidate, Choice, Prospect
from simulations.evaluation.evidence import advice_of, recipe_of_cell, trial_of, view_of
from simulations.search.grid import Grid, Meter, Observation
from simulations.search.policy import Infertune
from simulations.search.space import BASELINE, Cell
from simulations.search.strategies import Briefing
from tools.contracts import AdviceResult, Evidence, Failed, Option, Verdict
from tools.result import Seconds
from tools.selection import final_choice
from tools.summary import summarize
from tools.view import SessionView


@dataclass(frozen=True)
class Answered:
    """What an advisor said, and the seconds that it took; its order is None when there is none that can be used."""

    result: AdviceResult | None
    seconds: float
    why_not: str = "no answer"


Ask = Callable[[SessionView, Sequence[Option], float], Answered]
"""Asks an advisor in which order it would try these options, within so many seconds."""


class Policy(Infertune):
    """infertune's policy on the grid, with a budget of time. What it thought of a history once it does not think again.

    Args:
        grid: what is searched.
        seed: of the noise that its sessions see: observations are told apart by their cells, and so share one.
    """

    def __init__(self, grid: Grid, seed: int | None) -> None:
        super().__init__(Briefing.of(grid), seed=0)
        self.seed = seed
        self._thought: dict[tuple[float, tuple[Cell, ...]], Choice] = {}
        self._made: dict[tuple[tuple[str, float], ...], list[Candidate]] = {}

    def choice(self, history: Sequence[Observation], left_s: float = math.inf, trial_share_s: float = 0.0) -> Choice:
        """Return what is tried next, as `agent.policy` has it, with all prospects."""
        if trial_share_s:
            return self.best_choice(history, left_s, trial_share_s)
        found = self._thought_of(history, math.inf)
        costs_s = {p.candidate.key: p.seconds for p in found.prospects}
        if found.candidate is None or costs_s[found.candidate.key] <= left_s:
            return found  # the limit leaves the most rewarding one, so it changes nothing
        return self._thought_of(history, left_s)

    def _thought_of(self, history: Sequence[Observation], left_s: float) -> Choice:
        key = (left_s, tuple(one.cell for one in history))
        if key not in self._thought:
            self._thought[key] = self.best_choice(history, left_s)
        return self._thought[key]

    def _candidates(self, expected_s: Mapping[str, float], first: Observation) -> list[Candidate]:
        kinds = tuple(sorted(expected_s.items()))
        if kinds not in self._made:
            self._made[kinds] = super()._candidates(expected_s, first)
        return self._made[kinds]


class GridSession:
    """One session.

    Args:
        grid: answers in place of the machine.
        policy: searches it. Its seed is that of the recorded noise of all measurements, None is for none: a cell that
            is measured in two sessions with one seed shows the same.
        time_s: its time budget.
        known: what was tried before it began, after the model as given.
        most_trials: that it may make itself; None for no limit.
        p99_spread: the upper end of each p99, over its value.
    """

    def __init__(
        self,
        grid: Grid,
        policy: Policy,
        time_s: float,
        *,
        known: Sequence[Cell] = (),
        most_trials: int | None = None,
        p99_spread: float = 1.0,
    ) -> None:
        self.grid, self.time_s = grid, time_s
        self.trials: list[Cell] = []
        """What it tried itself, in order."""
        self.advice_s = 0.0
        """Seconds spent on asking, and on what was tried on advice."""
        self.ended = "its time or its trials are used up"
        """Why the policy's own search came to its end."""
        self.history: list[Observation] = []
        self._policy, self._meter, self._p99_spread = policy, Meter(grid), p99_spread
        self._cells = {cell.key: cell for cell in grid.cells}
        self._evidence: list[Evidence] = []
        self._asked_s = 0.0
        for cell in (BASELINE, *known):
            self._measure(cell)
        self._most_trials = most_trials

    @property
    def elapsed_s(self) -> float:
        """Seconds of the budget that are used."""
        return self._meter.spent_s + self._asked_s

    @property
    def view(self) -> SessionView:
        """What it knows."""
        return view_of(self.grid, self._evidence, elapsed_s=self.elapsed_s, time_s=self.time_s)

    @property
    def chosen(self) -> Cell | None:
        """What it recommends; None when nothing keeps every constraint."""
        best, _ = final_choice(self.view)
        if best is None:
            return None
        digest, batch = best.tried.recipe.digest, best.point.batch_size
        of_recipe = (one.cell for one in self.history if recipe_of_cell(one.cell).digest == digest)
        return next(cell for cell in of_recipe if cell.batch == batch)

    @property
    def true_cost_usd(self) -> float:
        """Of 1,000 requests with what it recommends, by all of the recorded calls; infinite without anything."""
        return math.inf if self.chosen is None else self.grid.truth(self.chosen).cost_usd

    @property
    def measured_cost_usd(self) -> float:
        """The same by what it measured itself."""
        cell = self.chosen
        return min((one.cost_usd for one in self.history if one.cell == cell), default=math.inf)

    @property
    def verdict(self) -> Verdict:
        """MET once something keeps every constraint; without, what a session says.

        A session would time its leader longer where few calls bound its p99. The grid has no more of them.
        """
        if self.chosen is not None:
            return Verdict.MET
        none = Seconds(total=0.0, trials=0.0, overhead=0.0)
        told = summarize(
            self.view, session="", created="", versions={}, decisions=(), scaling=None, seconds=none, files={}
        )
        return told.verdict

    def search(self) -> None:
        """Let the policy search to its own end: nothing is worth a trial, or the time it may use is used."""
        while self.elapsed_s <= BUDGET_SHARE * self.time_s and not self._trials_used:
            left_s = BUDGET_SHARE * self.time_s - self.elapsed_s
            choice = self._policy.choice(self.history, left_s, self._trial_share_s)
            if choice.candidate is None:
                self.ended = choice.reason
                return
            self._try(choice.candidate.key)

    def advise(self, ask: Ask) -> None:
        """Let an advisor have its share of the time: `agent.policy` has the same loop over recipes."""
        began_s = self.elapsed_s
        while not self._trials_used:
            view = self.view
            seconds = left_s(view, (BUDGET_SHARE + SHARE) * self.time_s)
            if seconds < LEAST_S:
                break
            prospects = self._policy.choice(self.history).prospects
            targets = {p.candidate.key: self._target(p) for p in prospects}
            problem = Prospecting(tuple(p.candidate for p in prospects), (), frozenset(), targets)
            picked = next_pick(view, problem, prospects, seconds)
            if picked is not None:
                self._try(next(key for key, target in targets.items() if target is picked))
                continue
            options = offered(prospects, seconds)
            if not options or not may_ask(view):
                break
            self._ask(ask, view, [as_offered(prospect) for prospect in options], seconds)
        self.advice_s += self.elapsed_s - began_s

    @property
    def _trials_left(self) -> int | None:
        return None if self._most_trials is None else self._most_trials - len(self.trials)

    @property
    def _trial_share_s(self) -> float:
        return 0.0 if self._trials_left is None else BUDGET_SHARE * self.time_s / self._trials_left

    @property
    def _trials_used(self) -> bool:
        return self._trials_left is not None and self._trials_left <= 0

    def _target(self, prospect: Prospect) -> Target:
        return Target(recipe_of_cell(self._cells[prospect.candidate.key]), swept=False)

    def _try(self, key: str) -> None:
        cell = self._cells[key]
        self.trials.append(cell)
        self._measure(cell)

    def _measure(self, cell: Cell) -> None:
        place = self.grid.cells.index(cell)
        seed = self._policy.seed
        rng = None if seed is None else np.random.default_rng((seed, place))
        seen = replace(self.grid.measure(cell, rng), paid_s=self._meter.pay(cell))
        first = all(one.cell.threads != cell.threads or one.cell.judgement != cell.judgement for one in self.history)
        self.history.append(seen)
        self._evidence.append(trial_of(self.grid, seen, first=first, p99_spread=self._p99_spread))

    def _ask(self, ask: Ask, view: SessionView, options: Sequence[Option], limit_s: float) -> None:
        answered = ask(view, options, limit_s)
        self._asked_s += answered.seconds
        outcome = answered.result or Failed(stage="advice", reason=answered.why_not)
        keys = [str(option.facts["key"]) for option in options]
        self._evidence.append(advice_of(keys, outcome, seconds=answered.seconds, place=len(self._evidence)))
