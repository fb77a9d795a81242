"""How long a pod of the service takes to start, as the cluster's own record of its pods tells.

The conditions of a pod say when each last changed (Kubernetes, Pod Lifecycle, "Pod conditions"). `PodScheduled` turns
true once, when the pod has a node. `Ready` turns true when the readiness probe has seen every container, by when the
image is there, the process runs, and the model is loaded. The record has limits, which the figures share:

- Times are cut to whole seconds: a duration may be up to a second off, either way.
- A pod is created and scheduled by the clocks of the control plane, and becomes ready by that of its node.
- Where readiness was lost and came back, only the last time is kept. Such pods are left out as far as they can be told:
  those with a restarted container, and those that took longer than the Deployment allows a rollout to.

Nothing of a pod is kept but its durations: what else it holds may be secret.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from tools.cluster.api_errors import ApiError
from tools.cluster.client import HpaClient
from tools.cluster.connection import open_reader
from tools.cluster.hpa_object import Manifest
from tools.cluster.text import shown
from tools.contracts import Contract, Delays
from tools.spec import ClusterSpec

RECENT = timedelta(days=7)
"""Older pods started from another image, or on other nodes, as likely as not."""
MIN_PODS = 3
"""Of fewer, nobody can say what is usual."""
MOST_PODS = 500
"""What one answer of the API server holds; a service with more is known well enough by these."""
READ_TIMEOUT_S = 5.0
"""Shorter than elsewhere: a session does not wait long for what it can do without."""
PROGRESS_DEADLINE_S = 600
"""`progressDeadlineSeconds` of a Deployment that does not say (apps/v1)."""
TAIL = 0.9


class Spread(Contract):
    """A duration over many pods."""

    median_s: float
    p90_s: float
    """By nearest rank: one that was seen; of fewer than ten pods, the longest."""


class StartUp(Contract):
    """How long the pods of one Deployment took to start."""

    deployment: str
    pods: int
    """That this rests on."""
    left_out: int
    """That restarted, are not ready, are older than `RECENT`, or tell no times that can be."""
    scheduling: Spread
    """From its creation until a pod has a node."""
    ready: Spread
    """From then until traffic may come: image, process, model, readiness probe."""


class _Durations(NamedTuple):
    scheduling_s: float
    ready_s: float


def startup_of(cluster: ClusterSpec, hpa: Manifest, now: datetime) -> tuple[StartUp | None, str]:
    """Ask the cluster, as the reader, how long the pods of the HPA's Deployment took to start.

    Takes `get` on deployments.apps and `list` on pods in the namespace, which a reader need not have.

    Args:
        cluster: where, and who reads.
        hpa: as it was read: it names what it scales.
        now: the time, with a time zone.

    Returns:
        What was found and a sentence about it, or None and why there is nothing: it is a bonus, and so no error.

    Raises:
        ClusterError: the kubeconfig or the context cannot be used.
    """
    target = hpa["spec"]["scaleTargetRef"]
    if (str(target.get("apiVersion")).partition("/")[0], target["kind"]) != ("apps", "Deployment"):
        return None, f"The HPA scales a {shown(target['kind'])}: only a Deployment's pods are looked at."
    name = target["name"]
    with open_reader(cluster, read_timeout_s=READ_TIMEOUT_S) as client:
        try:
            deployment = _deployment(client, name)
            pods = _pods(client, deployment)
        except ApiError as error:
            return None, f"How long a pod takes to start is not known: {_why(error)}"
    return summed_up(name, pods, deadline_s=_deadline_s(deployment), now=now)


def summed_up(deployment: str, pods: Sequence[Any], *, deadline_s: float, now: datetime) -> tuple[StartUp | None, str]:
    """Return how long these pods took to start, and a sentence about it; None if too few of them tell.

    Args:
        deployment: its name.
        pods: as the API server lists them.
        deadline_s: a pod that was ready later than this after it had a node lost its readiness meanwhile.
        now: the time, with a time zone.
    """
    told = [d for d in (_durations(pod, since=now - RECENT) for pod in pods) if d is not None]
    told = [d for d in told if min(d) >= 0 and d.ready_s <= deadline_s]
    of = f"Deployment {shown(deployment)}"
    if len(told) < MIN_PODS:
        return None, (
            f"How long a pod takes to start is not known: of {len(pods)} pods of {of}, {len(told)} started in the last "
            f"{RECENT.days} days and never restarted; it takes {MIN_PODS}."
        )
    found = StartUp(
        deployment=deployment,
        pods=len(told),
        left_out=len(pods) - len(told),
        scheduling=_spread(d.scheduling_s for d in told),
        ready=_spread(d.ready_s for d in told),
    )
    return found, (
        f"A pod of {of} has a node after {found.scheduling.p90_s:g} s and is ready {found.ready.p90_s:g} s later "
        f"(90th percentile; half of them within {found.scheduling.median_s:g} s and {found.ready.median_s:g} s): "
        f"measured on {found.pods} pods, to the second."
    )


def with_start(delays: Delays, startup: StartUp) -> tuple[Delays, tuple[str, ...]]:
    """Put what was measured in place of the defaults, and nothing in place of what a person has set.

    Slow starts are what an autoscaler suffers from, so the 90th percentile counts. What passes until a pod is ready was
    measured as a whole: it goes into `start_s`, and `readiness_s` is no longer on top of it, unless one of them is set;
    then the other takes the rest.

    Args:
        delays: of the spec as it was read: `model_fields_set` tells what a person has set.
        startup: what was measured.

    Returns:
        The delays, and the names of those that were measured.
    """
    given = delays.model_fields_set
    ready_s = startup.ready.p90_s
    measured = {"scheduling_s": startup.scheduling.p90_s}
    if "readiness_s" in given:
        measured["start_s"] = max(0.0, ready_s - delays.readiness_s)
    elif "start_s" in given:
        measured["readiness_s"] = max(0.0, ready_s - delays.start_s)
    else:
        measured |= {"start_s": ready_s, "readiness_s": 0.0}
    measured = {name: value for name, value in measured.items() if name not in given}
    return delays.model_copy(update=measured), tuple(measured)


def _deployment(client: HpaClient, name: str) -> dict[str, Any]:
    from kubernetes.client import AppsV1Api

    send = AppsV1Api(client.connection.api).read_namespaced_deployment
    where = f"Deployment {client.namespace}/{name}"
    return client.connection.ask(send, where=where, name=name, namespace=client.namespace)


def _pods(client: HpaClient, deployment: dict[str, Any]) -> list[Any]:
    """Return the pods that a Deployment selects, in the API server's order."""
    from kubernetes.client import CoreV1Api

    where = f"the pods of {client.namespace}"
    try:
        selector = ",".join(_requirements(deployment["spec"]["selector"]))
    except (KeyError, TypeError, AttributeError):  # of any other shape than the API's
        raise ApiError("not_json", "the answer is no Deployment.", where=where) from None
    if not selector:
        raise ApiError("not_json", "the Deployment selects all pods.", where=where)
    send = CoreV1Api(client.connection.api).list_namespaced_pod
    answer = client.connection.ask(
        send, where=where, namespace=client.namespace, label_selector=selector, limit=MOST_PODS
    )
    items = answer.get("items")
    return items if isinstance(items, list) else []


def _requirements(selector: dict[str, Any]) -> Iterator[str]:
    """Yield a label selector's requirements as a query has them (Kubernetes, "Labels and Selectors")."""
    for key, value in (selector.get("matchLabels") or {}).items():
        yield f"{key}={value}"
    for expression in selector.get("matchExpressions") or ():
        key, values = expression["key"], ",".join(expression.get("values") or ())
        yield {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }[expression["operator"]]


def _deadline_s(deployment: dict[str, Any]) -> float:
    deadline_s = deployment["spec"].get("progressDeadlineSeconds")
    return deadline_s if isinstance(deadline_s, int) else PROGRESS_DEADLINE_S


def _durations(pod: Any, *, since: datetime) -> _Durations | None:
    """Return what a pod took, None if it is older, not ready, restarted, or does not tell."""
    try:
        created = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
        status = pod["status"]
        conditions = {c["type"]: c for c in status["conditions"] if c["status"] == "True"}
        containers = [*(status.get("initContainerStatuses") or ()), *status["containerStatuses"]]
        if created < since or any(container["restartCount"] for container in containers):
            return None
        scheduled, ready = (
            datetime.fromisoformat(conditions[kind]["lastTransitionTime"]) for kind in ("PodScheduled", "Ready")
        )
        return _Durations((scheduled - created).total_seconds(), (ready - scheduled).total_seconds())
    except (KeyError, TypeError, ValueError):  # a condition that is not there (yet), or is of another shape
        return None


def _spread(seconds: Iterable[float]) -> Spread:
    ordered = sorted(seconds)
    return Spread(median_s=statistics.median(ordered), p90_s=ordered[math.ceil(TAIL * len(ordered)) - 1])


def _why(error: ApiError) -> str:
    if error.kind == "forbidden":
        return (
            "the reader may not look at Deployments or pods (403). The Role that `infertune manifests` writes lets it; "
            "it can do without."
        )
    if error.kind == "not_found":
        return "the Deployment that the HPA scales is not there (404)."
    return f"{error.what.rstrip('.')}."
