"""How long a search for autoscaler settings takes over a week of traffic, and what it finds.

A replica as measured on two cores, a week of seven bundled days of which the weekend is quieter, an HPA on the CPU as
many have it. Run by `python -m simulations.scaling_search`; takes about a minute.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from tools.contracts import Interval
from tools.contracts.recommendation import Recommendation
from tools.contracts.scaling import Delays, HpaSpec, ServiceCurve, ServicePoint
from tools.scaling.choose import PROCESSES, search
from tools.scaling.days import Day
from tools.scaling.replica import Replica
from tools.scaling.twin import prepare
from tools.traffic import bundled_day

SLO_MS = 100.0
PRICE_PER_HOUR_USD = 0.085
WEEKDAYS = (1.0, 1.05, 0.95, 1.1, 1.2, 0.7, 0.6)
"""The traffic of each day of the week against that of the bundled one."""
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
FIXED_MS, PER_REQUEST_MS = 4.0, 0.6
"""Time of a batch: so much for any, and so much more for each request in it."""
LEAST_SETTINGS = 150
TODAY: HpaSpec = {
    "minReplicas": 3,
    "maxReplicas": 12,
    "metrics": [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}
    ],
}


def curve() -> ServiceCurve:
    """Return how one replica serves."""
    points = []
    for size in BATCH_SIZES:
        ms = FIXED_MS + PER_REQUEST_MS * size
        rps = 1000 * size / ms
        points.append(
            ServicePoint(
                batch_size=size,
                p50_ms=ms,
                p99_ms=1.2 * ms,
                mean_ms=ms,
                throughput_rps=Interval(value=rps, low=0.97 * rps, high=1.03 * rps, n=100),
            )
        )
    return ServiceCurve(name="a replica on two cores", points=tuple(points), max_batch=BATCH_SIZES[-1])


def week() -> NDArray[np.float64]:
    """Return seven days, requests per second for each second."""
    days = [share * np.array(bundled_day(seed).rps) for seed, share in enumerate(WEEKDAYS)]
    return np.repeat(np.concatenate(days), 60)


def shown(found: Recommendation) -> str:
    """Return the result in a few lines."""
    effort = found.effort
    lines = [found.sentence]
    if found.chosen is not None:
        lines.append(f"Chosen: {found.chosen.name}")
    if found.today is not None:
        lines.append(f"Today's: {found.today.rejected or 'keeps every promise'}")
    kept = sum(option.rejected is None for option in found.options)
    lines.append(
        f"{effort.settings} settings judged in {effort.seconds:.1f} s on {effort.processes} processes, "
        f"{kept} keep every promise, {effort.failed_early} failed on the busiest day alone, "
        f"{effort.too_costly} cost too much to be run to the end. Runs: "
        f"{effort.busiest_day_runs} of the busiest day, {effort.recorded_runs} of the week, "
        f"{effort.harder_runs} of a harder day."
    )
    return "\n".join(lines)


def one_setting_s() -> float:
    """Return the CPU seconds that a week takes under today's setting, the best of three."""
    stage = prepare(
        Day("the recorded week", week()),
        Replica.of(curve()),
        delays=Delays(),
        slo_ms=SLO_MS,
        price_per_hour_usd=PRICE_PER_HOUR_USD,
    )
    taken = []
    for _ in range(3):
        before = time.process_time()
        stage.play(TODAY)
        taken.append(time.process_time() - before)
    return min(taken)


def main() -> None:
    """Search, and print the result and the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=PROCESSES, help="processes to run the twin in")
    arguments = parser.parse_args()
    found = search(
        Day("the recorded week", week()),
        Replica.of(curve()),
        slo_ms=SLO_MS,
        price_per_hour_usd=PRICE_PER_HOUR_USD,
        today=TODAY,
        processes=arguments.processes,
    )
    console = Console(highlight=False, soft_wrap=True)
    console.print(shown(found))
    console.print(f"One setting over the week, second by second: {one_setting_s():.2f} s of CPU time.")
    assert found.effort.settings >= LEAST_SETTINGS


if __name__ == "__main__":
    main()
