"""The `spec` of a HorizontalPodAutoscaler, read as the API server and the controller read it.

Sources: `pkg/apis/autoscaling/v2/defaults.go`, `pkg/apis/autoscaling/validation/validation.go` and the flags of
`kube-controller-manager`, Kubernetes 1.36. What is read once here need not be looked up in every sync.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, cast, get_args

from tools.contracts.scaling import HpaSpec
from tools.errors import SpecError
from tools.scaling.hpa_quantity import quantity_float, quantity_milli

Json: TypeAlias = dict[str, Any]
Source: TypeAlias = Literal["Resource", "ContainerResource", "Pods", "Object", "External"]
TargetKind: TypeAlias = Literal["Utilization", "AverageValue", "Value"]
Select: TypeAlias = Literal["Max", "Min", "Disabled"]

DEFAULT_CPU_PERCENT = 80
MAX_WINDOW_S = 3600
MAX_PERIOD_S = 1800
MAX_INT32 = 2**31 - 1
_FIELD_OF_TARGET: dict[TargetKind, str] = {
    "Utilization": "averageUtilization",
    "AverageValue": "averageValue",
    "Value": "value",
}
_ALLOWED_TARGETS: dict[Source, tuple[TargetKind, ...]] = {
    "Resource": ("AverageValue", "Utilization"),
    "ContainerResource": ("AverageValue", "Utilization"),
    "Pods": ("AverageValue",),
    "Object": ("AverageValue", "Value"),
    "External": ("AverageValue", "Value"),
}


class Tolerance(NamedTuple):
    """The ratios of a metric to its target within which nothing changes, borders included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Controller:
    """What the whole cluster's controller is set to: the flags `--horizontal-pod-autoscaler-*`."""

    tolerance: float = 0.1
    downscale_window_s: float = 300.0
    """`downscale-stabilization`: for HPAs that name no window for scaling down."""
    cpu_initialization_s: float = 300.0
    """CPU samples of a pod that started less than this long ago count only while it is ready."""
    readiness_delay_s: float = 30.0
    """A pod that turned unready within this time of its start is taken as never having been ready."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of an HPA, with the target that the controller uses."""

    source: Source
    name: str
    """Name of the metric, or of the resource."""
    target: TargetKind
    target_milli: int = 0
    """Of AverageValue and Value, in thousandths."""
    target_percent: int = 0
    """Of Utilization."""
    container: str | None = None
    """Of ContainerResource."""


@dataclass(frozen=True, slots=True)
class Policy:
    """At most so much change within a period."""

    kind: Literal["Pods", "Percent"]
    value: int
    period_s: float


@dataclass(frozen=True, slots=True)
class Rules:
    """How fast replicas may change in one direction."""

    window_s: float
    """Stabilization window."""
    select: Select
    """Which policy binds: the one that allows the most change (Max), the least (Min), or no change at all."""
    policies: tuple[Policy, ...]
    longest_s: float
    """The longest period among the policies: scale events older than this are forgotten."""


@dataclass(frozen=True, slots=True)
class Behavior:
    """The `behavior` block, complete."""

    up: Rules
    down: Rules


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """One HPA's spec with every default filled in."""

    min_replicas: int
    max_replicas: int
    metrics: tuple[Metric, ...]
    behavior: Behavior | None
    """None: the older rules without one. An empty block is not None."""
    tolerance: Tolerance
    controller: Controller


_UP = Rules(0.0, "Max", (Policy("Pods", 4, 15.0), Policy("Percent", 100, 15.0)), 15.0)
_DOWN_POLICIES = (Policy("Percent", 100, 15.0),)


def parse_autoscaler(spec: HpaSpec, controller: Controller | None = None) -> Autoscaler:
    """Return what an HPA's spec means, defaults filled in as the API server does.

    Args:
        spec: `spec` of an `autoscaling/v2` HorizontalPodAutoscaler; fields without arithmetic are ignored.
        controller: the cluster's flags; None: those of an unchanged cluster.

    Raises:
        SpecError: a field is missing, of the wrong type or out of range; the message starts with its path.
    """
    controller = controller or Controller()
    least = _integer(spec, "minReplicas", "", 0, default=1)
    most = _integer(spec, "maxReplicas", "", 1)
    if most < least:
        raise SpecError(f"is {most}, less than minReplicas ({least}).", where="maxReplicas")
    metrics = tuple(
        _metric(metric, f"metrics[{i}]") for i, metric in enumerate(_list(spec.get("metrics") or [], "metrics"))
    ) or (Metric("Resource", "cpu", "Utilization", target_percent=DEFAULT_CPU_PERCENT),)
    if least == 0 and not any(m.source in ("Object", "External") for m in metrics):
        raise SpecError(
            "0 needs an Object or External metric: without pods there is no other to scale up by.", where="minReplicas"
        )
    block = spec.get("behavior")
    behavior, low, high = None, controller.tolerance, controller.tolerance
    if block is not None:
        block = _mapping(block, "behavior")
        up, down = (_mapping(block.get(side) or {}, f"behavior.{side}") for side in ("scaleUp", "scaleDown"))
        behavior = Behavior(
            up=_rules(up, "behavior.scaleUp", _UP.window_s, _UP.policies),
            down=_rules(down, "behavior.scaleDown", controller.downscale_window_s, _DOWN_POLICIES),
        )
        low = _tolerance(down, "behavior.scaleDown", low)
        high = _tolerance(up, "behavior.scaleUp", high)
    return Autoscaler(least, most, metrics, behavior, Tolerance(1.0 - low, 1.0 + high), controller)


def _metric(value: Any, path: str) -> Metric:
    metric = _mapping(value, path)
    source = cast("Source", _choice(metric, "type", path, get_args(Source)))
    key = source[0].lower() + source[1:]
    path = f"{path}.{key}"
    body = _mapping(metric.get(key), path)
    if source in ("Resource", "ContainerResource"):
        name = _text(body, "name", path)
    else:
        name = _text(_mapping(body.get("metric"), f"{path}.metric"), "name", f"{path}.metric")
    container = _text(body, "container", path) if source == "ContainerResource" else None
    path = f"{path}.target"
    target = _mapping(body.get("target"), path)
    kind = _target(source, target, path)
    field = _FIELD_OF_TARGET[kind]
    if kind == "Utilization":
        return Metric(source, name, kind, target_percent=_integer(target, field, path, 1), container=container)
    milli = quantity_milli(target[field], f"{path}.{field}")
    if milli <= 0:
        raise SpecError(f"must be positive, not {target[field]!r}.", where=f"{path}.{field}")
    return Metric(source, name, kind, target_milli=milli, container=container)


def _target(source: Source, target: Json, path: str) -> TargetKind:
    """Return which target the controller uses: only for Object it asks `type`, else it takes the field that is set."""
    named = cast("TargetKind", _choice(target, "type", path, get_args(TargetKind)))
    allowed = _ALLOWED_TARGETS[source]
    present = [kind for kind in allowed if target.get(_FIELD_OF_TARGET[kind]) is not None]
    fields = " or ".join(_FIELD_OF_TARGET[kind] for kind in allowed)
    if source == "Object":
        present = [kind for kind in present if kind == named]
    if len(present) != 1:
        raise SpecError(f"a {source} metric of type {named} needs {fields}, one of them.", where=path)
    return present[0]


def _rules(rules: Json, path: str, window_s: float, policies: tuple[Policy, ...]) -> Rules:
    if rules.get("stabilizationWindowSeconds") is not None:
        window_s = float(_integer(rules, "stabilizationWindowSeconds", path, 0, MAX_WINDOW_S))
    if rules.get("policies") is not None:
        path_of = f"{path}.policies"
        policies = tuple(_policy(p, f"{path_of}[{i}]") for i, p in enumerate(_list(rules["policies"], path_of)))
        if not policies:
            raise SpecError("must hold at least one policy.", where=path_of, fix="Leave it out for the default.")
    select = "Max"
    if rules.get("selectPolicy") is not None:
        select = _choice(rules, "selectPolicy", path, get_args(Select))
    return Rules(window_s, cast("Select", select), policies, max(policy.period_s for policy in policies))


def _policy(value: Any, path: str) -> Policy:
    policy = _mapping(value, path)
    return Policy(
        kind=cast("Literal['Pods', 'Percent']", _choice(policy, "type", path, ("Pods", "Percent"))),
        value=_integer(policy, "value", path, 1),
        period_s=float(_integer(policy, "periodSeconds", path, 1, MAX_PERIOD_S)),
    )


def _tolerance(rules: Json, path: str, default: float) -> float:
    if rules.get("tolerance") is None:
        return default
    tolerance = quantity_float(rules["tolerance"], f"{path}.tolerance")
    if tolerance < 0:
        raise SpecError(f"must not be negative, but is {rules['tolerance']!r}.", where=f"{path}.tolerance")
    return tolerance


def _mapping(value: Any, path: str) -> Json:
    if not isinstance(value, dict):
        raise SpecError("is missing." if value is None else f"must be a mapping, not {value!r}.", where=path)
    return value


def _list(value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise SpecError(f"must be a list, not {value!r}.", where=path)
    return value


def _text(parent: Json, key: str, path: str) -> str:
    value = parent.get(key)
    if not isinstance(value, str) or not value:
        raise SpecError("is missing." if value is None else f"must be a text, not {value!r}.", where=f"{path}.{key}")
    return value


def _choice(parent: Json, key: str, path: str, choices: Sequence[str]) -> str:
    value = parent.get(key)
    if value not in choices:
        raise SpecError(f"must be one of {', '.join(choices)}, not {value!r}.", where=f"{path}.{key}")
    return cast("str", value)


def _integer(
    parent: Json, key: str, path: str, least: int, most: int = MAX_INT32, *, default: int | None = None
) -> int:
    value = parent.get(key)
    where = f"{path}.{key}" if path else key
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool):
        raise SpecError("is missing." if value is None else f"must be a whole number, not {value!r}.", where=where)
    if not least <= value <= most:
        raise SpecError(f"must be from {least} to {most}, not {value}.", where=where)
    return value
