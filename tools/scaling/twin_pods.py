"""The pods of one service over time: starting, serving with a backlog each, stopping, lost.

Requests are a fluid that is spread evenly over the ready pods. What waits in a pod stays in that pod. Pods that became
ready together are alike, so they are kept as one cohort; cohorts are a stack, from which the newest pods leave first,
as a ReplicaSet has it. Where some are slow, these are the oldest. All times are whole seconds; second t is the time
from t to t + 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tools.contracts.scaling import Delays
from tools.scaling.days import Fault, Floats
from tools.scaling.twin_cohorts import (
    Backlogs,
    Cohort,
    Drained,
    Slow,
    counted,
    merged,
    slow_among,
    slowed,
    take_newest,
)

NEVER = 1 << 60
"""Later than any second."""


@dataclass(frozen=True)
class PodTimes:
    """What a pod's life takes, in whole seconds, rounded up."""

    bound_s: int
    """From the decision until it has a node, and is paid for."""
    ready_s: int
    """From the decision until it serves."""
    gone_s: int
    """From the decision to stop it until it is gone, and not paid for any more."""

    @classmethod
    def of(cls, delays: Delays) -> PodTimes:
        """Return the times that these delays make."""
        return cls(math.ceil(delays.scheduling_s), math.ceil(delays.pod_s), math.ceil(delays.termination_s))


class _Starting(NamedTuple):
    bound_at: int
    ready_at: int
    pods: int


class Pods:
    """All pods, and a log of what happened to them. Time only moves forward, by `advance`."""

    def __init__(
        self,
        rps: Floats,
        *,
        capacity_rps: float,
        times: PodTimes,
        faults: Sequence[Fault] = (),
        queue_limit: float = math.inf,
        ready: int,
        look_every_s: Sequence[int] = (),
    ) -> None:
        """Start with pods that have been ready for long, and nothing waiting.

        Args:
            rps: requests that come in each second.
            capacity_rps: of one pod.
            times: how long a pod starts and stops.
            faults: of which lost nodes and slow pods matter here.
            queue_limit: requests that may wait in one pod; more are refused.
            ready: pods at the beginning.
            look_every_s: `seen_waiting` keeps the backlogs at multiples of these.
        """
        self._rps = rps
        self._capacity_rps = capacity_rps
        self._times = times
        self._queue_limit = queue_limit
        self._losses = sorted((math.floor(f.at_s), f.share) for f in faults if f.kind == "lost_node")
        self._slowings = sorted(
            slowing
            for f in faults
            if f.kind == "slow_pods"
            # An end comes before a beginning in the same second: its share is 0.
            for slowing in ((math.floor(f.at_s), f.share, f.slowdown), (math.floor(f.at_s + f.for_s), 0.0, 1.0))
        )
        self._look_every_s = look_every_s
        self._starting: list[_Starting] = []
        self._stopping: list[tuple[int, int]] = []
        self.cohorts: list[Cohort] = [Cohort(ready, 0.0)] if ready else []
        """The newest last."""
        self.ready = ready
        self.starting = 0
        """Pods that were made and are not ready yet."""
        self.pending = 0
        """Of these, those that have no node yet."""
        self.stopping = 0
        """Pods that were ready, are stopped and not gone yet."""
        self.version = 0
        """Another number whenever anything about the pods changed, backlogs excepted."""
        self.heights = [(-NEVER, ready)]
        """Since when, and how many pods were ready; the first entry since long before the day."""
        self.slow = [Slow(-NEVER, 0, 1.0)]
        """Since when how many pods have been slow, like `heights`."""
        self.paid = [(0, ready)]
        """When, and how many more pods had to be paid."""
        self.backlogs: list[Backlogs] = []
        self.drained: list[Drained] = []
        self.seen_waiting: dict[int, list[Cohort]] = {}
        """`cohorts` at the seconds that are looked at, where anything waited."""
        self.next_event = NEVER
        self.calm_rps = 0.0
        """Until the next event nothing waits as long as no more than this comes in any second."""
        self._changed(0)

    def height_at(self, second: int) -> int:
        """Return how many pods were ready in a past second."""
        since, height = self.heights[-1]
        if since <= second:  # nearly always: what the controller sees is recent
            return height
        return next(height for since, height in reversed(self.heights) if since <= second)

    def lowest(self, start: int, end: int) -> int:
        """Return the fewest pods that were ready at once from second `start` to second `end`."""
        fewest = NEVER
        for since, height in reversed(self.heights):
            if since <= end:
                fewest = min(fewest, height)
            if since <= start:
                break
        return fewest

    def lowest_since(self, second: int) -> int:
        """Return how many of the pods ready at `second` still are: the newest leave first."""
        return self.lowest(second, NEVER)

    def paces_at(self, second: int) -> list[tuple[int, float]]:
        """Return pods and their slowdown, the oldest first, as they were ready in a past second."""
        height = self.height_at(second)
        if len(self.slow) == 1:  # no pod was ever slow
            return [(height, 1.0)]
        slow = next(slow for slow in reversed(self.slow) if slow.since <= second)
        return [(slow.pods, slow.slowdown), (height - slow.pods, 1.0)] if slow.pods else [(height, 1.0)]

    def slowest(self, start: int, end: int) -> float:
        """Return the largest slowdown of any pod from second `start` to second `end`."""
        most = 1.0
        for slow in reversed(self.slow):
            if slow.since <= end:
                most = max(most, slow.slowdown)
            if slow.since <= start:
                break
        return most

    def scale(self, now: int, change: int) -> None:
        """Make more pods, or stop some: those first that are not ready, then the newest."""
        if change > 0:
            self._make(now, change)
        else:
            self._stop(now, self._cancel(now, -change))
        self.settle(now)

    def advance(self, start: int, end: int) -> None:
        """Serve from second `start` until the beginning of second `end`, with all that happens meanwhile."""
        while start < end:
            self.settle(start)
            stop = min(end, self.next_event)
            self._serve(start, stop)
            start = stop

    def settle(self, now: int) -> None:
        """Let happen what is due at the beginning of second `now`."""
        while self.next_event <= now:
            if self._losses and self._losses[0][0] <= now:
                self._lose(now, self._losses.pop(0)[1])
            while self._slowings and self._slowings[0][0] <= now:
                _, share, slowdown = self._slowings.pop(0)
                self.cohorts = slowed(self.cohorts, share, slowdown)
            while self._starting and self._starting[0].ready_at <= now:
                self.cohorts.append(Cohort(self._starting.pop(0).pods, 0.0))
            while self._stopping and self._stopping[0][0] <= now:
                self._stopping.pop(0)
            self._changed(now)

    def _make(self, now: int, pods: int) -> None:
        times = self._times
        self._starting.append(_Starting(now + times.bound_s, now + times.ready_s, pods))
        self.paid.append((now + times.bound_s, pods))
        self._changed(now)

    def _cancel(self, now: int, pods: int) -> int:
        """Stop up to so many starting pods, the newest first; return how many are left to stop."""
        while pods and self._starting:
            batch = self._starting.pop()
            taken = min(pods, batch.pods)
            pods -= taken
            if taken < batch.pods:
                self._starting.append(batch._replace(pods=batch.pods - taken))
            # A pod without a node is gone at once; one that has a node takes its time to stop.
            free_at = batch.bound_at if batch.bound_at > now else now + self._times.gone_s
            self.paid.append((free_at, -taken))
        self._changed(now)
        return pods

    def _stop(self, now: int, pods: int) -> None:
        """Stop ready pods. What waits there is served as far as the time to stop allows, at the pace of this moment."""
        gone_at = now + self._times.gone_s
        taken = take_newest(self.cohorts, pods)
        stopped = counted(taken)
        if not stopped:
            return
        self.paid.append((gone_at, -stopped))
        self._stopping.append((gone_at, stopped))
        end = min(gone_at, self._rps.size)
        for count, waiting, slowdown in taken:
            served = min(waiting, self._capacity_rps / slowdown * (end - now))
            left = count * (waiting - served)
            refused, kept = (left, 0.0) if gone_at < self._rps.size else (0.0, left)
            self.drained.append(Drained(end, count * served, refused, kept))
        self._changed(now)

    def _lose(self, now: int, share: float) -> None:
        """Lose ready pods at once, with what waits there; the Deployment makes as many anew."""
        taken = take_newest(self.cohorts, max(1, round(share * self.ready)))
        lost = counted(taken)
        self.paid.append((now, -lost))
        self.drained += [Drained(now, 0.0, cohort.pods * cohort.waiting, 0.0) for cohort in taken]
        if lost:
            self._make(now, lost)

    def _changed(self, now: int) -> None:
        """Count the pods anew, and find when something happens next."""
        self.version += 1
        self.starting = sum(batch.pods for batch in self._starting)
        self.pending = sum(batch.pods for batch in self._starting if batch.bound_at > now)
        self.stopping = sum(pods for _, pods in self._stopping)
        ready = counted(self.cohorts)
        if ready != self.ready:
            self.ready = ready
            self.heights.append((now, ready))
        slow = Slow(now, *slow_among(self.cohorts))
        if slow[1:] != self.slow[-1][1:]:
            self.slow.append(slow)
        due = [batch.ready_at for batch in self._starting]
        due += [batch.bound_at for batch in self._starting if batch.bound_at > now]
        due += [at for at, _ in (*self._losses, *self._stopping)]
        due += [at for at, _, _ in self._slowings]
        self.next_event = min(due, default=NEVER)
        self._waited()

    def _waited(self) -> None:
        """Find out whether anything waits; where nothing does, the cohorts are one, or two if some pods are slow."""
        waits = any(cohort.waiting for cohort in self.cohorts)
        if len(self.cohorts) > 1 and not waits:
            self.cohorts = merged(self.cohorts)
        # Without a ready pod all requests are refused, and below zero comes none: each second is looked at.
        self.calm_rps = -1.0 if waits or not self.ready else self.ready * self._capacity_rps / self.cohorts[0].slowdown

    def _serve(self, start: int, stop: int) -> None:
        """Serve while the pods stay the same."""
        if not self.ready:
            return
        rps = self._rps[start:stop]
        if self.calm_rps >= 0 and np.max(rps) <= self.calm_rps:
            return
        load = rps / self.ready
        changes_at = {
            slowdown: (load - self._capacity_rps / slowdown).tolist()
            for slowdown in {cohort.slowdown for cohort in self.cohorts}
        }
        limit = self._queue_limit
        columns = []
        after = []
        for cohort in self.cohorts:
            waiting = cohort.waiting
            column = []
            for change in changes_at[cohort.slowdown]:
                column.append(waiting)
                waiting += change
                if waiting < 0.0:
                    waiting = 0.0
                elif waiting > limit:
                    waiting = limit
            columns.append(column)
            after.append(cohort._replace(waiting=waiting))
            self.backlogs.append(Backlogs(start, cohort.pods, self.ready, cohort.slowdown, column))
        self._look(start, stop, columns)
        self.cohorts = after
        self._waited()

    def _look(self, start: int, stop: int, columns: list[list[float]]) -> None:
        """Keep the backlogs at the seconds that somebody looks at."""
        for every in self._look_every_s:
            for second in range(-(-start // every) * every, stop, every):
                at = [
                    cohort._replace(waiting=column[second - start])
                    for cohort, column in zip(self.cohorts, columns, strict=True)
                ]
                if any(cohort.waiting for cohort in at):
                    self.seen_waiting[second] = at
