"""What Prometheus is asked: a query for each signal, ready-made for well-known servers.

In a query, `{matchers}` stands for the label selector with its braces, as `{namespace="shop"}`, and `{range}` for the
duration that rates are taken over, as `120s`.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias, get_args

from tools.errors import SpecError
from tools.spec import PrometheusSpec

SignalName: TypeAlias = Literal["request_rate", "queue_length", "latency_buckets", "replicas"]
SIGNALS: tuple[SignalName, ...] = get_args(SignalName)
RANGE_S = 120.0
"""Rates are taken over at least this long: four scrapes at 30 s (Grafana's rule for a rate that never has a gap), two
at a minute, the longest interval in common use. A rush shorter than this looks lower than it was."""
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_MILLISECONDS = re.compile(r"_(ms|msec|millis|milliseconds)(_bucket)?\b")
_MICROSECONDS = re.compile(r"_(us|usec|micros|microseconds)(_bucket)?\b")
_RATE = "sum(rate({metric}{matchers}[{range}]))"
_BUCKETS = "sum by (le) (rate({metric}_bucket{matchers}[{range}]))"
_SUM = "sum({metric}{matchers})"
_INSTANCES = "count(count by (instance, pod) ({metric}{matchers}))"


class Preset(NamedTuple):
    """Templates for one server; None is a signal that it does not export, and `missing` says why."""

    request_rate: str
    queue_length: str | None
    latency_buckets: str | None
    replicas: str | None
    counter: str
    """The counter that `request_rate` is taken from: its resets are counted."""
    missing: str = ""


class Query(NamedTuple):
    """A signal, and the PromQL that reads it."""

    signal: SignalName
    promql: str


def _of(template: str, metric: str) -> str:
    return template.replace("{metric}", metric)


PRESETS = MappingProxyType(
    {
        # KServe's Python model server, python/kserve/kserve/metrics.py: histograms with the label `model_name`. With
        # Knative in front, the queue is in its proxy, whose metrics got new names with OpenTelemetry: not relied on.
        "kserve": Preset(
            request_rate=_of(_RATE, "request_predict_seconds_count"),
            queue_length=None,
            latency_buckets=_of(_BUCKETS, "request_predict_seconds"),
            replicas=_of(_INSTANCES, "request_predict_seconds_count"),
            counter="request_predict_seconds_count",
            missing="KServe's model server exports no queue length, and its latency is that of predict() alone.",
        ),
        # vLLM's V1 engine, vllm/v1/metrics/loggers.py: labels `model_name`, `engine`; the same in the documentation
        # of 0.7 to 0.9. `_total` is added by prometheus_client.
        "vllm": Preset(
            request_rate=_of(_RATE, "vllm:request_success_total"),
            queue_length=_of(_SUM, "vllm:num_requests_waiting"),
            latency_buckets=_of(_BUCKETS, "vllm:e2e_request_latency_seconds"),
            replicas=_of(_INSTANCES, "vllm:num_requests_waiting"),
            counter="vllm:request_success_total",
        ),
        # Ray Serve 2.60, serve/_private/{replica,router}.py; Ray's exporter prefixes `ray_` and ends counters in
        # `_total`. Labels: `deployment`, `application`, `route`, `replica`. Latency is in milliseconds.
        "ray-serve": Preset(
            request_rate=_of(_RATE, "ray_serve_deployment_request_counter_total"),
            queue_length=_of(_SUM, "ray_serve_deployment_queued_queries"),
            latency_buckets=_of(_BUCKETS, "ray_serve_deployment_processing_latency_ms"),
            replicas=_of(_SUM, "ray_serve_deployment_replica_healthy"),
            counter="ray_serve_deployment_request_counter_total",
        ),
        # Triton, docs/user_guide/metrics.md: counters without `_total`, labels `model`, `version`; the pending count is
        # newer than 2023. Failures are requests too; they are no series at all until the first one.
        "triton": Preset(
            request_rate=(
                f"{_of(_RATE, 'nv_inference_request_success')}"
                f" + ({_of(_RATE, 'nv_inference_request_failure')} or vector(0))"
            ),
            queue_length=_of(_SUM, "nv_inference_pending_request_count"),
            latency_buckets=None,
            replicas=_of(_INSTANCES, "nv_inference_request_success"),
            counter="nv_inference_request_success",
            missing=(
                "Triton exports no latency histogram for ordinary models: sums by default, summaries with "
                "`--metrics-config summary_latencies=true`, which cannot be added up over replicas."
            ),
        ),
        # ingress-nginx, internal/ingress/metric/collectors/socket.go (controller 1.x): labels `namespace`, `ingress`,
        # `service`, `status`, `method`, `path`; scraped with a `namespace` of its own, the ingress's becomes
        # `exported_namespace` unless `honorLabels` is set.
        "nginx": Preset(
            request_rate=_of(_RATE, "nginx_ingress_controller_requests"),
            queue_length=None,
            latency_buckets=_of(_BUCKETS, "nginx_ingress_controller_request_duration_seconds"),
            replicas=None,
            counter="nginx_ingress_controller_requests",
            missing="ingress-nginx knows neither the queue nor the replicas of the service behind it.",
        ),
    }
)


def range_s(source: PrometheusSpec) -> float:
    """Return the seconds that rates are taken over: a step, so that no request is left out, or `RANGE_S` if longer."""
    return max(source.step_s, RANGE_S)


def queries_of(source: PrometheusSpec) -> tuple[Query, ...]:
    """Return the queries to send, in the order of `SIGNALS`; a signal that nobody has a query for is left out.

    Raises:
        SpecError: a label is not one that Prometheus knows.
    """
    preset = None if source.preset is None else PRESETS[source.preset]
    queries = []
    for signal in SIGNALS:
        own = source.queries.get(signal)
        template = own if own is not None or preset is None else getattr(preset, signal)
        if template is not None:
            queries.append(Query(signal, _fill(template, source)))
    return tuple(queries)


def resets_query(source: PrometheusSpec) -> str | None:
    """Return the query that counts how often counters started again in the window; None without a preset's counter."""
    if source.preset is None or "request_rate" in source.queries:
        return None
    return f"sum(resets({PRESETS[source.preset].counter}{selector(source.labels)}[{duration(source.window_s)}]))"


def notes_on(source: PrometheusSpec) -> tuple[str, ...]:
    """Return what a reader should know of the queries themselves, in sentences."""
    notes = []
    if not source.labels and (source.preset is not None or any("{matchers}" in q for q in source.queries.values())):
        notes.append("No `labels` are given: every such service that this Prometheus watches is counted.")
    if source.preset is not None:
        missing = PRESETS[source.preset].missing
        if missing and any(getattr(PRESETS[source.preset], s) is None and s not in source.queries for s in SIGNALS):
            notes.append(missing)
    for signal, template in source.queries.items():
        if source.labels and "{matchers}" not in template:
            notes.append(f"The query `{signal}` has no {{matchers}}, so `labels` do not narrow it.")
        if re.search(r"\b(i?rate|increase)\s*\(\s*(sum|avg|max|min|count)\b", template):
            notes.append(
                f"The query `{signal}` takes the rate of a sum: each pod that ends looks like a counter that started "
                "again, and makes a spike. Write sum(rate(...)), not rate(sum(...))."
            )
    return tuple(notes)


def latency_unit_ms(query: str) -> float:
    """Return how many milliseconds one unit of a histogram's bounds is, by the metric's name in this query.

    Prometheus's convention is seconds; names that end in another unit (`_ms_bucket`) say so.
    """
    if _MILLISECONDS.search(query):
        return 1.0
    return 1e-3 if _MICROSECONDS.search(query) else 1000.0


def selector(labels: dict[str, str]) -> str:
    r"""Return `{a="x",b="y"}`, values escaped as PromQL's strings are: backslash, quote, newline.

    Raises:
        SpecError: a name is not a label's name.
    """
    for name in labels:
        if not _LABEL.fullmatch(name):
            raise SpecError(
                f"{name!r} is no label.",
                where="traffic.prometheus.labels",
                fix="A label has letters, digits and underscores, and does not begin with a digit.",
            )
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def duration(seconds: float) -> str:
    """Return a duration as PromQL writes it, in whole seconds, or milliseconds where they are not whole."""
    return f"{seconds:.0f}s" if float(seconds).is_integer() else f"{seconds * 1000:.0f}ms"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _fill(template: str, source: PrometheusSpec) -> str:
    # One pass: a label's value that reads `{range}` stays what it is.
    values = {"{matchers}": selector(source.labels), "{range}": duration(range_s(source))}
    return re.sub(r"\{matchers\}|\{range\}", lambda found: values[found.group()], template)
