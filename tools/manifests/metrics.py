"""What a model server has to export, how Prometheus gets at it, and how an autoscaler gets at Prometheus.

A server is expected to export, per pod:

- `request_queue_length`, a gauge: requests that wait;
- `requests_total{code}`, a counter: requests by HTTP status, refused ones too;
- `request_duration_seconds`, a histogram: from arrival to answer. One of its bounds must be the SLO.
"""

from __future__ import annotations

from tools.manifests.labels import PORT, labels
from tools.manifests.render import render
from tools.manifests.service import Service
from tools.scaling.manifest import Manifest
from tools.scaling.recommended_hpa import QUEUE_METRIC
from tools.scaling.settings import LATENCY_METRIC, RATE_METRIC
from tools.scaling.twin_view import RATE_WINDOW_S

REQUESTS = "requests_total"
DURATION = "request_duration_seconds"
RATE_WINDOW = f"{RATE_WINDOW_S}s"
"""What the adapter's rules look back on, and so what the twin plays: one constant for both."""
ADAPTER_CONFIG = "config.yaml"
"""Name of the file that prometheus-adapter reads (`--config=/etc/adapter/config.yaml`)."""


def selector(service: Service, namespace: str, *more: str) -> str:
    """Return label matchers for the series of one service, as the Prometheus operator labels them.

    No name that gets here holds a quote or a backslash: they are DNS labels.
    """
    return "{" + ",".join([f'namespace="{namespace}"', f'service="{service.name}"', *more]) + "}"


def total(service: Service, metric: str, namespace: str) -> str | None:
    """Return PromQL for a metric that an autoscaler follows, over all replicas together; None if it is not one of ours.

    Queue and rate are sums; the latency is the p99 of the whole service in milliseconds, without a value where nobody
    asked anything.
    """
    of = selector(service, namespace)
    bucket = f"{DURATION}_bucket{of}"
    return {
        QUEUE_METRIC: f"sum({QUEUE_METRIC}{of})",
        RATE_METRIC: f"sum(rate({REQUESTS}{of}[{RATE_WINDOW}]))",
        LATENCY_METRIC: f"1000 * histogram_quantile(0.99, sum(rate({bucket}[{RATE_WINDOW}])) by (le)) >= 0",
    }.get(metric)


def service_monitor(service: Service) -> Manifest:
    """Return what makes the Prometheus operator read the metrics of each pod."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {"name": service.name, "labels": labels(service)},
        "spec": {
            "selector": {"matchLabels": labels(service)},
            "endpoints": [{"port": PORT, "path": "/metrics", "interval": f"{service.scrape_s.value}s"}],
        },
    }


def adapter_rules() -> Manifest:
    """Return the configuration of prometheus-adapter, format 0.12: queue and rate of each pod, p99 of each Service.

    The p99 drops what is no number: without a request there is no latency, and a metric that is missing keeps the
    replicas where a zero would take them away.
    """
    return {
        "rules": [
            _adapter_rule(QUEUE_METRIC, QUEUE_METRIC, "sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)"),
            _adapter_rule(
                REQUESTS,
                RATE_METRIC,
                f"sum(rate(<<.Series>>{{<<.LabelMatchers>>}}[{RATE_WINDOW}])) by (<<.GroupBy>>)",
            ),
            _adapter_rule(
                f"{DURATION}_bucket",
                LATENCY_METRIC,
                "1000 * histogram_quantile(0.99, "
                f"sum(rate(<<.Series>>{{<<.LabelMatchers>>}}[{RATE_WINDOW}])) by (<<.GroupBy>>, le)) >= 0",
            ),
        ]
    }


def adapter_config() -> Manifest:
    """Return the ConfigMap that prometheus-adapter mounts; it is the cluster's, not one service's."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "infertune-adapter-rules"},
        "data": {ADAPTER_CONFIG: render((), adapter_rules())},
    }


def _adapter_rule(series: str, name: str, query: str) -> Manifest:
    of = ("namespace", "pod", "service")
    present = ",".join(f'{label}!=""' for label in of)
    return {
        "seriesQuery": f"{series}{{{present}}}",
        "resources": {"overrides": {label: {"resource": label} for label in of}},
        "name": {"matches": f"^{series}$", "as": name},
        "metricsQuery": query,
    }
