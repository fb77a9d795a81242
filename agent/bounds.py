"""Bounds as a person writes them on the command line: `min=2,max=20,metrics=cpu+request_rate,target=5:50`."""

from __future__ import annotations

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
        return Bounds.model_validate(found)
    except ValidationError as error:
        raise SpecError(describe_validation_error(error, Bounds), where=where) from None


def _value(field: str, text: str) -> Any:
    match field:
        case "metrics":
            return tuple(text.split("+"))
        case "target":
            return tuple(text.split(":"))
        case _:
            return text
