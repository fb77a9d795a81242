"""The model server: Deployment, Service, its identity and its PodDisruptionBudget."""

from __future__ import annotations

import math

from tools.cluster.text import shown
from tools.manifests.figures import PRE_STOP_S
from tools.manifests.labels import PORT, SERVER, labels
from tools.manifests.service import Service
from tools.scaling.manifest import Manifest

CONTAINER_PORT = 8080
USER = 10001
"""Above 10000: no user of the node has this id."""
READY, LIVE = "/v2/health/ready", "/v2/health/live"
"""Of the Open Inference Protocol v2, which KServe, Triton, MLServer and others speak."""
PROBE_PERIOD_S = 5
LIVENESS_PERIOD_S = 10
LIVENESS_FAILURES = 6
"""A minute: a server that is busy is not dead, and to kill it makes the others busier."""
PULL_S = 600
"""For a node and its image, before a container starts at all."""
SCRATCH = "256Mi"
"""For /tmp, since the root file system is read-only: caches of compiled kernels."""


def deployment(service: Service) -> Manifest:
    """Return the Deployment. It has no `replicas`: that field is the autoscaler's."""
    resources: dict[str, str] = {"cpu": cores(service.cpu_milli.value), "memory": f"{service.memory_mib.value}Mi"}
    if service.gpus.value:
        resources["nvidia.com/gpu"] = str(service.gpus.value)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": service.name, "labels": labels(service)},
        "spec": {
            "selector": {"matchLabels": labels(service)},
            # A new replica is there before an old one goes: a rollout never costs capacity.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "progressDeadlineSeconds": PULL_S + service.startup_s.value,
            "template": {
                "metadata": {"labels": labels(service), "annotations": _measured(service)},
                "spec": {
                    "serviceAccountName": service.name,
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": service.termination_s.value,
                    "securityContext": pod_security(),
                    "topologySpreadConstraints": [
                        _spread(service, "topology.kubernetes.io/zone"),
                        _spread(service, "kubernetes.io/hostname"),
                    ],
                    "containers": [_container(service, resources)],
                    "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": SCRATCH}}],
                },
            },
        },
    }


def service_object(service: Service) -> Manifest:
    """Return the Service in front of the replicas."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": service.name, "labels": labels(service)},
        "spec": {
            "type": "ClusterIP",
            "selector": labels(service),
            "ports": [{"name": PORT, "port": 80, "targetPort": PORT, "protocol": "TCP", "appProtocol": "http"}],
        },
    }


def server_account(service: Service) -> Manifest:
    """Return the identity of the model server: it may do nothing, and its pods get no token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": service.name, "labels": labels(service)},
        "automountServiceAccountToken": False,
    }


def disruption_budget(service: Service) -> Manifest:
    """Return the budget for voluntary disruptions: one replica at a time, for which the plan has a spare (N - 1).

    As `maxUnavailable`, since a `minAvailable` would have to follow the autoscaler.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": service.name, "labels": labels(service)},
        "spec": {
            "maxUnavailable": 1,
            # A replica that is not ready serves nobody: it must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": labels(service)},
        },
    }


def pod_security() -> Manifest:
    """Return the pod's half of what the `restricted` Pod Security Standard asks for."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """Return the container's half of it, and a root file system that cannot be written."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def cores(milli: int) -> str:
    """Return thousandths of a core as Kubernetes writes them back."""
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"


def _container(service: Service, resources: dict[str, str]) -> Manifest:
    threads = max(1, service.cpu_milli.value // 1000)
    return {
        "name": SERVER,
        "image": SERVER,
        "ports": [{"name": PORT, "containerPort": CONTAINER_PORT, "protocol": "TCP"}],
        "env": [
            {"name": "PORT", "value": str(CONTAINER_PORT)},
            {"name": "MAX_BATCH_SIZE", "value": str(service.max_batch.value)},
            # Without it a library starts a thread for each core of the node, and they fight over this pod's share.
            {"name": "OMP_NUM_THREADS", "value": str(threads)},
        ],
        # Requests are limits: the pod then has the quality of service `Guaranteed`, as near as a shared node comes to
        # the quiet machine on which it was measured.
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        "startupProbe": {
            "httpGet": {"path": READY, "port": PORT},
            "periodSeconds": PROBE_PERIOD_S,
            "timeoutSeconds": 2,
            "failureThreshold": math.ceil(service.startup_s.value / PROBE_PERIOD_S),
        },
        "readinessProbe": {
            "httpGet": {"path": READY, "port": PORT},
            "periodSeconds": PROBE_PERIOD_S,
            "timeoutSeconds": 2,
            "failureThreshold": 2,
        },
        "livenessProbe": {
            "httpGet": {"path": LIVE, "port": PORT},
            "periodSeconds": LIVENESS_PERIOD_S,
            "timeoutSeconds": 5,
            "failureThreshold": LIVENESS_FAILURES,
        },
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_S}}},
        "securityContext": container_security(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108  inside of the container
    }


def _measured(service: Service) -> dict[str, str]:
    """Say on each pod what it runs: who looks at a pod sees which evidence it rests on."""
    told = {
        "infertune.dev/session": service.session,
        "infertune.dev/recipe": service.recipe,
        "infertune.dev/artifact": service.artifact,
    }
    return {key: shown(value) for key, value in told.items() if value is not None}


def _spread(service: Service, key: str) -> Manifest:
    """Prefer different zones and nodes; a replica in a crowded place is better than none."""
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels(service)},
        "matchLabelKeys": ["pod-template-hash"],
    }
