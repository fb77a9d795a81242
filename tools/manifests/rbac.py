"""Who may do what: an identity that reads, and one that may patch a single autoscaler and nothing else."""

from __future__ import annotations

from tools.manifests.labels import JOB, labels, reader_name, writer_name
from tools.manifests.service import Service
from tools.scaling.manifest import Manifest

_GROUP = "rbac.authorization.k8s.io"
_HPA = {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"]}


def reader(service: Service) -> tuple[Manifest, ...]:
    """Return account, Role and binding of the identity that infertune runs with: it sees autoscalers, changes none.

    Traffic comes from Prometheus over HTTP, which needs no right in the cluster.
    """
    return _identity(service, reader_name(service), [{**_HPA, "verbs": ["get", "list", "watch"]}])


def writer(service: Service) -> tuple[Manifest, ...]:
    """Return account, Role and binding of the identity that applies an approved plan: one autoscaler, by name.

    No pod runs with it. A person asks for a token that soon expires: `kubectl create token`.
    """
    rule = {**_HPA, "resourceNames": [service.hpa_name], "verbs": ["get", "patch"]}
    return _identity(service, writer_name(service), [rule])


def _identity(service: Service, name: str, rules: list[Manifest]) -> tuple[Manifest, ...]:
    metadata = {"name": name, "labels": labels(service, JOB)}
    return (
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata,
            # Whoever needs the token mounts it, and says so.
            "automountServiceAccountToken": False,
        },
        {"apiVersion": f"{_GROUP}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{_GROUP}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": _GROUP, "kind": "Role", "name": name},
            # The namespace is that of the overlay: kustomize puts it in for an account of the same build.
            "subjects": [{"kind": "ServiceAccount", "name": name}],
        },
    )
