"""Recorded syncs of the real HorizontalPodAutoscaler controller, held against `tools.scaling.hpa`.

A recording holds, sync by sync, what the controller read (the target, its pods, every metric's answer) and what it
proposed and decided. `compare` feeds the same readings to the arithmetic. Times are seconds after the HPA's creation.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.scaling.hpa import (
    Answer,
    Autoscaler,
    Controller,
    Memory,
    Metric,
    Pod,
    Sample,
    Target,
    parse_autoscaler,
    propose_all,
)

Json = dict[str, Any]

CLOCK_S = 0.005
"""Requests and proposals were logged by two processes, to the millisecond."""


def load(path: Path) -> Json:
    """Read a recording, packed or not."""
    content = path.read_bytes()
    return json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)


def controller_of(recording: Json) -> Controller:
    settings = recording["controller"]["hpa_settings"]
    return Controller(
        tolerance=settings["tolerance"],
        downscale_window_s=settings["downscale_window"],
        cpu_initialization_s=settings["cpu_init_period"],
        readiness_delay_s=settings["initial_readiness_delay"],
    )


def merged(spec: Json, patch: Json) -> Json:
    """Apply a JSON merge patch (RFC 7386)."""
    result = dict(spec)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = merged(result.get(key) if isinstance(result.get(key), dict) else {}, value)
        else:
            result[key] = value
    return result


def performed(recording: Json) -> Iterator[tuple[float, Json]]:
    """Return what was done to the cluster, and when the API server had it."""
    for event in recording["events_and_actions"]:
        if event["kind"] == "action":
            yield event["t"], event["action"]


@dataclass
class Comparison:
    """What came of one recording."""

    scenario: str
    syncs: int = 0
    races: int = 0
    rescales: int = 0
    proposals: int = 0
    conditions: int = 0
    mismatches: list[str] = field(default_factory=list)


def compare(recording: Json) -> Comparison:
    """Feed every sync to the arithmetic and hold its proposal, its decision and its conditions against it.

    The memory is fed the recorded proposals, so that each sync is judged by itself. In a sync that is marked as a
    race a pod changed within milliseconds, and its proposal is not compared; its decision is.
    """
    result = Comparison(recording["scenario"])
    spec = recording["hpa_spec_submitted"]
    autoscaler = parse_autoscaler(spec, controller_of(recording))
    if autoscaler != parse_autoscaler(recording["hpa_spec_defaulted"], controller_of(recording)):
        result.mismatches.append("the defaults are not the server's")
    spec = recording["hpa_spec_defaulted"]
    memory = Memory(autoscaler)
    actions = list(performed(recording))
    conditions = _conditions(recording)
    for sync in recording["syncs"]:
        while actions and actions[0][0] <= sync["t"]:
            action = actions.pop(0)[1]
            if action["do"] == "patch_hpa":
                spec = merged(spec, action["spec"])
                autoscaler = parse_autoscaler(spec, controller_of(recording))
                memory.patched(autoscaler)
            elif "restart" in action["do"]:
                memory = Memory(autoscaler)
        _compare_sync(recording, sync, autoscaler, memory, conditions.get(sync["t"]), result)
    return result


def _compare_sync(
    recording: Json, sync: Json, autoscaler: Autoscaler, memory: Memory, conditions: Json | None, result: Comparison
) -> None:
    current, proposal, now_s = sync["spec_replicas"], sync["proposal"], sync.get("t_proposal", sync["t"])
    where = f"sync at {sync['t']}"
    if sync.get("race"):
        result.races += 1
    elif sync["metrics"]:
        ours = propose_all(autoscaler, answers_of(autoscaler, sync), target_of(recording, sync))
        result.proposals += 1
        if ours != proposal:
            result.mismatches.append(f"{where}: proposed {ours}, not {proposal}")
    decided = memory.decide(now_s, current, proposal)
    put = sync.get("scale_put")
    expected = put["replicas"] if put else current
    result.syncs += 1
    if decided.replicas != expected:
        result.mismatches.append(f"{where}: decided {decided}, not {expected}, from {current} and {proposal}")
    if put and put["code"] == 200:
        result.rescales += 1
        memory.scaled(sync.get("t_decided", now_s), current, put["replicas"])
    if conditions is None or proposal is None:
        return
    result.conditions += 1
    reason = "SucceededRescale" if put else decided.reason
    if (reason, decided.limited_by or "DesiredWithinRange") != (
        conditions["AbleToScale"],
        conditions["ScalingLimited"],
    ):
        result.mismatches.append(f"{where}: {decided}, not {conditions}")


def _conditions(recording: Json) -> dict[float, Json]:
    """Return the reasons of the conditions in force after each sync, by the time of the sync."""
    syncs = recording["syncs"]
    written = [change for change in recording["changes"] if change["what"] == "conditions"]
    result: dict[float, Json] = {}
    latest: Json | None = None
    for i, sync in enumerate(syncs):
        until = syncs[i + 1]["t"] if i + 1 < len(syncs) else math.inf
        while written and written[0]["t"] < until:
            latest = {kind: reason for kind, _, reason, _ in written.pop(0)["value"]}
        if latest is not None and {"AbleToScale", "ScalingLimited"} <= latest.keys():
            result[sync["t"]] = latest
    return result


def target_of(recording: Json, sync: Json) -> Target:
    """Return the target and its pods as a sync found them."""
    return Target(
        now_s=sync.get("t_proposal", sync["t"]),
        spec_replicas=sync["spec_replicas"],
        status_replicas=sync["status_replicas"],
        pods=pods_of(recording, sync["pods"]),
    )


def pods_of(recording: Json, view: int) -> list[Pod]:
    """Return the pods of a view."""
    requests = requests_of(recording)
    return [Pod(*pod, requests) for pod in recording["pod_views"][view]]


def requests_of(recording: Json) -> dict[str, dict[str, int]]:
    """Return what each container requests. A request of 0 stands for none."""
    return {
        container["name"]: {name: value for name, value in container.items() if name != "name" and value}
        for container in recording["containers"]
    }


def answers_of(autoscaler: Autoscaler, sync: Json) -> list[Answer]:
    """Return what the metrics APIs answered: the controller asks for one metric after the other, in their order.

    A request may be repeated, and then the last one before the proposal counts.
    """
    until_s = sync.get("t_proposal", math.inf) + CLOCK_S
    names = [metric.name for metric in autoscaler.metrics]
    asked: dict[str, list[Json]] = {}
    for name in set(names):
        requests = [r for r in sync["metrics"] if r["metric"] == name and r["t"] <= until_s]
        asked[name] = requests[-names.count(name) :]
    return [_answer(metric, asked[metric.name].pop(0)) for metric in autoscaler.metrics]


def _answer(metric: Metric, request: Json) -> Answer:
    if request["code"] != 200:
        return None
    if "values" in request:
        return request["values"]
    return {
        name: Sample(value, request["ts"], request["window"])
        for name, item in request["items"].items()
        if (value := _value(metric, item)) is not None
    }


def _value(metric: Metric, item: Any) -> int | None:
    """Return a pod's value; resources may be recorded by container."""
    if not isinstance(item, dict):
        return item
    return sum(item.values()) if metric.container is None else item.get(metric.container)
