"""What is not known, and could change an answer: each doubt with the measurement that would settle it. Pure."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

from tools.contracts import ComparisonResult, Contract, EvidenceKind, Interval, Measured, Outcome, Recipe
from tools.measure.statistics import P99_MIN_SAMPLES
from tools.outcomes import is_lasting, reason, trial_result
from tools.report import format as fmt
from tools.selection import (
    Configured,
    cheapest,
    configurations,
    figure,
    held,
    is_baseline,
    p99_is_open,
    rivals,
    standing,
    worst_latency_ms,
)
from tools.view import SessionView


class Proposed(Protocol):
    """An experiment that a policy asks for."""

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """What it measures."""
        ...

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """At which batch sizes; empty for the smallest one."""
        ...

    @property
    def reason(self) -> str:
        """Why it is worth its time."""
        ...


class Check(Contract):
    """Something to measure, since it could change the answer."""

    measure: str
    why: str
    """What is not known, and what it could change."""
    seconds: float | None
    """What it would take, by what the like took in this session; None where nothing like it was measured."""
    how: Literal["optimize", "fresh", "more data"]
    """What settles it: a session with the changed spec, one that measures everything anew, or more evaluation items."""


def checks(view: SessionView, chosen: Configured | None, proposed: Proposed | None) -> list[Check]:
    """Return what should be measured to be sure of a choice.

    Args:
        view: all that is known.
        chosen: `final_choice` of it.
        proposed: the experiment that the policy asks for next, apart from confirming the leader; None when it asks
            for none.
    """
    found: list[Check] = []
    if proposed is not None:
        found += _experiment(view, proposed)
    elif chosen is not None:
        found += _confirmation(view, chosen)
    if chosen is not None:
        found += _unsettled(view, chosen)
        found += _may_lose_too_much(view, chosen)
    return [*found, *_contenders(view, chosen)]


# --- what the policy would still measure -------------------------------------------------------------------------


def _experiment(view: SessionView, proposed: Proposed) -> Iterator[Check]:
    kind = EvidenceKind.SWEEP if proposed.batch_sizes else EvidenceKind.TRIAL
    costs = [_like(view, kind, recipe) for recipe in proposed.recipes]
    if not proposed.batch_sizes:  # new recipes, whose artifacts are not made yet
        costs += [_like(view, EvidenceKind.BUILD) for recipe in proposed.recipes if recipe.steps]
    sizes = proposed.batch_sizes or (view.low_batch,)
    batches = f"batch {sizes[0]}" if len(sizes) == 1 else f"batches of {', '.join(str(s) for s in sizes)}"
    yield Check(
        measure=f"{' and '.join(recipe.name for recipe in proposed.recipes)} at {batches}",
        why=proposed.reason,
        seconds=_sum(costs),
        how="optimize",
    )
    yield Check(
        measure="whichever leads then, timed in turn with what it must beat",
        why="a leader counts once it has won side by side",
        seconds=_sum([_like(view, EvidenceKind.COMPARISON), _like(view, EvidenceKind.EDGE_CASES)]),
        how="optimize",
    )


def _confirmation(view: SessionView, leader: Configured) -> Iterator[Check]:
    if is_baseline(view, leader):
        return
    if p99_is_open(view, leader):
        yield Check(
            measure=f"{leader.name} for longer",
            why=f"{leader.point.latency_ms.p99.n} calls are too few to bound its p99",
            seconds=P99_MIN_SAMPLES * leader.point.mean_ms / 1e3,
            how="optimize",
        )
    for rival in rivals(view, leader) if view.spec.objective.minimize != "size" else ():  # there speed decides nothing
        yield Check(
            measure=f"{leader.name} in turn with {rival.name}",
            why="they were never timed side by side: the difference may be noise",
            seconds=_like(view, EvidenceKind.COMPARISON, leader.tried.recipe),
            how="optimize",
        )
    if view.edge_cases(leader.tried.recipe) is None:
        yield Check(
            measure=f"{leader.tried.name} under unusual inputs",
            why="nobody knows what it makes of them",
            seconds=_like(view, EvidenceKind.EDGE_CASES),
            how="optimize",
        )


# --- what was measured, and may be otherwise -----------------------------------------------------------------------


def _unsettled(view: SessionView, chosen: Configured) -> Iterator[Check]:
    if chosen.point.stable:
        return
    source = next(e for e in view.evidence if (r := trial_result(e)) is not None and chosen.point in r.points)
    yield Check(
        measure=f"{chosen.name} again, on a quieter machine",
        why=chosen.point.unstable_because or "its median did not settle",
        seconds=source.seconds,
        how="fresh" if is_lasting(source.outcome) else "optimize",
    )


def _may_lose_too_much(view: SessionView, chosen: Configured) -> Iterator[Check]:
    """The drop of the choice is within the budget, and its upper end is not."""
    accuracy, limit = chosen.tried.accuracy, view.spec.objective.max_accuracy_drop
    if accuracy is None or accuracy.drop.high <= limit:
        return
    others = [c for c in standing(view) if c.tried.recipe != chosen.tried.recipe]
    instead, _ = cheapest(others, view.spec.objective, view.spec.hardware.price_per_hour_usd)
    metric = accuracy.metric
    yield Check(
        measure=f"the accuracy of {chosen.tried.name} on {_more_items(accuracy.drop, limit)}",
        why=(
            f"its drop is {_drop(accuracy.drop, metric)}: should it turn out above {_budget(limit, metric)}, "
            + (f"{instead.name} would be chosen" if instead is not None else "nothing would keep every constraint")
        ),
        seconds=None,
        how="more data",
    )


def _contenders(view: SessionView, chosen: Configured | None) -> Iterator[Check]:
    """What would be chosen, if a doubt about it were settled in its favour; one a recipe, the best first."""
    objective, price = view.spec.objective, view.spec.hardware.price_per_hour_usd
    known = standing(view)
    found: dict[str, Check] = {}
    for candidate in sorted(configurations(view.ran), key=lambda c: figure(c, objective, price).value):
        recipe = candidate.tried.recipe
        if (chosen is not None and candidate.name == chosen.name) or recipe.digest in found:
            continue
        fell = not is_baseline(view, candidate) and held(view, candidate) is False
        at_best = candidate if fell else _at_best(candidate)
        winner, _ = cheapest([*known, at_best], objective, price)
        if winner is not at_best:
            continue
        if not fell:
            found[recipe.digest] = _borderline(view, candidate)
        elif (doubt := _doubtful_defeat(view, candidate)) is not None:
            found[recipe.digest] = doubt
    yield from found.values()


def _doubtful_defeat(view: SessionView, candidate: Configured) -> Check | None:
    """A candidate gave way since it did not beat a rival side by side, and it is not clear that it cannot."""
    compared = view.comparisons(candidate.tried.recipe, candidate.point.batch_size)
    doubts = [_doubt(view, e.outcome) for e in compared if not _won(view, e.outcome)]
    if None in doubts:
        return None
    return Check(
        measure=f"{candidate.name} in turn with what it must beat, again",
        why=f"{'; '.join(d for d in doubts if d)}: should it prove faster, {_would_win(view, candidate)}",
        seconds=_like(view, EvidenceKind.COMPARISON, candidate.tried.recipe),
        how="fresh" if all(is_lasting(e.outcome) for e in compared) else "optimize",
    )


def _won(view: SessionView, outcome: Outcome) -> bool:
    ratio = _ratio(view, outcome)
    return ratio is not None and ratio.low > 1


def _doubt(view: SessionView, outcome: Outcome) -> str | None:
    """Return why a defeat may be none, or None when it was clear."""
    ratio = _ratio(view, outcome)
    if ratio is None:
        return f"side by side, {reason(outcome)}"
    return f"side by side it was {fmt.ratio(ratio)} as fast" if ratio.high > 1 else None


def _ratio(view: SessionView, outcome: Outcome) -> Interval | None:
    match outcome:
        case Measured(result=ComparisonResult() as result):
            return result.p50 if view.spec.objective.minimize == "latency" else result.throughput
    return None


def _borderline(view: SessionView, candidate: Configured) -> Check:
    """A candidate that breaks a constraint by its estimate, and may keep it by its interval."""
    objective = view.spec.objective
    point, accuracy = candidate.point, candidate.tried.accuracy
    assert accuracy is not None
    if accuracy.drop.value > objective.max_accuracy_drop:
        limit = objective.max_accuracy_drop
        return Check(
            measure=f"the accuracy of {candidate.tried.name} on {_more_items(accuracy.drop, limit)}",
            why=(
                f"its drop is {_drop(accuracy.drop, accuracy.metric)}: should it turn out at most "
                f"{_budget(limit, accuracy.metric)}, {_would_win(view, candidate)}"
            ),
            seconds=None,
            how="more data",
        )
    assert objective.p99_ms is not None, "no other constraint has an interval"
    p99 = point.latency_ms.p99
    allowed = objective.p99_ms * p99.high / worst_latency_ms(point)
    calls = max(_samples_to_tell(p99, allowed), P99_MIN_SAMPLES)
    told = f"about {fmt.number(calls)} calls" if math.isfinite(calls) else "many more calls"
    return Check(
        measure=f"{candidate.name} over {told}, in place of {fmt.number(p99.n)}",
        why=(
            f"its p99 is {fmt.ms(p99.value)} {fmt.span(p99)}: should all of the interval turn out at most "
            f"{fmt.ms(allowed)}, {_would_win(view, candidate)}"
        ),
        seconds=calls * point.mean_ms / 1e3 if math.isfinite(calls) else None,
        how="fresh",
    )


def _at_best(candidate: Configured) -> Configured:
    """Return a candidate at the favourable ends of its p99 and of its accuracy drop."""
    point, accuracy = candidate.point, candidate.tried.accuracy
    assert accuracy is not None
    latency = point.latency_ms.model_copy(update={"p99": _collapsed(point.latency_ms.p99)})
    tried = dataclasses.replace(
        candidate.tried, accuracy=accuracy.model_copy(update={"drop": _collapsed(accuracy.drop)})
    )
    return Configured(tried, point.model_copy(update={"latency_ms": latency}))


def _collapsed(interval: Interval) -> Interval:
    return Interval(value=interval.low, low=interval.low, high=interval.low, n=interval.n)


# --- words and sums --------------------------------------------------------------------------------------------------


def _would_win(view: SessionView, candidate: Configured) -> str:
    objective, price = view.spec.objective, view.spec.hardware.price_per_hour_usd
    value = figure(candidate, objective, price).value
    match objective.minimize:
        case "cost":
            text = f"{fmt.usd(value)} per 1,000 requests"
        case "latency":
            text = f"p50 {fmt.ms(value)}"
        case "size":
            text = fmt.mb(value)
    return f"it would be chosen ({text})"


def _drop(drop: Interval, metric: str) -> str:
    return f"{fmt.drop(drop.value, metric)} {fmt.drop_span(drop, metric)}"


def _budget(limit: float, metric: str) -> str:
    return fmt.drop(limit, metric).removeprefix("+")


def _more_items(drop: Interval, limit: float) -> str:
    items = _samples_to_tell(drop, limit)
    return (
        f"about {fmt.number(items)} items ({drop.n} now)" if math.isfinite(items) else f"many more than {drop.n} items"
    )


def _samples_to_tell(interval: Interval, limit: float) -> float:
    """Return about how many samples tell an estimate from a limit: intervals narrow with the root of their number.

    Infinite when the estimate lies at the limit.
    """
    reach = interval.high - interval.value if interval.value <= limit else interval.value - interval.low
    distance = abs(limit - interval.value)
    return math.ceil(interval.n * (reach / distance) ** 2) if distance > reach * 1e-3 else math.inf


def _like(view: SessionView, kind: EvidenceKind, recipe: Recipe | None = None) -> float | None:
    """Return the median seconds that such evidence cost: of this recipe, where there is some, else of all."""
    evidence = view.of_kind(kind)
    same = [e.seconds for e in evidence if e.recipe == recipe]
    costs = same or [e.seconds for e in evidence]
    return statistics.median(costs) if costs else None


def _sum(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
