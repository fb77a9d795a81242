"""The simulation of requests event by event: `tools.scaling.requests` says what it means, and calls it."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np

from tools.scaling.batching import BatchPolicy, QueueState, Serve
from tools.scaling.request_run import RequestRun
from tools.scaling.service_times import BAD_TIME, FloatArray, ServiceTime


@dataclass(slots=True)
class Station:
    """One queue and the servers that it feeds."""

    idle: int
    queue: deque[int] = field(default_factory=deque)
    """Indices of requests, the oldest first."""
    in_service: int = 0
    asked: int = 0
    """How often the policy was asked: a wake-up that an older decision ordered is void."""


class Events:
    """The simulation of one run, event by event: any policy, any routing, limits and deadlines."""

    def __init__(
        self,
        arrivals_s: FloatArray,
        service: ServiceTime,
        policy: BatchPolicy,
        *,
        stations: list[Station],
        rng: np.random.Generator | None,
        queue_limit: float,
        deadline_s: float,
    ) -> None:
        self._arrivals_s = arrivals_s
        self._times: list[float] = arrivals_s.tolist()
        self._service = service
        self._policy = policy
        self._stations = stations
        self._servers = sum(station.idle for station in stations)
        self._routes: list[int] | None = None
        if rng is not None:
            self._routes = rng.integers(len(stations), size=len(arrivals_s)).tolist()
        self._queue_limit = queue_limit
        self._deadline_s = deadline_s
        self._next = 0
        """Index of the next request to arrive."""
        self._calendar: list[tuple[float, int, int, int, int]] = []
        """Time, running number, station, size of the batch that is done (0: a wake-up), the station's `asked` then."""
        self._scheduled = 0
        self._now_s = 0.0
        self._waiting = 0
        self._waited_s = 0.0
        self._last_s = 0.0
        """When something last happened to a request."""
        self._refused = self._expired = 0
        self._start_s = [math.nan] * len(arrivals_s)
        self._done_s = [math.nan] * len(arrivals_s)
        self._batches: list[tuple[int, float, float]] = []

    def run(self, until_s: float) -> RequestRun:
        """Simulate until nothing happens any more, or to `until_s`."""
        while (now_s := self._next_event_s()) < until_s:
            self._pass_time(now_s)
            for station in sorted(self._arrivals() | self._completions()):
                self._decide(station)
        self._pass_time(until_s if math.isfinite(until_s) else self._end_s())
        sizes, starts_s, times_s = zip(*self._batches, strict=True) if self._batches else ((), (), ())
        return RequestRun(
            arrivals_s=self._arrivals_s,
            start_s=np.array(self._start_s),
            done_s=np.array(self._done_s),
            batch_sizes=np.array(sizes, dtype=np.int64),
            batch_starts_s=np.array(starts_s, dtype=np.float64),
            batch_times_s=np.array(times_s, dtype=np.float64),
            servers=self._servers,
            refused=self._refused,
            expired=self._expired,
            waiting=sum(len(station.queue) for station in self._stations),
            waited_s=self._waited_s,
            horizon_s=self._now_s,
        )

    def _next_event_s(self) -> float:
        arrival_s = self._times[self._next] if self._next < len(self._times) else math.inf
        return min(arrival_s, self._calendar[0][0]) if self._calendar else arrival_s

    def _end_s(self) -> float:
        """Return when the last request was answered or left; one that nobody will ever serve leaves at its deadline."""
        if math.isinf(self._deadline_s):
            return self._last_s
        left = [self._times[station.queue[-1]] + self._deadline_s for station in self._stations if station.queue]
        return max([self._last_s, *left])

    def _pass_time(self, now_s: float) -> None:
        """Go to `now_s`. Whoever's deadline passes on the way leaves at that very moment."""
        self._waited_s += self._waiting * (now_s - self._now_s)
        self._now_s = now_s
        for station in self._stations:
            while station.queue and (end_s := self._times[station.queue[0]] + self._deadline_s) <= now_s:
                station.queue.popleft()
                self._waiting -= 1
                self._expired += 1
                self._waited_s -= now_s - end_s
                self._last_s = max(self._last_s, end_s)

    def _arrivals(self) -> set[int]:
        """Let those come who come now, and return the stations where they joined the queue."""
        joined = set()
        while self._next < len(self._times) and self._times[self._next] <= self._now_s:
            station = self._route(self._next)
            self._stations[station].queue.append(self._next)
            self._waiting += 1
            self._next += 1
            self._last_s = self._now_s
            joined.add(station)
        return joined

    def _route(self, request: int) -> int:
        if self._routes is not None:
            return self._routes[request]
        loads = [len(station.queue) + station.in_service for station in self._stations]
        return loads.index(min(loads))

    def _completions(self) -> set[int]:
        """Free the servers that finish now, and return the stations whose policy is to be asked."""
        due = set()
        while self._calendar and self._calendar[0][0] <= self._now_s:
            _, _, index, count, asked = heappop(self._calendar)
            station = self._stations[index]
            if count:
                station.idle += 1
                station.in_service -= count
                self._last_s = self._now_s
            if count or asked == station.asked:
                due.add(index)
        return due

    def _decide(self, index: int) -> None:
        """Ask the policy while it can and wants to serve; then refuse those for whom the queue has no room."""
        station = self._stations[index]
        while station.idle and station.queue:
            station.asked += 1
            queue = QueueState(len(station.queue), self._times[station.queue[0]])
            decision = self._policy.decide(self._now_s, queue)
            if isinstance(decision, Serve):
                self._start(index, decision.batch_size)
                continue
            if not decision.time_s > self._now_s:
                raise ValueError(f"{self._policy} asked at {self._now_s} s to be woken at {decision.time_s} s")
            if decision.time_s < math.inf:
                self._schedule(decision.time_s, index, 0)
            break
        while len(station.queue) > self._queue_limit:
            station.queue.pop()
            self._waiting -= 1
            self._refused += 1

    def _start(self, index: int, count: int) -> None:
        station = self._stations[index]
        if not 1 <= count <= len(station.queue):
            raise ValueError(f"{self._policy} wants to serve {count} of {len(station.queue)} requests that wait")
        time_s = self._service(count)
        if not 0 <= time_s < math.inf:
            raise ValueError(BAD_TIME)
        for _ in range(count):
            request = station.queue.popleft()
            self._start_s[request] = self._now_s
            self._done_s[request] = self._now_s + time_s
        self._waiting -= count
        station.idle -= 1
        station.in_service += count
        self._batches.append((count, self._now_s, time_s))
        self._schedule(self._now_s + time_s, index, count)

    def _schedule(self, time_s: float, index: int, count: int) -> None:
        self._scheduled += 1
        heappush(self._calendar, (time_s, self._scheduled, index, count, self._stations[index].asked))
