"""A small cluster for the controller to run freely in: pods that start and stop, and metrics made from the load.

Everything comes from a recording's configuration. One thing that nobody can foretell is taken from the recording as
well: which of several equal pods the ReplicaSet happened to delete.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hpa_support import Json, controller_of, merged, performed, requests_of

from tools.scaling.hpa import Answer, Memory, Metric, Pod, Sample, Target, parse_autoscaler, propose_all

WRITE_S = 0.003
"""From the decision until the write of the new number has returned."""
REACTION_S = 0.015
"""From a write until the ReplicaSet's pods are there, or on their way out."""
BOOT_S = 0.006
"""From a pod's creation to its next state, if nothing delays it."""
AGE_S = 3600.0
"""Of the pods that were there first."""


@dataclass
class _Replica:
    """One pod's life."""

    ordinal: int
    created_s: float
    deleted_s: float = math.inf
    failed_s: float = math.inf
    gone_s: float = math.inf


class Cluster:
    """One Deployment's pods and metrics."""

    def __init__(self, recording: Json) -> None:
        self._config = recording["pods_config"]
        self._metrics = recording["metrics_config"]
        self._quota = recording.get("pod_quota") or math.inf
        self._requests = requests_of(recording)
        self._epoch_s = recording["t0_epoch"]
        self._deletions = {
            event["ord"]: event["t"] for event in reversed(recording["pod_events"]) if event.get("deleting")
        }
        self._replicas: list[_Replica] = []
        self._scraped: dict[str, tuple[float, Answer]] = {}
        self._made = 0
        self.replicas = recording["initial_replicas"]
        self.reconcile(-AGE_S)

    def scale(self, at_s: float, replicas: int) -> None:
        self.replicas = replicas
        self.reconcile(at_s)

    def reconcile(self, at_s: float) -> None:
        """Do what the ReplicaSet does: as many pods as wanted, and as the quota allows."""
        active = self._active(at_s)
        for _ in range(self.replicas - len(active)):
            if len(active) >= self._quota:
                break
            replica = _Replica(self._made, at_s + REACTION_S)
            self._made += 1
            self._replicas.append(replica)
            active.append(replica)
        surplus = len(active) - self.replicas
        if surplus > 0:
            for replica in sorted(active, key=lambda replica: self._rank(replica, at_s))[:surplus]:
                self._delete(replica, at_s + REACTION_S)

    def act(self, at_s: float, action: Json) -> None:
        """Do what was done by hand."""
        if action["do"] == "scale":
            self.scale(at_s, action["replicas"])
        elif "ords" in action:
            for replica in self._replicas:
                if replica.ordinal in action["ords"]:
                    if action["do"] == "phase":
                        replica.failed_s = at_s
                    else:
                        self._delete(replica, at_s)
            self.reconcile(at_s)

    def target(self, now_s: float) -> Target:
        pods = [self._pod(replica, now_s) for replica in self._replicas if replica.created_s <= now_s < replica.gone_s]
        return Target(now_s, self.replicas, len(self._active(now_s)), pods)

    def scrape(self, now_s: float, metric: str) -> None:
        """Take the samples that are served until the next time."""
        self._scraped[metric] = (now_s, self._measure(now_s, metric))

    def answer(self, now_s: float, metric: Metric) -> Answer:
        """Return what the metrics API says."""
        config = self._metrics[metric.name]
        for start_s, end_s, kind in config.get("outages", ()):
            if start_s <= now_s < end_s:
                return None if kind == "404" else {}
        if config.get("scrape"):
            return self._scraped[metric.name][1]
        return self._measure(now_s, metric.name)

    def _active(self, now_s: float) -> list[_Replica]:
        return [r for r in self._replicas if r.deleted_s > now_s + REACTION_S and r.failed_s > now_s]

    def _delete(self, replica: _Replica, at_s: float) -> None:
        replica.deleted_s = at_s
        replica.gone_s = at_s + self._config.get("term_delay", 0)

    def _rank(self, replica: _Replica, now_s: float) -> tuple[Any, ...]:
        """Order pods as a ReplicaSet deletes them: pending first, then those that are not ready, then by luck."""
        pod = self._pod(replica, now_s)
        return (pod.phase != "Pending", bool(pod.ready), self._deletions.get(replica.ordinal, math.inf))

    def _pod(self, replica: _Replica, now_s: float) -> Pod:
        config, ordinal = self._config, replica.ordinal
        bound_s = replica.created_s + BOOT_S + config.get("bind_delay", 0)
        running_s = bound_s + config.get("start_delay", 0)
        ready_s = running_s + config.get("ready_delay", 0)
        if replica.created_s < 0:
            bound_s = running_s = -AGE_S
            ready_s = -AGE_S + 10
        phase, ready, since_s = "Running", True, ready_s
        if ordinal in config.get("never_start", ()) or now_s < bound_s:
            phase, ready, since_s = "Pending", None, None
        elif replica.failed_s <= now_s:
            phase, ready, since_s = "Failed", False, replica.failed_s
        elif now_s < running_s:
            phase, ready, since_s = "Pending", False, bound_s
        elif ordinal in config.get("never_ready", ()) or now_s < ready_s:
            ready, since_s = False, bound_s
        return Pod(
            name=str(ordinal),
            phase=phase,
            ready=ready,
            start_s=None if since_s is None else self._whole(bound_s),
            ready_since_s=None if since_s is None else self._whole(since_s),
            deleting=replica.deleted_s <= now_s,
            requests_milli=self._requests,
        )

    def _whole(self, time_s: float) -> float:
        """Cut a time to whole seconds of the wall clock, as the API's times are."""
        return math.floor(self._epoch_s + time_s) - self._epoch_s

    def _measure(self, now_s: float, name: str) -> Answer:
        config = self._metrics[name]
        load = _load(config, now_s)
        if config["kind"] in ("external", "object"):
            return [round(load * 1000)]
        pods = [pod for pod in self.target(now_s).pods if pod.phase == "Running" and not pod.deleting]
        ready = sum(pod.ready is True for pod in pods)
        unit = 1 if config["kind"] == "cpu" else 1000
        weights = config.get("weights", [1])
        samples = {}
        for pod in pods:
            ordinal = int(pod.name)
            if ordinal in config.get("no_sample", ()):
                continue
            if pod.ready:
                share = load if config.get("mode") == "perpod" else load / ready
                value = int(share * unit * weights[ordinal % len(weights)])
            elif "unready_value" in config:
                value = config["unready_value"]
            else:
                continue
            samples[pod.name] = Sample(value, self._whole(now_s), config.get("window", 1))
        return samples


def _load(config: Json, now_s: float) -> float:
    points = config["load"]
    place = max(0, bisect_right(points, now_s, key=lambda point: point[0]) - 1)
    start_s, load = points[place]
    if config.get("shape") != "linear" or place + 1 == len(points):
        return load
    end_s, next_load = points[place + 1]
    return load + (next_load - load) * (now_s - start_s) / (end_s - start_s)


def run_freely(recording: Json, syncs_s: Iterable[float]) -> Iterator[tuple[float, int, int]]:
    """Let the arithmetic scale the cluster, and return each change: when, from and to how many.

    Args:
        recording: the spec, the pods' and the metrics' configuration, and what was done by hand.
        syncs_s: when the controller looks.
    """
    cluster = Cluster(recording)
    spec = recording["hpa_spec_submitted"]
    autoscaler = parse_autoscaler(spec, controller_of(recording))
    memory = Memory(autoscaler)
    due: list[tuple[float, int, Any]] = [(at_s, 0, action) for at_s, action in performed(recording)]
    for name, config in recording["metrics_config"].items():
        if config.get("scrape"):
            ticks = range(0, recording["duration_s"] + 1, config["scrape"])
            due += [(float(tick), 1, name) for tick in ticks]
    due += [(sync_s, 2, None) for sync_s in syncs_s]
    for now_s, kind, what in sorted(due, key=lambda entry: entry[:2]):
        if kind == 1:
            cluster.scrape(now_s, what)
        elif kind == 0:
            cluster.act(now_s, what)
            if what["do"] == "patch_hpa":
                spec = merged(spec, what["spec"])
                autoscaler = parse_autoscaler(spec, controller_of(recording))
                memory.patched(autoscaler)
            elif "restart" in what["do"]:
                memory = Memory(autoscaler)
        else:
            target = cluster.target(now_s)
            answers = [cluster.answer(now_s, metric) for metric in autoscaler.metrics]
            before = target.spec_replicas
            after = memory.decide(now_s, before, propose_all(autoscaler, answers, target)).replicas
            if after != before:
                memory.scaled(now_s + WRITE_S, before, after)
                cluster.scale(now_s + WRITE_S, after)
                yield now_s, before, after
