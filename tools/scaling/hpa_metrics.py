"""From a metric to a proposed number of replicas, as the HorizontalPodAutoscaler controller computes it.

Source: `pkg/controller/podautoscaler/replica_calculator.go` and `metrics/utilization.go` of Kubernetes 1.36. Values
are integers in thousandths of their unit. Divisions of integers drop the remainder, ratios are 64-bit floats, and the
order of the operations is the controller's, so that a value on a border falls on the same side.

These functions know groups of pods, not pods: a simulation calls them many thousand times.
`tools.scaling.hpa_pods` makes the groups from pods and samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from tools.scaling.hpa_spec import Tolerance

MAX_INT32 = 2**31 - 1
"""The controller counts replicas in 32 bits."""


class Fleet(NamedTuple):
    """What the controller knows of the pods when it weighs a per-pod metric.

    The requests matter to a utilization only. They are sums, since pods of two revisions may request differently;
    `alike` fills them in for pods that all request the same.
    """

    sampled: int
    """Samples that count: of pods that are ready, and of pods that are `gone`."""
    usage_milli: int
    """Sum of those samples; for a utilization without those of pods that are gone."""
    unready: int = 0
    """Pods that are pending; for CPU also those that are starting. Their samples do not count."""
    missing: int = 0
    """Pods that run without a sample."""
    gone: int = 0
    """Of `sampled`, those whose pod is not listed any more: they count into the mean, not into the pods."""
    request_milli: int = 0
    """Requested by the pods that are sampled and not gone."""
    unready_request_milli: int = 0
    """Requested by the unready pods."""
    missing_request_milli: int = 0
    """Requested by the missing pods."""
    missing_usage_milli: int = 0
    """What the missing pods count as when scaling down: `missing_usage` of each one's request."""


def missing_usage(request_milli: int, target_percent: int) -> int:
    """Return what a pod without a sample is taken to use when scaling down: its request, or the target if higher."""
    return request_milli * max(100, target_percent) // 100


def alike(
    *, sampled: int, usage_milli: int, request_milli: int, target_percent: int, unready: int = 0, missing: int = 0
) -> Fleet:
    """Return the fleet of pods that all request `request_milli`, for a utilization."""
    return Fleet(
        sampled=sampled,
        usage_milli=usage_milli,
        unready=unready,
        missing=missing,
        request_milli=sampled * request_milli,
        unready_request_milli=unready * request_milli,
        missing_request_milli=missing * request_milli,
        missing_usage_milli=missing * missing_usage(request_milli, target_percent),
    )


def propose_average_value(fleet: Fleet, *, current: int, target_milli: int, tolerance: Tolerance) -> int | None:
    """Return the replicas that bring the mean of a per-pod metric to its target (Pods, and Resource by value).

    Args:
        fleet: the pods and their samples.
        current: `spec.replicas` of the target.
        target_milli: `averageValue`.
        tolerance: the ratios within which nothing changes.

    Returns:
        The proposal, or None where the controller gives an error: no sample counts.
    """
    sampled = fleet.sampled
    if sampled == 0:
        return None
    ratio = _quotient(fleet.usage_milli, sampled) / target_milli
    fill_unready = ratio > 1.0 and fleet.unready > 0
    if not fill_unready and not fleet.missing:
        if tolerance.low <= ratio <= tolerance.high:
            return current
        return _ceil(ratio * (sampled - fleet.gone))
    if ratio == 1.0:
        return current
    usage = fleet.usage_milli
    if ratio < 1.0:
        # A missing pod leans against the change: at its target on the way down, idle on the way up.
        usage += fleet.missing * target_milli
    counted = sampled + fleet.missing + (fleet.unready if fill_unready else 0)
    return _rebalanced(ratio, _quotient(usage, counted) / target_milli, counted, current, tolerance)


def propose_utilization(fleet: Fleet, *, current: int, target_percent: int, tolerance: Tolerance) -> int | None:
    """Return the replicas that bring the usage to a percentage of what the pods request.

    Args:
        fleet: the pods, their samples and requests.
        current: `spec.replicas` of the target.
        target_percent: `averageUtilization`.
        tolerance: the ratios within which nothing changes.

    Returns:
        The proposal, or None where the controller gives an error: no sample counts, or none is of a listed pod.
    """
    if fleet.sampled == 0 or fleet.request_milli == 0:
        return None
    ratio = _quotient(fleet.usage_milli * 100, fleet.request_milli) / target_percent
    fill_unready = ratio > 1.0 and fleet.unready > 0
    if not fill_unready and not fleet.missing:
        if tolerance.low <= ratio <= tolerance.high:
            return current
        return _ceil(ratio * (fleet.sampled - fleet.gone))
    if ratio == 1.0:
        return current
    usage = fleet.usage_milli
    request = fleet.request_milli + fleet.missing_request_milli
    counted = fleet.sampled + fleet.missing
    if ratio < 1.0:
        usage += fleet.missing_usage_milli
    if fill_unready:
        request += fleet.unready_request_milli
        counted += fleet.unready
    return _rebalanced(ratio, _quotient(usage * 100, request) / target_percent, counted, current, tolerance)


def propose_value(
    usage_milli: int, *, current: int, ready: int | None, target_milli: int, tolerance: Tolerance
) -> int | None:
    """Return the replicas that bring one value of the whole service to its target (Object and External, `value`).

    Args:
        usage_milli: the value; for several series their sum.
        current: `spec.replicas` of the target.
        ready: pods that run and are ready, even if they are being deleted; None if no pod is listed at all.
        target_milli: `value`.
        tolerance: the ratios within which nothing changes.

    Returns:
        The proposal, or None where the controller gives an error: it would count pods, and none is listed.
    """
    ratio = usage_milli / target_milli
    if current == 0:
        return _ceil(ratio)
    if tolerance.low <= ratio <= tolerance.high:
        return current
    return None if ready is None else _ceil(ratio * ready)


def propose_total(usage_milli: int, *, status_replicas: int, target_milli: int, tolerance: Tolerance) -> int:
    """Return the replicas among which a total is shared out at its target (Object and External, `averageValue`).

    Args:
        usage_milli: the total; for several series their sum.
        status_replicas: `status.replicas` of the target: pods that exist, ready or not.
        target_milli: `averageValue`.
        tolerance: the ratios within which nothing changes.
    """
    if status_replicas and tolerance.low <= usage_milli / (target_milli * status_replicas) <= tolerance.high:
        return status_replicas
    return _ceil(usage_milli / target_milli)


def combine(proposals: Iterable[int | None], *, current: int) -> int | None:
    """Return the largest proposal of all metrics, or None if nothing may be done.

    A metric that fails (None) can only be outvoted upwards: the controller does not scale down on what is left.
    """
    replicas, failed, valid = 0, False, False
    for proposal in proposals:
        if proposal is None:
            failed = True
        else:
            # As the controller has it: zero is the same as "none yet".
            if replicas == 0 or proposal > replicas:
                replicas = proposal
            valid = True
    if not valid or (failed and replicas < current):
        return None
    return replicas


def _rebalanced(before: float, after: float, counted: int, current: int, tolerance: Tolerance) -> int:
    """Return the proposal after missing and unready pods were filled in: none that reverses the direction."""
    if tolerance.low <= after <= tolerance.high or (before < 1.0 < after) or (after < 1.0 < before):
        return current
    replicas = _ceil(after * counted)
    if (after < 1.0 and replicas > current) or (after > 1.0 and replicas < current):
        return current
    return replicas


def _quotient(dividend: int, divisor: int) -> int:
    """Divide as Go does: towards zero."""
    return dividend // divisor if dividend >= 0 else -(-dividend // divisor)


def _ceil(replicas: float) -> int:
    return min(math.ceil(replicas), MAX_INT32)
