"""The autoscaler: a HorizontalPodAutoscaler, or a ScaledObject where KEDA makes one."""

from __future__ import annotations

from typing import Any

from tools.manifests.labels import labels
from tools.manifests.metrics import total
from tools.manifests.service import Service
from tools.scaling.hpa_quantity import quantity_float
from tools.scaling.manifest import API_VERSION, KIND, Manifest
from tools.scaling.settings import LATENCY_METRIC

STAGING_REPLICAS = (1, 2)
"""Enough to see a rollout and a scaling; nobody waits for staging."""

_KEDA_RULES = ("stabilizationWindowSeconds", "policies", "selectPolicy")
"""What KEDA's own copy of the HPA's scaling rules has; it lacks `tolerance`."""


def hpa(service: Service) -> Manifest:
    """Return the HorizontalPodAutoscaler. It does not opt in to being changed by infertune: a person does that."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": service.hpa_name, "labels": {**service.hpa_labels, **labels(service)}},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": service.name},
            **service.autoscaler.value,
            "metrics": [_of_this_service(service, metric) for metric in service.autoscaler.value.get("metrics") or []],
        },
    }


def replicas_patch(service: Service, replicas: tuple[int, int]) -> Manifest:
    """Return a strategic merge patch that gives the autoscaler other bounds."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": service.hpa_name},
        "spec": {"minReplicas": replicas[0], "maxReplicas": replicas[1]},
    }


def without_hpa(service: Service) -> Manifest:
    """Return a strategic merge patch that takes the autoscaler out."""
    return {"$patch": "delete", "apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": service.hpa_name}}


def scaled_object(service: Service, *, namespace: str, replicas: tuple[int, int]) -> Manifest:
    """Return KEDA's ScaledObject in place of the autoscaler: the same bounds, targets and behavior.

    KEDA asks Prometheus itself, so no metrics adapter is needed, and makes an HPA of the same name.

    Args:
        service: of which queue, rate, latency and CPU are followed; other metrics are not carried over.
        namespace: where it runs.
        replicas: bounds.
    """
    spec = service.autoscaler.value
    triggers = [trigger for metric in spec.get("metrics") or [] for trigger in _triggers(service, metric, namespace)]
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {
            "name": service.name,
            "labels": labels(service),
            # An HPA of this name that is there already is taken over instead of refused.
            "annotations": {"scaledobject.keda.sh/transfer-hpa-ownership": "true"},
        },
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": service.name},
            "minReplicaCount": replicas[0],
            "maxReplicaCount": replicas[1],
            "pollingInterval": service.scrape_s.value,
            "advanced": {
                "horizontalPodAutoscalerConfig": {
                    "name": service.hpa_name,
                    "behavior": {
                        direction: {key: rules[key] for key in _KEDA_RULES if key in rules}
                        for direction, rules in (spec.get("behavior") or {}).items()
                    },
                }
            },
            "triggers": triggers,
        },
    }


def has_keda_triggers(service: Service) -> bool:
    """Whether there is anything that KEDA could follow."""
    return any(_triggers(service, metric, "") for metric in service.autoscaler.value.get("metrics") or [])


def _of_this_service(service: Service, metric: Manifest) -> Manifest:
    """Return a metric of the Service as one of the Service that is made here, whatever it was called elsewhere."""
    source: dict[str, Any] = metric.get("object") or {}
    if (source.get("metric") or {}).get("name") != LATENCY_METRIC:
        return metric
    return {
        **metric,
        "object": {**source, "describedObject": {"apiVersion": "v1", "kind": "Service", "name": service.name}},
    }


def _triggers(service: Service, metric: Manifest, namespace: str) -> list[Manifest]:
    """Return the trigger that follows what a metric of the autoscaler follows; none if KEDA cannot know it."""
    resource: dict[str, Any] = metric.get("resource") or {}
    percent = (resource.get("target") or {}).get("averageUtilization")
    if resource.get("name") == "cpu" and percent is not None:
        return [{"type": "cpu", "metricType": "Utilization", "metadata": {"value": str(percent)}}]
    source: dict[str, Any] = metric.get("pods") or metric.get("object") or {}
    target: dict[str, Any] = source.get("target") or {}
    kind = target.get("type")
    value = target.get("averageValue" if kind == "AverageValue" else "value")
    query = total(service, (source.get("metric") or {}).get("name", ""), namespace)
    if query is None or value is None:
        return []
    return [
        {
            "type": "prometheus",
            "metricType": kind,
            "metadata": {
                "serverAddress": service.prometheus_url.value,
                "query": query,
                # KEDA reads a number, not a quantity such as `500m`.
                "threshold": f"{quantity_float(value, 'the target of an autoscaler'):.12g}",
                # Nothing in Prometheus is an error, upon which nothing scales. KEDA's default reads it as zero.
                "ignoreNullValues": "false",
            },
        }
    ]
