"""The stored Deployments and pods: what a reader may see of them."""

from __future__ import annotations

import copy
import re
from typing import TypeAlias

from simulations.api_server import answers
from simulations.api_server.answers import Manifest, Refused

Resource: TypeAlias = tuple[str, str]
"""Group and plural."""

DEPLOYMENTS: Resource = ("apps", "deployments")
PODS: Resource = ("", "pods")

_LISTS = {DEPLOYMENTS: ("apps/v1", "DeploymentList"), PODS: ("v1", "PodList")}

_REQUIREMENT = re.compile(r"(!?)([^\s!=(),]+)\s*(?:(==?|!=)\s*([^\s(),]*)|(in|notin)\s*\(([^)]*)\))?")
"""One requirement of a label selector: `a=b`, `a!=b`, `a in (b, c)`, `a notin (b, c)`, `a`, `!a`."""


class Workloads:
    """All Deployments and pods of one cluster."""

    def __init__(self) -> None:
        """Begin empty."""
        self._objects: dict[tuple[Resource, str, str], Manifest] = {}

    def put(self, resource: Resource, namespace: str, manifest: Manifest) -> None:
        """Store an object, in place of the one of that name."""
        self._objects[resource, namespace, manifest["metadata"]["name"]] = copy.deepcopy(manifest)

    def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        """Return a copy of one of them.

        Raises:
            Refused: it is not there.
        """
        if (resource, namespace, name) not in self._objects:
            raise Refused(answers.not_found(name, group=resource[0], resource=resource[1]))
        return copy.deepcopy(self._objects[resource, namespace, name])

    def list(self, resource: Resource, namespace: str, selector: str, limit: int) -> Manifest:
        """Return those of a namespace with these labels as a list object.

        Args:
            resource: which kind.
            namespace: of them.
            selector: a label selector; empty: all of them.
            limit: at most so many, in the order of their names; 0: all of them.
        """
        items = [
            {key: copy.deepcopy(value) for key, value in found.items() if key not in ("apiVersion", "kind")}
            for (*place, _), found in sorted(self._objects.items())
            if place == [resource, namespace] and _selects(selector, found["metadata"].get("labels", {}))
        ]
        metadata = {"resourceVersion": "1"}
        if limit and len(items) > limit:
            metadata["continue"] = "more"
            items = items[:limit]
        version, kind = _LISTS[resource]
        return {"kind": kind, "apiVersion": version, "metadata": metadata, "items": items}


def _selects(selector: str, labels: dict[str, str]) -> bool:
    return all(_holds(requirement, labels) for requirement in _REQUIREMENT.finditer(selector))


def _holds(requirement: re.Match[str], labels: dict[str, str]) -> bool:
    absent, key, sign, value, word, values = requirement.groups()
    if sign is not None:
        return (labels.get(key) == value) is (sign != "!=")
    if word is not None:
        return (labels.get(key) in [v.strip() for v in values.split(",")]) is (word == "in")
    return (key in labels) is not bool(absent)
