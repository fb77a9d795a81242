"""The past of a service that never was, as Ray Serve would have exported it: OpenMetrics text for a Prometheus.

A reactive autoscaler without delays, and queueing theory's first formulas: enough to look like a service, and to be
checked by hand. It proves nothing about scaling; that is the twin's task.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

MINUTE_S = 60
BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Of Ray Serve's default buckets, those that a model in the range of milliseconds fills."""
BUSIEST = 0.98
"""Utilization beyond which the queue's formula would run away."""

Array = npt.NDArray[np.float64]


def service_life(
    rates_rps: npt.ArrayLike,
    *,
    start_s: float,
    rps_per_replica: float,
    target: float = 0.7,
    min_replicas: int = 2,
    max_replicas: int = 20,
    deployment: str = "model",
) -> str:
    """Return what a service would have exported, a sample a minute, under the names that the preset `ray-serve` reads.

    In each minute, as many replicas run as keep their utilization at `target`, within the limits, and share the load. A
    replica that starts counts from zero again. Latency is exponential around the mean of an M/M/1 queue, 1 / (mu -
    lambda); the queue is that of all replicas, rho^2 / (1 - rho) each.

    Args:
        rates_rps: requests per second in each minute.
        start_s: Unix time of the first minute, in whole seconds.
        rps_per_replica: what one replica can do.
        target: utilization that the number of replicas aims for.
        min_replicas: never fewer run.
        max_replicas: never more run.
        deployment: value of the label `deployment`.
    """
    rates = np.asarray(rates_rps, dtype=np.float64)
    replicas = np.clip(np.ceil(rates / (target * rps_per_replica)), min_replicas, max_replicas)
    each = rates / replicas
    utilization = np.minimum(each / rps_per_replica, BUSIEST)
    mean_ms = 1000 / (rps_per_replica * (1 - utilization))
    times: Array = start_s + MINUTE_S * np.arange(len(rates) + 1, dtype=np.float64)
    running = [replicas > number for number in range(int(replicas.max()))]
    labels = [f'deployment="{deployment}",application="default",replica="{number}"' for number in range(len(running))]
    lines = ["# TYPE ray_serve_deployment_request_counter counter"]
    for label, runs in zip(labels, running, strict=True):
        lines += _counter(f"ray_serve_deployment_request_counter_total{{{label}}}", each * MINUTE_S, runs, times)
    lines.append("# TYPE ray_serve_deployment_processing_latency_ms histogram")
    for label, runs in zip(labels, running, strict=True):
        for bound in (*BOUNDS_MS, np.inf):
            share = 1 - np.exp(-bound / mean_ms)
            name = f'ray_serve_deployment_processing_latency_ms_bucket{{{label},le="{_bound(bound)}"}}'
            lines += _counter(name, each * MINUTE_S * share, runs, times)
    lines.append("# TYPE ray_serve_deployment_queued_queries gauge")
    queue = np.floor(replicas * utilization**2 / (1 - utilization))
    lines += _samples(f'ray_serve_deployment_queued_queries{{deployment="{deployment}"}}', times[:-1], queue)
    lines.append("# TYPE ray_serve_deployment_replica_healthy gauge")
    for label, runs in zip(labels, running, strict=True):
        name = f"ray_serve_deployment_replica_healthy{{{label}}}"
        lines += _samples(name, times[:-1], runs.astype(np.float64))
    return "\n".join([*lines, "# EOF", ""])


def _counter(name: str, per_minute: Array, runs: npt.NDArray[np.bool_], times: Array) -> Iterator[str]:
    """Yield a counter's samples at both ends of each minute in which its replica runs, from zero after each start."""
    edges = np.diff(np.concatenate([[False], runs, [False]]).astype(int))
    for begin, end in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        counts = np.concatenate([[0.0], np.cumsum(per_minute[begin:end])])
        yield from _samples(name, times[begin : end + 1], np.floor(counts))


def _samples(name: str, times: Array, values: Array) -> Iterator[str]:
    return (f"{name} {value:.0f} {time:.0f}" for time, value in zip(times.tolist(), values.tolist(), strict=True))


def _bound(bound: float) -> str:
    return "+Inf" if np.isinf(bound) else f"{bound:.1f}"
