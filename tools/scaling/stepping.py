"""A run of the twin in steps that a person can follow, and its outcome in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tools.contracts.scaling import DayOutcome
from tools.scaling.promises import Promises
from tools.scaling.story import counted, stretch
from tools.scaling.twin import Run, Scaling

MINUTE_S = 60
_MS_FROM_S = 10_000


@dataclass(frozen=True)
class Step:
    """A stretch of a run.

    Attributes:
        at_s: when it begins, in seconds of the run.
        rate_rps: requests per second, on average.
        ready: replicas that serve, on average.
        paid: replicas that are paid for, on average.
        queue: requests that wait in the fullest replica, at most.
        p99_ms: p99 of the worst second.
        minutes: its length; the last step may be shorter.
        missed_minutes: of these, minutes that missed the SLO.
        scalings: what the controller did.
    """

    at_s: int
    rate_rps: float
    ready: float
    paid: float
    queue: float
    p99_ms: float
    minutes: int
    missed_minutes: int
    scalings: tuple[Scaling, ...]


def steps(run: Run, step_s: int) -> Iterator[Step]:
    """Yield a run in steps of equal length.

    Raises:
        ValueError: the step is not a whole number of minutes: the twin tells no more.
    """
    if step_s < MINUTE_S or step_s % MINUTE_S:
        raise ValueError(f"a step is a whole number of minutes, not {step_s} s")
    width = step_s // MINUTE_S
    for first in range(0, run.missed.size, width):
        part = slice(first, first + width)
        start_s = first * MINUTE_S
        yield Step(
            at_s=start_s,
            rate_rps=float(np.mean(run.rps[part])),
            ready=float(np.mean(run.ready[part])),
            paid=float(np.mean(run.paid[part])),
            queue=float(np.max(run.queue[part])),
            p99_ms=float(np.max(run.p99_ms[part])),
            minutes=run.missed[part].size,
            missed_minutes=int(np.count_nonzero(run.missed[part])),
            scalings=tuple(s for s in run.scalings if start_s <= s.at_s < start_s + step_s),
        )


def keeps(outcome: DayOutcome, kept_share: float) -> bool:
    """Return whether a share of the minutes keeps the SLO."""
    return outcome.missed_minutes <= _allowed(outcome, kept_share)


def told(outcome: DayOutcome, *, slo_ms: float, kept_share: float) -> str:
    """Say what a day came to, in three sentences.

    "Misses the SLO of 50 ms in 8 minutes of these 2 hours (0 allowed), p99 up to 110 s. 3.3 replicas on average, 8 at
    most; 6.6 replica-hours cost $0.66. The controller scales 8 times, and soon turns back 0 times."
    """
    missed, of_all = outcome.missed_minutes, stretch(outcome.minutes)
    if missed:
        allowed = f"({_allowed(outcome, kept_share):,} allowed)"
        slo = f"Misses the SLO of {slo_ms:g} ms in {counted(missed, 'minute')} of {of_all} {allowed}, p99"
    else:
        slo = f"Keeps the SLO of {slo_ms:g} ms in every minute of {of_all}, p99"
    cost = f" cost ${outcome.cost_usd:,.2f}" if outcome.cost_usd else " are paid for"
    lost = f", and {counted(outcome.refused, 'request')} refused" if outcome.refused >= 1 else ""
    return (
        f"{slo} up to {duration(outcome.worst_p99_ms)}{lost}. "
        f"{counted(outcome.mean_replicas, 'replica')} on average, {outcome.peak_replicas:,} at most; "
        f"{counted(outcome.replica_hours, 'replica-hour')}{cost}. "
        f"The controller scales {counted(outcome.scalings, 'time')}, and soon turns back "
        f"{counted(outcome.reversals, 'time')}."
    )


def duration(ms: float) -> str:
    """Return a time as people read it: `8.2 ms`, `61 ms`, `9,142 ms`, `110 s`."""
    if ms < 10:
        return f"{ms:.1f} ms"
    return f"{ms:,.0f} ms" if ms < _MS_FROM_S else f"{ms / 1000:,.0f} s"


def _allowed(outcome: DayOutcome, kept_share: float) -> int:
    return Promises(kept_share=kept_share, minutes=outcome.minutes, guarded=0).missed_allowed
