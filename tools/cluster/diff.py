"""The difference between two HPA specs, for a person."""

from __future__ import annotations

from typing import Any

from tools.cluster.comparison import canonical
from tools.contracts import HpaSpec


def spec_diff(before: HpaSpec, after: HpaSpec, *, name: str) -> str:
    """Return the unified diff between `OWNED_FIELDS` of two specs of the HPA `name`; empty if they ask for the same.

    Both are put as the server would: defaults filled in, quantities in one form, keys sorted, so that a diff shows
    changes and no layout.
    """
    from tools.scaling.recommended_hpa import unified_diff

    old, new = ({"spec": _in_order(canonical(spec))} for spec in (before, after))
    return unified_diff(old, new, before_name=f"{name} today", stem=name)


def _in_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in sorted(value)}
    return [_in_order(item) for item in value] if isinstance(value, list) else value
