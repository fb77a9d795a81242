"""The part of a spec about traffic, autoscaling and the cluster."""

from __future__ import annotations

from typing import Literal, Self, TypeAlias

from pydantic import Field, model_validator

from tools.contracts import Bounds, Delays
from tools.spec.parts import PathText, SpecPart

ScalingMetric: TypeAlias = Literal["queue", "rate", "latency", "cpu"]


class PrometheusSpec(SpecPart):
    """Where the traffic of the service was recorded. Secrets are named by file or variable, never written here."""

    url: str = Field(description="address of Prometheus, as http://prometheus:9090", pattern=r"^https?://[^\s@]+$")
    preset: Literal["kserve", "vllm", "ray-serve", "triton", "nginx"] | None = Field(
        None, description="queries for a well-known server; `queries` may replace each"
    )
    labels: dict[str, str] = Field(
        default_factory=dict, description="label matchers put into the queries: namespace, deployment, ..."
    )
    queries: dict[Literal["request_rate", "queue_length", "latency_buckets", "replicas"], str] = Field(
        default_factory=dict, description="PromQL of your own by signal; {matchers} and {range} are filled in"
    )
    window_s: float = Field(7 * 86_400.0, gt=0, description="how far back to look")
    step_s: float = Field(60.0, ge=1, description="time between two points")
    timeout_s: float = Field(30.0, gt=0, description="of one request")
    token_file: PathText | None = Field(None, description="file with a bearer token")
    token_env: str | None = Field(None, description="environment variable with a bearer token")
    ca_file: PathText | None = Field(None, description="certificates to trust; default: the system's")
    cert_file: PathText | None = Field(None, description="client certificate (mTLS)")
    key_file: PathText | None = Field(None, description="its key")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.preset is None and "request_rate" not in self.queries:
            msg = "give a preset, or at least the query `request_rate`"
            raise ValueError(msg)
        if self.token_file is not None and self.token_env is not None:
            msg = "give at most one of token_file and token_env"
            raise ValueError(msg)
        if (self.cert_file is None) != (self.key_file is None):
            msg = "`cert_file` and `key_file` go together"
            raise ValueError(msg)
        if self.step_s > self.window_s / 2:
            msg = "the window must hold at least two steps"
            raise ValueError(msg)
        return self


class TrafficSpec(SpecPart):
    """How many requests come: exactly one of a trace, a constant rate and a Prometheus."""

    trace: PathText | None = Field(None, description="CSV with the columns `second` (since midnight) and `rps`")
    rate_rps: float | None = Field(None, gt=0, description="constant rate in requests per second")
    prometheus: PrometheusSpec | None = Field(None, description="where the traffic was recorded")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(value is not None for value in (self.trace, self.rate_rps, self.prometheus)) != 1:
            msg = "give exactly one of trace, rate_rps and prometheus"
            raise ValueError(msg)
        return self


class HpaFileSpec(SpecPart):
    """The HorizontalPodAutoscaler in use today."""

    file: PathText = Field(description="YAML file with one autoscaling/v2 HorizontalPodAutoscaler")


class ScalingSpec(SpecPart):
    """What scaling has to keep, and what it may use."""

    kept_share: float = Field(0.999, gt=0, le=1, description="share of minutes whose p99 must keep `objective.p99_ms`")
    metrics: tuple[ScalingMetric, ...] = Field(
        ("queue", "rate", "cpu"), min_length=1, description="what the autoscaler may follow: queue, rate, latency, cpu"
    )
    delays: Delays = Field(Delays(), description="scrape, adapter, sync, scheduling, start, readiness, termination")
    cores: float | None = Field(
        None, gt=0, description="CPU cores that a replica requests; default: `hardware.threads`, or all of this machine"
    )


class ClusterSpec(SpecPart):
    """The HorizontalPodAutoscaler in a cluster, who may read it, and who may change it."""

    context: str = Field(
        description="context of the kubeconfig for reading, by name (never simply the current one); "
        "`in-cluster` for a pod's service account"
    )
    kubeconfig: PathText | None = Field(None, description="default: $KUBECONFIG, then ~/.kube/config")
    writer_context: str | None = Field(
        None, description="context whose user may patch the HPA; without one nothing is ever applied"
    )
    writer_kubeconfig: PathText | None = Field(None, description="default: that for reading")
    namespace: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    hpa: str = Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    allow_namespaces: tuple[str, ...] = Field((), description="namespaces in which an approved plan may be applied")
    apply: bool = Field(default=False, description="offer the plan for approval; default: recommend only")
    bounds: Bounds = Field(Bounds(), description="what no plan may leave")
    approval_s: float = Field(86_400.0, gt=0, description="a plan and its approval expire after this long")
    verify_s: float = Field(600.0, gt=0, description="how long to watch after applying")
    cooldown_s: float = Field(1800.0, ge=0, description="no second change of the same HPA within this time")
