"""Whose an HPA is: what another owner writes into it would undo our change, or be undone by it."""

from __future__ import annotations

from tools.cluster.hpa_object import FIELD_MANAGER, HpaObject
from tools.cluster.text import shown
from tools.contracts.scaling import OWNED_FIELDS

_DOMAINS = {
    "argocd.argoproj.io": "Argo CD",
    "fluxcd.io": "Flux",
    "keda.sh": "KEDA",
    "fleet.cattle.io": "Rancher Fleet",
    "configsync.gke.io": "Config Sync",
    "configmanagement.gke.io": "Config Sync",
}
"""Whoever keeps an object puts labels or annotations of its domain, or of one below, on it."""

_MANAGED_BY = "app.kubernetes.io/managed-by"

_RELEASED_BY_PEOPLE = frozenset({"helm", "kubectl", "kustomize", "infertune"})
"""Tools that write when a person runs them, and not by themselves."""

_PEOPLE = frozenset({"kubectl", "k9s", "helm", "before-first-apply"})
"""Names in `managedFields` of what people use by hand; and what the server calls the time before it took notes."""

_CONTROLLERS = {
    "argocd": "Argo CD",
    "kustomize-controller": "Flux",
    "helm-controller": "Flux",
    "flux": "Flux",
    "keda": "KEDA",
}
"""Beginnings of names in `managedFields`."""


def owner_of(obj: HpaObject) -> str | None:
    """Return who else keeps this HPA, and by what it shows; None if nobody does.

    Then the change belongs into the owner's repository, as a file: in the cluster it would not last.
    """
    return _owner_reference(obj) or _marked(obj) or _managed_by(obj) or _foreign_manager(obj)


def notes_on(obj: HpaObject) -> tuple[str, ...]:
    """Return, in sentences, what does not forbid a change, but should be known before it is approved."""
    notes = []
    if obj.labels.get(_MANAGED_BY, "").lower() == "helm" or "meta.helm.sh/release-name" in obj.annotations:
        release = shown(obj.annotations.get("meta.helm.sh/release-name", "a release"))
        notes.append(
            f"Helm installed it ({release}): the next upgrade that touches these fields puts its own values back. Put "
            "the change into the chart's values as well."
        )
    people = sorted({m.name for m in obj.managers_of(*OWNED_FIELDS) if _is_person(m.name)})
    if people:
        names = ", ".join(shown(name) for name in people)
        notes.append(f"Written by hand before (by {names}): whoever applies that file again undoes the change.")
    if not obj.managers:
        notes.append("The server tells of nobody who wrote it: whether somebody else keeps it cannot be seen.")
    return tuple(notes)


def _owner_reference(obj: HpaObject) -> str | None:
    return f"{shown(obj.owners[0])} (ownerReferences)" if obj.owners else None


def _marked(obj: HpaObject) -> str | None:
    for where, keys in (("label", obj.labels), ("annotation", obj.annotations)):
        for key in sorted(keys):
            domain = key.partition("/")[0] if "/" in key else ""
            for suffix, owner in _DOMAINS.items():
                if domain == suffix or domain.endswith(f".{suffix}"):
                    return f"{owner} ({where} {shown(key)})"
    return None


def _managed_by(obj: HpaObject) -> str | None:
    value = obj.labels.get(_MANAGED_BY)
    if not value or value.lower() in _RELEASED_BY_PEOPLE:
        return None
    return f"{shown(value)} (label {_MANAGED_BY})"


def _foreign_manager(obj: HpaObject) -> str | None:
    for manager in obj.managers_of(*OWNED_FIELDS):
        if manager.name == FIELD_MANAGER or _is_person(manager.name):
            continue
        known = (owner for start, owner in _CONTROLLERS.items() if manager.name.lower().startswith(start))
        fields = ", ".join(field for field in OWNED_FIELDS if field in manager.fields)
        return f"{next(known, 'the controller')} (it wrote {fields} as {shown(manager.name)})"
    return None


def _is_person(name: str) -> bool:
    return name in _PEOPLE or name.startswith("kubectl-")
