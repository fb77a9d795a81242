"""`result.json`: the contract of a finished session, for scripts and for people.

The schema is versioned. Within one `schema_version` fields are only ever added. `infertune schema result` prints it.
"""

from __future__ import annotations

from pydantic import Field

from tools.contracts import (
    ArtifactRef,
    BatchPoint,
    Contract,
    Decision,
    EdgeCase,
    Gate,
    Hardware,
    Interval,
    JsonScalar,
    Latency,
    LayerSensitivity,
    Option,
    ProfileResult,
    Recipe,
    Recommendation,
    Verdict,
)
from tools.spec import Objective

RESULT_SCHEMA_VERSION = 1


class Seconds(Contract):
    """Where the session's wall-clock time went."""

    total: float
    trials: float
    """Everything that ran in workers for the session: loading, profiling, transforms, measurements."""
    training: float = 0.0
    """Training of a bundled workload that was not cached yet."""
    overhead: float
    """The rest: deciding, recording, reporting. total = trials + training + overhead."""


class Configuration(Contract):
    """A recipe at one batch size, with what was measured there."""

    recipe: str
    """The recipe's name, for people; `definition` has the whole of it."""
    definition: Recipe
    runtime: str
    batch_size: int
    latency_ms: Latency
    throughput_rps: float
    accuracy: float
    accuracy_drop: Interval
    size_mb: float
    memory_mb: float
    load_ms: float | None = None
    """How long loading the model took, in the slowest of its trials; None where an older session did not tell."""
    joules_per_request: float | None = None
    """Energy of the CPU package, where the machine counts it."""
    cost_per_1000_usd: float
    artifact: str
    """Directory of the artifact's files."""
    artifact_ref: ArtifactRef
    intervals: dict[str, Interval]
    """95 % intervals of `throughput_rps`, `accuracy` and `cost_per_1000_usd`."""


class Ratio(Contract):
    """Baseline against best, above 1 is better.

    `p50`: batch 1 against batch 1, interleaved. `throughput` and `cost`: best at its batch against baseline at
    batch 1, interleaved; `cost` follows from throughput at the same price.
    """

    p50: Interval
    throughput: Interval
    cost: Interval


class TrialSummary(Contract):
    """One candidate, whatever became of it."""

    recipe: str
    definition: Recipe
    outcome: str
    reason: str | None = None
    """Why it was not measured, in a sentence."""
    evidence: tuple[str, ...]
    points: tuple[BatchPoint, ...] = ()
    cost_per_1000_usd: dict[int, Interval] = Field(default_factory=dict)
    """By batch size."""
    accuracy: float | None = None
    accuracy_drop: Interval | None = None
    output_difference: float | None = None
    size_mb: float | None = None
    seconds: float
    chosen: bool = False
    feasible: bool = False
    variant: str = ""
    """What was done to the model itself: `distill resnet18`; empty for the model as given."""
    flops: float | None = None
    """Floating-point operations of one item, zeros counted like other weights; None where nobody counted."""
    parameters: int | None = None
    nonzero_parameters: int | None = None
    sparsity: float | None = None
    """Share of zeros, as the last step that counted them tells."""
    given_up: str | None = None
    """Why it was not measured to the end. What there is of it rests on few samples, and it is never chosen."""


class BuildSummary(Contract):
    """What one transform did; several candidates may rest on it."""

    steps: tuple[str, ...]
    """All steps up to this one, in words: `distill resnet18`, `export-onnx`."""
    transform: str
    outcome: str
    reason: str | None = None
    """Why it made nothing, in a sentence."""
    seconds: float
    size_mb: float | None = None
    """Of what it made."""
    facts: dict[str, JsonScalar] = Field(default_factory=dict)
    """As the transform tells: `parameters`, `flops` (of one item), `nodes_before`, `nodes_after`, `agreement`, ..."""
    notes: tuple[str, ...] = ()
    sensitivity: tuple[LayerSensitivity, ...] = ()
    evidence: str


class Margin(Contract):
    """How far the best is from one constraint. Positive: kept with room to spare."""

    constraint: str
    limit: float
    value: float
    margin: float
    unit: str


class BatchRecommendation(Contract):
    """Static batch sizes: one for traffic under an SLO, one for jobs where only throughput counts."""

    sla_batch: int | None
    sla_reason: str
    job_batch: int
    job_reason: str


class TrafficSummary(Contract):
    """The traffic that the scaling rests on."""

    source: str
    p50_rps: float
    p95_rps: float
    peak_rps: float
    mean_rps: float
    seconds: float
    """Length of the trace."""
    series: tuple[tuple[float, float], ...] = ()
    """(second, rps), at most 288 points for plotting."""


class ScalingSummary(Contract):
    """How many replicas hold the traffic, and the HPA that follows; an estimate until a load test confirms it."""

    traffic: TrafficSummary
    capacity_rps: Interval
    """Requests per second that one replica takes at the SLO-critical batch size, before headroom."""
    usable_rps: float
    """Capacity planned with: `capacity_rps.low` times `utilization`."""
    utilization: float
    replicas_p95: int
    replicas_peak: int
    min_replicas: int
    max_replicas: int
    baseline_replicas_p95: int | None = None
    baseline_replicas_peak: int | None = None
    daily_cost_usd: float
    """Replica-hours that follow the trace minute by minute, never below `min_replicas`, times the price."""
    baseline_daily_cost_usd: float | None = None
    queue_target: int
    sentence: str
    recommendation: Recommendation | None = None
    """What the twin found; None without an SLO, or where it could not play the traffic."""
    evidence: tuple[str, ...] = ()
    """Ids of what this rests on."""
    hpa_yaml: str | None = None
    """Path of the recommended HorizontalPodAutoscaler."""
    hpa_diff_path: str | None = None
    hpa_diff: str = ""
    notes: tuple[str, ...] = ()


class PlanEvent(Contract):
    """Something that happened to a plan."""

    kind: str
    """proposed, approved, rejected, expired, applying, applied, verifying, verified, breached, rolled_back, ..."""
    at: str
    """UTC, ISO 8601."""
    by: str
    """A person's name, `policy`, or `infertune`."""
    why: str = ""


class PlanSummary(Contract):
    """The change that was offered to the cluster, and what became of it."""

    digest: str
    state: str
    """Kind of the last event."""
    hpa: str
    """Namespace and name."""
    context: str
    why: str
    expires: str
    """UTC, ISO 8601."""
    diff: str
    """Of what it changes: before and after."""
    server_diff: str = ""
    """The same as the API server itself showed it in its dry run."""
    events: tuple[PlanEvent, ...]
    notes: tuple[str, ...] = ()


class AdviceSummary(Contract):
    """What a language model was asked in a session with an advisor, and what came of it."""

    model: str
    """Its name, and the host that it was asked at."""
    asked: int
    """Questions, the summary's among them."""
    refused: tuple[str, ...] = ()
    """Why an answer could not be used, a sentence each."""
    tried: tuple[str, ...] = ()
    """Names of the candidates that were tried on its advice, which the policy had left."""
    chosen: bool = False
    """Whether the configuration that is recommended was found by its advice."""
    influence: str
    """What came of it, in a sentence."""
    text: str | None = None
    """Its summary, every figure of which was held against this result; None where it gave none that holds."""
    seconds: float
    """Of the session, for asking it and for what was tried on its advice."""
    tokens_in: int
    tokens_out: int
    estimated: bool
    """Whether some of the tokens were not counted by the endpoint."""
    evidence: tuple[str, ...]


class MlflowRef(Contract):
    """Where the record is."""

    tracking_uri: str
    run_id: str | None
    model_name: str | None = None
    model_version: str | None = None
    note: str | None = None
    """Why the record is incomplete."""


class SessionResult(Contract):
    """The whole of `result.json`."""

    schema_version: int = RESULT_SCHEMA_VERSION
    session: str
    workload: str
    workload_digest: str
    created: str
    verdict: Verdict
    summary: str
    """The result in one or two sentences."""
    objective: Objective
    metric: str
    """What `accuracy` is: a built-in metric, or the user's `file.py:function`."""
    higher_is_better: bool
    price_per_hour_usd: float
    hardware: Hardware
    versions: dict[str, str]
    seconds: Seconds
    baseline: Configuration | None
    best: Configuration | None
    ratio: Ratio | None
    margins: tuple[Margin, ...] = ()
    trials: tuple[TrialSummary, ...] = ()
    builds: tuple[BuildSummary, ...] = ()
    """What each step did that this session took itself: what it found measured rests on steps of earlier sessions."""
    left_out: tuple[Option, ...] = ()
    """What could have been tried and was not, each with the reason; facts say what was expected of it."""
    decisions: tuple[Decision, ...] = ()
    profile: ProfileResult | None = None
    batch: BatchRecommendation | None = None
    edge_cases: tuple[EdgeCase, ...] = ()
    scaling: ScalingSummary | None = None
    plan: PlanSummary | None = None
    """None where nothing was offered to a cluster; `notes` say why."""
    gates: tuple[Gate, ...] = ()
    advice: AdviceSummary | None = None
    """None where no advisor was asked for."""
    notes: tuple[str, ...] = ()
    files: dict[str, JsonScalar] = Field(default_factory=dict)
    """Report, journal, artifact, fallback artifact, traces: where they are."""
    mlflow: MlflowRef | None = None
