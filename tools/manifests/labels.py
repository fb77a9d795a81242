"""The labels by which the objects of one service find each other."""

from __future__ import annotations

from tools.manifests.service import Service

SERVER = "model-server"
JOB = "infertune"
PORT = "http"
"""Name of the port that is served: inference, health and metrics."""


def labels(service: Service, component: str = SERVER) -> dict[str, str]:
    """Return the labels of an object, which are also those that selectors ask for."""
    return {"app.kubernetes.io/name": service.name, "app.kubernetes.io/component": component}


def reader_name(service: Service) -> str:
    """Return the name of the identity that reads, of its Role and of its RoleBinding."""
    return f"{service.name}-infertune-reader"


def writer_name(service: Service) -> str:
    """Return the name of the identity that patches, of its Role and of its RoleBinding."""
    return f"{service.name}-infertune-writer"


def webhook_name(service: Service) -> str:
    """Return the name of the Secret with the webhook that the job tells; a person makes it, or does without."""
    return f"{job_name(service)}-webhook"


def job_name(service: Service) -> str:
    """Return the name of the CronJob and of what belongs to it."""
    return f"{service.name}-infertune"
