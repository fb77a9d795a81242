"""Whether a series can be relied on: what makes it useless, and what a reader has to know of it.

Nothing here reads a missing sample as zero. A gap is a gap: the scrape, the pod or Prometheus was down.

Counters that start again (a pod that restarts) need no repair: PromQL's `rate()` takes a fall of a counter for a start
from zero, and so shows no spike, and a dip only for what came between the last scrape and the restart. It must be taken
of each counter before they are added up: the rate of a sum sees each pod that ends as a restart of the sum, a spike.
"""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Iterable
from typing import NamedTuple

from tools.traffic.observed import Points, Window
from tools.traffic.queries import SignalName
from tools.traffic.text import moment, span

MIN_POINTS = 10
"""Fewer are an anecdote."""
MIN_SHARE = 0.5
"""Of the window that must be there: of less, nobody knows whether the missing part held the peak."""
STALE_S = 900.0
STALE_STEPS = 10
"""A last sample older than both of these, seen from the window's end: the series has ended. Prometheus itself looks
back five minutes for a sample."""
GAP_STEPS = 1.5
"""On Prometheus's grid of steps, the next point is one step away, or there is none."""
SPIKE = 20.0
"""A single point this many times above both neighbours is hardly traffic."""
_NAMED = 3
"""Gaps that a sentence lists one by one."""
_RATES = re.compile(r"rate|increase|delta|deriv")


class Cleaned(NamedTuple):
    """The usable points of a series, and what was not usable."""

    points: Points
    """Ascending, each second once, finite."""
    nans: int = 0
    infinities: int = 0
    repeated: int = 0
    """Points whose second was there already, with the same value."""
    contradicting: int = 0
    """With another value: the larger is kept, for too many replicas hurt less than too few."""


class Refusal(NamedTuple):
    """Why a series cannot be used."""

    what: str
    fix: str


def clean(values: Iterable[tuple[float, float]]) -> Cleaned:
    """Sort the points, and set aside what is no number or was there already."""
    kept: dict[float, float] = {}
    nans = infinities = repeated = contradicting = 0
    for second, value in values:
        if math.isnan(value):
            nans += 1
        elif math.isinf(value):
            infinities += 1
        elif second not in kept:
            kept[second] = value
        else:
            repeated += value == kept[second]
            contradicting += value != kept[second]
            kept[second] = max(value, kept[second])
    return Cleaned(tuple(sorted(kept.items())), nans, infinities, repeated, contradicting)


def refusal(signal: SignalName, query: str, cleaned: Cleaned, window: Window) -> Refusal | None:
    """Return why the series cannot be used: empty, no numbers, ended, too little of it, or a bare counter."""
    points = cleaned.points
    if not points and cleaned.nans + cleaned.infinities:
        return Refusal(
            f"holds {cleaned.nans} NaN and {cleaned.infinities} infinite values, and no number.",
            "A division by zero in the query, or an exporter that reports NaN before the first request, does that.",
        )
    if not points:
        return Refusal(
            "has no data.",
            "Does the metric exist, and do `labels` match it? Try the query in Prometheus's own page.",
        )
    silent_s = window.end_s - points[-1][0]
    if silent_s > max(STALE_S, STALE_STEPS * window.step_s):
        return Refusal(
            f"ended at {moment(points[-1][0])}, {span(silent_s)} before the window's end.",
            "Is the service still scraped? Choose an earlier end, or mend the scraping.",
        )
    share = _share(points, window)
    if len(points) < MIN_POINTS or share < MIN_SHARE:
        there_s = window.end_s - points[0][0]
        return Refusal(
            f"has {len(points)} points for the {span(window.end_s - window.start_s)} asked for, {share:.0%} of them.",
            f"It begins at {moment(points[0][0])}: set `window_s` to {there_s:.0f} at most, or `step_s` to less, "
            "or wait for more data.",
        )
    if signal == "request_rate" and _is_counter(points, query):
        return Refusal("looks like a bare counter: it only rises.", "Write sum(rate(METRIC{matchers}[{range}])).")
    return None


def findings(signal: SignalName, cleaned: Cleaned, window: Window) -> tuple[str, ...]:
    """Return what a reader has to know of a usable series, in sentences."""
    found = [*_unusable(cleaned), *_extent(cleaned.points, window)]
    gaps = _gaps(cleaned.points, window)
    if gaps is not None:
        found.append(gaps)
    found += _values(signal, cleaned.points)
    return tuple(f"`{signal}` {sentence}" for sentence in found)


def resets_note(count: float) -> str:
    """Say that counters started again in the window."""
    return (
        f"The request counters started again {count:.0f} time{'s' * (count != 1)} (pods restarted). rate() allows for "
        "it: there is no spike, and only the requests between the last scrape and a restart are missing."
    )


def _unusable(cleaned: Cleaned) -> list[str]:
    found = []
    if cleaned.nans or cleaned.infinities:
        found.append(f"has {cleaned.nans} NaN and {cleaned.infinities} infinite values: taken as missing, not as zero.")
    if cleaned.repeated:
        found.append(f"has {cleaned.repeated} points twice: each counts once.")
    if cleaned.contradicting:
        found.append(f"has two values for {cleaned.contradicting} moments: the larger one counts.")
    return found


def _extent(points: Points, window: Window) -> list[str]:
    """Compare what there is with what was asked for."""
    found = []
    usual_s = _usual_step_s(points, window)
    if abs(usual_s - window.step_s) > 0.01 * window.step_s:
        found.append(f"has a point every {span(usual_s)}, not every {span(window.step_s)} as asked.")
    late_s = points[0][0] - window.start_s
    if late_s > GAP_STEPS * usual_s:
        found.append(f"begins at {moment(points[0][0])}: the first {span(late_s)} of the window are not there.")
    early_s = window.end_s - points[-1][0]
    if early_s > GAP_STEPS * usual_s:
        found.append(f"ends {span(early_s)} before the window does.")
    return found


def _gaps(points: Points, window: Window) -> str | None:
    usual_s = _usual_step_s(points, window)
    gaps = [(a, b) for (a, _), (b, _) in itertools.pairwise(points) if b - a > GAP_STEPS * usual_s]
    if not gaps:
        return None
    named = ", ".join(f"{moment(a)} to {moment(b)} ({span(b - a)})" for a, b in gaps[:_NAMED])
    more = f" and {len(gaps) - _NAMED} more, {span(sum(b - a for a, b in gaps))} in all" if len(gaps) > _NAMED else ""
    return (
        f"has no samples from {named}{more}: the scrape, the pods or Prometheus were down. "
        "The value before a gap was taken to last through it."
    )


def _values(signal: SignalName, points: Points) -> list[str]:
    """Judge the values themselves."""
    values = [value for _, value in points]
    found = []
    negative = sum(value < 0 for value in values)
    if negative:
        found.append(f"is negative {negative} times, which it cannot be: left out. Is it rate(), and of a counter?")
    if signal == "request_rate" and not any(values):
        found.append("is zero throughout: nobody called the service, or the labels match another one.")
    elif signal in ("request_rate", "queue_length") and values[0] and len(set(values)) == 1:
        found.append(f"is {values[0]:g} throughout: real traffic is never that steady. Is the exporter stuck?")
    if signal == "request_rate":
        found += _spikes(points)
    return found


def _spikes(points: Points) -> list[str]:
    triples = zip(points, points[1:], points[2:], strict=False)
    spikes = [b for a, b, c in triples if b[1] > SPIKE * max(a[1], c[1]) and min(a[1], c[1]) > 0]
    if not spikes:
        return []
    more = f" and {len(spikes) - 1} more moments" if len(spikes) > 1 else ""
    return [
        (
            f"stands more than {SPIKE:g} times above its neighbours at {moment(spikes[0][0])}{more}: a rush of one "
            "step, or an artefact of counters that started again."
        )
    ]


def _usual_step_s(points: Points, window: Window) -> float:
    """Return the median distance of two points; what was asked for if there are too few to tell."""
    if len(points) < MIN_POINTS:
        return window.step_s
    return statistics.median(b - a for (a, _), (b, _) in itertools.pairwise(points))


def _share(points: Points, window: Window) -> float:
    """Return the share of the window that the points stand for."""
    return min(1.0, len(points) * _usual_step_s(points, window) / (window.count * window.step_s))


def _is_counter(points: Points, query: str) -> bool:
    """Tell whether a query that takes no rate gave a series that hardly ever falls, as traffic does all the time."""
    if _RATES.search(query):
        return False
    steps = [b - a for (_, a), (_, b) in itertools.pairwise(points)]
    rises, falls = sum(step > 0 for step in steps), sum(step < 0 for step in steps)
    return rises > 0.5 * len(steps) and falls <= 0.02 * len(steps)
