"""The story of an optimization in steps: what each technique brought on top of those before it. Pure.

A step has figures only where there is evidence of them, and every step is judged as a session judges its candidates:
one is taken when it serves more beyond the noise, and breaks no promise that the step before it kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from tools.contracts import Contract, Interval
from tools.cost import cost_per_1000_usd
from tools.report import format as fmt
from tools.result import ScalingSummary
from tools.selection import Configured, breaches, margins
from tools.spec import Objective


class StepOutcome(StrEnum):
    """What became of a step."""

    BASELINE = "as given"
    TAKEN = "taken"
    NOT_TAKEN = "not taken"
    """It failed, stays within the noise of the step before, or breaks a promise that one kept."""
    STEP_BACK = "step back"
    """Slower than the step before, or than what it has to beat beside it: not taken."""
    SKIPPED = "skipped"
    COMPUTED = "computed"
    """Follows from what was measured, and was not measured itself."""


class Figures(Contract):
    """One configuration in numbers. Latency is that of a call at its batch size."""

    batch_size: int = Field(ge=1)
    throughput_rps: Interval
    p50_ms: Interval | None
    """None where the twin answers in place of a measurement: it tells a p99 and no p50."""
    p99_ms: Interval
    cost_per_1000_usd: Interval
    accuracy: Interval
    accuracy_drop: Interval


class ChallengeStep(Contract):
    """One technique on top of those that were taken before it."""

    name: str
    outcome: StepOutcome
    recipe: str | None = None
    """Its name; None where nothing was tried."""
    replicas: int = Field(default=1, ge=1)
    figures: Figures | None = None
    evidence: tuple[str, ...] = ()
    """Ids of what the figures, or the reason why there are none, rest on."""
    why: str
    """What came of it, in a sentence."""
    settled: bool = True
    """False where the machine was too noisy for the figures to be relied on."""

    @model_validator(mode="after")
    def _no_claims(self) -> Self:
        if self.figures is not None and not self.evidence:
            raise ValueError(f"the figures of {self.name!r} rest on no evidence")
        if self.figures is None and self.outcome not in (StepOutcome.SKIPPED, StepOutcome.NOT_TAKEN):
            raise ValueError(f"{self.name!r} is {self.outcome.value} without figures")
        return self


class TargetState(StrEnum):
    """Whether a figure is where it was wanted."""

    MET = "met"
    OPEN = "open"
    """The interval holds what was wanted: there is no telling."""
    MISSED = "not met"


class Target(Contract):
    """What is asked of the last step, and what was measured."""

    name: str
    wanted: float
    """A ratio of at least this, or for the accuracy a drop of at most this."""
    got: Interval
    how: str
    """How it was measured, in a sentence."""
    state: TargetState
    stretch: float | None = None
    stretch_state: TargetState | None = None
    evidence: tuple[str, ...] = Field(min_length=1)


class Challenge(Contract):
    """The whole story; what `challenge.json` holds."""

    session: str
    workload: str
    created: str
    """UTC, ISO 8601."""
    metric: str
    price_per_hour_usd: float
    steps: tuple[ChallengeStep, ...]
    targets: tuple[Target, ...]
    seconds: float
    """That the steps took beyond the session, waiting included."""


def figures_of(configured: Configured, price_per_hour_usd: float) -> Figures:
    """Return a configuration in numbers, all of them as measured."""
    tried, point = configured.tried, configured.point
    assert tried.accuracy is not None
    return Figures(
        batch_size=point.batch_size,
        throughput_rps=point.throughput_rps,
        p50_ms=point.latency_ms.p50,
        p99_ms=point.latency_ms.p99,
        cost_per_1000_usd=cost_per_1000_usd(price_per_hour_usd, point.throughput_rps),
        accuracy=tried.accuracy.value,
        accuracy_drop=tried.accuracy.drop,
    )


def measured_step(
    name: str, configured: Configured, outcome: StepOutcome, why: str, price_per_hour_usd: float
) -> ChallengeStep:
    """Return the step that a measured configuration is."""
    return ChallengeStep(
        name=name,
        outcome=outcome,
        recipe=configured.tried.name,
        figures=figures_of(configured, price_per_hour_usd),
        evidence=configured.tried.evidence,
        why=why,
        settled=configured.point.stable,
    )


def fastest(options: Sequence[Configured], standing: Configured, objective: Objective) -> Configured | None:
    """Return the option that serves most, one that keeps what `standing` keeps before any other; None without one."""
    return max(
        options, key=lambda o: (not newly_broken(o, standing, objective), o.point.throughput_rps.value), default=None
    )


def judge(
    option: Configured,
    standing: Configured,
    objective: Objective,
    *,
    rivals: Sequence[Configured] = (),
    as_good_will_do: bool = False,
) -> tuple[StepOutcome, str]:
    """Return whether an option is taken in place of what stands, and why.

    Args:
        option: the best of a step.
        standing: the last step that was taken.
        objective: whose promises count.
        rivals: what it must beat too: the same in float, for integers on a runtime that is new.
        as_good_will_do: whether it is taken within the noise as well, because a session would choose it.
    """
    broken = newly_broken(option, standing, objective)
    if broken:
        return StepOutcome.NOT_TAKEN, f"It breaks what the step before it kept ({'; '.join(broken)})."
    ours = option.point.throughput_rps
    for other, name, moral in (
        (standing, "the step before it", ""),
        *((rival, rival.tried.name, ": what it gains on the step before is the runtime's") for rival in rivals),
    ):
        theirs = other.point.throughput_rps
        if as_good_will_do and ours.low <= theirs.high and theirs.low <= ours.high:
            return StepOutcome.TAKEN, "As much as the step before it within the noise, and what a session would choose."
        if ours.value < theirs.value:
            slower = f"{fmt.rate(ours.value)} against {fmt.rate(theirs.value)}"
            return StepOutcome.STEP_BACK, f"Slower than {name} ({slower}){moral}."
        if ours.low <= theirs.high:
            return StepOutcome.NOT_TAKEN, f"No faster than {name} beyond the noise{moral}."
    return StepOutcome.TAKEN, f"Serves {_gain(option, standing)} times as much as the step before it."


def newly_broken(option: Configured, standing: Configured, objective: Objective) -> list[str]:
    """Return a sentence for each promise that an option breaks, if what stands does not break it already."""
    already = {m.constraint for m in margins(standing, objective) if m.margin < 0}
    return [text for text in breaches(option, objective) if text.partition(":")[0] not in already]


def replicas_step(final: Configured, scaling: ScalingSummary, price_per_hour_usd: float) -> ChallengeStep:
    """Return what several replicas of the last step serve: computed, since no fleet was measured.

    Args:
        final: what each replica runs.
        scaling: how many replicas of it the traffic needs.
        price_per_hour_usd: of one replica.
    """
    played = None if scaling.recommendation is None else scaling.recommendation.chosen
    figures = figures_of(final, price_per_hour_usd)
    evidence = tuple(dict.fromkeys((*final.tried.evidence, *scaling.evidence)))
    if played is None:
        count = scaling.replicas_peak
        why = f"Not played in the twin: the traffic's peak of {fmt.rate(scaling.traffic.peak_rps)} needs so many."
    else:
        day = played.outcomes[0]
        count = max(day.peak_replicas, 1)
        cost = day.cost_usd / day.served * 1000 if day.served else 0.0
        why = (
            f"From the twin, over {fmt.seconds(day.minutes * 60)} of traffic: at most {count} replicas, "
            f"{day.mean_replicas:.1f} on average, idle time paid for. The p99 is that of a request in the worst "
            f"minute, waiting included{_small_batches(figures, scaling, count, day.worst_p99_ms)}."
        )
        computed = {"cost_per_1000_usd": _exactly(cost), "p99_ms": _exactly(day.worst_p99_ms), "p50_ms": None}
        figures = figures.model_copy(update=computed)
    why += _without(scaling)
    figures = figures.model_copy(update={"throughput_rps": scaling.capacity_rps.scaled(count)})
    return ChallengeStep(
        name="replicas",
        outcome=StepOutcome.COMPUTED,
        recipe=final.tried.name,
        replicas=count,
        figures=figures,
        evidence=evidence,
        why=why,
        settled=final.point.stable,
    )


def final_step(steps: Sequence[ChallengeStep]) -> ChallengeStep:
    """Return the last step that was taken: what the targets are held against."""
    kept = (StepOutcome.BASELINE, StepOutcome.TAKEN)
    return [step for step in steps if step.outcome in kept][-1]


def _small_batches(full: Figures, scaling: ScalingSummary, count: int, p99_ms: float) -> str:
    """Return why a request is answered sooner than a full batch, where it is; replicas without enough to do."""
    if full.p50_ms is None or p99_ms >= full.p50_ms.value:
        return ""
    share = scaling.traffic.peak_rps / count / scaling.capacity_rps.value
    return (
        f": less than a full batch of {full.batch_size} takes, because at the traffic's peak a replica has "
        f"{fmt.percent(share, 0)} of the work it could do, and answers in small batches"
    )


def _without(scaling: ScalingSummary) -> str:
    """Return what the same traffic would take without any of the steps, as a further sentence; empty if not known."""
    peak, cost = scaling.baseline_replicas_peak, scaling.baseline_daily_cost_usd
    if peak is None or cost is None:
        return ""
    replicas = "1 replica" if peak == 1 else f"{peak} replicas"
    return (
        f" The model as given would need {replicas} at the peak: {fmt.usd(cost)} a day, planned minute by minute, "
        f"against {fmt.usd(scaling.daily_cost_usd)}."
    )


def _gain(option: Configured, standing: Configured) -> str:
    gain = option.point.throughput_rps.value / standing.point.throughput_rps.value
    return fmt.number(gain)


def _exactly(value: float) -> Interval:
    """Return a value that was computed, and has no interval."""
    return Interval(value=value, low=value, high=value, n=1)
