"""A HorizontalPodAutoscaler as the server gave it, and the patch that changes what a plan owns of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from tools.cluster.text import shown
from tools.contracts.scaling import OWNED_FIELDS, HpaSpec
from tools.errors import FenceError

API_VERSION = "autoscaling/v2"
KIND = "HorizontalPodAutoscaler"

FIELD_MANAGER = "infertune"
"""What the server notes in `managedFields` as the author of our changes."""

Manifest: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Condition:
    """One of `status.conditions`: AbleToScale, ScalingActive or ScalingLimited."""

    type: str
    status: str
    """`True`, `False` or `Unknown`."""
    reason: str = ""
    message: str = ""
    since: str = ""
    """`lastTransitionTime`: UTC, ISO 8601; empty if not told."""


@dataclass(frozen=True)
class FieldManager:
    """Who wrote which of `OWNED_FIELDS` last, as the server tracks it."""

    name: str
    operation: str
    """`Update`, or `Apply` for server-side apply."""
    time: str
    """UTC, ISO 8601; empty if not told."""
    fields: frozenset[str]
    """Of `OWNED_FIELDS`; empty if it holds other fields only."""


@dataclass(frozen=True)
class HpaObject:
    """One HorizontalPodAutoscaler at one moment. Nothing in it is to be changed."""

    manifest: Manifest
    """All of it, as the server gave it."""
    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int | None
    """None where the server does not count it; Kubernetes 1.36 does not for autoscalers."""
    labels: dict[str, str]
    annotations: dict[str, str]
    owners: tuple[str, ...]
    """`ownerReferences`, as `Kind/name`."""
    managers: tuple[FieldManager, ...]
    owned: HpaSpec
    """`OWNED_FIELDS` of the spec; a field that is not set is missing."""
    conditions: tuple[Condition, ...]
    current_replicas: int | None
    """None: the controller has not looked at it yet, or the target has none."""
    desired_replicas: int | None
    deleting: bool
    """Whether it has been deleted and only waits for finalizers."""

    @classmethod
    def parse(cls, manifest: Manifest) -> HpaObject:
        """Take from the server's answer what is needed.

        Raises:
            ValueError: it is no autoscaling/v2 HorizontalPodAutoscaler, or lacks what each one has.
        """
        found = manifest.get("apiVersion"), manifest.get("kind")
        if found != (API_VERSION, KIND):
            msg = f"it is a {shown(found[0])} {shown(found[1])}, not an {API_VERSION} {KIND}"
            raise ValueError(msg)
        meta, spec = _mapping(manifest, "metadata"), _mapping(manifest, "spec")
        status = manifest.get("status") or {}
        return cls(
            manifest=manifest,
            namespace=_text(meta, "namespace"),
            name=_text(meta, "name"),
            uid=_text(meta, "uid"),
            resource_version=_text(meta, "resourceVersion"),
            generation=meta.get("generation"),
            labels=dict(meta.get("labels") or {}),
            annotations=dict(meta.get("annotations") or {}),
            owners=tuple(f"{o.get('kind')}/{o.get('name')}" for o in meta.get("ownerReferences") or ()),
            managers=tuple(_manager(entry) for entry in meta.get("managedFields") or ()),
            owned=owned_fields(spec),
            conditions=tuple(_condition(entry) for entry in status.get("conditions") or ()),
            current_replicas=status.get("currentReplicas"),
            desired_replicas=status.get("desiredReplicas"),
            deleting=meta.get("deletionTimestamp") is not None,
        )

    def condition(self, kind: str) -> Condition | None:
        """Return the condition of this type, None if the controller has not set it."""
        return next((c for c in self.conditions if c.type == kind), None)

    def managers_of(self, *fields: str) -> Iterator[FieldManager]:
        """Yield who holds any of these fields."""
        return (manager for manager in self.managers if manager.fields.intersection(fields))


def owned_fields(spec: HpaSpec) -> HpaSpec:
    """Return a copy of what a plan may own of an HPA's `spec`; a field that is not set, or null, is missing."""
    return {field: copy.deepcopy(spec[field]) for field in OWNED_FIELDS if spec.get(field) is not None}


def patch_body(before: HpaSpec, after: HpaSpec, resource_version: str) -> Manifest:
    """Return the merge patch that turns `before` into `after`, if the object is still of that version.

    It holds all of `after`, so that it can be read by itself, and null for what is to vanish: merging (RFC 7386)
    keeps each key of a mapping that the patch does not name.

    Args:
        before: spec as the server has it; only `OWNED_FIELDS` count.
        after: `OWNED_FIELDS` as they are to be, complete.
        resource_version: of the object that `before` was read from; the server refuses (409) any other.

    Raises:
        FenceError: `after` has a field that is not ours.
        ValueError: no version is given: then the patch would overwrite what others did meanwhile.
    """
    _require_owned(set(after) - set(OWNED_FIELDS))
    if not resource_version:
        msg = "a patch needs the resourceVersion of what it was made for"
        raise ValueError(msg)
    spec = _merge_patch(owned_fields(before), owned_fields(after))
    return {"metadata": {"resourceVersion": resource_version}, "spec": spec}


def require_ours(patch: Manifest) -> None:
    """See to it that a patch has the shape that `patch_body` gives it: the last look before it is sent.

    Raises:
        FenceError: it names anything but `OWNED_FIELDS` and the resourceVersion, or lacks that.
    """
    metadata, spec = patch.get("metadata"), patch.get("spec")
    if not (isinstance(metadata, dict) and metadata.get("resourceVersion") and isinstance(spec, dict)):
        raise FenceError("the change does not say which version of the object it is for.", fix="Make it anew.")
    beyond = {f"metadata.{key}" for key in metadata if key != "resourceVersion"}
    _require_owned((set(patch) - {"metadata", "spec"}) | beyond | (set(spec) - set(OWNED_FIELDS)))


def _require_owned(foreign: set[str]) -> None:
    if foreign:
        raise FenceError(
            f"the change names fields that are not infertune's: {', '.join(shown(f) for f in sorted(foreign))}.",
            fix=f"Only {', '.join(OWNED_FIELDS)} are ever written.",
        )


def _merge_patch(before: Any, after: Any) -> Any:
    if not isinstance(after, dict):
        return after
    old = before if isinstance(before, dict) else {}
    gone = {key: None for key in old if after.get(key) is None}
    kept = {key: _merge_patch(old.get(key), value) for key, value in after.items() if value is not None}
    return {**kept, **gone}


def _manager(entry: Manifest) -> FieldManager:
    return FieldManager(
        name=str(entry.get("manager") or "unknown"),
        operation=str(entry.get("operation") or ""),
        time=str(entry.get("time") or ""),
        fields=_held(entry.get("fieldsV1")),
    )


def _held(fields: Any) -> frozenset[str]:
    """Return which of `OWNED_FIELDS` a field set (FieldsV1) holds; all, if it cannot be told."""
    if not isinstance(fields, dict):
        return frozenset(OWNED_FIELDS)
    if "f:spec" not in fields:
        return frozenset()
    spec = fields["f:spec"]
    if not isinstance(spec, dict) or not spec:  # a leaf: the spec as a whole
        return frozenset(OWNED_FIELDS)
    return frozenset(field for field in OWNED_FIELDS if f"f:{field}" in spec)


def _condition(entry: Manifest) -> Condition:
    return Condition(
        type=str(entry.get("type")),
        status=str(entry.get("status")),
        reason=str(entry.get("reason") or ""),
        message=str(entry.get("message") or ""),
        since=str(entry.get("lastTransitionTime") or ""),
    )


def _mapping(manifest: Manifest, key: str) -> Manifest:
    value = manifest.get(key)
    if not isinstance(value, dict):
        msg = f"`{key}` is missing"
        raise ValueError(msg)  # noqa: TRY004  # of the content, not of an argument
    return value


def _text(meta: Manifest, key: str) -> str:
    value = meta.get(key)
    if not isinstance(value, str) or not value:
        msg = f"`metadata.{key}` is missing"
        raise ValueError(msg)
    return value
