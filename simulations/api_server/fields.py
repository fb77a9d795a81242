"""Who holds which field: `managedFields`, as far as an HPA needs it.

A field set is a set of paths, each a tuple of keys. A path that ends in "." is the mapping itself. Lists are one field.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from simulations.api_server.answers import Manifest

Path: TypeAlias = tuple[str, ...]

_METADATA = ("labels", "annotations", "ownerReferences", "finalizers")
"""Of the metadata, only these have managers."""

_ALWAYS_THERE: Manifest = {"metadata": {}, "spec": {"scaleTargetRef": {}}}
"""Mappings that even an empty HPA has, so that nobody holds them as such."""


def changed(old: Manifest | None, new: Manifest) -> set[Path]:
    """Return the paths of `new` that are not in `old`, or have another value there."""
    return _changed(_ALWAYS_THERE if old is None else _managed(old), _managed(new), ())


def leaves(manifest: Manifest) -> set[Path]:
    """Return the paths that a caller of server-side apply claims."""
    return {path for path in changed(None, manifest) if path[-1] != "."}


def value_at(manifest: Manifest, path: Path) -> Any:
    """Return the value at this path, None where there is nothing."""
    value: Any = manifest
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def to_fields_v1(paths: set[Path]) -> Manifest:
    """Write a field set as the API does."""
    tree: Manifest = {}
    for path in sorted(paths):
        node = tree
        for key in path:
            node = node.setdefault("." if key == "." else f"f:{key}", {})
    return tree


def from_fields_v1(tree: Manifest, above: Path = ()) -> set[Path]:
    """Read a field set as the API writes it."""
    paths: set[Path] = set()
    for key, below in tree.items():
        path = (*above, key if key == "." else key.removeprefix("f:"))
        paths |= from_fields_v1(below, path) if below else {path}
    return paths


def take(entries: list[Manifest], entry: Manifest, paths: set[Path], new: Manifest, *, share: bool) -> list[Manifest]:
    """Return the list of managers after one of them has written.

    Args:
        entries: before.
        entry: the writer's, without fields: manager, operation, apiVersion, time.
        paths: what it wrote.
        new: the object afterwards; what is no longer in it belongs to nobody.
        share: whether others keep what they hold (server-side apply of an equal value).
    """
    there = changed(None, new)
    key = _key(entry)
    mine, others = set(paths), []
    for other in entries:
        held = from_fields_v1(other["fieldsV1"])
        if _key(other) == key:
            mine |= held if entry["operation"] == "Update" else set()
        elif "subresource" in other or (held := (held if share else held - paths) & there):
            others.append({**other, "fieldsV1": to_fields_v1(held)})
    mine &= there
    if mine:
        others.append({**entry, "fieldsType": "FieldsV1", "fieldsV1": to_fields_v1(mine)})
    return sorted(others, key=lambda e: (e["time"], e["manager"]))


def _key(entry: Manifest) -> tuple[Any, ...]:
    return tuple(entry.get(name) for name in ("manager", "operation", "apiVersion", "subresource"))


def _managed(manifest: Manifest) -> Manifest:
    metadata = manifest.get("metadata", {})
    return {
        "metadata": {key: metadata[key] for key in _METADATA if metadata.get(key)},
        "spec": manifest.get("spec", {}),
    }


def _changed(old: Manifest, new: Manifest, above: Path) -> set[Path]:
    paths: set[Path] = set()
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict):
            if before is None:
                paths.add((*above, key, "."))
            paths |= _changed(before if isinstance(before, dict) else {}, value, (*above, key))
        elif before != value:
            paths.add((*above, key))
    return paths
