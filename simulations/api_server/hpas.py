"""The stored HPAs: created, read, patched and applied as a real API server does it."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Callable
from typing import Any

from simulations.api_server import answers, fields, rules
from simulations.api_server.answers import KIND, Manifest, Refused

API_VERSION = "autoscaling/v2"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
FIRST_VERSION = 646


class Hpas:
    """All HPAs of one cluster. Each stored change takes the next resourceVersion."""

    def __init__(self, now: Callable[[], str]) -> None:
        """Begin empty.

        Args:
            now: UTC time, ISO 8601 to the second.
        """
        self._now = now
        self._objects: dict[tuple[str, str], Manifest] = {}
        self._version = FIRST_VERSION - 1

    def get(self, namespace: str, name: str) -> Manifest:
        """Return a copy of one of them.

        Raises:
            Refused: it is not there.
        """
        if (namespace, name) not in self._objects:
            raise Refused(answers.not_found(name))
        return copy.deepcopy(self._objects[namespace, name])

    def list(self, namespace: str) -> Manifest:
        """Return those of a namespace as a list object."""
        items = [copy.deepcopy(hpa) for (where, _), hpa in sorted(self._objects.items()) if where == namespace]
        metadata = {"resourceVersion": str(self._version)}
        return {"kind": f"{KIND}List", "apiVersion": API_VERSION, "metadata": metadata, "items": items}

    def delete(self, namespace: str, name: str) -> None:
        """Remove one of them.

        Raises:
            Refused: it is not there.
        """
        self.get(namespace, name)
        del self._objects[namespace, name]

    def create(self, namespace: str, manifest: Manifest, *, manager: str) -> Manifest:
        """Store a new one and return it.

        Raises:
            Refused: there is one of that name, or it is invalid.
        """
        meta = manifest["metadata"]
        name = meta["name"]
        if (namespace, name) in self._objects:
            raise Refused(answers.already_exists(name))
        own = ("labels", "annotations", "ownerReferences", "finalizers")
        created: Manifest = {
            "kind": KIND,
            "apiVersion": API_VERSION,
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": str(uuid.uuid4()),
                "creationTimestamp": self._now(),
                **{key: copy.deepcopy(meta[key]) for key in own if meta.get(key)},
            },
            "spec": _checked(name, manifest["spec"]),
            "status": {"desiredReplicas": 0, "currentMetrics": None},
        }
        entry = self._entry(manager, "Update")
        paths = fields.changed(None, {"metadata": meta, "spec": manifest["spec"]})
        created["metadata"]["managedFields"] = fields.take([], entry, paths, created, share=False)
        return self._store(created)

    def patch(
        self, namespace: str, name: str, patch: Manifest, *, kind: str, manager: str, parameters: dict[str, str]
    ) -> tuple[Manifest, bool]:
        """Patch one of them.

        Args:
            namespace: of it.
            name: of it.
            patch: its body.
            kind: content type: a merge patch or a server-side apply.
            manager: who writes.
            parameters: `dryRun`, `fieldValidation`, `force`.

        Returns:
            The object as it is now, or would be, and whether something was stored.

        Raises:
            Refused: it is not there, another version, unknown, invalid or another manager's.
        """
        old = self.get(namespace, name)
        if kind == APPLY_PATCH:
            new, entry, paths = self._applied(old, patch, manager, force=parameters.get("force") == "true")
        elif kind == MERGE_PATCH:
            new, entry, paths = self._merged(old, patch, manager, strict=parameters.get("fieldValidation") == "Strict")
        else:
            raise Refused(answers.failure(415, f"the body of the request was in an unknown format: {kind}"))
        new["spec"] = _checked(name, new["spec"])
        paths |= fields.changed(old, new)
        if _without_managers(new) == _without_managers(old) and kind == MERGE_PATCH:
            return old, False
        entries = old["metadata"].get("managedFields", [])
        new["metadata"]["managedFields"] = fields.take(entries, entry, paths, new, share=kind == APPLY_PATCH)
        if parameters.get("dryRun") == "All":
            return new, False
        return self._store(new), True

    def set_status(self, namespace: str, name: str, status: Manifest) -> Manifest:
        """Write fields of the status as the controller does: with a new resourceVersion, and the spec untouched."""
        hpa = self.get(namespace, name)
        hpa["status"] = {**hpa["status"], **copy.deepcopy(status)}
        entry = {**self._entry("kube-controller-manager", "Update"), "subresource": "status", "fieldsType": "FieldsV1"}
        entry["fieldsV1"] = {"f:status": {f"f:{key}": {} for key in hpa["status"]}}
        entries = [e for e in hpa["metadata"].get("managedFields", []) if "subresource" not in e]
        hpa["metadata"]["managedFields"] = [*entries, entry]
        return self._store(hpa)

    def _merged(
        self, old: Manifest, patch: Manifest, manager: str, *, strict: bool
    ) -> tuple[Manifest, Manifest, set[fields.Path]]:
        new = merge(old, patch)
        unknown = rules.unknown_fields(new["spec"])
        if unknown and strict:
            raise Refused(answers.unknown_fields(json.dumps(new, separators=(",", ":")), unknown))
        for path in unknown:
            _remove(new, path)
        _require_same(old, new)
        return new, self._entry(manager, "Update"), set()

    def _applied(
        self, old: Manifest, config: Manifest, manager: str, *, force: bool
    ) -> tuple[Manifest, Manifest, set[fields.Path]]:
        wanted = {"metadata": config.get("metadata", {}), "spec": config.get("spec", {})}
        paths = fields.leaves(wanted)
        differing = {path for path in paths if fields.value_at(old, path) != fields.value_at(wanted, path)}
        conflicts = [
            (entry["manager"], "." + ".".join(path))
            for entry in old["metadata"].get("managedFields", [])
            if entry["manager"] != manager
            for path in sorted(fields.from_fields_v1(entry["fieldsV1"]) & differing)
        ]
        if conflicts and not force:
            raise Refused(answers.apply_conflict(conflicts))
        new = merge(old, {"metadata": {k: v for k, v in wanted["metadata"].items() if k != "name"}, **_spec(wanted)})
        entries = old["metadata"].get("managedFields", [])
        new["metadata"]["managedFields"] = fields.take(
            entries, self._entry(manager, "Apply"), differing, new, share=False
        )
        old["metadata"]["managedFields"] = new["metadata"]["managedFields"]
        return new, self._entry(manager, "Apply"), paths

    def _entry(self, manager: str, operation: str) -> Manifest:
        return {"manager": manager, "operation": operation, "apiVersion": API_VERSION, "time": self._now()}

    def _store(self, hpa: Manifest) -> Manifest:
        self._version += 1
        hpa["metadata"]["resourceVersion"] = str(self._version)
        self._objects[hpa["metadata"]["namespace"], hpa["metadata"]["name"]] = hpa
        return copy.deepcopy(hpa)


def merge(target: Any, patch: Any) -> Any:
    """Return the merge of RFC 7386; neither argument is changed."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = copy.deepcopy(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def _checked(name: str, spec: Manifest) -> Manifest:
    spec = rules.with_defaults(spec)
    causes = rules.violations(spec)
    if causes:
        raise Refused(answers.invalid(name, causes))
    return spec


def _require_same(old: Manifest, new: Manifest) -> None:
    """See to it that the patch was made for this version of this object."""
    before, after = old["metadata"], new["metadata"]
    if before["resourceVersion"] != after.get("resourceVersion"):
        raise Refused(answers.modified(before["name"]))
    for key in ("name", "namespace", "uid"):
        if before[key] != after.get(key):
            cause = answers.Cause(f"metadata.{key}", f'Invalid value: "{after.get(key)}": field is immutable')
            raise Refused(answers.invalid(before["name"], [cause]))


def _without_managers(hpa: Manifest) -> Manifest:
    return {**hpa, "metadata": {key: value for key, value in hpa["metadata"].items() if key != "managedFields"}}


def _spec(wanted: Manifest) -> Manifest:
    return {"spec": wanted["spec"]}


def _remove(hpa: Manifest, path: str) -> None:
    """Drop an unknown field, as lenient decoding does."""
    node: Any = hpa
    *above, last = path.replace("[", ".").replace("]", "").split(".")
    for key in above:
        node = node[int(key)] if isinstance(node, list) else node[key]
    del node[last]
