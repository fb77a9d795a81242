"""The twin: recorded traffic, second by second, through replicas under an HPA, with every delay there is.

Requests are a fluid; a replica serves as its measured table says; the controller is the real one's arithmetic. What
passes between a rise of the traffic and a replica that serves it is played: scrapes, the metrics adapter, the
controller's syncs, scheduling, starting, readiness. A week of one-second steps takes a fraction of a second, since
seconds are only walked through where something waits.

    stage = prepare(day, replica, delays=delays, slo_ms=100, price_per_hour_usd=0.40)
    runs = [stage.play(spec) for spec in specs]
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tools.contracts.scaling import Delays, HpaSpec
from tools.scaling.days import Day
from tools.scaling.hpa import SYNC_WORK_S, Autoscaler, Memory, combine, parse_autoscaler
from tools.scaling.replica import Replica
from tools.scaling.twin_metrics import Propose, UnplayableError, players
from tools.scaling.twin_pods import Pods, PodTimes
from tools.scaling.twin_result import Run, Scaling, summed_up
from tools.scaling.twin_view import CPU_WINDOW_S, View

__all__ = ["Run", "Scaling", "Stage", "UnplayableError", "prepare", "simulate"]


@dataclass(frozen=True, eq=False)
class Stage:
    """A day, a replica and delays, prepared once for any number of settings; made by `prepare`."""

    day: Day
    slo_ms: float
    price_per_hour_usd: float
    queue_limit: float
    """Requests that may wait in one replica; infinite if there is no limit."""
    view: View
    pod_times: PodTimes
    peaks_rps: list[float]
    """The most that comes in any second before each sync, since the one before."""

    def play(self, spec: HpaSpec, *, initial_replicas: int | None = None) -> Run:
        """Play the day under one HPA setting. The same setting gives the same run, bit by bit.

        Args:
            spec: `spec` of the HPA.
            initial_replicas: ready at the beginning; by default as many as the setting rests at under the traffic of
                the first second.

        Raises:
            SpecError: the spec is no HPA's.
            UnplayableError: it follows a metric that the twin does not know.
        """
        autoscaler = parse_autoscaler(spec)
        ready = self._resting_replicas(autoscaler) if initial_replicas is None else initial_replicas
        pods = self._pods(ready)
        scalings = self._run(autoscaler, pods, ready)
        return summed_up(
            self.day,
            pods,
            scalings,
            table=self.view.table,
            queue_limit=self.queue_limit,
            slo_ms=self.slo_ms,
            price_per_hour_usd=self.price_per_hour_usd,
        )

    def _run(self, autoscaler: Autoscaler, pods: Pods, current: int) -> list[Scaling]:
        """Let the time pass, sync by sync; return what the controller did."""
        sync_s, seconds = self.view.sync_s, self.day.seconds
        propose = _together(players(autoscaler, self.view, pods))
        memory = Memory(autoscaler)
        decide = memory.decide
        period_s = sync_s + SYNC_WORK_S
        scalings = []
        now, now_s = 0, 0.0
        for sync, peak_rps in enumerate(self.peaks_rps):
            before, now = now, now + sync_s
            now_s += period_s
            if peak_rps > pods.calm_rps or pods.next_event <= now:
                pods.advance(before, now)
                pods.settle(now)
            replicas = decide(now_s, current, propose(sync, current)).replicas
            if replicas != current:
                memory.scaled(now_s, current, replicas)
                scalings.append(Scaling(now, current, replicas))
                pods.scale(now, replicas - current)
                current = replicas
        pods.advance(now, seconds)
        return scalings

    def _resting_replicas(self, autoscaler: Autoscaler) -> int:
        """Return the fewest replicas within the bounds that the metrics do not ask to be more at the first second."""
        least = max(1, autoscaler.min_replicas)
        if not self.peaks_rps:
            return least
        for ready in range(least, autoscaler.max_replicas):
            proposal = _together(players(autoscaler, self.view, self._pods(ready)))(0, ready)
            if proposal is None or proposal <= ready:
                return ready
        return autoscaler.max_replicas

    def _pods(self, ready: int) -> Pods:
        return Pods(
            self.day.rps,
            capacity_rps=self.view.table.capacity_rps,
            times=self.pod_times,
            faults=self.day.faults,
            queue_limit=self.queue_limit,
            ready=ready,
            look_every_s=(self.view.scrape_s, CPU_WINDOW_S),
        )


def prepare(
    day: Day,
    replica: Replica,
    *,
    delays: Delays,
    slo_ms: float,
    price_per_hour_usd: float,
    queue_limit: int | None = None,
) -> Stage:
    """Prepare all that does not depend on the HPA setting.

    Args:
        day: the traffic, and what goes wrong.
        replica: how one replica serves.
        delays: in whole seconds: periods are rounded, and at least one; what a pod takes is rounded up.
        slo_ms: p99 that a minute keeps.
        price_per_hour_usd: of one replica.
        queue_limit: requests that may wait in one replica; more are refused. None: all wait.
    """
    view = View.of(day, replica, delays)
    starts = np.arange(0, day.seconds - view.sync_s, view.sync_s)
    return Stage(
        day=day,
        slo_ms=slo_ms,
        price_per_hour_usd=price_per_hour_usd,
        queue_limit=math.inf if queue_limit is None else float(queue_limit),
        view=view,
        pod_times=PodTimes.of(delays),
        peaks_rps=np.maximum.reduceat(day.rps, starts).tolist() if starts.size else [],
    )


def simulate(
    day: Day,
    replica: Replica,
    autoscaler_spec: HpaSpec,
    *,
    delays: Delays,
    slo_ms: float,
    price_per_hour_usd: float,
    initial_replicas: int | None = None,
    queue_limit: int | None = None,
) -> Run:
    """Play one HPA setting over one day: `prepare`, then `Stage.play`; see there.

    Raises:
        SpecError: the spec is no HPA's.
        UnplayableError: it follows a metric that the twin does not know.
    """
    stage = prepare(
        day, replica, delays=delays, slo_ms=slo_ms, price_per_hour_usd=price_per_hour_usd, queue_limit=queue_limit
    )
    return stage.play(autoscaler_spec, initial_replicas=initial_replicas)


def _together(proposes: tuple[Propose, ...]) -> Propose:
    """Return one proposal of several metrics."""
    if len(proposes) == 1:
        return proposes[0]
    return lambda sync, current: combine([propose(sync, current) for propose in proposes], current=current)
