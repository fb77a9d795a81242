"""infertune on a schedule: a CronJob that recommends, with where it keeps its evidence and whom it may talk to."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from tools.manifests.labels import JOB, job_name, labels, reader_name, webhook_name
from tools.manifests.service import Service
from tools.manifests.workload import container_security, cores, pod_security
from tools.scaling.manifest import Manifest

SCHEDULE = "17 3 * * *"
"""Once a night, and not on the full hour, when everybody's jobs start."""
HOME = "/var/lib/infertune"
HOME_SIZE = "20Gi"
WORKLOAD = "/workload"
"""Where the image has `tuning.yaml`, and the model and the data that it names."""
ANSWERS = (2, 3)
"""Exit codes that another try does not change: a mistake in the input, a promise that cannot be kept."""
GRACE_S = 90
"""When the job is ended, its session keeps the best so far and is taken up the next night; `schedule tick` waits for it
for a minute."""


def cron_job(service: Service) -> Manifest:
    """Return the CronJob. It runs as the reader: it measures, recommends, records, and changes nothing.

    Each night it looks for a reason first, in what the volume has of the last run, and tells a webhook what came of it
    if there is a Secret that names one.

    It asks for what a replica gets, since what it measures is what a replica would do.
    """
    name = job_name(service)
    resources = {"cpu": cores(service.cpu_milli.value), "memory": f"{service.job_memory_mib.value}Mi"}
    if service.gpus.value:
        resources["nvidia.com/gpu"] = str(service.gpus.value)
    pod = {
        "serviceAccountName": reader_name(service),
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "securityContext": pod_security(),
        "containers": [
            {
                "name": JOB,
                "image": JOB,
                "workingDir": WORKLOAD,
                "args": ["schedule", "tick", "tuning.yaml"],
                "env": [
                    {"name": "INFERTUNE_HOME", "value": HOME},
                    {"name": "HOME", "value": "/tmp"},  # noqa: S108  inside of the container
                    _of_secret("INFERTUNE_WEBHOOK", service, "url"),
                    _of_secret("INFERTUNE_WEBHOOK_SECRET", service, "secret"),
                ],
                "resources": {"requests": dict(resources), "limits": dict(resources)},
                "securityContext": container_security(),
                "volumeMounts": [
                    {"name": "home", "mountPath": HOME},
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  inside of the container
                ],
            }
        ],
        "volumes": [
            {"name": "home", "persistentVolumeClaim": {"claimName": name}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name, "labels": labels(service, JOB)},
        "spec": {
            "schedule": SCHEDULE,
            "timeZone": "Etc/UTC",
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 3600,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {
                "metadata": {"labels": labels(service, JOB)},
                "spec": {
                    "activeDeadlineSeconds": service.job_deadline_s.value,
                    "backoffLimit": 1,
                    "podFailurePolicy": {
                        "rules": [
                            {
                                "action": "FailJob",
                                "onExitCodes": {"containerName": JOB, "operator": "In", "values": list(ANSWERS)},
                            }
                        ]
                    },
                    "template": {"metadata": {"labels": labels(service, JOB)}, "spec": pod},
                },
            },
        },
    }


def _of_secret(variable: str, service: Service, key: str) -> dict[str, Any]:
    """Return a variable from a key of the webhook's Secret; without it the variable is not set."""
    reference = {"name": webhook_name(service), "key": key, "optional": True}
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}


def home_claim(service: Service) -> Manifest:
    """Return the volume that keeps evidence from one night to the next: nothing is measured twice."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": job_name(service), "labels": labels(service, JOB)},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": HOME_SIZE}}},
    }


def network_policy(service: Service) -> Manifest:
    """Return whom the job may talk to: nobody calls it; it asks DNS, the API server, HTTPS services and Prometheus."""
    prometheus = urlsplit(service.prometheus_url.value)
    port = prometheus.port or (443 if prometheus.scheme == "https" else 80)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": job_name(service), "labels": labels(service, JOB)},
        "spec": {
            "podSelector": {"matchLabels": labels(service, JOB)},
            "policyTypes": ["Ingress", "Egress"],
            "egress": [
                {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
                {"ports": [{"protocol": "TCP", "port": p} for p in sorted({443, 6443, port})]},
            ],
        },
    }
