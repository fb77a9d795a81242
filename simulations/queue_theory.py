"""The simulation of requests, held against queueing theory.

Each row is one system at one utilization: the mean wait that theory gives, and the one that is simulated, request by
request, in several independent runs. Run by `python -m simulations.queue_theory`; takes about three minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from tools.scaling.batching import Greedy
from tools.scaling.queueing import bulk_mean_wait_s, md1_mean_wait_s, mg1_mean_wait_s, mgc_mean_wait_s, mmc_mean_wait_s
from tools.scaling.requests import poisson_arrivals_s, simulate_requests
from tools.scaling.service_times import ServiceTime, exponential, fixed, spread

SEED = 0
RUNS = 8
_T_95 = 2.365
"""Student's t, two-sided 95 %, seven degrees of freedom."""
REQUESTS = {0.5: 200_000, 0.7: 300_000, 0.9: 800_000, 0.95: 1_600_000}
"""By utilization, in one run: a queue near saturation has a long memory."""
MANY = 3_000_000
"""Requests in one run of many servers, which seldom make anybody wait, or of batches, where crowds share one time."""
WARM_UP = 0.1
"""Share of each run that is left out: it starts with an empty queue."""

_P50_S, _P99_S, _MEAN_S = (np.array([value]) for value in (0.9, 2.5, 1.0))
"""A spread of service times such as is measured, with a mean of one second."""


@dataclass(frozen=True)
class System:
    """One queue: how it is simulated, and what theory says of it. A service takes one second on average."""

    name: str
    service: Callable[[np.random.Generator], ServiceTime]
    theory: Callable[[float], float]
    """Mean wait in seconds at a rate in requests per second."""
    servers: int = 1
    max_batch: int = 1


@dataclass(frozen=True)
class Row:
    """What came out for one system at one utilization."""

    system: System
    utilization: float
    theory_s: float
    wait_s: float
    reach_s: float
    """Half of the 95 % interval over the runs."""
    busy: float


def measured(rng: np.random.Generator) -> ServiceTime:
    """Return the service time that is spread as if it had been measured."""
    return spread(_P50_S, _P99_S, _MEAN_S, rng)


def measured_scv() -> float:
    """Return the squared coefficient of variation of `measured`, from a million draws."""
    draw = measured(np.random.default_rng(SEED))
    return float(np.var([draw(1) for _ in range(1_000_000)]))


def memoryless(rng: np.random.Generator) -> ServiceTime:
    """Return the exponential service time."""
    return exponential(1.0, rng)


def systems() -> tuple[System, ...]:
    """Return the systems of the table."""
    scv = measured_scv()
    return (
        *(System(f"M/M/{c}", memoryless, partial(mmc_mean_wait_s, service_s=1.0, servers=c), c) for c in (1, 2, 5, 20)),
        System("M/D/1", lambda _: fixed([1.0]), partial(md1_mean_wait_s, service_s=1.0)),
        System("M/G/1, measured", measured, partial(mg1_mean_wait_s, service_s=1.0, service_scv=scv)),
        System("M/G/5, measured", measured, partial(mgc_mean_wait_s, service_s=1.0, servers=5, service_scv=scv), 5),
        *(
            System(f"batches to {b}", memoryless, partial(bulk_mean_wait_s, service_s=1.0, max_batch=b), max_batch=b)
            for b in (8, 32)
        ),
    )


def compare(system: System, utilization: float) -> Row:
    """Simulate one system at one utilization, `RUNS` times."""
    rate_rps = utilization * system.servers * system.max_batch
    count = MANY if system.servers >= 20 or system.max_batch > 1 else REQUESTS[utilization]
    waits_s, busy = [], []
    for run_number in range(RUNS):
        rng = np.random.default_rng((SEED, run_number))
        arrivals_s = poisson_arrivals_s(rate_rps, count, rng)
        run = simulate_requests(arrivals_s, system.service(rng), Greedy(system.max_batch), servers=system.servers)
        waits_s.append(float(run.wait_s[int(count * WARM_UP) :].mean()))
        busy.append(run.utilization)
    return Row(
        system=system,
        utilization=utilization,
        theory_s=system.theory(rate_rps),
        wait_s=float(np.mean(waits_s)),
        reach_s=_T_95 * float(np.std(waits_s, ddof=1)) / math.sqrt(RUNS),
        busy=float(np.mean(busy)),
    )


def show(rows: list[Row], console: Console) -> None:
    """Print the table."""
    table = Table(box=box.SIMPLE_HEAD, title="Mean wait, in services")
    for heading in ("system", "load", "busy", "theory", "simulated", "off by (95 %)"):
        table.add_column(heading, justify="left" if heading == "system" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.system.name,
            f"{row.utilization:.2f}",
            f"{row.busy:.4f}",
            f"{row.theory_s:.5f}",
            f"{row.wait_s:.5f}",
            f"{100 * (row.wait_s / row.theory_s - 1):+.1f} ± {100 * row.reach_s / row.theory_s:.1f} %",
        )
    console.print(table)
    console.print(
        "The load is a share of the capacity; with batches an idle server takes smaller ones and is busy for longer. "
        "M/G/5 is held against Allen and Cunneen's approximation, which is not exact."
    )


def main() -> None:
    """Compare every system at every utilization."""
    show([compare(system, utilization) for system in systems() for utilization in REQUESTS], Console())


if __name__ == "__main__":
    main()
