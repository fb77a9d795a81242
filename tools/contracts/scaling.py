"""What scaling speaks in: how a replica serves, what a setting does over a day, and a bounded change to a cluster."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import Field

from tools.contracts.base import Contract, Interval, digest_of

HpaSpec: TypeAlias = dict[str, Any]
"""The `spec` of an autoscaling/v2 HorizontalPodAutoscaler, as JSON holds it."""

OWNED_FIELDS = ("minReplicas", "maxReplicas", "metrics", "behavior")
"""The fields of an HPA's `spec` that a plan may change. No other field is ever written."""


class ServicePoint(Contract):
    """How long one replica takes for one batch."""

    batch_size: int = Field(ge=1)
    p50_ms: float = Field(gt=0)
    p99_ms: float = Field(gt=0)
    mean_ms: float = Field(gt=0)
    throughput_rps: Interval


class ServiceCurve(Contract):
    """How one replica serves: a measured point for each batch size, ascending, one batch at a time.

    A server takes what waits, at most `max_batch` requests, in one batch (continuous, or dynamic, batching without a
    delay). Between measured sizes the time is interpolated.
    """

    name: str
    """The configuration's name."""
    points: tuple[ServicePoint, ...] = Field(min_length=1)
    max_batch: int = Field(ge=1)
    """The largest batch that the SLO allows: a size among the points."""
    cores: float = Field(default=1.0, gt=0)
    """CPU cores that a replica requests; it uses them all while it serves a batch."""
    evidence: tuple[str, ...] = ()
    """Ids of the evidence that the points come from."""
    confirmed: bool = False
    """Whether a load test of a whole replica confirmed it; until then all that follows is an estimate."""


class Delays(Contract):
    """What passes between a rise of the traffic and a replica that serves it, in seconds."""

    scrape_s: float = Field(15.0, gt=0, description="Prometheus scrapes the pods this often")
    adapter_s: float = Field(30.0, gt=0, description="the metrics adapter refreshes what it serves this often")
    sync_s: float = Field(15.0, gt=0, description="the HPA controller looks this often")
    scheduling_s: float = Field(2.0, ge=0, description="until a new pod has a node")
    start_s: float = Field(
        30.0, ge=0, description="pulling the image, starting the process, loading and warming the model"
    )
    readiness_s: float = Field(5.0, ge=0, description="until the readiness probe has seen it and traffic arrives")
    termination_s: float = Field(30.0, ge=0, description="a pod that is stopped is paid for this much longer")

    @property
    def pod_s(self) -> float:
        """Seconds from the decision to a replica that serves."""
        return self.scheduling_s + self.start_s + self.readiness_s


class DayOutcome(Contract):
    """What one HPA setting would have done over one recorded or made-up stretch of traffic."""

    day: str
    minutes: int
    missed_minutes: int
    """Minutes whose p99 is above the SLO, or in which requests were refused."""
    worst_p99_ms: float
    """Of the worst minute."""
    replica_hours: float
    """Paid for, from the moment a pod is scheduled until it is gone."""
    cost_usd: float
    scalings: int
    """How often the controller changed the number of replicas."""
    reversals: int
    """Scalings in the other direction within ten minutes of the one before: what people call flapping."""
    peak_replicas: int
    """The most that were ready, and so served, at one time; those that start or end do not count."""
    mean_replicas: float
    """Ready ones, over all seconds: fewer than are paid for (`replica_hours`)."""
    requests: float
    served: float
    refused: float
    waiting_at_end: float
    """requests = served + refused + waiting_at_end."""

    @property
    def kept_share(self) -> float:
        """Share of the minutes in which the SLO was kept."""
        return 1 - self.missed_minutes / self.minutes


class ScalingOption(Contract):
    """One HPA setting, and what it did on each day in the twin."""

    name: str
    """In words: `request_queue_length 12 per pod, 2 to 9, down in 300 s`."""
    spec: HpaSpec
    """minReplicas, maxReplicas, metrics, behavior."""
    outcomes: tuple[DayOutcome, ...]
    """Of the recorded traffic first, then of the harder days."""
    is_today: bool = False
    rejected: str | None = None
    """Why it cannot be chosen, in a sentence; None if it keeps every promise."""


class HpaRef(Contract):
    """One HorizontalPodAutoscaler in one cluster, at one moment."""

    server: str
    """URL of the API server."""
    context: str
    """Name of the kubeconfig context, or `in-cluster`."""
    namespace: str
    name: str
    uid: str
    resource_version: str


class Bounds(Contract):
    """What no change may leave. A limit that is None does not bind, except that replicas are at least 1."""

    min_replicas: int = Field(1, ge=1, description="minReplicas is never set lower")
    max_replicas: int = Field(100, ge=1, description="maxReplicas is never set higher")
    metrics: tuple[str, ...] | None = Field(None, description="names of metrics that may be scaled on")
    target: tuple[float, float] | None = Field(None, description="lowest and highest target of any metric")
    daily_cost_usd: float | None = Field(None, gt=0, description="what maxReplicas for a whole day may cost at most")


class ScalingPlan(Contract):
    """A bounded change of one HPA. Nobody but code makes one; a person approves its digest, and nothing else."""

    schema_version: Literal[1] = 1
    session: str
    target: HpaRef
    scales: str = ""
    """What the HPA scales, as `apps/v1 Deployment resnet50`: it must still do when the plan is applied."""
    before: HpaSpec
    """`OWNED_FIELDS` as the server had them; a field that was not set is missing."""
    after: HpaSpec
    """`OWNED_FIELDS` as they are to be, complete."""
    why: str
    """The sentence that goes with it."""
    evidence: tuple[str, ...] = ()
    bounds: Bounds = Bounds()
    slo_ms: float | None = None
    """p99 that verification holds against."""
    verify_s: float = Field(gt=0)
    """How long verification watches."""
    daily_cost_usd: float | None = None
    """What the twin expects a day to cost."""
    created: str
    """UTC, ISO 8601."""
    expires: str
    """UTC, ISO 8601. Nothing is applied from then on."""

    @property
    def digest(self) -> str:
        """Name of exactly this plan: any other content has another."""
        return digest_of(self.model_dump(mode="json"))
