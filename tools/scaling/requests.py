"""Request by request: a queue before one server or several, simulated event by event.

Time is in seconds from 0. Whatever happens at one instant is handled in this order: requests whose deadline has
passed leave, requests arrive, workers become idle, policies decide, and those for whom the queue has no room are
refused. Nothing depends on anything but the arguments: the same ones give the same bytes.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from heapq import heapreplace
from typing import Literal, TypeAlias

import numpy as np

from tools.scaling.batching import BatchPolicy, Greedy, OneByOne
from tools.scaling.request_events import Events, Station
from tools.scaling.request_run import RequestRun
from tools.scaling.service_times import BAD_TIME, FloatArray, ServiceTime

Routing: TypeAlias = Literal["shared", "random", "shortest"]
"""One queue for all servers; or one queue each, chosen at random, or where the fewest requests wait or are served
(the first of several such)."""


def poisson_arrivals_s(rate_rps: float, count: int, rng: np.random.Generator) -> FloatArray:
    """Return the times of the first `count` arrivals of a Poisson process."""
    if not (math.isfinite(rate_rps) and rate_rps > 0):
        raise ValueError(f"rate_rps must be positive and finite, not {rate_rps!r}")
    return np.cumsum(rng.standard_exponential(count)) / rate_rps


def simulate_requests(
    arrivals_s: FloatArray,
    service: ServiceTime,
    policy: BatchPolicy,
    *,
    servers: int = 1,
    routing: Routing = "shared",
    seed: int = 0,
    queue_limit: int | None = None,
    deadline_ms: float | None = None,
    until_s: float = math.inf,
) -> RequestRun:
    """Simulate each request, first come first served.

    Args:
        arrivals_s: when each request arrives, ascending, none before 0.
        service: seconds that a batch of n takes.
        policy: decides for a worker that is idle.
        servers: how many batches can be served at once.
        routing: which queue a request joins.
        seed: of the random routing.
        queue_limit: requests that may wait in one queue; the newest ones more than that are refused.
        deadline_ms: a request that has waited this long leaves without an answer.
        until_s: the horizon; by default everybody's end is awaited.

    Raises:
        ValueError: an argument is out of its range, or the policy gave a decision that cannot be carried out.
    """
    _check(arrivals_s, servers, queue_limit, deadline_ms, until_s)
    arrived = arrivals_s[: int(np.searchsorted(arrivals_s, until_s, "left"))]
    # Greedy never looks back: each batch follows from the one before, which is much faster than event by event.
    plain = routing == "shared" or servers == 1
    if type(policy) in (Greedy, OneByOne) and plain and queue_limit is None and deadline_ms is None:
        assert isinstance(policy, Greedy)
        return _batch_by_batch(arrived, service, policy.max_batch, servers, until_s)
    return Events(
        arrived,
        service,
        policy,
        stations=[Station(idle=servers)] if plain else [Station(idle=1) for _ in range(servers)],
        rng=np.random.default_rng(seed) if routing == "random" else None,
        queue_limit=math.inf if queue_limit is None else queue_limit,
        deadline_s=math.inf if deadline_ms is None else deadline_ms / 1000,
    ).run(until_s)


def _check(
    arrivals_s: FloatArray, servers: int, queue_limit: int | None, deadline_ms: float | None, until_s: float
) -> None:
    ascending = len(arrivals_s) and arrivals_s[0] >= 0 and (np.diff(arrivals_s) >= 0).all()
    if not (ascending and math.isfinite(arrivals_s[-1])):
        raise ValueError("arrivals_s must hold at least one time, ascending, finite and not negative")
    if servers < 1:
        raise ValueError(f"servers must be at least 1, not {servers!r}")
    if queue_limit is not None and queue_limit < 0:
        raise ValueError(f"queue_limit must not be negative, not {queue_limit!r}")
    for name, value in (("deadline_ms", deadline_ms), ("until_s", until_s)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive, not {value!r}")


def _batch_by_batch(
    arrivals_s: FloatArray, service: ServiceTime, max_batch: int, servers: int, until_s: float
) -> RequestRun:
    times: list[float] = arrivals_s.tolist()
    heads: list[int] = []
    starts: list[float] = []
    durations: list[float] = []
    idle_from = [0.0] * servers
    first, count = 0, len(times)
    while first < count:
        idle, arrival = idle_from[0], times[first]
        # Written out, since `max` and `min` would take a fourth of the whole run.
        start = idle if idle > arrival else arrival  # noqa: FURB136
        if start >= until_s:
            break
        full = first + max_batch
        after = bisect_right(times, start, first + 1, full if full < count else count)  # noqa: FURB136
        duration = service(after - first)
        heads.append(first)
        starts.append(start)
        durations.append(duration)
        heapreplace(idle_from, start + duration)
        first = after
    edges = np.array([*heads, first], dtype=np.int64)
    sizes = edges[1:] - edges[:-1]
    batch_starts_s, batch_times_s = np.array(starts, dtype=np.float64), np.array(durations, dtype=np.float64)
    if not (np.isfinite(batch_times_s).all() and (batch_times_s >= 0).all()):
        raise ValueError(BAD_TIME)
    start_s, done_s = np.full(count, math.nan), np.full(count, math.nan)
    start_s[:first] = np.repeat(batch_starts_s, sizes)
    done_s[:first] = np.repeat(batch_starts_s + batch_times_s, sizes)
    horizon_s = until_s if math.isfinite(until_s) else float(done_s.max())
    # The number waiting, integrated over time, is the sum of everybody's time in the queue.
    waited_s = float((start_s[:first] - arrivals_s[:first]).sum() + (horizon_s - arrivals_s[first:]).sum())
    return RequestRun(
        arrivals_s=arrivals_s,
        start_s=start_s,
        done_s=done_s,
        batch_sizes=sizes,
        batch_starts_s=batch_starts_s,
        batch_times_s=batch_times_s,
        servers=servers,
        refused=0,
        expired=0,
        waiting=count - first,
        waited_s=waited_s,
        horizon_s=horizon_s,
    )
