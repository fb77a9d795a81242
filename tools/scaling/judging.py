"""Judging settings on more and more: the busiest day, all of the recorded traffic, the harder days.

What has broken a promise already, or surely costs much more than a setting that keeps them all, is not run any further.
Today's setting always is, and if none keeps every promise, those that come closest are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tools.contracts.recommendation import Judged, Shortfall
from tools.contracts.scaling import ScalingOption
from tools.scaling.playing import Players
from tools.scaling.promises import Played, Promises
from tools.scaling.settings import Setting
from tools.scaling.story import times, told

RECORDED, BUSIEST, HARDER = 0, 1, 2
"""Places of the recorded traffic, its busiest day, and the first of the harder days among the days of a stage."""

SAME_COST_SHARE = 0.01
"""Costs closer than this are a tie: the twin is not that exact."""

FINALISTS = 8
"""Settings that are run on everything although they break a promise, if none keeps all: one of them is the closest."""

WORTH_RUNNING = 1.25
"""Settings that cost more than this many times the cheapest that keeps everything are not run to the end."""

BLOCK = 32
"""Settings that are run to the end at once, the cheapest first. The same for any number of processes, so that the same
settings are run."""

_WEIGHTIEST_FIRST = ("slo", "harder", "survivors", "flapping")
"""Promises, when all settings break one: a missed SLO is felt, the others are risks and costs."""


@dataclass(frozen=True)
class Case:
    """One setting, and what it did so far.

    Attributes:
        setting: it.
        first: over the recorded traffic; over its busiest day only, where that was too bad already.
        whole: whether that is all of the recorded traffic.
        harder: over the harder days; empty if it did not come to that.
        broken: the promises that it breaks by all of this.
    """

    setting: Setting
    first: Played
    whole: bool
    broken: tuple[Shortfall, ...]
    harder: tuple[Played, ...] = ()

    @property
    def keeps_all(self) -> bool:
        """Whether it was run on everything and breaks no promise."""
        return bool(self.harder) and not self.broken

    @property
    def cost_usd(self) -> float:
        """Of what it was first run on."""
        return self.first.outcome.cost_usd

    @property
    def missed(self) -> tuple[int, int]:
        """Minutes in which it misses the SLO: of what it was first run on, and of all harder days."""
        return self.first.outcome.missed_minutes, sum(played.outcome.missed_minutes for played in self.harder)

    @property
    def excess(self) -> tuple[float, ...]:
        """By how much it misses, the weightiest promise first, then its cost: the least of these is the closest."""
        by = dict.fromkeys(_WEIGHTIEST_FIRST, 0.0)
        for shortfall in self.broken:
            by[shortfall.promise if shortfall.promise in by else "harder"] += shortfall.got - shortfall.asked
        return (*by.values(), self.cost_usd)

    def judged(self, at_least_usd: float, chosen: Case | None) -> Judged:
        """Return it as it is kept, with the reason why it cannot be chosen.

        Args:
            at_least_usd: what it costs at least on the recorded traffic.
            chosen: the case that was chosen.
        """
        rejected = told(self.broken) or None
        if rejected is None and not self.harder and chosen is not None:
            rejected = f"costs at least {times(at_least_usd / chosen.cost_usd)}, so it was not run to the end"
        option = ScalingOption(
            name=self.setting.name,
            spec=self.setting.spec,
            outcomes=tuple(played.outcome for played in (self.first, *self.harder)),
            is_today=self.setting.is_today,
            rejected=rejected,
        )
        return Judged(option=option, shortfalls=self.broken)


def choose(cases: Sequence[Case]) -> Case | None:
    """Return the cheapest case that keeps everything, None if none does.

    Of those within `SAME_COST_SHARE` of the cheapest: the one with the fewest missed minutes, recorded before harder
    ones; then the simplest, which is today's, then one with fewer metrics, then one with a larger minReplicas.
    """
    keepers = [case for case in cases if case.keeps_all]
    limit_usd = min((case.cost_usd for case in keepers), default=0.0) * (1 + SAME_COST_SHARE)
    return min((case for case in keepers if case.cost_usd <= limit_usd), key=_preference, default=None)


def closest(cases: Sequence[Case]) -> Case | None:
    """Return the case that misses by the least among those that were run on everything; None if there is none."""
    return min((case for case in cases if case.harder), key=lambda case: case.excess, default=None)


class Judge:
    """Runs settings, counts the runs, and says what each broke."""

    def __init__(self, players: Players, promises: Promises, *, harder_days: int, rest_usd: float) -> None:
        """Take those who play, and what is promised.

        Args:
            players: play settings over the days of their world.
            promises: what is asked of a setting.
            harder_days: how many there are.
            rest_usd: what one replica costs in the part of the recorded traffic that is not its busiest day; 0 if
                there is none.
        """
        self._players = players
        self._promises = promises
        self._harder_days = range(HARDER, HARDER + harder_days)
        self._rest_usd = rest_usd
        self.busiest_day_runs = 0
        self.recorded_runs = 0
        self.harder_runs = 0

    def judge(self, settings: Sequence[Setting], known: Sequence[Case] = ()) -> list[Case]:
        """Return a case for each setting, in their order, after those that are known."""
        first = self._on_busiest_day(settings) if self._rest_usd else self._on_recorded(settings)
        cases = [*known, *first]
        unbroken = sorted(
            (i for i in range(len(known), len(cases)) if not cases[i].broken), key=lambda i: self.least_usd(cases[i])
        )
        for start in range(0, len(unbroken), BLOCK):
            best = choose(cases)
            if best is not None and self.least_usd(cases[unbroken[start]]) > best.cost_usd * WORTH_RUNNING:
                break
            self._finish(cases, unbroken[start : start + BLOCK], all_days=False)
        self._finish(cases, [i for i, case in enumerate(cases) if case.setting.is_today], all_days=True)
        if choose(cases) is None:
            nearest = sorted(range(len(cases)), key=lambda i: cases[i].excess)
            self._finish(cases, nearest[:FINALISTS], all_days=True)
        return cases

    def least_usd(self, case: Case) -> float:
        """Return what a setting costs at least on the recorded traffic: outside of its busiest day, its minimum."""
        return case.cost_usd + (0.0 if case.whole else case.setting.min_replicas * self._rest_usd)

    def _on_busiest_day(self, settings: Sequence[Setting]) -> list[Case]:
        played, runs = self._players.play_each(settings, [BUSIEST])
        self.busiest_day_runs += runs
        return [self._case(setting, *one, whole=False) for setting, one in zip(settings, played, strict=True)]

    def _on_recorded(self, settings: Sequence[Setting]) -> list[Case]:
        played, runs = self._players.play_each(settings, [RECORDED])
        self.recorded_runs += runs
        return [self._case(setting, *one, whole=True) for setting, one in zip(settings, played, strict=True)]

    def _case(self, setting: Setting, played: Played, *, whole: bool) -> Case:
        return Case(setting, played, whole=whole, broken=self._promises.broken(played))

    def _finish(self, cases: list[Case], places: Sequence[int], *, all_days: bool) -> None:
        """Run the cases at these places on what is left.

        Args:
            cases: replaced in place.
            places: of the cases to run.
            all_days: on the harder days as well if they broke a promise on the recorded traffic.
        """
        partly = [i for i in places if not cases[i].whole]
        for i, case in zip(partly, self._on_recorded([cases[i].setting for i in partly]), strict=True):
            cases[i] = case
        left = [i for i in places if not cases[i].harder and (all_days or not cases[i].broken)]
        played, runs = self._players.play_each([cases[i].setting for i in left], self._harder_days)
        self.harder_runs += runs
        for i, harder in zip(left, played, strict=True):
            cases[i] = replace(cases[i], harder=harder, broken=self._promises.broken(cases[i].first, harder))


def _preference(case: Case) -> tuple[float, ...]:
    setting, reversals = case.setting, case.first.outcome.reversals
    return (*case.missed, not setting.is_today, setting.metrics, -setting.min_replicas, reversals, case.cost_usd)
