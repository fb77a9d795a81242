"""Who may do what: an identity that reads, and one that may patch a single autoscaler and nothing else."""

from __future__ import annotations

from tools.manifests.labels import JOB, labels, reader_name, writer_name
from tools.manifests.service import Service
from tools.scaling.manifest import Manifest

_GROUP = "rbac.authorization.k8s.io"
_HPA = {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"]}
_WHY_PODS = (
    "Optional: how long pods took to start is read from their conditions. Without it, infertune assumes the delays of "
    "its spec. Listing pods shows the variables in their specs too: drop this if any holds a secret."
)


def reader(service: Service) -> tuple[Manifest, ...]:
    """Return account, Role and binding of the identity that infertune runs with: it sees autoscalers, changes none.

    Traffic comes from Prometheus over HTTP, which needs no right in the cluster. What a pod's start takes is in the
    cluster: that is a Role and a binding of their own, which a namespace with secrets in its pods' variables drops.
    """
    name = reader_name(service)
    return (
        _account(service, name),
        *_granted(service, name, name, [{**_HPA, "verbs": ["get", "list", "watch"]}]),
        *_granted(service, name, f"{name}-pods", _starts(service), _WHY_PODS),
    )


def writer(service: Service) -> tuple[Manifest, ...]:
    """Return account, Role and binding of the identity that applies an approved plan: one autoscaler, by name.

    No pod runs with it. A person asks for a token that soon expires: `kubectl create token`.
    """
    rule = {**_HPA, "resourceNames": [service.hpa_name], "verbs": ["get", "patch"]}
    name = writer_name(service)
    return (_account(service, name), *_granted(service, name, name, [rule]))


def _starts(service: Service) -> list[Manifest]:
    """Return the rules that tell how long pods took to start."""
    return [
        {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": [service.name], "verbs": ["get"]},
        # A Role cannot name pods that do not exist yet, nor show their status without the rest of them.
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    ]


def _account(service: Service, name: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "labels": labels(service, JOB)},
        # Whoever needs the token mounts it, and says so.
        "automountServiceAccountToken": False,
    }


def _granted(
    service: Service, account: str, name: str, rules: list[Manifest], why: str | None = None
) -> tuple[Manifest, Manifest]:
    """Return a Role, and the binding that gives it to an account."""
    metadata: Manifest = {"name": name, "labels": labels(service, JOB)}
    if why is not None:
        metadata["annotations"] = {"kubernetes.io/description": why}
    return (
        {"apiVersion": f"{_GROUP}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{_GROUP}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": _GROUP, "kind": "Role", "name": name},
            # The namespace is that of the overlay: kustomize puts it in for an account of the same build.
            "subjects": [{"kind": "ServiceAccount", "name": account}],
        },
    )
