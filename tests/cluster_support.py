"""A cluster to test against: the stand-in API server, a kubeconfig for it, and one HPA.

Use the fixtures by `from cluster_support import cluster, production, server`.
"""

import copy

import pytest

from simulations.api_server import ApiServer
from tools.cluster.client import ApiError, patch_body
from tools.contracts.scaling import Bounds
from tools.spec import ClusterSpec

NAMESPACE, NAME = "inference-tenant-a", "resnet50"

CPU_70 = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}
QUEUE_30 = {
    "type": "Pods",
    "pods": {"metric": {"name": "request_queue_length"}, "target": {"type": "AverageValue", "averageValue": "30"}},
}
AFTER = {"minReplicas": 2, "maxReplicas": 6, "metrics": [QUEUE_30]}
"""A change of `hpa_manifest()` that every rule allows."""

PRICE_USD = 0.1
BOUNDS = Bounds(
    min_replicas=2, max_replicas=10, metrics=("cpu", "request_queue_length"), target=(1, 100), daily_cost_usd=20
)


def with_target(kind="averageValue", value="30", name="request_queue_length"):
    """`AFTER` with another metric or target."""
    metric = {"type": "Pods", "pods": {"metric": {"name": name}, "target": {"type": "AverageValue", kind: value}}}
    return {**AFTER, "metrics": [metric]}


def hpa_manifest(*, labels=None, annotations=None, owners=None, **spec):
    """An HPA that may be changed; a field of the spec that is given as None is left out."""
    metadata = {"name": NAME, "labels": {"infertune.dev/managed": "true"} if labels is None else labels}
    if annotations:
        metadata["annotations"] = annotations
    if owners:
        metadata["ownerReferences"] = owners
    fields = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME},
        "minReplicas": 2,
        "maxReplicas": 10,
        "metrics": [copy.deepcopy(CPU_70)],
        **spec,
    }
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata,
        "spec": {key: value for key, value in fields.items() if value is not None},
    }


def changed(obj, **spec):
    """The patch that changes these fields of an object's spec."""
    return patch_body(obj.owned, {**obj.owned, **spec}, obj.resource_version)


def failing(call, *arguments):
    """The error that a call ends with."""
    with pytest.raises(ApiError) as caught:
        call(*arguments)
    return caught.value


@pytest.fixture
def server():
    """A running server with the HPA `inference-tenant-a/resnet50`."""
    with ApiServer(namespace=NAMESPACE, hpa=NAME) as running:
        running.put_hpa(hpa_manifest())
        yield running


@pytest.fixture
def production():
    """Another server, of the kubeconfig's current context: that nobody ever asks it anything is checked."""
    with ApiServer(namespace=NAMESPACE, hpa=NAME) as running:
        running.put_hpa(hpa_manifest())
        yield running
        assert running.log == []


@pytest.fixture
def cluster(server, production, tmp_path):
    """The spec's part for that server: contexts reader, writer, nobody, admin; `production` is the current one."""
    kubeconfig = server.kubeconfig(tmp_path / "kubeconfig", others={"production": production})
    return ClusterSpec(
        context="reader",
        writer_context="writer",
        kubeconfig=str(kubeconfig),
        namespace=NAMESPACE,
        hpa=NAME,
        allow_namespaces=(NAMESPACE,),
        apply=True,
    )
