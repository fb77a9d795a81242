"""The rules for an autoscaling/v2 HPA: known fields, defaults and validation.

Source: Kubernetes 1.36, `pkg/apis/autoscaling/v2/defaults.go` and `pkg/apis/autoscaling/validation/validation.go`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

from simulations.api_server.answers import Cause, Manifest

Schema: TypeAlias = "dict[str, Schema] | list[Schema] | None"
"""Known fields: of a mapping, of each item of a list, or None for a value that is not looked into."""

_TARGET: Schema = {"type": None, "value": None, "averageValue": None, "averageUtilization": None}
_METRIC: Schema = {"name": None, "selector": None}
_RULES: Schema = {
    "stabilizationWindowSeconds": None,
    "selectPolicy": None,
    "policies": [{"type": None, "value": None, "periodSeconds": None}],
    "tolerance": None,
}
_REF: Schema = {"apiVersion": None, "kind": None, "name": None}
SPEC: Schema = {
    "scaleTargetRef": _REF,
    "minReplicas": None,
    "maxReplicas": None,
    "metrics": [
        {
            "type": None,
            "resource": {"name": None, "target": _TARGET},
            "containerResource": {"name": None, "container": None, "target": _TARGET},
            "pods": {"metric": _METRIC, "target": _TARGET},
            "object": {"describedObject": _REF, "metric": _METRIC, "target": _TARGET},
            "external": {"metric": _METRIC, "target": _TARGET},
        }
    ],
    "behavior": {"scaleUp": _RULES, "scaleDown": _RULES},
}

_DEFAULT_METRICS = [
    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}
]
_DEFAULT_UP = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
_DEFAULT_DOWN = {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}

_QUANTITY = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+|[KMGTPE]i|[numkMGTPE])?")


def unknown_fields(spec: Manifest) -> list[str]:
    """Return the paths of fields that the API does not have."""
    return list(_unknown(spec, SPEC, "spec"))


def _unknown(value: Any, schema: Schema, path: str) -> Iterator[str]:
    if isinstance(schema, dict) and isinstance(value, dict):
        for key, below in value.items():
            if key in schema:
                yield from _unknown(below, schema[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(schema, list) and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(item, schema[0], f"{path}[{index}]")


def with_defaults(spec: Manifest) -> Manifest:
    """Return the spec as the server stores it."""
    spec = copy.deepcopy(spec)
    if spec.get("minReplicas") is None:
        spec["minReplicas"] = 1
    if not spec.get("metrics"):
        spec["metrics"] = copy.deepcopy(_DEFAULT_METRICS)
    behavior = spec.get("behavior")
    if behavior is None:
        spec.pop("behavior", None)
    else:
        for name, default in (("scaleUp", _DEFAULT_UP), ("scaleDown", _DEFAULT_DOWN)):
            given = {key: value for key, value in (behavior.get(name) or {}).items() if value is not None}
            behavior[name] = {**copy.deepcopy(default), **given}
    return spec


def violations(spec: Manifest) -> list[Cause]:
    """Return what is wrong with a spec that has its defaults."""
    return [
        Cause(field, f"Invalid value: {value}: {message}" if value is not None else message, reason)
        for field, value, message, reason in _violations(spec)
    ]


_Violation: TypeAlias = tuple[str, Any, str, str]


def _violations(spec: Manifest) -> Iterator[_Violation]:
    least, most = spec["minReplicas"], spec.get("maxReplicas") or 0
    if least < 1:
        yield _value("spec.minReplicas", least, "must be greater than or equal to 1")
    if most < 1:
        yield _value("spec.maxReplicas", most, "must be greater than 0")
    if most < least:
        yield _value("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`")
    for index, metric in enumerate(spec["metrics"]):
        yield from _metric_violations(metric, f"spec.metrics[{index}]")
    for name, rules in (spec.get("behavior") or {}).items():
        yield from _rules_violations(rules, f"spec.behavior.{name}")


def _metric_violations(metric: Manifest, path: str) -> Iterator[_Violation]:
    kind = str(metric.get("type", ""))
    source = kind[:1].lower() + kind[1:]
    if source not in ("resource", "containerResource", "pods", "object", "external"):
        yield path + ".type", None, f'Unsupported value: "{kind}"', "FieldValueNotSupported"
        return
    if not isinstance(metric.get(source), dict):
        yield (
            f"{path}.{source}",
            None,
            "Required value: must populate information for the given metric source",
            ("FieldValueRequired"),
        )
        return
    target = metric[source].get("target") or {}
    if not target.get("type"):
        yield (
            f"{path}.{source}.target.type",
            None,
            "Required value: must specify a metric target type",
            ("FieldValueRequired"),
        )
    for field in ("value", "averageValue"):
        if field in target and not _is_positive(target[field]):
            yield _value(f"{path}.{source}.target.{field}", target[field], "must be positive")
    share = target.get("averageUtilization")
    if share is not None and share < 1:
        yield _value(f"{path}.{source}.target.averageUtilization", share, "must be greater than 0")


def _rules_violations(rules: Manifest, path: str) -> Iterator[_Violation]:
    window = rules.get("stabilizationWindowSeconds")
    if window is not None and not 0 <= window <= 3600:
        message = "must be greater than or equal to zero" if window < 0 else "must be less than or equal to 3600"
        yield _value(f"{path}.stabilizationWindowSeconds", window, message)
    if not rules["policies"]:
        yield f"{path}.policies", None, "Required value: must specify at least one Policy", "FieldValueRequired"
    for index, policy in enumerate(rules["policies"]):
        if policy.get("value", 0) <= 0:
            yield _value(f"{path}.policies[{index}].value", policy.get("value", 0), "must be greater than zero")
        period = policy.get("periodSeconds", 0)
        if not 0 < period <= 1800:
            message = "must be greater than zero" if period <= 0 else "must be less than or equal to 1800"
            yield _value(f"{path}.policies[{index}].periodSeconds", period, message)


def _value(field: str, value: Any, message: str) -> _Violation:
    return field, value, message, "FieldValueInvalid"


def _is_positive(quantity: Any) -> bool:
    match = _QUANTITY.fullmatch(str(quantity))
    return match is not None and float(match[1]) > 0 and not str(quantity).startswith("-")
