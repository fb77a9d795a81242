"""What the twin's tests play with: a replica that is easy to compute by hand, settings, and a plain model of pods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tools.contracts import Delays, Interval
from tools.scaling.days import Day, Fault
from tools.scaling.recommended_hpa import SCALE_DOWN, SCALE_UP
from tools.scaling.replica import Replica
from tools.scaling.twin import Run, Scaling, simulate

DELAYS = Delays()
"""Scrape 15, adapter 30, sync 15; node 2, start 30, probe 5; stop 30: a pod serves 37 s after the decision."""
BEHAVIOR = {"scaleUp": SCALE_UP, "scaleDown": SCALE_DOWN}
SLO_MS = 100.0
CAPACITY_RPS = 100.0

REPLICA = Replica(
    name="by hand",
    max_batch=4,
    seed=0,
    capacity_rps=CAPACITY_RPS,
    throughput_rps=Interval(value=100, low=100, high=100, n=1),
    full_batch_p99_ms=40.0,
    loads_rps=(2.0, 50.0, 98.0),
    p99_ms=(10.0, 20.0, 50.0),
    p99_low_ms=(10.0, 20.0, 50.0),
    p99_high_ms=(10.0, 20.0, 50.0),
    mean_wait_ms=(0.0, 5.0, 30.0),
    mean_queue=(0.0, 0.5, 3.0),
    busy=(0.02, 0.5, 0.98),
    mean_batch=(1.0, 2.0, 4.0),
)


def table(name, load):
    """Return the replica's table at a load."""
    return float(np.interp(load, REPLICA.loads_rps, getattr(REPLICA, name)))


def queue(target, low, high, behavior=BEHAVIOR):
    return hpa({"type": "Pods", "pods": named("request_queue_length", "AverageValue", target)}, low, high, behavior)


def rate(target, low, high, behavior=BEHAVIOR):
    return hpa({"type": "Pods", "pods": named("request_rate", "AverageValue", target)}, low, high, behavior)


def latency(target_ms, low, high, behavior=BEHAVIOR):
    about = {"describedObject": {"apiVersion": "v1", "kind": "Service", "name": "model"}}
    metric = named("request_latency_p99_ms", "Value", target_ms)
    return hpa({"type": "Object", "object": {**about, **metric}}, low, high, behavior)


def cpu(percent, low, high, behavior=BEHAVIOR):
    target = {"type": "Utilization", "averageUtilization": percent}
    return hpa({"type": "Resource", "resource": {"name": "cpu", "target": target}}, low, high, behavior)


def named(name, kind, value):
    key = {"AverageValue": "averageValue", "Value": "value"}[kind]
    return {"metric": {"name": name}, "target": {"type": kind, key: str(value)}}


def hpa(metric, low, high, behavior):
    spec = {"minReplicas": low, "maxReplicas": high, "metrics": [metric]}
    return spec if behavior is None else {**spec, "behavior": behavior}


def play(rps, spec, *, faults=(), initial=None, limit=None, delays=DELAYS, price=0.5) -> Run:
    """Play the replica above."""
    return simulate(
        Day("made up", np.asarray(rps, dtype=float), tuple(faults)),
        REPLICA,
        spec,
        delays=delays,
        slo_ms=SLO_MS,
        price_per_hour_usd=price,
        initial_replicas=initial,
        queue_limit=limit,
    )


def step(before, after, at, seconds):
    """Return rates that change once."""
    return np.where(np.arange(seconds) < at, float(before), float(after))


@dataclass
class Pod:
    """One pod, one request queue."""

    bound_at: int
    ready_at: int
    waiting: float = 0.0
    stopped: bool = False
    gone_at: float = math.inf


@dataclass
class PlainPods:
    """The pods of a service one by one, second by second, in the most obvious way: what the twin must come to.

    Attributes:
        ready: pods ready in each second.
        paid: pods paid for in each second.
        refused: requests refused in each second.
        served: requests served in all.
    """

    rps: Sequence[float]
    scalings: Sequence[Scaling]
    faults: Sequence[Fault]
    delays: Delays
    initial: int
    limit: float
    ready: list[int] = field(default_factory=list)
    paid: list[int] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    served: float = 0.0

    def __post_init__(self) -> None:
        self.pods = [Pod(-1, -1) for _ in range(self.initial)]
        changes = {scaling.at_s: scaling.after - scaling.before for scaling in self.scalings}
        losses = sorted((math.floor(f.at_s), f.share) for f in self.faults if f.kind == "lost_node")
        for second, came in enumerate(self.rps):
            self.refused.append(0.0)
            for _, share in (loss for loss in losses if loss[0] == second):
                self._lose(second, share)
            self._clear(second)
            change = changes.get(second, 0)
            self._make(second, max(0, change))
            self._stop(second, max(0, -change))
            self._clear(second)
            self._serve(second, came)

    @property
    def waiting(self) -> float:
        return sum(pod.waiting for pod in self.pods)

    def _ready(self, second: int) -> list[Pod]:
        return [pod for pod in self.pods if pod.ready_at <= second and not pod.stopped]

    def _make(self, second: int, count: int) -> None:
        bound_at, ready_at = second + math.ceil(self.delays.scheduling_s), second + math.ceil(self.delays.pod_s)
        self.pods += [Pod(bound_at, ready_at) for _ in range(count)]

    def _lose(self, second: int, share: float) -> None:
        # What becomes ready in this very second is not lost.
        ready = self._ready(second - 1)
        lost = ready[len(ready) - max(1, round(share * len(ready))) :] if ready else []
        self.refused[-1] += sum(pod.waiting for pod in lost)
        self.pods = [pod for pod in self.pods if not any(pod is gone for gone in lost)]
        self._make(second, len(lost))

    def _stop(self, second: int, count: int) -> None:
        listed = [pod for pod in self.pods if not pod.stopped]
        ready = [pod for pod in listed if pod.ready_at <= second]
        starting = [pod for pod in listed if pod.ready_at > second]
        for pod in (ready + starting)[len(listed) - count :]:
            pod.stopped = True
            pod.gone_at = second if pod.bound_at > second else second + math.ceil(self.delays.termination_s)

    def _clear(self, second: int) -> None:
        self.refused[-1] += sum(pod.waiting for pod in self.pods if pod.gone_at <= second)
        self.pods = [pod for pod in self.pods if pod.gone_at > second]

    def _serve(self, second: int, came: float) -> None:
        ready = self._ready(second)
        self.ready.append(len(ready))
        self.paid.append(sum(pod.bound_at <= second for pod in self.pods))
        if not ready:
            self.refused[-1] += came
        for pod in self.pods:
            if pod.ready_at > second:
                continue
            there = pod.waiting + (0.0 if pod.stopped else came / len(ready))
            done = min(there, CAPACITY_RPS)
            pod.waiting = there - done if pod.stopped else min(there - done, self.limit)
            self.refused[-1] += there - done - pod.waiting
            self.served += done
