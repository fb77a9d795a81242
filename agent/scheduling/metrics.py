"""The schedule's own `/metrics`: read from what is on disk at each scrape, so that a restart loses no count."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.scheduling.store import SETTLED, ScheduleStore
from tools.errors import UnavailableError

if TYPE_CHECKING:
    from prometheus_client import Metric

    from tools.outbox import Outbox

ADDRESS = "127.0.0.1"


class _Collector:
    """What a scrape reads."""

    def __init__(self, home: Path, store: ScheduleStore, outbox: Outbox) -> None:
        self._home = home
        self._store = store
        self._outbox = outbox

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        runs = self._store.runs(state="ended")
        names = {identity: entry.name for identity, entry in self._store.entries().items()}
        total = CounterMetricFamily(
            "infertune_schedule_runs", "Runs by verdict, once for each reason they had", labels=["verdict", "reason"]
        )
        for labels, count in sorted(self._store.counts().items()):
            total.add_metric(labels, count)
        yield total
        success = GaugeMetricFamily(
            "infertune_schedule_last_success_timestamp_seconds", "End of the last settled run", labels=["workload"]
        )
        duration = GaugeMetricFamily(
            "infertune_schedule_last_duration_seconds", "Of the last run, whatever it came to", labels=["workload"]
        )
        last = {r.entry: r for r in runs if r.entry in names}
        settled = {r.entry: r for r in runs if r.entry in names and r.verdict in SETTLED}
        for entry, run in last.items():
            duration.add_metric([names[entry]], (run.ended_s or run.begun_s) - run.begun_s)
        for entry, run in settled.items():
            success.add_metric([names[entry]], run.ended_s or run.begun_s)
        yield success
        yield duration
        waiting = GaugeMetricFamily("infertune_schedule_pending_plans", "Plans that wait for a person")
        waiting.add_metric([], _pending(self._home))
        yield waiting
        counts = self._outbox.counts()
        outbox = GaugeMetricFamily("infertune_schedule_outbox", "Events by state", labels=["state"])
        for state, count in counts._asdict().items():
            outbox.add_metric([state], count)
        yield outbox


def _pending(home: Path) -> int:
    from tools.cluster.plans import pending
    from tools.cluster.store import PLANS, PlanStore

    if not (home / PLANS).exists():
        return 0
    return len(pending(PlanStore(home), now=dt.datetime.now(dt.UTC)))


@contextlib.contextmanager
def serving(home: Path, store: ScheduleStore, outbox: Outbox, port: int | None) -> Iterator[int | None]:
    """Serve `/metrics` on loopback, and yield the port; with None for a port nothing is served.

    Raises:
        UnavailableError: the port is taken.
    """
    if port is None:
        yield None
        return
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry(auto_describe=False)
    collector: Any = _Collector(home, store, outbox)
    registry.register(collector)
    try:
        server, thread = start_http_server(port, addr=ADDRESS, registry=registry)
    except OSError as error:
        raise UnavailableError(
            f"cannot listen there ({error.strerror}).", where=f"{ADDRESS}:{port}", fix="Give another --metrics-port."
        ) from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
