"""What serving costs: pure arithmetic on a price per hour.

The price is always that of one replica's machine, or of its share of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tools.contracts import Interval

HOURS_PER_DAY = 24.0


def cost_per_1000_usd(price_per_hour_usd: float, throughput: Interval) -> Interval:
    """Return what 1,000 requests cost on a replica that is kept busy.

    1,000 requests take `1000 / rps` seconds and a second costs `price / 3600`, hence `price / (3.6 * rps)`. The ends
    of the interval change places: the lowest throughput gives the highest cost.

    Args:
        price_per_hour_usd: price of one replica per hour.
        throughput: requests per second of that replica; all of its interval must be positive.

    Raises:
        ValueError: the price or the throughput is not positive and finite, so that the quotient means nothing.
    """
    _require_positive("price_per_hour_usd", price_per_hour_usd)
    for end in ("low", "value", "high"):
        _require_positive(f"throughput.{end}", getattr(throughput, end))
    return throughput.inverse(price_per_hour_usd / 3.6)


def daily_cost_usd(price_per_hour_usd: float, replicas: Sequence[int], durations_s: Sequence[float]) -> float:
    """Return what a day costs when `replicas[i]` replicas run for `durations_s[i]` seconds.

    The price of 24 hours of the time-weighted mean number of replicas: a trace that is longer or shorter than a day
    is taken as typical of one.

    Args:
        price_per_hour_usd: price of one replica per hour.
        replicas: number of replicas in each stretch of time.
        durations_s: length of each stretch in seconds, as many as `replicas`.

    Raises:
        ValueError: the price is not positive and finite, the lengths differ, or no time passes at all.
    """
    _require_positive("price_per_hour_usd", price_per_hour_usd)
    total_s = math.fsum(durations_s)
    _require_positive("the sum of durations_s", total_s)
    replica_seconds = math.fsum(n * s for n, s in zip(replicas, durations_s, strict=True))
    return price_per_hour_usd * HOURS_PER_DAY * replica_seconds / total_s


def _require_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        msg = f"{name} must be positive and finite, not {value!r}"
        raise ValueError(msg)
