"""Which layers stay in float: pure functions of what each one costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from tools.contracts import LayerSensitivity

LONGEST_TABLE = 60
_FLOOR_SHARE = 0.002
"""A layer is never taken to cost less than this share of what all layers in float cost together: the profile of a
single layer is no more exact, and one that costs nothing would go first however little it helps."""

Acceptable = Callable[[frozenset[str]], bool]
"""Whether the model is accurate enough with these layers in float."""


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs.

    Attributes:
        layer: its name.
        error: of the model's outputs with this layer alone in INT8, relative to their spread.
        drop: of the metric, likewise; in the metric's unit.
        float_ms: how much longer one item takes with it in float; 0 where that drowned in noise.
    """

    layer: str
    error: float
    drop: float
    float_ms: float


def by_value(costs: Sequence[LayerCost]) -> list[str]:
    """Order layers by the error that a millisecond in float avoids, the most first; ties keep their order."""
    floor = max(_FLOOR_SHARE * sum(cost.float_ms for cost in costs), 1e-9)
    value = {cost.layer: cost.error / max(cost.float_ms, floor) for cost in costs}
    return sorted(value, key=lambda layer: -value[layer])


def fewest(order: Sequence[str], acceptable: Acceptable) -> frozenset[str]:
    """Return the shortest beginning of `order` that is acceptable, as far as more layers in float are never worse.

    Looks at 1, 2, 4, ... layers, and then between the last two. All of them are the float model, and so are accepted
    unseen; none of them is known not to be.
    """
    low, high = 0, 1
    while high < len(order) and not acceptable(frozenset(order[:high])):
        low, high = high, 2 * high
    high = min(high, len(order))
    while high - low > 1:
        middle = (low + high) // 2
        if acceptable(frozenset(order[:middle])):
            high = middle
        else:
            low = middle
    return frozenset(order[:high])


def without_idle(
    kept: Collection[str], costs: Sequence[LayerCost], acceptable: Acceptable, *, most_tries: int
) -> frozenset[str]:
    """Quantize again what need not be in float, trying the layers that cost most time first.

    Args:
        kept: an acceptable set.
        costs: of all layers.
        acceptable: as for `fewest`.
        most_tries: how often it may be asked.
    """
    slowest = sorted((cost for cost in costs if cost.layer in kept), key=lambda cost: (-cost.float_ms, cost.error))
    left = frozenset(kept)
    for cost in slowest[:most_tries]:
        if len(left) > 1 and acceptable(left - {cost.layer}):
            left -= {cost.layer}
    return left


def table(costs: Sequence[LayerCost], kept: Collection[str]) -> tuple[LayerSensitivity, ...]:
    """Return the layers as a person reads them: most sensitive first, and those in float even where the table ends."""
    ranked = sorted(costs, key=lambda cost: (-cost.drop, -cost.error))
    shown = [cost for place, cost in enumerate(ranked) if place < LONGEST_TABLE or cost.layer in kept]
    return tuple(
        LayerSensitivity(
            layer=cost.layer,
            drop=cost.drop if math.isfinite(cost.drop) else math.inf,
            float_ms=cost.float_ms,
            kept_float=cost.layer in kept,
        )
        for cost in shown
    )


def clear_difference_ms(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Return by how much the median of `slow` is above that of `fast`; 0 where it is not clearly so.

    Clearly: by more than two standard errors. A median's is 1.253 standard deviations over the root of n, and the
    deviation follows from the median absolute deviation (times 1.4826), as for a normal distribution.
    """
    difference = _median(slow) - _median(fast)
    noise = math.hypot(*(1.253 * 1.4826 * _deviation(values) / math.sqrt(len(values)) for values in (slow, fast)))
    return difference if difference > 2 * noise else 0.0


def _median(values: Sequence[float]) -> float:
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _deviation(values: Sequence[float]) -> float:
    middle = _median(values)
    return _median([abs(value - middle) for value in values])
