"""What was seen of a service: the series that Prometheus had, what is wrong with them, and where they came from.

An `Observed` is a value: it can be written to a file, named by its content, and replayed without Prometheus.
"""

from __future__ import annotations

import gzip
import itertools
import math
import zlib
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from tools.artifacts import write_file
from tools.contracts import Contract, digest_of
from tools.errors import TrafficError
from tools.traffic.queries import SignalName
from tools.traffic.text import moment
from tools.traffic.trace import LEAST_RPS, MOST_RPS, Trace
from tools.units import DAY_S

Points = tuple[tuple[float, float], ...]
_GZIP = ".gz"


class Series(Contract):
    """One series of an answer."""

    points: Points
    """(Unix second, value), ascending, finite; a moment without a sample is missing."""
    le: float | None = None
    """Upper bound of the bucket that it counts, in the histogram's own unit; None outside a histogram."""


class Signal(Contract):
    """One signal as Prometheus answered it."""

    name: SignalName
    query: str
    """PromQL as it was sent."""
    series: tuple[Series, ...]
    """One; for `latency_buckets` one for each bucket, by bound; none if there is no such data."""
    warnings: tuple[str, ...] = ()
    """Prometheus's own."""

    @property
    def points(self) -> Points:
        """The points of the only series; none if there is not exactly one."""
        return self.series[0].points if len(self.series) == 1 else ()


class Window(Contract):
    """The stretch of time that was asked for."""

    start_s: float
    end_s: float
    step_s: float = Field(gt=0)

    @property
    def count(self) -> int:
        """Points that a series without gaps has: both ends count."""
        return math.floor((self.end_s - self.start_s) / self.step_s + 1e-9) + 1


class LatencyQuantile(Contract):
    """A quantile of latency, as far as the buckets of a histogram tell it."""

    value_ms: float
    """Interpolated within the bucket, as `histogram_quantile` does."""
    low_ms: float
    high_ms: float
    """Bounds of the bucket: the quantile lies between them. The highest bucket has no upper bound."""
    requests: float
    """That it rests on."""


class Observed(Contract):
    """What was seen of a service over a window."""

    schema_version: Literal[1] = 1
    url: str
    """Of Prometheus, without credentials."""
    window: Window
    read_at: str
    """When it was read: UTC, ISO 8601."""
    signals: tuple[Signal, ...]
    findings: tuple[str, ...] = ()
    """What a reader should know of the data, in sentences."""
    p99: LatencyQuantile | None = None
    """Latency over the whole window, if there is a histogram."""

    def signal(self, name: SignalName) -> Signal | None:
        """Return a signal, if it was asked for."""
        return next((signal for signal in self.signals if signal.name == name), None)

    @property
    def digest(self) -> str:
        """Name of this content; when it was read does not count."""
        return digest_of(self.model_dump(mode="json", exclude={"read_at"}))


def to_trace(observed: Observed) -> Trace:
    """Return the request rate as a trace, in seconds since the midnight (UTC) before it begins.

    Prometheus's rate at a moment tells of the time before it, a trace's of the time after it: the samples move back by
    a step. A rate below zero or beyond `trace.MOST_RPS` is no rate: it is left out, like a gap, through which the rate
    before it lasts.

    Raises:
        TrafficError: there is no request rate to make one of, or no traffic.
    """
    signal = observed.signal("request_rate")
    points = [] if signal is None else [point for point in signal.points if 0 <= point[1] <= MOST_RPS]
    if len(points) < 2 or max(rate for _, rate in points) < LEAST_RPS:
        raise TrafficError(
            "saw no request at all." if points else "has no request rate.",
            where=observed.url,
            fix="Check `labels` and the query `request_rate`, or choose a window in which there was traffic.",
        )
    begin_s = points[0][0] - observed.window.step_s
    origin_s = math.floor(begin_s / DAY_S) * DAY_S
    return Trace(
        source=f"Prometheus {observed.url}, {moment(observed.window.start_s)} to {moment(observed.window.end_s)}",
        seconds=tuple(second - observed.window.step_s - origin_s for second, _ in points),
        rps=tuple(rate for _, rate in points),
        notes=observed.findings,
        origin_s=origin_s,
    )


def write_observed(observed: Observed, path: Path) -> None:
    """Write it as JSON, compressed if the name ends in `.gz`.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    data = observed.model_dump_json().encode()
    write_file(path, gzip.compress(data, mtime=0) if path.suffix == _GZIP else data)


def read_observed(path: Path) -> Observed:
    """Read what `write_observed` wrote.

    Raises:
        TrafficError: the file is missing, damaged, or not one of these.
    """
    fix = "Give a file that was written from Prometheus by infertune."
    try:
        data = path.read_bytes()
        return Observed.model_validate_json(gzip.decompress(data) if path.suffix == _GZIP else data)
    except FileNotFoundError:
        raise TrafficError("no such file.", where=str(path), fix=fix) from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the whole"
        raise TrafficError(f"holds no recorded traffic ({field}: {first['msg']}).", where=str(path), fix=fix) from None
    except (OSError, EOFError, zlib.error) as error:
        raise TrafficError(f"cannot be read ({error}).", where=str(path), fix=fix) from None


def quantile(buckets: Signal, q: float, *, unit_ms: float, step_s: float) -> LatencyQuantile | None:
    """Return a latency quantile over all steps of a histogram's signal; None if it holds no request.

    Rates are added up over the steps that every bucket has, and the quantile is interpolated linearly within its
    bucket, from zero in the lowest, as PromQL's `histogram_quantile` does (promql/quantile.go); where it falls beyond
    the highest bound, that bound is returned, and `high_ms` is infinite.

    Args:
        buckets: series by `le`, cumulative, as rates in requests per second.
        q: between 0 and 1.
        unit_ms: milliseconds of one unit of `le`.
        step_s: time that one point stands for.
    """
    series = sorted((s for s in buckets.series if s.le is not None), key=lambda s: s.le or 0.0)
    if len(series) < 2 or not math.isinf(series[-1].le or 0.0):
        return None
    shared = set.intersection(*({second for second, _ in s.points} for s in series))
    totals = [math.fsum(v for second, v in s.points if second in shared) * step_s for s in series]
    # Scrapes that fall between two increments make a bucket a hair smaller than the one below it.
    totals = list(itertools.accumulate(totals, max))
    bounds = [(s.le or 0.0) * unit_ms for s in series]
    requests = totals[-1]
    if requests <= 0:
        return None
    rank = q * requests
    place = next(i for i, total in enumerate(totals) if total >= rank)
    low = bounds[place - 1] if place else min(0.0, bounds[0])
    if math.isinf(bounds[place]):
        return LatencyQuantile(value_ms=low, low_ms=low, high_ms=math.inf, requests=requests)
    below = totals[place - 1] if place else 0.0
    share = (rank - below) / (totals[place] - below)
    value = low + (bounds[place] - low) * share
    return LatencyQuantile(value_ms=value, low_ms=low, high_ms=bounds[place], requests=requests)
