"""Which pods and samples count: from pods and what the metrics APIs answered to proposals.

Source: `groupPods` and `calculateRequests` of `pkg/controller/podautoscaler/replica_calculator.go`, Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

from tools.scaling.hpa_metrics import (
    Fleet,
    combine,
    missing_usage,
    propose_average_value,
    propose_total,
    propose_utilization,
    propose_value,
)
from tools.scaling.hpa_spec import Autoscaler, Controller, Metric

Phase: TypeAlias = Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"]


class Pod(NamedTuple):
    """One pod that the target's selector lists. Times are of the same clock as `now_s`."""

    name: str
    phase: Phase
    ready: bool | None
    """The Ready condition; None if there is none yet."""
    start_s: float | None
    """`status.startTime`."""
    ready_since_s: float | None
    """When the Ready condition last changed."""
    deleting: bool = False
    requests_milli: Mapping[str, Mapping[str, int]] = MappingProxyType({})
    """What each container requests, by resource. Only a utilization asks."""


class Sample(NamedTuple):
    """One pod's value."""

    value_milli: int
    at_s: float
    """When the value was taken: the end of the window."""
    window_s: float
    """Over how long it was taken."""


class Target(NamedTuple):
    """What an HPA scales, as one sync finds it."""

    now_s: float
    spec_replicas: int
    status_replicas: int
    pods: Sequence[Pod]


Answer: TypeAlias = Mapping[str, Sample] | Sequence[int] | None
"""What the metrics API said: samples by pod; the values of an Object or External metric; None if it failed."""


def propose_all(autoscaler: Autoscaler, answers: Sequence[Answer], target: Target) -> int | None:
    """Return the proposal of all metrics together, or None if they do not allow one.

    Args:
        autoscaler: the HPA.
        answers: one for each of its metrics, in their order.
        target: what it scales.
    """
    proposals = [
        propose(metric, answer, target, autoscaler) for metric, answer in zip(autoscaler.metrics, answers, strict=True)
    ]
    return combine(proposals, current=target.spec_replicas)


def propose(metric: Metric, answer: Answer, target: Target, autoscaler: Autoscaler) -> int | None:
    """Return the replicas that one metric proposes, or None where the controller gives an error."""
    if not answer:
        return None
    current, tolerance = target.spec_replicas, autoscaler.tolerance
    if isinstance(answer, Mapping):
        fleet = fleet_of(metric, answer, target, autoscaler.controller)
        if fleet is None:
            return None
        if metric.target == "Utilization":
            return propose_utilization(
                fleet, current=current, target_percent=metric.target_percent, tolerance=tolerance
            )
        return propose_average_value(fleet, current=current, target_milli=metric.target_milli, tolerance=tolerance)
    total = sum(answer)
    if metric.target == "AverageValue":
        return propose_total(
            total,
            status_replicas=target.status_replicas,
            target_milli=metric.target_milli,
            tolerance=tolerance,
        )
    return propose_value(
        total, current=current, ready=ready_pods(target.pods), target_milli=metric.target_milli, tolerance=tolerance
    )


def ready_pods(pods: Sequence[Pod]) -> int | None:
    """Return how many pods run and are ready, or None if there is no pod. A pod that is being deleted counts."""
    return sum(pod.phase == "Running" and pod.ready is True for pod in pods) if pods else None


def fleet_of(metric: Metric, samples: Mapping[str, Sample], target: Target, controller: Controller) -> Fleet | None:
    """Return the groups that the pods fall into, or None where the controller gives an error.

    Args:
        metric: a per-pod metric.
        samples: by name of the pod; such of pods that are gone may be among them.
        target: the pods.
        controller: how long pods take to start.
    """
    pods = target.pods
    if not pods:
        return None
    requests = _requests(metric, pods) if metric.target == "Utilization" else {}
    if requests is None:
        return None
    is_cpu = metric.name == "cpu" and metric.source in ("Resource", "ContainerResource")
    counted: list[Pod] = []
    unready: list[Pod] = []
    missing: list[Pod] = []
    for pod in pods:
        if pod.deleting or pod.phase == "Failed":
            continue
        if pod.phase == "Pending":
            unready.append(pod)
        elif (sample := samples.get(pod.name)) is None:
            missing.append(pod)
        elif is_cpu and _is_starting(pod, sample, target.now_s, controller):
            unready.append(pod)
        else:
            counted.append(pod)
    listed = {pod.name for pod in pods}
    gone = [sample.value_milli for name, sample in samples.items() if name not in listed]
    usage_milli = sum(samples[pod.name].value_milli for pod in counted)
    groups = Fleet(len(counted) + len(gone), usage_milli, len(unready), len(missing), len(gone))
    if metric.target != "Utilization":
        return groups._replace(usage_milli=usage_milli + sum(gone))
    return groups._replace(
        request_milli=sum(requests[pod.name] for pod in counted),
        unready_request_milli=sum(requests[pod.name] for pod in unready),
        missing_request_milli=sum(requests[pod.name] for pod in missing),
        missing_usage_milli=sum(missing_usage(requests[pod.name], metric.target_percent) for pod in missing),
    )


def _requests(metric: Metric, pods: Sequence[Pod]) -> dict[str, int] | None:
    """Return what each pod requests of a metric's resource, or None if a container that matters requests nothing."""
    requests = {}
    for pod in pods:
        containers = pod.requests_milli
        names = containers if metric.container is None else (metric.container,)
        found = [containers.get(name, {}).get(metric.name) for name in names]
        known = [request_milli for request_milli in found if request_milli is not None]
        if len(known) < len(found):
            return None
        requests[pod.name] = sum(known)
    return requests


def _is_starting(pod: Pod, sample: Sample, now_s: float, controller: Controller) -> bool:
    """Whether a pod's CPU sample says more of its start than of its load."""
    if pod.ready is None or pod.start_s is None or pod.ready_since_s is None:
        return True
    if pod.start_s + controller.cpu_initialization_s > now_s:
        return not pod.ready or sample.at_s < pod.ready_since_s + sample.window_s
    return not pod.ready and pod.start_s + controller.readiness_delay_s > pod.ready_since_s
