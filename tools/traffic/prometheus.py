"""The traffic of a service as Prometheus recorded it: what is asked, piece by piece, and what the answers are worth.

Only reading: GET requests to `/api/v1/query_range` and `/api/v1/query`, with queries that code or the spec wrote.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

from tools.errors import SpecError, TrafficError
from tools.spec import PrometheusSpec
from tools.traffic.observed import LatencyQuantile, Observed, Series, Signal, Window, quantile
from tools.traffic.quality import Cleaned, clean, findings, refusal, resets_note
from tools.traffic.queries import Query, duration, latency_unit_ms, notes_on, queries_of, resets_query
from tools.traffic.text import shortened

if TYPE_CHECKING:
    from prometheus_api_client import PrometheusConnect

    from tools.traffic.transport import Session

MAX_POINTS = 11_000
"""Prometheus gives no more for one series in one answer (web/api/v1/api.go)."""
MOST_POINTS = 1_000_000
"""For one series in all: a week of seconds, or a year of minutes, and some."""
REPLICA_LABELS = frozenset({"prometheus_replica", "receive_replica", "__replica__"})
"""Labels that tell apart two Prometheus that watch the same pods; adding those up would double the traffic."""

Labels = tuple[tuple[str, str], ...]


class _Client(NamedTuple):
    connect: PrometheusConnect
    session: Session
    source: PrometheusSpec


class _Answer(NamedTuple):
    """All pieces of the answers to one query."""

    series: dict[Labels, list[tuple[float, float]]]
    warnings: tuple[str, ...]


def read_traffic(source: PrometheusSpec, *, end_s: float | None = None) -> Observed:
    """Read what Prometheus has of a service over the window, and judge it.

    The request rate has to be there and usable; any other signal that is not is left out, and a finding says why.

    Args:
        source: where, what, and how far back.
        end_s: Unix time of the window's end; now, if None.

    Raises:
        SpecError: the token, a certificate or a label in the spec cannot be used.
        TrafficError: Prometheus cannot be reached or does not answer, or the request rate is empty, NaN, stale, too
            short, or no rate.
    """
    _check_address(source.url)
    window = _window(source, time.time() if end_s is None else end_s)
    notes = list(notes_on(source))
    signals = []
    with _client(source) as client:
        for query in queries_of(source):
            signal, found = _read_signal(client, query, window)
            signals.append(signal)
            notes += found
        notes += [*_resets(client, window), *_plaintext(source)]
    p99, found = _p99(signals, window)
    return Observed(
        url=source.url.rstrip("/"),
        window=window,
        read_at=datetime.now(UTC).isoformat(timespec="seconds"),
        signals=tuple(signals),
        findings=(*notes, *found),
        p99=p99,
    )


def _check_address(url: str) -> None:
    """Refuse an address that is none, or that carries more: what follows a `?` may be a secret, and is not repeated."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0) and not (parts.query or parts.fragment)
    except ValueError:
        usable = False
    if not usable:
        raise SpecError(
            "is not an address of a server.", where="traffic.prometheus.url", fix="Give http://HOST:PORT or with /PATH."
        )


def _window(source: PrometheusSpec, end_s: float) -> Window:
    """Return the window on a grid of whole steps, so that the same moments are read whenever it is asked."""
    step_s = source.step_s
    last = math.floor(end_s / step_s) * step_s
    window = Window(start_s=last - math.floor(source.window_s / step_s) * step_s, end_s=last, step_s=step_s)
    if window.count > MOST_POINTS:
        raise SpecError(
            f"asks for {window.count:,} points.",
            where="traffic.prometheus",
            fix=f"Raise `step_s`, or shorten `window_s`: {MOST_POINTS:,} at most.",
        )
    return window


def _p99(signals: list[Signal], window: Window) -> tuple[LatencyQuantile | None, list[str]]:
    """Return the p99 latency if there is a histogram, and what is to be said of it."""
    buckets = next((signal for signal in signals if signal.name == "latency_buckets" and signal.series), None)
    if buckets is None:
        return None, []
    p99 = quantile(buckets, 0.99, unit_ms=latency_unit_ms(buckets.query), step_s=window.step_s)
    if p99 is None:
        return None, ["`latency_buckets` tells no p99: it counts no request, or has no bucket up to +Inf."]
    if math.isinf(p99.high_ms):
        return p99, [f"`latency_buckets` only tells that the p99 is above {p99.low_ms:g} ms, its highest bound."]
    return p99, []


@contextmanager
def _client(source: PrometheusSpec) -> Iterator[_Client]:
    from prometheus_api_client import PrometheusConnect
    from urllib3.util import Retry

    from tools.traffic.transport import Session

    with Session(source) as session:
        # The session tries again by itself: the client's own retries would swallow what the server said.
        connect = PrometheusConnect(url=source.url.rstrip("/"), session=session, retry=Retry(0, redirect=False))
        yield _Client(connect, session, source)


def _read_signal(client: _Client, query: Query, window: Window) -> tuple[Signal, list[str]]:
    """Return a signal, without series if they cannot be used, and what is to be said of it."""
    answer = _ask(client, query, window)
    judged = _buckets(client, query, answer) if query.signal == "latency_buckets" else _single(client, query, answer)
    notes = [f"Prometheus warns about `{query.signal}`: {shortened(text)}." for text in answer.warnings]
    whole = next(reversed(judged.values()), Cleaned(()))  # of a histogram, the bucket that counts every request
    refused = refusal(query.signal, query.promql, whole, window)
    if refused is None:
        notes += findings(query.signal, whole, window)
    elif query.signal == "request_rate":
        _refuse(client, query, refused.what, refused.fix)
    else:
        notes.append(f"`{query.signal}` is left out: it {refused.what}")
        judged = {}
    series = (Series(points=cleaned.points, le=le) for le, cleaned in judged.items())
    return Signal(name=query.signal, query=query.promql, series=tuple(series), warnings=answer.warnings), notes


def _single(client: _Client, query: Query, answer: _Answer) -> dict[float | None, Cleaned]:
    """Return the only series. Several are not added up: nobody here can know whether they count the same requests."""
    if len(answer.series) > 1:
        differing = _differing(list(answer.series))
        copies = sorted(REPLICA_LABELS & set(differing))
        names = ", ".join(f"`{name}`" for name in differing)
        _refuse(
            client,
            query,
            f"gives {len(answer.series)} series, told apart by {names}; one is needed.",
            f"Several Prometheus may watch the same pods: write sum(max without ({', '.join(copies)}) (...))."
            if copies
            else "Put sum(...) around it if they count different requests, max(...) if they count the same.",
        )
    return dict.fromkeys([None], clean(next(iter(answer.series.values()), [])))


def _buckets(client: _Client, query: Query, answer: _Answer) -> dict[float | None, Cleaned]:
    """Return the series of a histogram by upper bound, ascending."""
    by_bound: dict[float, list[tuple[float, float]]] = {}
    for labels, points in answer.series.items():
        if [name for name, _ in labels] != ["le"]:
            _refuse(
                client,
                query,
                f"gives series with the labels {', '.join(dict(labels)) or 'none'}; `le` alone is needed.",
                "Write sum by (le) (rate(METRIC_bucket{matchers}[{range}])).",
            )
        try:
            bound = float(labels[0][1])
        except ValueError:
            _refuse(client, query, "has a bucket whose bound is no number.", "Is it a histogram?")
        # The same bound may be written in two ways over time: Prometheus 3 writes `1.0` for `1`.
        by_bound.setdefault(bound, []).extend(points)
    return {bound: clean(by_bound[bound]) for bound in sorted(by_bound)}


def _ask(client: _Client, query: Query, window: Window) -> _Answer:
    """Ask for the whole window in pieces that Prometheus is willing to answer."""
    series: dict[Labels, list[tuple[float, float]]] = {}
    warnings: dict[str, None] = {}
    for first in range(0, window.count, MAX_POINTS):
        last = min(first + MAX_POINTS, window.count) - 1
        # The client rounds times to whole seconds, which would shift a finer grid: exact ones go in its `params`.
        start_s, end_s = (window.start_s + place * window.step_s for place in (first, last))
        result = client.connect.custom_query_range(
            query=query.promql,
            start_time=datetime.fromtimestamp(start_s, UTC),
            end_time=datetime.fromtimestamp(end_s, UTC),
            step=f"{window.step_s:.15g}",
            params={"start": f"{start_s:.3f}", "end": f"{end_s:.3f}", "timeout": duration(client.source.timeout_s)},
        )
        for labels, points in _parsed(client, query, result):
            series.setdefault(labels, []).extend(points)
        warnings |= dict.fromkeys(client.session.warnings)
    return _Answer(series, tuple(warnings))


def _parsed(client: _Client, query: Query, result: list[Any]) -> list[tuple[Labels, list[tuple[float, float]]]]:
    """Return the series of one answer."""
    try:
        return [
            (tuple(sorted(one["metric"].items())), [(float(second), float(value)) for second, value in one["values"]])
            for one in result
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        if any(isinstance(one, dict) and "histograms" in one for one in result):
            _refuse(client, query, "gives native histograms, which are not read.", "Ask for classic `_bucket` series.")
        _refuse(client, query, "got an answer that is not as Prometheus's are.", "Is that a Prometheus?")


def _differing(series: list[Labels]) -> list[str]:
    """Return the names of the labels that tell these series apart."""
    names = {name for labels in series for name, _ in labels}
    return sorted(name for name in names if len({dict(labels).get(name) for labels in series}) > 1)


def _resets(client: _Client, window: Window) -> list[str]:
    """Count how often the request counters started again: worth a sentence, not worth failing for."""
    query = resets_query(client.source)
    if query is None:
        return []
    try:
        result = client.connect.custom_query(query, params={"time": f"{window.end_s:.3f}"})
        count = sum(float(one["value"][1]) for one in result)
    except (TrafficError, KeyError, TypeError, ValueError, IndexError):
        return ["How often the request counters started again could not be counted."]
    return [resets_note(count)] if count > 0 else []


def _plaintext(source: PrometheusSpec) -> list[str]:
    """Warn of a token that everybody on the way can read."""
    from tools.traffic.transport import is_loopback

    address = urlsplit(source.url)
    secret = source.token_file is not None or source.token_env is not None
    if not secret or address.scheme == "https" or is_loopback(address.hostname or ""):
        return []
    return ["The token was sent without encryption (http): use https."]


def _refuse(client: _Client, query: Query, what: str, fix: str) -> NoReturn:
    what = f"`{query.signal}` {what} The query: {shortened(query.promql)}."
    raise TrafficError(client.session.redacted(what), where=client.source.url, fix=fix)
