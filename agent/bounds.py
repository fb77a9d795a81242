"""Bounds as a person writes them on the command line: `min=2,max=20,metrics=cpu+request_rate,target=5:50`."""

from __future__ import annotations

import math
from typing import Any

from pydantic import ValidationError

from tools.contracts import Bounds
from tools.errors import SpecError
from tools.spec import describe_validation_error

_FIELDS = {
    "min": "min_replicas",
    "max": "max_replicas",
    "metrics": "metrics",
    "target": "target",
    "daily-cost": "daily_cost_usd",
}


def read_bounds(text: str) -> Bounds:
    """Read comma-separated bounds: `min`, `max`, `metrics` (joined by +), `target` (LOW:HIGH) and `daily-cost`.

    Raises:
        SpecError: a bound is unknown, occurs twice or has no value that it can have; or there is no maximum, without
            which nothing is bounded.
    """
    where = "--auto-approve-within"
    found: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, value = part.partition("=")
        field = _FIELDS.get(name.strip())
        if field is None or field in found:
            problem = "occurs twice" if field else "is unknown"
            raise SpecError(f"`{name}` {problem}.", where=where, fix=f"There are: {', '.join(_FIELDS)}.")
        found[field] = _value(field, value.strip())
    if "max_replicas" not in found:
        raise SpecError("needs at least `max`.", where=where, fix="As in max=20,daily-cost=80.")
    try:
        bounds = Bounds.model_validate(found)
    except ValidationError as error:
        raise SpecError(describe_validation_error(error, Bounds), where=where) from None
    _require_possible(bounds, where)
    return bounds


def _require_possible(bounds: Bounds, where: str) -> None:
    """Refuse bounds that nothing lies within: a scheduled run would wait for a person every time, and nobody knew why.

    Raises:
        SpecError: a lower bound is not a number, or lies above its upper one.
    """
    if bounds.min_replicas > bounds.max_replicas:
        raise SpecError(f"min={bounds.min_replicas} is above max={bounds.max_replicas}.", where=where)
    if bounds.target is not None and not 0 < bounds.target[0] <= bounds.target[1] < math.inf:
        low, high = bounds.target
        raise SpecError(
            f"target={low:g}:{high:g} is no range of positive numbers.", where=where, fix="Lowest first: target=5:50."
        )
    if bounds.daily_cost_usd == math.inf:
        raise SpecError("daily-cost=inf bounds nothing.", where=where, fix="As in daily-cost=80, or leave it out.")
    if bounds.metrics is not None and not all(bounds.metrics):
        raise SpecError("`metrics` holds an empty name.", where=where, fix="As in metrics=cpu+request_rate.")


def _value(field: str, text: str) -> Any:
    match field:
        case "metrics":
            return tuple(name.strip() for name in text.split("+"))
        case "target":
            return tuple(text.split(":"))
        case _:
            return text
