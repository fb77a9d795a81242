"""What a week of traffic looks like: its day, its week, its growth, its busiest minutes; and its rate in each second.

Times of day and weekdays are UTC. Nothing is guessed: what the trace is too short to show is None, and a sentence
says why.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.contracts import Contract, Interval
from tools.report.format import significant
from tools.traffic.text import span
from tools.traffic.trace import Trace
from tools.units import DAY_S

HOUR_S = 3600.0
BUSIEST = 5
"""Busiest minutes that a shape lists."""
BUSIEST_APART_S = 600.0
"""Minutes closer together than this are one rush, listed once."""
WEEK_DAYS = 7
"""Fewer whole days cannot tell growth, or a quiet Sunday, from chance."""
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_UNIX = 1e8
"""Seconds since a midnight never get there; a trace whose times do is in Unix time."""
_EPOCH_WEEKDAY = 3
"""1970-01-01 was a Thursday."""
_COVERED = 0.9
"""Share of an hour that the trace must cover for its mean to stand for it."""

Rates = npt.NDArray[np.float64]


class Busy(Contract):
    """One of the busiest minutes."""

    second: float
    """When it begins, in the trace's own seconds."""
    when: str
    """For people: `Tuesday 2024-01-02 20:31 UTC`, or `day 2, 20:31` where the date is not known."""
    rps: float
    """Mean rate of the minute."""


class Shape(Contract):
    """What a trace looks like over the day and the week. Rates are means over the time that they name."""

    length_s: float
    mean_rps: float
    hourly_rps: tuple[float | None, ...]
    """By hour of the day, 24 values: median over the days; None for an hour that no day covers."""
    weekday_rps: tuple[float | None, ...] | None
    """Monday first, from seven days on; None if shorter, or without a date."""
    weekly_rps: tuple[float | None, ...] | None
    """By hour of the week, 168 values from Monday 00:00 on: median over the weeks. From eight days on, with a date."""
    growth_per_week: Interval | None
    """As a share of the median day: 0.05 is 5 % more each week. `n` counts days."""
    growth_unknown: str | None
    """Why there is no `growth_per_week`."""
    busiest: tuple[Busy, ...]
    peak_over_mean: float
    """Busiest minute over the mean."""
    p99_over_p50: float | None
    """Of the rate, over time; None if the service is idle half of it."""
    daily_share: float | None
    """Share of the variance of the hourly means that the time of day explains; None below two days, or if flat."""
    sentences: tuple[str, ...]
    """The same for a person."""


def per_second(trace: Trace) -> Rates:
    """Return the rate in each second of the trace, the first one first, float64 of shape `(ceil(length_s),)`.

    A sample's rate holds until the next sample, through gaps too, and the last one for a median step, as `Trace`
    says. A second in which the rate changes has the mean of both, weighted by time; of the last second, what lies
    beyond the trace counts as idle. The sum is therefore the number of requests in the trace.
    """
    durations = np.asarray(trace.durations_s)
    if np.array_equal(durations, np.floor(durations)):
        exact: Rates = np.repeat(np.asarray(trace.rps, dtype=np.float64), durations.astype(np.int64))
        return exact  # of whole seconds no sums are needed, so nothing is rounded
    edges = trace.seconds[0] + np.arange(math.ceil(trace.length_s - 1e-9) + 1, dtype=np.float64)
    return np.maximum(np.diff(_requests_until(trace, edges)), 0.0)


def describe(trace: Trace) -> Shape:
    """Describe a trace.

    Growth is the median of the slopes between all pairs of whole days, counted from the trace's begin (Theil and Sen;
    `scipy.stats.theilslopes`): a single odd day does not move it.
    """
    hours, hourly = _means(trace, HOUR_S)
    first_s = _first_unix_s(trace)
    days = trace.length_s / DAY_S
    of_day = _medians(hourly, (hours % 24).astype(int), 24)
    weekly = None
    if first_s is not None and days >= WEEK_DAYS:
        since_epoch = hours + round((first_s - trace.seconds[0]) / HOUR_S)
        weekly = _medians(hourly, ((since_epoch + 24 * _EPOCH_WEEKDAY) % 168).astype(int), 168)
    growth = _growth(trace)
    busiest = _busiest(trace, first_s)
    middle_rps = trace.quantile_rps(0.5)
    shape = Shape(
        length_s=trace.length_s,
        mean_rps=trace.mean_rps,
        hourly_rps=of_day,
        weekday_rps=None if weekly is None else tuple(_mean(weekly[24 * d : 24 * d + 24]) for d in range(WEEK_DAYS)),
        weekly_rps=weekly if days > WEEK_DAYS else None,
        growth_per_week=growth if isinstance(growth, Interval) else None,
        growth_unknown=None if isinstance(growth, Interval) else growth,
        busiest=busiest,
        peak_over_mean=busiest[0].rps / trace.mean_rps,
        p99_over_p50=trace.quantile_rps(0.99) / middle_rps if middle_rps > 0 else None,
        daily_share=_daily_share(hourly, hours),
        sentences=(),
    )
    return shape.model_copy(update={"sentences": _sentences(shape)})


def _requests_until(trace: Trace, moments: npt.NDArray[Any]) -> Rates:
    """Return how many requests have come by these moments, in the trace's own seconds."""
    ends = np.append(np.asarray(trace.seconds), trace.seconds[-1] + trace.durations_s[-1])
    requests = np.append(0.0, np.cumsum(np.asarray(trace.rps) * np.diff(ends)))
    return np.asarray(np.interp(moments, ends, requests), dtype=np.float64)


def _means(trace: Trace, width_s: float, covered: float = _COVERED) -> tuple[Rates, Rates]:
    """Return number and mean rate of each stretch of this width, counted from second 0, that is covered enough."""
    begin, end = trace.seconds[0], trace.seconds[0] + trace.length_s
    numbers = np.arange(math.floor(begin / width_s), math.ceil(end / width_s), dtype=np.float64)
    lows, highs = np.maximum(numbers * width_s, begin), np.minimum((numbers + 1) * width_s, end)
    enough = highs - lows >= covered * width_s
    lows, highs, numbers = lows[enough], highs[enough], numbers[enough]
    return numbers, (_requests_until(trace, highs) - _requests_until(trace, lows)) / (highs - lows)


def _medians(values: Rates, places: npt.NDArray[np.int_], count: int) -> tuple[float | None, ...]:
    """Return the median of the values at each of `count` places; None where there is none."""
    chosen = (values[places == place] for place in range(count))
    return tuple(float(np.median(group)) if len(group) else None for group in chosen)


def _mean(values: tuple[float | None, ...]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None


def _growth(trace: Trace) -> Interval | str:
    """Return the growth per week as a share of the median day, or why it cannot be told."""
    from scipy.stats import theilslopes

    count = math.floor(trace.length_s / DAY_S + 1e-9)
    if count < WEEK_DAYS:
        return f"Growth cannot be told from {span(trace.length_s)}: seven whole days are needed."
    edges = trace.seconds[0] + DAY_S * np.arange(count + 1, dtype=np.float64)
    daily = np.diff(_requests_until(trace, edges)) / DAY_S
    middle = float(np.median(daily))
    if middle <= 0:
        return "Growth cannot be told: most days are without a request."
    slope, _, low, high = (float(value) for value in theilslopes(daily, alpha=0.95))
    per_week = WEEK_DAYS / middle
    return Interval(value=slope * per_week, low=low * per_week, high=high * per_week, n=count)


def _daily_share(hourly: Rates, hours: Rates) -> float | None:
    """Return one minus the share of the variance that is left within the same hour of different days."""
    whole = float(np.sum((hourly - hourly.mean()) ** 2)) if len(hourly) >= 48 else 0.0
    if whole <= 1e-12 * len(hourly) * float(np.mean(hourly**2) if len(hourly) else 0.0):
        return None
    groups = (hourly[hours % 24 == hour] for hour in range(24))
    within = math.fsum(float(np.sum((group - group.mean()) ** 2)) for group in groups if len(group))
    return max(0.0, 1.0 - within / whole)


def _busiest(trace: Trace, first_s: float | None) -> tuple[Busy, ...]:
    minutes, rates = _means(trace, 60.0, covered=0.0)
    chosen: list[int] = []
    for place in np.argsort(-rates, kind="stable"):
        if all(abs(minutes[place] - minutes[other]) * 60 >= BUSIEST_APART_S for other in chosen):
            chosen.append(int(place))
        if len(chosen) == BUSIEST:
            break
    offset_s = None if first_s is None else first_s - trace.seconds[0]
    return tuple(
        Busy(second=float(minutes[i] * 60), when=_when(float(minutes[i] * 60), offset_s), rps=float(rates[i]))
        for i in chosen
    )


def _first_unix_s(trace: Trace) -> float | None:
    """Return the Unix time of the first sample, if it is known."""
    if trace.origin_s is not None:
        return trace.origin_s + trace.seconds[0]
    return trace.seconds[0] if trace.seconds[0] >= _UNIX else None


def _when(second: float, offset_s: float | None) -> str:
    if offset_s is None:
        return f"day {math.floor(second / DAY_S) + 1}, {_clock(second % DAY_S)}"
    moment = datetime.fromtimestamp(second + offset_s, UTC)
    return f"{WEEKDAYS[moment.weekday()]} {moment:%Y-%m-%d %H:%M} UTC"


def _clock(second_of_day: float) -> str:
    return f"{int(second_of_day // 3600):02d}:{int(second_of_day % 3600 // 60):02d}"


def _sentences(shape: Shape) -> tuple[str, ...]:
    first = shape.busiest[0]
    said = [
        (
            f"{span(shape.length_s)} with {significant(shape.mean_rps, 4)} requests per second on average, and "
            f"{significant(first.rps, 4)} in the busiest minute ({first.when}): {shape.peak_over_mean:.1f} times "
            "the mean."
        )
    ]
    if shape.daily_share is not None:
        known = [(rate, hour) for hour, rate in enumerate(shape.hourly_rps) if rate is not None]
        most, least = max(known), min(known)
        said.append(
            f"The time of day explains {shape.daily_share:.0%} of how the hours differ: most comes from "
            f"{most[1]:02d}:00 UTC on ({significant(most[0], 4)} per second), least from {least[1]:02d}:00 on "
            f"({significant(least[0], 4)})."
        )
    if shape.weekday_rps is not None and None not in shape.weekday_rps:
        rates = [(rate, name) for rate, name in zip(shape.weekday_rps, WEEKDAYS, strict=True) if rate is not None]
        said.append(
            f"The busiest day is {max(rates)[1]} ({significant(max(rates)[0], 4)} per second), "
            f"the quietest {min(rates)[1]} ({significant(min(rates)[0], 4)})."
        )
    said.append(shape.growth_unknown or _growth_sentence(shape.growth_per_week))
    return tuple(said)


def _growth_sentence(growth: Interval | None) -> str:
    if growth is None:
        return ""
    if growth.low <= 0 <= growth.high:
        return f"No growth that chance would not explain ({growth.low:+.0%} to {growth.high:+.0%} a week)."
    short = " Two weeks would tell it from the difference between weekdays." if growth.n < 2 * WEEK_DAYS else ""
    verb = "grows" if growth.value > 0 else "shrinks"
    return f"It {verb} by {abs(growth.value):.0%} a week ({growth.low:+.0%} to {growth.high:+.0%}).{short}"
