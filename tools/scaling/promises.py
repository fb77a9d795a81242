"""What a setting must keep to be recommended, and by how much it misses: pure arithmetic over what the twin did."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tools.contracts.recommendation import Shortfall
from tools.contracts.scaling import DayOutcome
from tools.scaling.story import counted, stretch
from tools.units import DAY_MINUTES

HARDER_KEPT_SHARE = 0.98
"""Share of a harder day's minutes that keep the SLO, unless less is asked for anyway.

29 minutes of a day. The longest fault among the harder days that nothing can foresee lasts ten minutes (a spike,
missing metrics); new replicas need some minutes, and what has piled up as long again to drain. What misses more does
not recover by itself.
"""

SURVIVORS_SHARE = 0.99
"""Share of the minutes up to the 95 % level of the traffic in which one replica may be lost without loss of the SLO.

Not all of them: after each rise it takes two or three minutes until what was ordered serves, a handful of times a day.
"""

MOST_REVERSALS_PER_DAY = 6.0
"""Scalings in the other direction within ten minutes of the one before: on average one in four hours at most.

Each starts a replica for nothing, or stops one that is missed at once. Traffic with a burst now and then explains
some; more is the setting following its own delay.
"""


@dataclass(frozen=True)
class Played:
    """What one setting did over one stretch of traffic.

    Attributes:
        outcome: the twin's numbers.
        guarded: minutes whose rate is at most the 95 % level.
        exposed: of these, minutes in which the survivors of one lost replica would not have kept the SLO.
        highest: replicas that the controller asked for at most.
    """

    outcome: DayOutcome
    guarded: int
    exposed: int
    highest: int


@dataclass(frozen=True)
class Promises:
    """What is asked of a setting.

    Attributes:
        kept_share: share of the recorded minutes that keep the SLO.
        minutes: of the recorded traffic.
        guarded: of these, minutes whose rate is at most the 95 % level.
    """

    kept_share: float
    minutes: int
    guarded: int

    @property
    def missed_allowed(self) -> int:
        """Minutes of the recorded traffic that may miss the SLO."""
        return _allowed(self.kept_share, self.minutes)

    @property
    def exposed_allowed(self) -> int:
        """Minutes of the recorded traffic that need not survive a lost replica."""
        return _allowed(SURVIVORS_SHARE, self.guarded)

    @property
    def reversals_allowed(self) -> int:
        """Reversals in all of the recorded traffic; one is always allowed."""
        return max(1, math.floor(MOST_REVERSALS_PER_DAY * self.minutes / DAY_MINUTES))

    def broken(self, recorded: Played, harder: Sequence[Played] = ()) -> tuple[Shortfall, ...]:
        """Return the promises that a setting breaks.

        Args:
            recorded: over the recorded traffic, or over a part of it: what is too much in a part is so in all.
            harder: over the harder days.
        """
        return (*self._recorded(recorded), *self._harder(harder))

    def _recorded(self, played: Played) -> Iterator[Shortfall]:
        outcome = played.outcome
        of_all = stretch(outcome.minutes) if outcome.minutes >= self.minutes else "its busiest day alone"
        if outcome.missed_minutes > self.missed_allowed:
            yield Shortfall(
                promise="slo",
                asked=self.missed_allowed,
                got=outcome.missed_minutes,
                sentence=f"misses the SLO in {counted(outcome.missed_minutes, 'minute')} of {of_all} "
                f"({self.missed_allowed:,} allowed)",
            )
        if played.exposed > self.exposed_allowed:
            yield Shortfall(
                promise="survivors",
                asked=self.exposed_allowed,
                got=played.exposed,
                sentence=f"would not bear the loss of a replica in {counted(played.exposed, 'minute')} of {of_all} "
                f"({self.exposed_allowed:,} allowed up to the 95 % level of the traffic)",
            )
        if outcome.reversals > self.reversals_allowed:
            yield Shortfall(
                promise="flapping",
                asked=self.reversals_allowed,
                got=outcome.reversals,
                sentence=f"flaps, {counted(outcome.reversals, 'time')} in {of_all} "
                f"({self.reversals_allowed:,} allowed)",
            )

    def _harder(self, harder: Sequence[Played]) -> Iterator[Shortfall]:
        for outcome in (played.outcome for played in harder):
            allowed = _allowed(min(HARDER_KEPT_SHARE, self.kept_share), outcome.minutes)
            if outcome.missed_minutes > allowed:
                yield Shortfall(
                    promise=outcome.day,
                    asked=allowed,
                    got=outcome.missed_minutes,
                    sentence=f"misses the SLO in {counted(outcome.missed_minutes, 'minute')} of the harder day "
                    f"`{outcome.day}` ({allowed:,} allowed)",
                )


def _allowed(share: float, minutes: int) -> int:
    """Return how many of the minutes need not keep a promise that is given for a share of them."""
    # 0.1 % of 10,000 minutes are 10, although 1 - 0.999 is a little less than 0.001.
    return math.floor((1 - share) * minutes + 1e-6)
