"""How many requests come, over a day: traces from files, a constant rate, and the bundled day.

A trace is a step function: a sample's rate holds until the next sample. Statistics are weighted by time, so that
they do not depend on how regularly somebody sampled. Two traces can be compared, replayed and stored, for a trace
is a frozen value.
"""

from __future__ import annotations

import csv
import itertools
import math
import random
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from pydantic import model_validator

from tools.contracts import Contract
from tools.errors import SpecError
from tools.result import TrafficSummary

COLUMNS = ("second", "rps")
GAP_FACTOR = 3.0
"""A step longer than this many median steps is a gap: samples were probably lost, not merely late."""
LEAST_RPS, MOST_RPS = 1e-9, 1e12
"""The rates between which there is traffic: one request in 30 years, and more than the largest services see.

Beyond them sums of rates underflow and overflow.
"""
SERIES_POINTS = 288
"""Points of a summary's series: one for every five minutes of a day."""
BUNDLED_DAY = Path(__file__).parents[1] / "workloads" / "bundled" / "day.csv"
"""One day of a consumer service, one sample a minute; written from `bundled_day()`."""
_NAMED_GAPS = 3
"""Gaps that a note lists one by one."""


class Trace(Contract):
    """Requests per second over time.

    Attributes:
        source: where it comes from, for people: a file, or "constant 400 rps".
        seconds: when each sample was taken, strictly increasing; by convention seconds since midnight.
        rps: requests per second from that moment on, as many as `seconds`.
        notes: what a reader of the statistics should know, in sentences: gaps.
        origin_s: Unix time of second 0, a midnight in UTC; None if nobody knows the day.
    """

    source: str
    seconds: tuple[float, ...]
    rps: tuple[float, ...]
    notes: tuple[str, ...] = ()
    origin_s: float | None = None

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if len(self.seconds) != len(self.rps):
            msg = f"{len(self.seconds)} times and {len(self.rps)} rates do not belong together"
            raise ValueError(msg)
        bad = _first_bad_sample(self.seconds, self.rps)
        if bad is not None:
            msg = f"sample {bad[0]}: {bad[1]}"
            raise ValueError(msg)
        problem = _bad_whole(self.rps)
        if problem is not None:
            raise ValueError(problem)
        return self

    @property
    def durations_s(self) -> tuple[float, ...]:
        """How long each sample holds: until the next one; the last, for which nobody knows, for a median step."""
        steps = [b - a for a, b in itertools.pairwise(self.seconds)]
        return (*steps, statistics.median(steps))

    @property
    def length_s(self) -> float:
        """Time that the trace covers, in seconds."""
        return math.fsum(self.durations_s)

    @property
    def mean_rps(self) -> float:
        """Mean rate, weighted by time."""
        return math.fsum(r * s for r, s in zip(self.rps, self.durations_s, strict=True)) / self.length_s

    @property
    def peak_rps(self) -> float:
        """Highest rate of any sample."""
        return max(self.rps)

    def quantile_rps(self, q: float) -> float:
        """Return the lowest sampled rate that is not exceeded for a share `q` of the time.

        Args:
            q: between 0 and 1; 0.95 gives the rate that the traffic stays at or below 95 % of the time.
        """
        if not 0 <= q <= 1:
            msg = f"a quantile is between 0 and 1, not {q!r}"
            raise ValueError(msg)
        by_rate = sorted(zip(self.rps, self.durations_s, strict=True))
        # Relative slack: sums of durations carry rounding errors, and 95 % of a day means 95 % of a day.
        wanted_s = q * self.length_s * (1 - 1e-12)
        passed_s = 0.0
        for rate, duration_s in by_rate:
            passed_s += duration_s
            if passed_s >= wanted_s:
                return rate
        return by_rate[-1][0]


def load_trace(path: Path) -> Trace:
    """Read a trace from a CSV file with a header and the columns `second` and `rps`; other columns are ignored.

    A gap is named in the trace's notes. It is not read as zero: the rate before it is taken to last, for a service
    without samples is far more often unobserved than unused.

    Raises:
        SpecError: the file is missing or unreadable, lacks a column, or has fewer than two rows or no traffic; or a
            value is missing, not a number, not finite or negative; or time does not increase from row to row. The
            message names the line.
    """
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first column's name.
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines, seconds, rps = _read_rows(csv.reader(stream), path)
    except FileNotFoundError:
        raise SpecError(
            "no such file.", where=str(path), fix="Give a CSV file with the columns `second` and `rps`."
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"cannot be read as CSV ({error}).", where=str(path)) from None
    bad = _first_bad_sample(seconds, rps)
    if bad is not None:
        raise SpecError(f"{bad[1]}.", where=f"{path}, line {lines[bad[0]]}", fix=_FIX_ROWS)
    problem = _bad_whole(rps)
    if problem is not None:
        raise SpecError(f"{problem}.", where=str(path), fix="A day with one row a minute is a good trace.")
    return Trace(source=str(path), seconds=tuple(seconds), rps=tuple(rps), notes=_gap_notes(seconds))


def constant(rate_rps: float) -> Trace:
    """Return a day at one rate, a sample an hour.

    Raises:
        SpecError: there is no traffic at this rate, or it is not finite, or is one that no service sees.
    """
    if not LEAST_RPS <= rate_rps <= MOST_RPS:
        raise SpecError(
            f"{rate_rps!r} is no rate.",
            where="traffic.rate_rps",
            fix=f"Give requests per second, {LEAST_RPS:g} to {MOST_RPS:g}.",
        )
    hours = tuple(h * 3600.0 for h in range(24))
    return Trace(source=f"constant {_plain(rate_rps)} rps", seconds=hours, rps=(rate_rps,) * len(hours))


def summarize(trace: Trace) -> TrafficSummary:
    """Return the numbers that scaling rests on, and a series that is short enough to plot.

    The series keeps peaks: each of its buckets, equally long, is represented by its highest sample.
    """
    return TrafficSummary(
        source=trace.source,
        p50_rps=trace.quantile_rps(0.50),
        p95_rps=trace.quantile_rps(0.95),
        peak_rps=trace.peak_rps,
        mean_rps=trace.mean_rps,
        seconds=trace.length_s,
        series=_downsampled(trace),
    )


_BUSY = 2.5
"""Scale of the bundled day: an optimized replica on two cores needs two or three of its kind, a plain one a hundred."""


def bundled_day(seed: int = 7) -> Trace:
    """Make the day that `day.csv` ships: a consumer service with a mean near 1,000 and a peak near 6,000 rps.

    A quiet night, a working day with a lunch shoulder, an evening peak at three times the mean for less than 5 % of
    the day, and four spikes of a few minutes (a push notification, a crawler) of which the highest falls into the
    evening. The noise is autocorrelated, as that of real traffic is. The same seed gives the same day on every
    Python: only `random.Random.random`, whose sequence is guaranteed, is drawn from.
    """
    draw = random.Random(seed)  # noqa: S311 - a shape, not a secret
    noise = 0.0
    rates = []
    for minute in range(24 * 60):
        noise = 0.7 * noise + 0.06 * (2 * draw.random() - 1)
        rates.append(round(_BUSY * _diurnal_rps(minute / 60) * (1 + noise), 1))
    return Trace(source="bundled day", seconds=tuple(60.0 * m for m in range(24 * 60)), rps=tuple(rates))


def to_csv(trace: Trace) -> str:
    """Return the trace as the CSV text that `load_trace` reads: `day.csv` is `to_csv(bundled_day())`."""
    rows = (f"{_plain(second)},{_plain(rate)}" for second, rate in zip(trace.seconds, trace.rps, strict=True))
    return "\n".join([",".join(COLUMNS), *rows, ""])


_FIX_ROWS = "Each row needs a time in seconds, later than the row before, and a rate that is not negative."


def _read_rows(reader: Iterator[list[str]], path: Path) -> tuple[list[int], list[float], list[float]]:
    """Return line numbers, times and rates; the numbers are not judged yet."""
    header = [name.strip() for name in next(reader, [])]
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise SpecError(
            f"has no column `{missing[0]}` (found: {', '.join(header) or 'an empty line'}).",
            where=f"{path}, line 1",
            fix="The first line must be a header that names the columns `second` and `rps`.",
        )
    places = [header.index(name) for name in COLUMNS]
    lines: list[int] = []
    columns: tuple[list[float], list[float]] = ([], [])
    for number, row in enumerate(reader, start=2):
        if not any(cell.strip() for cell in row):
            continue
        lines.append(number)
        for name, place, column in zip(COLUMNS, places, columns, strict=True):
            text = row[place].strip() if place < len(row) else ""
            try:
                column.append(float(text))
            except ValueError:
                raise SpecError(
                    f"`{name}` is {text!r}, not a number." if text else f"`{name}` is empty.",
                    where=f"{path}, line {number}",
                    fix="Leave a row out where nothing was measured: a gap is not zero.",
                ) from None
    return lines, *columns


def _first_bad_sample(seconds: Sequence[float], rps: Sequence[float]) -> tuple[int, str] | None:
    """Return the position of the first sample that cannot be used, and what is wrong with it."""
    before = -math.inf
    for i, (second, rate) in enumerate(zip(seconds, rps, strict=True)):
        for name, value in (("second", second), ("rps", rate)):
            if not math.isfinite(value):
                return i, f"`{name}` is {value}, not a finite number"
            if value < 0:
                return i, f"`{name}` is negative ({_plain(value)})"
        if rate > MOST_RPS:
            return i, f"`rps` is {rate:g}, and no service sees more than {MOST_RPS:g}"
        if second == before:
            return i, f"second {_plain(second)} occurs twice"
        if second < before:
            return i, f"second {_plain(second)} comes after {_plain(before)}: time is not sorted"
        before = second
    return None


def _bad_whole(rps: Sequence[float]) -> str | None:
    """Say why these samples are no trace as a whole, if they are not."""
    if len(rps) < 2:
        return f"{len(rps)} row{'s' * (len(rps) != 1)} of data are no trace: at least 2 are needed"
    if max(rps) < LEAST_RPS:
        return f"there is no traffic at all: no rate is as much as {LEAST_RPS:g} per second"
    return None


def _gap_notes(seconds: Sequence[float]) -> tuple[str, ...]:
    steps = [(b - a, a, b) for a, b in itertools.pairwise(seconds)]
    usual_s = statistics.median(step for step, _, _ in steps)
    gaps = [(a, b) for step, a, b in steps if step > GAP_FACTOR * usual_s]
    if not gaps:
        return ()
    named = ", ".join(f"{_plain(a)} to {_plain(b)} s" for a, b in gaps[:_NAMED_GAPS])
    more = f" and {len(gaps) - _NAMED_GAPS} more" if len(gaps) > _NAMED_GAPS else ""
    return (
        (
            f"The trace has no samples from {named}{more} (usually there is one every {_plain(usual_s)} s): "
            "the rate before a gap was taken to last through it."
        ),
    )


def _downsampled(trace: Trace) -> tuple[tuple[float, float], ...]:
    points = list(zip(trace.seconds, trace.rps, strict=True))
    if len(points) <= SERIES_POINTS:
        return tuple(points)
    start, length_s = trace.seconds[0], trace.length_s
    buckets = itertools.groupby(points, key=lambda p: int((p[0] - start) / length_s * SERIES_POINTS))
    return tuple(max(bucket, key=lambda p: p[1]) for _, bucket in buckets)


def _plain(number: float) -> str:
    """Write a number in full (a Unix time has ten digits), without a needless `.0`."""
    return f"{number:.15g}"


def _diurnal_rps(hour: float) -> float:
    """Shape of the bundled day: expected rate at this hour, spikes included, noise and `_BUSY` not."""

    def bump(at: float, width: float, height: float) -> float:
        return height * math.exp(-(((hour - at) / width) ** 2) / 2)

    def rise(at: float, width: float) -> float:
        return 1 / (1 + math.exp(-(hour - at) / width))

    night, day = 122.0, 340.0 * rise(7.2, 0.55) * (1 - rise(22.6, 0.4))
    spikes = bump(9.75, 0.04, 420) + bump(15.2, 0.03, 520) + bump(17.9, 0.035, 460) + bump(20.4, 0.03, 1050)
    return night + day + bump(12.5, 0.6, 190) + bump(19.5, 0.9, 150) + bump(20.35, 0.36, 740) + spikes
