"""What a task brings back when it ran."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from tools.contracts.advice import AdviceResult, WordingResult
from tools.contracts.base import Contract, Interval, JsonScalar, Latency
from tools.contracts.recommendation import Recommendation
from tools.contracts.workload import ArtifactRef


class BatchPoint(Contract):
    """What was measured at one batch size. Latency is that of the whole batch."""

    batch_size: int
    latency_ms: Latency
    throughput_rps: Interval
    """Items per second: batch size over mean latency."""
    peak_memory_mb: float
    """Peak resident memory of the process that served this point (libraries and model included)."""
    mean_ms: float
    stable: bool
    """Whether the interval of the median became as narrow as the protocol asks within its time, on a quiet machine."""
    unstable_because: str | None = None
    """Why it is not stable, in a sentence."""
    disturbed: float = Field(default=0.0, ge=0, le=1)
    """Share of the time windows that were thrown away because a fixed kernel ran slow beside them."""
    joules_per_request: float | None = None
    """Energy of the CPU package, where the machine counts it."""
    independent_calls: float | None = None
    """How many independent calls the timed ones are worth when it comes to the p99; None when that was not judged."""
    device_ms: float | None = None
    """Median time of a call on the accelerator alone, between CUDA events, without the copies from and to the host;
    `latency_ms` has everything."""
    device_memory_mb: float | None = None
    """Memory in use on the accelerator, where the runtime has one."""


class Accuracy(Contract):
    """The metric on the held-out items, and the paired drop against the baseline.

    `drop` is positive when the candidate is worse, whichever way the metric points; in the metric's unit.
    """

    metric: str
    value: Interval
    drop: Interval
    changed_items: int
    """Items whose score differs from the baseline's."""


class TrialResult(Contract):
    """A candidate that ran."""

    kind: Literal["trial"] = "trial"
    artifact: ArtifactRef
    points: tuple[BatchPoint, ...]
    accuracy: Accuracy | None = None
    output_difference: float | None = None
    """Largest absolute difference to the baseline's outputs over the evaluation items, relative to their spread
    (the baseline outputs' standard deviation)."""
    load_ms: float
    build_s: float
    given_up: str | None = None
    """Why it was not measured to the end: it is clearly too slow or too inaccurate. Its numbers rest on few samples."""


class LayerSensitivity(Contract):
    """What one layer costs in accuracy as an integer, and in time as a float."""

    layer: str
    drop: float
    """How much more the metric drops with this layer in INT8 than with it in float; in the metric's unit."""
    float_ms: float
    """How many milliseconds more one item takes with this layer in float; 0 where the difference drowned in noise."""
    kept_float: bool


class BuildResult(Contract):
    """An artifact that one transform made, and what the transform tells about it."""

    kind: Literal["build"] = "build"
    artifact: ArtifactRef
    facts: dict[str, JsonScalar] = Field(default_factory=dict)
    """Numbers by name: `parameters`, `flops` (of one item), `sparsity`, `nodes_before`, `nodes_after`, `epochs`, ..."""
    sensitivity: tuple[LayerSensitivity, ...] = ()
    """Of a transform that looked at each layer, the most sensitive first."""
    notes: tuple[str, ...] = ()
    """What a person should know, in sentences."""


class LayerProfile(Contract):
    """One layer's share of a forward pass."""

    path: str
    operator: str
    ms: float
    share: float
    """Fraction of the forward pass, 0 to 1."""
    flops: float
    bytes_moved: float
    """Inputs, outputs and parameters once each, in bytes."""
    gflops_per_s: float


class Roofline(Contract):
    """What this machine really reaches on a large matrix product or copy, measured just now."""

    fp32_gflops: float
    bf16_gflops: float | None = None
    int8_gops: float | None = None
    memory_gb_per_s: float
    notes: tuple[str, ...] = ()
    """Why a figure is missing."""


class EndToEnd(Contract):
    """One request from raw item to answer, split, at batch 1, medians in milliseconds."""

    preprocess_ms: float | None
    transfer_ms: float
    forward_ms: float
    postprocess_ms: float
    notes: tuple[str, ...] = ()


class ProfileResult(Contract):
    """Where the time of the baseline goes."""

    kind: Literal["profile"] = "profile"
    layers: tuple[LayerProfile, ...]
    """Slowest first; the last row may be `(other)`: work outside of any layer."""
    forward_ms: float
    flops: float
    share_of_peak: float
    """Achieved FLOP/s of the forward pass over the measured FP32 peak."""
    roofline: Roofline
    end_to_end: EndToEnd
    operators: dict[str, float]
    """Share of the time by operator kind: convolution, linear, normalization, ..."""
    bottleneck: str
    """The sentence a person reads: what dominates, and what usually helps."""
    chrome_trace: str | None = None
    """Path of the trace file (chrome://tracing, Perfetto)."""


class ComparisonResult(Contract):
    """Baseline and candidate timed in turn, in several processes: ratios above 1 mean the candidate is better."""

    kind: Literal["comparison"] = "comparison"
    baseline_batch: int
    candidate_batch: int
    p50: Interval
    """Ratio of medians, baseline over candidate."""
    throughput: Interval
    """Ratio of items per second, candidate over baseline."""
    rounds: int
    """Rounds that count."""
    disturbed_rounds: int = 0
    """Rounds that were thrown away because a fixed kernel ran slow beside them, and done again."""
    processes: int = 1
    """How many processes took part; the intervals are over these."""
    stable: bool = True
    """Whether enough of them were undisturbed."""


class EdgeCase(Contract):
    """One unusual input, and what the candidate made of it."""

    name: str
    passed: bool
    detail: str


class EdgeCaseResult(Contract):
    """The candidate under unusual inputs."""

    kind: Literal["edge_cases"] = "edge_cases"
    cases: tuple[EdgeCase, ...]


class ScalingResult(Contract):
    """What the twin makes of measured traffic and a measured replica."""

    kind: Literal["scaling"] = "scaling"
    recommendation: Recommendation
    capacity_rps: Interval | None
    """Of one replica that keeps the SLO; None if none does."""
    shape: tuple[str, ...] = ()
    """The traffic's daily and weekly shape, growth and busiest minutes, in sentences."""


Result: TypeAlias = Annotated[
    TrialResult
    | BuildResult
    | ProfileResult
    | ComparisonResult
    | EdgeCaseResult
    | ScalingResult
    | AdviceResult
    | WordingResult,
    Field(discriminator="kind"),
]
