"""Choosing among what was measured. Pure functions, no clock, no I/O.

Two rules run through everything: a constraint is never traded for the objective, and a candidate wins only when it is
better beyond the noise. Within the noise the simpler recipe wins (fewer transforms, then float before integer, then
the smaller batch).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tools.contracts import BatchPoint, ComparisonResult, Evidence, Interval, Measured, Option, Outcome, Unstable
from tools.cost import cost_per_1000_usd
from tools.measure.statistics import P99_MIN_SAMPLES
from tools.outcomes import reason
from tools.result import Margin
from tools.spec import Objective
from tools.view import SessionView, Tried

QUEUEING_FACTOR = 2.0
"""A request that arrives just after a batch has left waits for it and then for its own: two batch times at worst,
while the replica keeps up. Batch 1 is judged by its own time."""

DEPENDENT_MARGIN = 1.5
"""How many times the largest of too few independent calls must fit the SLO. A judgement: no sample says more."""
ATTEMPTS = 2
"""How often a comparison is tried whose rounds were disturbed."""


@dataclass(frozen=True)
class Configured:
    """A recipe at a batch size: what can be chosen."""

    tried: Tried
    point: BatchPoint

    @property
    def name(self) -> str:
        """For options in decisions."""
        return f"{self.tried.name} at batch {self.point.batch_size}"


def worst_latency_ms(point: BatchPoint) -> float:
    """Return the latency that is held against the SLO: the p99's upper end, twice for a batch of several."""
    return point.latency_ms.p99.high * (1.0 if point.batch_size == 1 else QUEUEING_FACTOR)


def margins(configured: Configured, objective: Objective) -> list[Margin]:
    """Return how far a configuration is from each constraint of the objective; negative is a breach."""
    tried, point = configured.tried, configured.point
    assert tried.accuracy is not None
    assert tried.artifact is not None
    checks: list[tuple[str, float | None, float, str]] = [
        ("p99_ms", objective.p99_ms, worst_latency_ms(point), "ms"),
        ("max_accuracy_drop", objective.max_accuracy_drop, tried.accuracy.drop.value, tried.accuracy.metric),
        ("max_memory_mb", objective.max_memory_mb, point.peak_memory_mb, "MB"),
        ("max_size_mb", objective.max_size_mb, tried.artifact.size_mb, "MB"),
    ]
    return [
        Margin(constraint=name, limit=limit, value=value, margin=limit - value, unit=unit)
        for name, limit, value, unit in checks
        if limit is not None
    ]


def breaches(configured: Configured, objective: Objective) -> list[str]:
    """Return a sentence for each constraint that a configuration breaks."""
    return [
        f"{m.constraint}: {_reach(m)} where {m.limit:.4g} is allowed"
        for m in margins(configured, objective)
        if m.margin < -1e-12
    ]


def _reach(margin: Margin) -> str:
    """Return the value as it is held against the limit: a p99 by its interval's upper end."""
    return f"up to {margin.value:.4g} ms" if margin.constraint == "p99_ms" else f"{margin.value:.4g} {margin.unit}"


def configurations(tried: Iterable[Tried]) -> list[Configured]:
    """Return every recipe that ran at every batch size it was measured at."""
    return [Configured(t, point) for t in tried if t.ran for point in t.points.values()]


def figure(configured: Configured, objective: Objective, price_per_hour_usd: float) -> Interval:
    """Return what the objective minimizes: $ per 1,000 requests, ms (p50 of a call), or MB."""
    match objective.minimize:
        case "cost":
            return cost_per_1000_usd(price_per_hour_usd, configured.point.throughput_rps)
        case "latency":
            return configured.point.latency_ms.p50
        case "size":
            assert configured.tried.artifact is not None
            size = configured.tried.artifact.size_mb
            return Interval(value=size, low=size, high=size, n=1)


def cheapest(
    options: Sequence[Configured], objective: Objective, price_per_hour_usd: float
) -> tuple[Configured | None, str]:
    """Return the feasible configuration with the smallest figure, and why it won.

    Of those that the smallest does not beat beyond the noise (their intervals overlap), the simplest is taken.
    For size, which has no noise, ties are broken by p50.
    """
    feasible = [o for o in options if not breaches(o, objective)]
    if not feasible:
        return None, "no configuration keeps every constraint"
    figures = {id(o): figure(o, objective, price_per_hour_usd) for o in feasible}
    best = min(feasible, key=lambda o: (figures[id(o)].value, o.point.latency_ms.p50.value))
    if objective.minimize == "size":
        return best, "the smallest artifact that keeps every constraint"
    ties = [o for o in feasible if figures[id(o)].low <= figures[id(best)].high]
    simplest = min(ties, key=lambda o: (o.tried.recipe.complexity, o.point.batch_size, figures[id(o)].value))
    if simplest is best:
        return best, f"the smallest {objective.minimize} of all that keep every constraint"
    return simplest, (
        f"not slower beyond the noise than {best.name}, and simpler: "
        "ties go to fewer transforms, float before integer, the smaller batch"
    )


def closest(options: Sequence[Configured], objective: Objective) -> Configured | None:
    """Return the configuration whose worst breach, relative to its limit, is smallest: the best when none fits."""

    def worst(configured: Configured) -> float:
        return min((m.margin / m.limit if m.limit else m.margin for m in margins(configured, objective)), default=0.0)

    return max(options, key=worst, default=None)


def p99_is_open(view: SessionView, configured: Configured) -> bool:
    """Whether a p99 is promised that the calls that were timed cannot bound.

    Calls that resemble the ones before them are worth fewer: the largest of them is then all that is known of the
    tail, and has to fit the SLO by `DEPENDENT_MARGIN`.
    """
    slo_ms, point = view.spec.objective.p99_ms, configured.point
    if slo_ms is None:
        return False
    if point.latency_ms.p99.n < P99_MIN_SAMPLES:
        return True
    dependent = point.independent_calls is not None and point.independent_calls < P99_MIN_SAMPLES
    return dependent and point.latency_ms.p99.high * DEPENDENT_MARGIN > slo_ms


def unsettled(view: SessionView, configured: Configured) -> str | None:
    """Return why a configuration has to be measured for longer before its numbers can be promised; None if not."""
    point = configured.point
    if not point.stable:
        return point.unstable_because or "its median did not settle within its time"
    if p99_is_open(view, configured):
        few = f"{point.latency_ms.p99.n} calls are too few to bound a p99"
        if point.latency_ms.p99.n < P99_MIN_SAMPLES or point.independent_calls is None:
            return few
        return f"{few}, since each resembles the one before: they are worth {point.independent_calls:.0f}"
    return None


def as_option(configured: Configured, objective: Objective, price_per_hour_usd: float) -> Option:
    """Return a configuration as an option of a decision, with the numbers that count."""
    tried, point = configured.tried, configured.point
    broken = breaches(configured, objective)
    cost = cost_per_1000_usd(price_per_hour_usd, point.throughput_rps)
    return Option(
        name=configured.name,
        evidence=tried.evidence,
        facts={
            "p50_ms": point.latency_ms.p50.value,
            "p99_ms": point.latency_ms.p99.value,
            "p99_high_ms": point.latency_ms.p99.high,
            "throughput_rps": point.throughput_rps.value,
            "cost_per_1000_usd": cost.value,
            "accuracy_drop": tried.accuracy.drop.value if tried.accuracy else None,
            "size_mb": tried.artifact.size_mb if tried.artifact else None,
            "stable": point.stable,
        },
        rejected_because="; ".join(broken) or None,
    )


def not_run_option(tried: Tried) -> Option:
    """Return a recipe that could not be measured as an option that was rejected."""
    return Option(name=tried.name, evidence=tried.evidence, rejected_because=tried.reason or tried.outcome)


def is_baseline(view: SessionView, configured: Configured) -> bool:
    """Whether this is the model as given, at its smallest batch."""
    baseline = view.baseline
    return (
        baseline is not None
        and configured.tried.recipe == baseline.recipe
        and configured.point.batch_size == view.low_batch
    )


def is_advised(view: SessionView, configured: Configured) -> bool:
    """Whether this was measured only after a language model was asked."""
    return (configured.tried.recipe.digest, configured.point.batch_size) not in view.unaided


def rivals(view: SessionView, leader: Configured) -> list[Configured]:
    """Return what a leader must beat, timed in turn, and has not been timed with yet.

    That is the model as given at its smallest batch, and for an integer recipe the best float one, since separate
    measurements may have caught one of the two in a bad moment.
    """
    baseline = view.baseline
    assert baseline is not None
    if is_baseline(view, leader):
        return []
    wanted = [Configured(baseline, baseline.first_point)]
    if not leader.tried.recipe.precision.is_float:
        floats = [t for t in view.ran if t.recipe.precision.is_float]
        best, _ = cheapest(configurations(floats), view.spec.objective, view.spec.hardware.price_per_hour_usd)
        if best is not None and not is_baseline(view, best):
            wanted.append(best)
    return [w for w in wanted if _is_open(attempts(view, leader, w))]


def attempts(view: SessionView, leader: Configured, rival: Configured) -> list[Evidence]:
    """Return every comparison of a leader with a rival, in order."""
    pair = (rival.tried.recipe.digest, rival.point.batch_size)
    return [
        e
        for e in view.comparisons(leader.tried.recipe, leader.point.batch_size)
        if (e.parameters["baseline"], e.parameters["baseline_batch"]) == pair
    ]


def _is_open(compared: Sequence[Evidence]) -> bool:
    """Whether a pair has to be timed in turn, once more where the machine was too noisy to tell."""
    return len(compared) < ATTEMPTS and all(isinstance(e.outcome, Unstable) for e in compared)


def held(view: SessionView, configured: Configured) -> bool | None:
    """Whether a configuration beat all that it was timed in turn with.

    None when it was timed with nothing, or the machine was too noisy to tell. For the objective `size` speed decides
    nothing, and everything holds.
    """
    pairs: dict[tuple[str, int], Outcome] = {}
    for e in view.comparisons(configured.tried.recipe, configured.point.batch_size):
        pairs[e.parameters["baseline"], e.parameters["baseline_batch"]] = e.outcome
    if not pairs:
        return None
    if view.spec.objective.minimize == "size":
        return True
    wins = [_won(outcome, view.spec.objective) for outcome in pairs.values()]
    if False in wins:
        return False
    return None if None in wins else True


def _won(outcome: Outcome, objective: Objective) -> bool | None:
    match outcome:
        case Measured(result=ComparisonResult() as result):
            ratio = result.p50 if objective.minimize == "latency" else result.throughput
            return ratio.low > 1
        case Unstable():
            return None
    return False


def untold(view: SessionView, configured: Configured) -> str | None:
    """Return why there is no telling whether a configuration is as good as its numbers; None when there is."""
    if not is_baseline(view, configured) and held(view, configured) is None:
        for evidence in reversed(view.comparisons(configured.tried.recipe, configured.point.batch_size)):
            if isinstance(evidence.outcome, Unstable):
                return f"timed in turn with what it must beat, {reason(evidence.outcome)}"
    return unsettled(view, configured)


def standing(view: SessionView) -> list[Configured]:
    """Return what can be chosen: all that ran to the end, but for leaders that did not beat their rivals."""
    whole = [t for t in view.ran if t.given_up is None]
    return [c for c in configurations(whole) if is_baseline(view, c) or held(view, c) is not False]


def final_choice(view: SessionView) -> tuple[Configured | None, str]:
    """Return the configuration that the session recommends, and why; None when nothing keeps every constraint.

    A leader that did not beat its rivals side by side gives way: "faster" was noise. What was tried after a language
    model was asked is recommended only where it is better beyond the noise than all that was tried before, and where
    there is telling: so no advice can make the choice worse.
    """
    objective, price = view.spec.objective, view.spec.hardware.price_per_hour_usd
    everything = standing(view)
    best, why = cheapest(everything, objective, price)
    unaided = [c for c in everything if not is_advised(view, c)]
    if best is None or len(unaided) == len(everything):
        return best, why
    kept, why_kept = cheapest(unaided, objective, price)
    if kept is None:
        return best, why
    better = figure(best, objective, price).high < figure(kept, objective, price).low
    timed = view.comparisons(best.tried.recipe, best.point.batch_size)
    if is_advised(view, best) and better and not (timed and untold(view, best)):
        return best, why
    return kept, why_kept
