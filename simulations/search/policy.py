"""infertune's own policy, on the grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from agent.priors import Facts, feasible_prior, prior
from agent.prospecting import BUILD_S, PROCESS_SD, TRAINING_SHARE, precisions_with_kernels, slowest_gain
from agent.search import Candidate, Choice, Seen, next_candidate
from simulations.search.grid import Observation
from simulations.search.space import TEACHER, Cell, kind_of
from simulations.search.strategies import Briefing

ACCURACY_S = 2.0
"""Running the held-out items is expected to take this long before it was done once."""


class Infertune:
    """infertune's own policy: `agent.search`, with the priors that a session has after its profile.

    Args:
        briefing: what is known.
        seed: not needed, since nothing in it is random.
    """

    def __init__(self, briefing: Briefing, seed: int) -> None:
        del seed
        self._cells = {cell.key: cell for cell in briefing.cells}
        self._facts = Facts(
            precisions=precisions_with_kernels(briefing.hardware),
            threads=max(cell.threads for cell in briefing.cells),
            flops=briefing.flops,
        )
        self._measuring, self._p99_ms = briefing.measuring, briefing.p99_ms

    def next(self, history: Sequence[Observation]) -> Cell | None:
        """Return the cell with the largest expected improvement a second, or None when none is worth it."""
        candidate = self.best_choice(history).candidate
        return None if candidate is None else self._cells[candidate.key]

    def best_choice(
        self, history: Sequence[Observation], left_s: float = math.inf, trial_share_s: float = 0.0
    ) -> Choice:
        """Return what `agent.search` makes of a history.

        Args:
            history: what was seen so far, in order; the first is the model as given.
            left_s: as for `agent.search.next_candidate`.
            trial_share_s: likewise.
        """
        first = history[0]
        seen = [
            Seen(
                key=one.cell.key,
                log_gain=math.log(first.cost_usd / one.cost_usd),
                sd=math.hypot(one.sd, PROCESS_SD),
                feasible=one.feasible,
                accurate=one.accurate,
            )
            for one in history
        ]
        built = {part for one in history for part in one.cell.parts}
        candidates = self._candidates(self._expected_s(history), first)
        return next_candidate(candidates, seen, built, left_s=left_s, trial_share_s=trial_share_s)

    def _candidates(self, expected_s: Mapping[str, float], first: Observation) -> list[Candidate]:
        return [self._candidate(cell, expected_s, first) for cell in self._cells.values()]

    def _expected_s(self, history: Sequence[Observation]) -> dict[str, float]:
        """Return the seconds that a part of each kind is expected to cost."""
        taken: dict[str, list[float]] = {}
        for part, seconds in itertools.chain.from_iterable(one.paid_s.items() for one in history):
            taken.setdefault(kind_of(part), []).append(seconds)
        training_s = TRAINING_SHARE * self._measuring.distill_s
        usual = {**BUILD_S, "accuracy": ACCURACY_S, "distill": training_s}
        return {**usual, **{kind: fmean(seconds) for kind, seconds in taken.items()}}

    def _candidate(self, cell: Cell, expected_s: Mapping[str, float], first: Observation) -> Candidate:
        levels = {
            "student": "" if cell.student == TEACHER else cell.student,
            "runtime": cell.runtime,
            "precision": cell.precision,
            "threads": str(cell.threads),
            "batch": str(cell.batch),
        }
        gain, spread = prior(levels, self._facts)
        return Candidate(
            key=cell.key,
            levels=levels,
            gain=gain,
            spread=spread,
            parts={part: expected_s[kind_of(part)] for part in cell.parts},
            measure_s=self._measuring.cell_s,
            feasible=feasible_prior(levels),
            least_gain=slowest_gain(cell.batch, first.median_ms, self._p99_ms),
        )
