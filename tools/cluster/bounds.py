"""Whether a spec is within its bounds: arithmetic on numbers that came as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeGuard

from tools.cluster.text import shown
from tools.contracts.scaling import OWNED_FIELDS, Bounds, HpaSpec

_SUFFIXES = {
    **dict(zip(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), (10.0**e for e in range(-9, 19, 3)), strict=True)),
    **{f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", start=1)},
}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d{1,3})|([numkMGTPE]|[KMGTPE]i)?)")

_SOURCES = ("resource", "containerResource", "pods", "object", "external")

DEFAULT_METRICS: list[dict[str, Any]] = [
    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}
]
"""What the server puts in where a spec has no metrics (`pkg/apis/autoscaling/v2/defaults.go`)."""


def within(bounds: Bounds, spec: HpaSpec, price_per_hour_usd: float | None) -> tuple[str, ...]:
    """Return, in sentences, how a spec leaves its bounds; empty if it does not.

    What cannot be judged, since it is missing or of another type, is out of bounds.

    Args:
        bounds: what no change may leave.
        spec: `OWNED_FIELDS`, complete: what is not in it, the server fills in or removes.
        price_per_hour_usd: of one replica; None if unknown, and then a bound on the cost cannot be kept.
    """
    return tuple(_violations(bounds, spec, price_per_hour_usd))


def quantity(value: Any) -> float | None:
    """Return the number that a Kubernetes quantity stands for (`30`, `"500m"`, `"2Ki"`, `"1e3"`), None if it is none.

    Source: `apimachinery/pkg/api/resource/quantity.go`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        return None
    number, exponent, suffix = match.groups()
    return float(number + (exponent or "")) * _SUFFIXES[suffix or ""]


def _violations(bounds: Bounds, spec: HpaSpec, price_per_hour_usd: float | None) -> Iterator[str]:
    foreign = sorted(set(spec) - set(OWNED_FIELDS))
    if foreign:
        yield f"It names fields that are never written: {', '.join(shown(field) for field in foreign)}."
    yield from _replica_violations(bounds, spec)
    yield from _metric_violations(bounds, spec)
    yield from _cost_violations(bounds, spec.get("maxReplicas"), price_per_hour_usd)


def _replica_violations(bounds: Bounds, spec: HpaSpec) -> Iterator[str]:
    least, most = spec.get("minReplicas", 1), spec.get("maxReplicas")
    if not _is_count(least) or not _is_count(most):
        yield f"minReplicas ({shown(least)}) and maxReplicas ({shown(most)}) must be whole numbers, at least 1."
        return
    if least < bounds.min_replicas:
        yield f"minReplicas {least} is below the bound of {bounds.min_replicas}."
    if most > bounds.max_replicas:
        yield f"maxReplicas {most} is above the bound of {bounds.max_replicas}."
    if least > most:
        yield f"minReplicas {least} is above maxReplicas {most}."


def _metric_violations(bounds: Bounds, spec: HpaSpec) -> Iterator[str]:
    metrics = spec.get("metrics") or DEFAULT_METRICS
    if not isinstance(metrics, list):
        yield "metrics must be a list."
        return
    for metric in metrics:
        name, targets = _name_and_targets(metric)
        if name is None:
            yield "A metric has no name."
            continue
        if bounds.metrics is not None and name not in bounds.metrics:
            allowed = ", ".join(bounds.metrics) or "none"
            yield f"The metric {shown(name)} may not be scaled on; allowed: {allowed}."
        yield from _target_violations(bounds, name, targets)


def _target_violations(bounds: Bounds, name: str, targets: list[Any]) -> Iterator[str]:
    values = [quantity(target) for target in targets]
    if not values or any(value is None for value in values):
        yield f"The target of {shown(name)} cannot be read."
    for value in values:
        if value is None:
            continue
        if not value > 0 or value == float("inf"):
            yield f"The target of {shown(name)}, {value:g}, is not positive and finite."
        elif bounds.target is not None and not bounds.target[0] <= value <= bounds.target[1]:
            low, high = bounds.target
            yield f"The target of {shown(name)}, {value:g}, is not within {low:g} and {high:g}."


def _cost_violations(bounds: Bounds, most: Any, price_per_hour_usd: float | None) -> Iterator[str]:
    if bounds.daily_cost_usd is None:
        return
    if price_per_hour_usd is None:
        yield "What maxReplicas would cost a day cannot be told without a price, and it is bounded."
    elif _is_count(most):
        cost_usd = most * 24 * price_per_hour_usd
        if not cost_usd <= bounds.daily_cost_usd:
            yield (
                f"maxReplicas {most} for a whole day costs {cost_usd:.2f} USD, above the bound of "
                f"{bounds.daily_cost_usd:.2f} USD."
            )


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _name_and_targets(metric: Any) -> tuple[str | None, list[Any]]:
    """Return a metric's name, and each number in its target."""
    kind = metric.get("type") if isinstance(metric, dict) else None
    source = f"{kind[:1].lower()}{kind[1:]}" if isinstance(kind, str) else ""
    body = metric.get(source) if source in _SOURCES else None
    if not isinstance(body, dict):
        return None, []
    named = body if source in ("resource", "containerResource") else body.get("metric")
    name = named.get("name") if isinstance(named, dict) else None
    target = body.get("target")
    given = target if isinstance(target, dict) else {}
    numbers = [given[key] for key in ("averageUtilization", "averageValue", "value") if given.get(key) is not None]
    return name if isinstance(name, str) and name else None, numbers
