"""Reading a HorizontalPodAutoscaler from a YAML file, and writing one in a canonical form.

Strict where a silent mistake would change what somebody runs: a key that occurs twice, an API version with other
fields, a field of the wrong kind are errors, not guesses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from tools.errors import SpecError

API_VERSION = "autoscaling/v2"
KIND = "HorizontalPodAutoscaler"

Manifest: TypeAlias = dict[str, Any]
"""A Kubernetes object: what its JSON holds."""

_SERVER_METADATA = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True)
class HpaFile:
    """The autoscaler that a file holds.

    Attributes:
        path: the file.
        manifest: the object, without what the API server keeps in it (status, resourceVersion, ...).
        notes: what was left out, in sentences.
    """

    path: Path
    manifest: Manifest
    notes: tuple[str, ...]


def read_hpa(path: Path) -> HpaFile:
    """Read the one autoscaling/v2 HorizontalPodAutoscaler of a YAML file.

    Raises:
        SpecError: the file is missing or no YAML, has none or several of them, one of another API version, or one
            whose `metadata.name`, `spec.scaleTargetRef`, `metrics` or `behavior` is missing or of the wrong kind.
    """
    text = _read_text(path)
    documents = [d for d in _parse(text, path) if d is not None]
    found = [d for d in documents if isinstance(d, dict) and d.get("kind") == KIND]
    if len(found) != 1:
        kinds = ", ".join(str(d.get("kind")) if isinstance(d, dict) else type(d).__name__ for d in documents)
        raise SpecError(
            f"must hold exactly one {KIND}, not {len(found)} (found: {kinds or 'no document'}).",
            where=str(path),
            fix="`kubectl get hpa NAME -o yaml` writes one.",
        )
    manifest = found[0]
    _check(manifest, path)
    notes = []
    if len(documents) > 1:
        notes.append(f"{path.name} holds {len(documents) - 1} other object(s); the recommendation holds the HPA only.")
    if re.search(r"(?:^|\s)#", text):
        notes.append(f"Comments of {path.name} are not carried over: the diff is between the objects, not the texts.")
    cleaned = without_server_fields(manifest)
    if cleaned != manifest:
        notes.append("Status and other fields that the API server keeps were left out.")
    return HpaFile(path=path, manifest=cleaned, notes=tuple(notes))


def to_yaml(manifest: Manifest) -> str:
    """Return the canonical YAML of an object: one layout, its own order of keys, no comments."""
    return yaml.safe_dump(manifest, sort_keys=False, default_flow_style=False, allow_unicode=True, width=120)


class _Loader(yaml.SafeLoader):
    """Reads YAML as the Kubernetes tools do: keys occur once, and what looks like a date is a string."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key `{key.value}` occurs twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(
            "no such file.", where=str(path), fix="`hpa.file` must name the YAML of the HPA in use today."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot be read ({error}).", where=str(path)) from None


def _parse(text: str, path: Path) -> list[Any]:
    try:
        documents = list(yaml.load_all(text, Loader=_Loader))
        # Kubernetes objects are JSON. The round trip also unshares what YAML anchors share.
        plain: list[Any] = json.loads(json.dumps(documents))
    except yaml.YAMLError as error:
        template = "{{" in text
        raise SpecError(
            f"is not valid YAML: {' '.join(str(error).split())}.",
            where=str(path),
            fix="It looks like a template: render it first (`helm template`)." if template else None,
        ) from None
    except (TypeError, ValueError) as error:
        raise SpecError(
            f"holds YAML that is no JSON, and so no Kubernetes object ({error}).", where=str(path)
        ) from None
    return plain


def _check(manifest: Manifest, path: Path) -> None:
    version = manifest.get("apiVersion")
    if version != API_VERSION:
        found = "has no apiVersion" if version is None else f"is of apiVersion {version}"
        raise SpecError(
            f"{found}; only {API_VERSION} can be recommended.",
            where=str(path),
            fix=f"Convert it: `kubectl convert -f {path.name} --output-version {API_VERSION}`, or read it from the "
            "cluster with `kubectl get hpa.v2.autoscaling NAME -o yaml`.",
        )
    _text(manifest, "metadata.name", path)
    _text(manifest, "spec.scaleTargetRef.kind", path)
    _text(manifest, "spec.scaleTargetRef.name", path)
    metrics = manifest["spec"].get("metrics")
    if metrics is not None and not (isinstance(metrics, list) and all(isinstance(m, dict) for m in metrics)):
        raise SpecError("`spec.metrics` must be a list of metrics.", where=str(path))
    behavior = manifest["spec"].get("behavior")
    rules = [behavior, *([behavior.get("scaleUp"), behavior.get("scaleDown")] if isinstance(behavior, dict) else [])]
    if not all(part is None or isinstance(part, dict) for part in rules):
        raise SpecError("`spec.behavior` must be a mapping of `scaleUp` and `scaleDown`.", where=str(path))


def _text(manifest: Manifest, field: str, path: Path) -> None:
    value: Any = manifest
    for key in field.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, str) or not value:
        raise SpecError(
            f"`{field}` is {'missing' if value is None else f'{value!r}, not a text'}.",
            where=str(path),
            fix="An HPA needs a name and a target to scale.",
        )


def without_server_fields(manifest: Manifest) -> Manifest:
    """Return an object without what the API server keeps in it: status, resourceVersion, managedFields, ..."""
    metadata = {k: v for k, v in manifest["metadata"].items() if k not in _SERVER_METADATA}
    annotations = metadata.get("annotations")
    if isinstance(annotations, dict) and _LAST_APPLIED in annotations:
        metadata["annotations"] = {k: v for k, v in annotations.items() if k != _LAST_APPLIED}
        if not metadata["annotations"]:
            del metadata["annotations"]
    return {k: metadata if k == "metadata" else v for k, v in manifest.items() if k != "status"}
