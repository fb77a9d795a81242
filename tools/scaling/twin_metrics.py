"""What each metric of an HPA proposes, from what the controller can see of the pods in that sync."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from tools.scaling.hpa import (
    Autoscaler,
    Fleet,
    Metric,
    alike,
    propose_average_value,
    propose_utilization,
    propose_value,
)
from tools.scaling.recommended_hpa import QUEUE_METRIC
from tools.scaling.settings import CPU_METRIC, LATENCY_METRIC, RATE_METRIC
from tools.scaling.twin_pods import Pods
from tools.scaling.twin_view import CPU_WINDOW_S, MISSING, RATE_WINDOW_S, Table, View

FULLY_BUSY_MILLI = 1000
"""CPU use of a replica that serves all the time, in thousandths of its request: it uses all the cores it requests."""

Propose: TypeAlias = Callable[[int, int], int | None]
"""(number of the sync, `spec.replicas`) -> proposed replicas, None where the controller gets an error."""


class UnplayableError(ValueError):
    """The twin cannot play an autoscaler that follows this metric."""

    def __init__(self, metric: Metric) -> None:
        """Name the metric."""
        super().__init__(metric)
        self.metric = metric.name

    def __str__(self) -> str:
        """Say what it is, and what could be played."""
        metric: Metric = self.args[0]
        return (
            f"the twin cannot play the {metric.source} metric `{metric.name}` with a target of type {metric.target}: "
            f"it knows `{QUEUE_METRIC}` and `{RATE_METRIC}` of Pods by AverageValue, `{LATENCY_METRIC}` of an Object "
            f"by Value, and the Resource `{CPU_METRIC}` by Utilization."
        )


def players(autoscaler: Autoscaler, view: View, pods: Pods) -> tuple[Propose, ...]:
    """Return what each metric of the autoscaler proposes, sync by sync.

    Raises:
        UnplayableError: a metric that the twin does not know.
    """
    return tuple(_player(metric, autoscaler, view, pods) for metric in autoscaler.metrics)


def _player(metric: Metric, autoscaler: Autoscaler, view: View, pods: Pods) -> Propose:
    match metric.source, metric.name, metric.target:
        case "Pods", name, "AverageValue" if name == QUEUE_METRIC:
            return _Queue(metric, autoscaler, view, pods)
        case "Pods", name, "AverageValue" if name == RATE_METRIC:
            return _Rate(metric, autoscaler, view, pods)
        case "Object", name, "Value" if name == LATENCY_METRIC:
            return _Latency(metric, autoscaler, view, pods)
        case "Resource", name, "Utilization" if name == CPU_METRIC:
            return _Cpu(metric, autoscaler, view, pods)
    raise UnplayableError(metric)


class _Player:
    """Proposes by one metric. What it saw last, of the same pods, gives the same proposal."""

    def __init__(self, metric: Metric, autoscaler: Autoscaler, view: View, pods: Pods) -> None:
        self._metric = metric
        self._tolerance = autoscaler.tolerance
        self._view = view
        self._pods = pods
        self._table = view.table
        self._seen = view.seen
        self._last_seen = self._last_version = MISSING
        self._last: int | None = None

    def __call__(self, sync: int, current: int) -> int | None:
        seen = self._seen[sync]
        if seen == MISSING:
            return None
        version = self._pods.version
        if seen != self._last_seen or version != self._last_version:
            self._last = self._propose(sync, seen, current)
            self._last_seen, self._last_version = seen, version
        return self._last

    def _propose(self, sync: int, seen: int, current: int) -> int | None:
        raise NotImplementedError


class _Queue(_Player):
    """`request_queue_length` of each pod: what waits at the moment of the scrape."""

    def _propose(self, sync: int, seen: int, current: int) -> int | None:
        pods, queue = self._pods, self._table.queue
        height = pods.height_at(seen)
        load = self._view.rps[sync] / height if height else 0.0
        waiting = pods.seen_waiting.get(seen)
        if waiting is None:
            values = [(count, int(queue.at(load * slowdown) * 1000)) for count, slowdown in pods.paces_at(seen)]
        else:
            values = [(count, int(max(queue.at(load * slowdown), w) * 1000)) for count, w, slowdown in waiting]
        fleet = _sampled(pods, seen, values)
        return propose_average_value(
            fleet, current=current, target_milli=self._metric.target_milli, tolerance=self._tolerance
        )


class _Rate(_Player):
    """`request_rate` of each pod: what it got in the rate window. A pod has none before its second scrape."""

    def _propose(self, sync: int, seen: int, current: int) -> int | None:
        view, pods = self._view, self._pods
        start = seen - RATE_WINDOW_S
        sampled = pods.lowest_since(seen - view.scrape_s)
        if pods.heights[-1][0] <= start:
            usage_milli = int(view.window_rps[sync] / sampled * 1000) * sampled if sampled else 0
        else:
            usage_milli = int(self._requests(sampled, start, seen) / RATE_WINDOW_S * 1000)
        fleet = Fleet(
            sampled, usage_milli, unready=pods.pending, missing=pods.ready - sampled + pods.starting - pods.pending
        )
        return propose_average_value(
            fleet, current=current, target_milli=self._metric.target_milli, tolerance=self._tolerance
        )

    def _requests(self, pods: int, start: int, end: int) -> float:
        """Return how many requests the oldest so many pods got from second `start` on, before `end`."""
        before, total = self._view.requests_before, 0.0
        for since, height in reversed(self._pods.heights):
            pods = min(pods, height)
            first = max(since, start)
            if first < end and height:
                total += (before(end) - before(first)) / height * pods
                end = first
            if since <= start:
                break
        return total


class _Latency(_Player):
    """`request_latency_p99_ms` of the Service: that of the worst moment of the rate window.

    Where no request came there is none: the adapter's rule drops the quantile of nothing.
    """

    def _propose(self, sync: int, seen: int, current: int) -> int | None:
        view, pods = self._view, self._pods
        start = seen - RATE_WINDOW_S
        fewest = max(1, pods.lowest(start, seen))
        peak_rps = view.window_peak_rps[sync]
        if not peak_rps:
            return None
        slowdown = pods.slowest(start, seen)
        p99_ms = slowdown * self._table.p99_ms.at(peak_rps / fewest * slowdown)
        p99_ms = max(p99_ms, _latest_ms(pods, self._table, start, seen))
        listed = pods.ready + pods.starting + pods.stopping
        return propose_value(
            int(p99_ms * 1000),
            current=current,
            ready=pods.ready + pods.stopping if listed else None,
            target_milli=self._metric.target_milli,
            tolerance=self._tolerance,
        )


class _Cpu(_Player):
    """CPU use. Samples count of pods that were ready for the whole window: a young pod's CPU is spent on starting."""

    def __init__(self, metric: Metric, autoscaler: Autoscaler, view: View, pods: Pods) -> None:
        super().__init__(metric, autoscaler, view, pods)
        self._seen = view.seen_cpu

    def _propose(self, sync: int, seen: int, current: int) -> int | None:
        pods, busy = self._pods, self._table.busy
        height = pods.height_at(seen)
        load = self._view.cpu_window_rps[sync] / height if height else 0.0
        sampled = pods.lowest_since(seen - CPU_WINDOW_S)
        waiting = pods.seen_waiting.get(seen)
        if waiting is None:
            values = [(count, int(busy.at(load * slow) * FULLY_BUSY_MILLI)) for count, slow in pods.paces_at(seen)]
        else:
            values = [
                (count, FULLY_BUSY_MILLI if w else int(busy.at(load * slow) * FULLY_BUSY_MILLI))
                for count, w, slow in waiting
            ]
        fleet = alike(
            sampled=sampled,
            usage_milli=_sum_of(values, sampled),
            request_milli=FULLY_BUSY_MILLI,
            target_percent=self._metric.target_percent,
            unready=pods.ready - sampled + pods.starting,
        )
        return propose_utilization(
            fleet, current=current, target_percent=self._metric.target_percent, tolerance=self._tolerance
        )


def _sampled(pods: Pods, since: int, values: list[tuple[int, int]]) -> Fleet:
    """Return the fleet of which those pods have samples that were ready at `since`.

    Of pods that left meanwhile, those that are still stopping are ignored; samples of those that are gone stay.

    Args:
        pods: the pods now.
        since: when the pods were ready.
        values: pods and the sample of each, the oldest first.
    """
    had = sum(count for count, _ in values)
    alive = min(had, pods.lowest_since(since))
    gone = max(0, had - alive - pods.stopping)
    return Fleet(
        sampled=alive + gone,
        usage_milli=_sum_of(values, alive + gone),
        unready=pods.pending,
        missing=pods.ready - alive + pods.starting - pods.pending,
        gone=gone,
    )


def _sum_of(values: list[tuple[int, int]], pods: int) -> int:
    """Return the sum over the oldest so many pods."""
    total = 0
    for count, value in values:
        taken = min(count, pods)
        total += taken * value
        pods -= taken
    return total


def _latest_ms(pods: Pods, table: Table, start: int, end: int) -> float:
    """Return the p99 behind the worst backlog of any pod from second `start` on, before `end`; 0 if none waited."""
    latest_ms = 0.0
    for span in reversed(pods.backlogs):
        stop = span.start + len(span.waiting)
        if stop <= start:
            break
        if span.start < end:
            most = max(span.waiting[max(0, start - span.start) : end - span.start])
            if most:
                latest_ms = max(latest_ms, table.late_ms(most, span.slowdown))
    return latest_ms
