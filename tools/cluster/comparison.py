"""Whether two HPA specs ask for the same, and where they do not.

The API server writes down more than it is told (defaults), and writes quantities its own way (`0.5` as `500m`). Both
are taken out before specs are compared. Source: `pkg/apis/autoscaling/v2/defaults.go` and
`apimachinery/pkg/api/resource/quantity.go` of Kubernetes 1.36.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from tools.cluster.hpa_object import FIELD_MANAGER, HpaObject, owned_fields
from tools.cluster.text import shown
from tools.contracts import HpaSpec

_CPU_80: HpaSpec = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
}
_SCALE_UP: HpaSpec = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
_SCALE_DOWN: HpaSpec = {
    # No stabilizationWindowSeconds: the server leaves it out, and the controller takes its own, 300 s by default.
    "selectPolicy": "Max",
    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}
_QUANTITY = re.compile(r"([+-]?[0-9]+\.?[0-9]*|[+-]?\.[0-9]+)(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]{1,2}))?")
_QUANTITIES = {"value", "averageValue", "tolerance"}
"""Keys whose values are quantities. A policy's `value` is a number, and stays one."""
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def canonical(spec: HpaSpec) -> HpaSpec:
    """Return what the server would make of `OWNED_FIELDS` of this spec: with its defaults, quantities in one form."""
    result: HpaSpec = _plain(owned_fields(spec), "")
    result.setdefault("minReplicas", 1)
    if not result.get("metrics"):
        result["metrics"] = [_CPU_80]
    if "behavior" in result:
        behavior = result["behavior"]
        result["behavior"] = {
            "scaleUp": {**_SCALE_UP, **behavior.get("scaleUp", {})},
            "scaleDown": {**_SCALE_DOWN, **behavior.get("scaleDown", {})},
        }
    return result


def same(one: HpaSpec, other: HpaSpec) -> bool:
    """Return whether two specs ask for the same in all of `OWNED_FIELDS`."""
    return canonical(one) == canonical(other)


def differences(expected: HpaSpec, found: HpaSpec) -> tuple[str, ...]:
    """Return where two specs differ in `OWNED_FIELDS`, each as `maxReplicas is 8, not 6`."""
    return tuple(
        f"{path} is {_value(there)}, not {_value(wanted)}"
        for path, wanted, there in _leaves(canonical(expected), canonical(found), "")
    )


def filled_in(wanted: HpaSpec, answer: HpaSpec) -> tuple[str, ...]:
    """Return what the server added to a spec by default, each as `behavior.scaleUp.selectPolicy: Max`."""
    pairs = _leaves(_plain(owned_fields(wanted), ""), _plain(owned_fields(answer), ""), "")
    return tuple(f"{path}: {_value(there)}" for path, before, there in pairs if before is None)


def ownership(obj: HpaObject) -> dict[str, list[str]]:
    """Return who else holds which of `OWNED_FIELDS`, by `manager/operation`: JSON-ready, to be compared later."""
    return {
        f"{manager.name}/{manager.operation}": sorted(manager.fields)
        for manager in obj.managers
        if manager.fields and manager.name != FIELD_MANAGER
    }


def took_over(before: dict[str, list[str]], now: HpaObject) -> tuple[str, ...]:
    """Return who wrote fields of ours since `ownership` was taken, each as `kubectl-edit has written maxReplicas`."""
    return tuple(
        f"{shown(name)} has written {', '.join(taken)}"
        for name, fields in ownership(now).items()
        if (taken := sorted(set(fields) - set(before.get(name, ()))))
    )


def is_written_by_us(obj: HpaObject, before: HpaSpec, after: HpaSpec) -> bool:
    """Return whether the server notes us as the author of what `after` adds to, or changes in, `before`.

    Who only removes a field is not noted as the author of anything: then nothing is asked of the notes.
    """
    changed = {
        re.split(r"[.\[]", path, maxsplit=1)[0]
        for path, _, wanted in _leaves(canonical(before), canonical(after), "")
        if wanted is not None
    }
    ours: set[str] = set()
    for manager in obj.managers:
        if manager.name == FIELD_MANAGER:
            ours |= manager.fields
    return changed <= ours


def scaled(obj: HpaObject) -> str:
    """Return what the HPA scales, as `apps/v1 Deployment resnet50`."""
    ref = obj.manifest["spec"].get("scaleTargetRef") or {}
    return " ".join(shown(ref.get(key)) for key in ("apiVersion", "kind", "name"))


def _plain(value: Any, key: str) -> Any:
    """Return a value without nulls, quantities in one form."""
    if isinstance(value, dict):
        return {k: _plain(v, k) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_plain(item, "") for item in value]
    if key in _QUANTITIES and isinstance(value, str):
        return _quantity(value)
    return value


def _quantity(text: str) -> str:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return text
    number, suffix, exponent = match.groups()
    value = Decimal(number)
    if suffix in _BINARY:
        value *= 2 ** _BINARY[suffix]
    else:
        value = value.scaleb(int(exponent) if exponent else _DECIMAL.get(suffix or "", 0))
    return f"{value.normalize():f}"


def _leaves(one: Any, other: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield where two values differ: path, and both values. Lists of other lengths differ as a whole."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            yield from _leaves(one.get(key), other.get(key), f"{path}.{key}" if path else key)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _leaves(a, b, f"{path}[{index}]")
    elif one != other or isinstance(one, bool) != isinstance(other, bool):
        yield path, one, other


def _value(value: Any) -> str:
    return "not set" if value is None else shown(value)
