"""From a proposal to a decision: bounds, stabilization and rates, with what the controller remembers of one HPA.

Source: `pkg/controller/podautoscaler/horizontal.go` of Kubernetes 1.36. The clock is passed in. Borders are the
controller's: with a `behavior` block a recommendation counts while it is younger than the window, without one also
when it is exactly as old; a scale event counts while it is younger than the policy's period.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from tools.scaling.hpa_spec import Autoscaler, Behavior, Rules
from tools.scaling.hpa_window import Recommendations

SCALE_UP_FACTOR = 2
SCALE_UP_LEAST = 4
"""Without a `behavior` block one sync may at most double the replicas, or go to four."""


class Decided(NamedTuple):
    """What one sync decided."""

    replicas: int
    """What `spec.replicas` is to be: the current number if nothing is to be done."""
    reason: str
    """`ReadyForNewScale`, `ScaleUpStabilized` or `ScaleDownStabilized`. Without a look at the metrics:
    `AboveMaxReplicas`, `BelowMinReplicas` or `ScalingDisabled`. With no proposal: `FailedGetMetrics`."""
    limited_by: str | None = None
    """`ScaleUpLimit`, `ScaleDownLimit`, `TooManyReplicas` or `TooFewReplicas` if that held the proposal back."""


class _Event:
    """One change of the replicas that the controller made."""

    __slots__ = ("at_s", "change", "outdated")

    def __init__(self, at_s: float, change: int) -> None:
        self.at_s = at_s
        self.change = change
        self.outdated = False


class Memory:
    """What the controller remembers of one HPA between syncs; a restarted controller has a fresh one.

    One sync is one call of `decide`, and one of `scaled` once the write of a new number has succeeded. Time never
    goes back.
    """

    __slots__ = ("_autoscaler", "_down_events", "_recommendations", "_up_events")

    def __init__(self, autoscaler: Autoscaler) -> None:
        """Start without any memory, under the given spec."""
        self._recommendations = Recommendations()
        self._up_events: list[_Event] = []
        self._down_events: list[_Event] = []
        self.patched(autoscaler)

    def patched(self, autoscaler: Autoscaler) -> None:
        """Go on under a changed spec: what is remembered stays."""
        self._autoscaler = autoscaler
        behavior = autoscaler.behavior
        if behavior is None:
            window_s = autoscaler.controller.downscale_window_s
            self._recommendations.resize(up_s=0.0, down_s=window_s, inclusive=True)
        else:
            self._recommendations.resize(up_s=behavior.up.window_s, down_s=behavior.down.window_s, inclusive=False)

    def decide(self, now_s: float, current: int, proposal: int | None) -> Decided:
        """Return what one sync makes of the metrics' proposal.

        Args:
            now_s: the time.
            current: `spec.replicas` of the target.
            proposal: the largest over all metrics (`combine`); None if they do not allow one.
        """
        autoscaler = self._autoscaler
        recommendations = self._recommendations
        if recommendations.empty:
            recommendations.store(now_s, current)
        if not autoscaler.min_replicas <= current <= autoscaler.max_replicas:
            return _outside(autoscaler, current)
        if proposal is None:
            return Decided(current, "FailedGetMetrics")
        desired = max(0, proposal)
        lowest, highest = recommendations.extremes(now_s, desired)
        recommendations.store(now_s, desired)
        if autoscaler.behavior is None:
            reason = "ReadyForNewScale" if highest == desired else "ScaleDownStabilized"
            return _without_behavior(autoscaler, current, highest, reason)
        stabilized = max(current, lowest)
        stabilized = min(stabilized, highest)
        if stabilized == desired:
            reason = "ReadyForNewScale"
        else:
            reason = "ScaleUpStabilized" if desired >= current else "ScaleDownStabilized"
        if stabilized == current:
            return Decided(current, reason)
        return self._at_rate(now_s, current, stabilized, reason, autoscaler.behavior)

    def scaled(self, now_s: float, before: int, after: int) -> None:
        """Remember a change of the replicas.

        Args:
            now_s: when the write returned, a few milliseconds after `decide`. It matters if a policy's period is a
                multiple of the sync period.
            before: what `spec.replicas` was.
            after: what it is now.
        """
        behavior = self._autoscaler.behavior
        if behavior is None:
            return
        if after > before:
            _store(self._up_events, _Event(now_s, after - before), behavior.up.longest_s)
        else:
            _store(self._down_events, _Event(now_s, before - after), behavior.down.longest_s)

    def _at_rate(self, now_s: float, current: int, desired: int, reason: str, behavior: Behavior) -> Decided:
        autoscaler = self._autoscaler
        if desired > current:
            limit = max(current, self._up_limit(now_s, current, behavior.up))
            most = min(limit, autoscaler.max_replicas)
            if desired > most:
                return Decided(most, reason, "ScaleUpLimit" if limit < autoscaler.max_replicas else "TooManyReplicas")
        else:
            limit = min(current, self._down_limit(now_s, current, behavior.down))
            least = max(limit, autoscaler.min_replicas)
            if desired < least:
                return Decided(least, reason, "ScaleDownLimit" if limit > autoscaler.min_replicas else "TooFewReplicas")
        return Decided(desired, reason)

    def _up_limit(self, now_s: float, current: int, rules: Rules) -> int:
        if rules.select == "Disabled":
            return current
        limits = []
        for policy in rules.policies:
            start = self._replicas_at(now_s - policy.period_s, current)
            if policy.kind == "Pods":
                limits.append(start + policy.value)
            else:
                # Rounded up, or a small number could never grow.
                limits.append(math.ceil(start * (1 + policy.value / 100)))
        return min(limits) if rules.select == "Min" else max(limits)

    def _down_limit(self, now_s: float, current: int, rules: Rules) -> int:
        if rules.select == "Disabled":
            return current
        limits = []
        for policy in rules.policies:
            start = self._replicas_at(now_s - policy.period_s, current)
            if policy.kind == "Pods":
                limits.append(start - policy.value)
            else:
                limits.append(int(start * (1 - policy.value / 100)))
        return max(limits) if rules.select == "Min" else min(limits)

    def _replicas_at(self, start_s: float, current: int) -> int:
        """Return the replicas before the changes that are known since `start_s`."""
        added = sum(event.change for event in self._up_events if event.at_s > start_s)
        removed = sum(event.change for event in self._down_events if event.at_s > start_s)
        return current - added + removed


def _outside(autoscaler: Autoscaler, current: int) -> Decided:
    """Bring the replicas within the bounds at once: neither metrics nor rates are asked."""
    if current == 0:
        return Decided(0, "ScalingDisabled")
    if current > autoscaler.max_replicas:
        return Decided(autoscaler.max_replicas, "AboveMaxReplicas")
    return Decided(autoscaler.min_replicas, "BelowMinReplicas")


def _without_behavior(autoscaler: Autoscaler, current: int, desired: int, reason: str) -> Decided:
    limit = max(SCALE_UP_FACTOR * current, SCALE_UP_LEAST)
    if desired < autoscaler.min_replicas:
        return Decided(autoscaler.min_replicas, reason, "TooFewReplicas")
    if desired > min(limit, autoscaler.max_replicas):
        if limit < autoscaler.max_replicas:
            return Decided(limit, reason, "ScaleUpLimit")
        return Decided(autoscaler.max_replicas, reason, "TooManyReplicas")
    return Decided(desired, reason)


def _store(events: list[_Event], new: _Event, longest_s: float) -> None:
    """Add an event in the place of the last one that is older than every period, if there is one.

    Such an event still counts until it is replaced, if the other direction has a longer period. That is the
    controller's way, and so it is here.
    """
    place = None
    for i, event in enumerate(events):
        if event.at_s < new.at_s - longest_s:
            event.outdated = True
        if event.outdated:
            place = i
    if place is None:
        events.append(new)
    else:
        events[place] = new
