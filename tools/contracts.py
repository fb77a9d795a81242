"""The vocabulary: frozen, validated values that every part of infertune speaks in.

Everything here is JSON-ready (`model_dump(mode="json")`), so it can live in a checkpoint, a journal line or a
database row, and can be read back years later. Units are in the names: `_ms`, `_s`, `_mb` (10^6 bytes), `_rps`
(requests per second), `_usd`. One request is one item; a batch of b items serves b requests.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

PROTOCOL_VERSION = "1"
"""Version of the measuring protocol: evidence of another version is never compared with today's."""

JsonScalar: TypeAlias = str | int | float | bool | None


class Contract(BaseModel):
    """Base of all contracts: immutable, and unknown fields are an error.

    JSON has no infinity: it is written as a string, which is read back as the number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


def digest_of(value: Any) -> str:
    """Return the first 16 hex digits of the SHA-256 of a JSON-ready value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- numbers -------------------------------------------------------------------------------------------------


class Interval(Contract):
    """An estimate with its 95 % confidence interval and the number of samples that it rests on."""

    value: float
    low: float
    high: float
    n: int = Field(ge=0)

    def scaled(self, factor: float) -> Interval:
        """Return the interval of `factor * x` for a positive factor."""
        return Interval(value=self.value * factor, low=self.low * factor, high=self.high * factor, n=self.n)

    def inverse(self, numerator: float = 1.0) -> Interval:
        """Return the interval of `numerator / x` for a positive x: the ends change places."""
        return Interval(value=numerator / self.value, low=numerator / self.high, high=numerator / self.low, n=self.n)


class Latency(Contract):
    """Quantiles of the time of one call, in milliseconds."""

    p50: Interval
    p95: Interval
    p99: Interval


# --- workload ------------------------------------------------------------------------------------------------


class TensorSpec(Contract):
    """One input or output tensor. `shape` leaves out the batch dimension, which always comes first."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class DatasetRef(Contract):
    """Items that were materialized once from the user's data, as `.npy` files in `directory`.

    Files: `<input name>.npy` of shape (n, *shape) for each input, and `targets.npy` when there are targets.
    """

    digest: str
    directory: str
    n: int
    inputs: tuple[TensorSpec, ...]
    has_targets: bool


class ModelFormat(StrEnum):
    """What an artifact's files are."""

    TORCH = "torch"
    """A Python factory (named in the manifest) and `weights.safetensors`."""
    PT2 = "pt2"
    """`model.pt2`, a program saved by torch.export."""
    TORCHSCRIPT = "torchscript"
    """`model.ts`."""
    ONNX = "onnx"
    """`model.onnx`, all weights inside."""
    OPENVINO = "openvino"
    """`model.xml` and `model.bin`."""


class Precision(StrEnum):
    """The arithmetic that most of the work is done in."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8_DYNAMIC = "int8-dynamic"
    INT8_STATIC = "int8-static"

    @property
    def is_float(self) -> bool:
        """Whether no integer arithmetic is involved, so that no calibration can go wrong."""
        return self in (Precision.FP32, Precision.BF16, Precision.FP16)


class ArtifactRef(Contract):
    """The files that a recipe produced, named by the digest of their content."""

    digest: str
    directory: str
    format: ModelFormat
    precision: Precision
    size_mb: float
    factory: str | None = None
    """For `torch`: the factory that builds the module which the weights belong to."""
    fixed_batch: int | None = None
    """The only batch size the program accepts, when it was exported with one; None when any will do."""


class WorkloadInfo(Contract):
    """A workload after it was loaded: what every later step needs, and no user code."""

    name: str
    digest: str
    source: ArtifactRef
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    evaluation: DatasetRef
    calibration: DatasetRef
    metric: str
    """A built-in metric, or `file.py:function`."""
    higher_is_better: bool
    preprocess: str | None = None
    postprocess: str | None = None
    raw_evaluation: str | None = None
    """The data factory, when preprocessing has to be timed from raw items."""
    parameters: int
    notes: tuple[str, ...] = ()
    """What was decided while loading, in sentences: a calibration split, a limit, a fixed batch."""


# --- recipes -------------------------------------------------------------------------------------------------


class Step(Contract):
    """One transform with its settings."""

    transform: str
    settings: dict[str, JsonScalar] = {}


class Recipe(Contract):
    """Ordered transforms, then a runtime and its settings."""

    steps: tuple[Step, ...] = ()
    runtime: str
    precision: Precision = Precision.FP32
    settings: dict[str, JsonScalar] = {}

    @property
    def name(self) -> str:
        """What a person calls it: `onnxruntime int8-static`, with settings that differ from the default."""
        settings = [*(step.settings for step in self.steps), self.settings]
        extras = [f"{k}={v}" for part in settings for k, v in sorted(part.items()) if k != "precision"]
        return " ".join([self.runtime, self.precision.value, *extras])

    @property
    def complexity(self) -> tuple[int, int]:
        """Order for ties: fewer transforms first, then float before integer."""
        return (len(self.steps), 0 if self.precision.is_float else 1)

    @property
    def digest(self) -> str:
        """Name of the recipe in the evidence store."""
        return digest_of(self.model_dump(mode="json"))


# --- hardware ------------------------------------------------------------------------------------------------


class Hardware(Contract):
    """The machine that the numbers belong to. Two machines with one digest are taken for the same."""

    cpu: str
    architecture: str
    cores: int
    """Logical CPUs this process may use (affinity and container quota considered)."""
    memory_mb: float
    flags: tuple[str, ...]
    """The instruction sets that decide which kernels run."""
    accelerators: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Fingerprint of the machine."""
        return digest_of(self.model_dump(mode="json"))


class Availability(Contract):
    """Whether a runtime or a tool can be used here, and if not, why, and what would enable it."""

    name: str
    available: bool
    version: str | None = None
    reason: str | None = None
    enable: str | None = None


# --- results -------------------------------------------------------------------------------------------------


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
    """Whether the interval of the median became as narrow as the protocol asks within its time."""


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


class BuildResult(Contract):
    """An artifact that a recipe's transforms made."""

    kind: Literal["build"] = "build"
    artifact: ArtifactRef


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
    """Baseline and candidate timed in turn, in one process: ratios above 1 mean the candidate is better."""

    kind: Literal["comparison"] = "comparison"
    baseline_batch: int
    candidate_batch: int
    p50: Interval
    """Ratio of medians, baseline over candidate."""
    throughput: Interval
    """Ratio of items per second, candidate over baseline."""
    rounds: int


class EdgeCase(Contract):
    """One unusual input, and what the candidate made of it."""

    name: str
    passed: bool
    detail: str


class EdgeCaseResult(Contract):
    """The candidate under unusual inputs."""

    kind: Literal["edge_cases"] = "edge_cases"
    cases: tuple[EdgeCase, ...]


Result: TypeAlias = Annotated[
    TrialResult | BuildResult | ProfileResult | ComparisonResult | EdgeCaseResult,
    Field(discriminator="kind"),
]


# --- outcomes: a trial cannot raise, it can only turn out ------------------------------------------------------


class Measured(Contract):
    """It ran, and here is what was seen."""

    outcome: Literal["measured"] = "measured"
    result: Result


class Failed(Contract):
    """It raised. `reason` is one line for a person; the log has the rest."""

    outcome: Literal["failed"] = "failed"
    stage: str
    reason: str
    kind: str = ""
    """Name of the exception, where one was raised."""


class TimedOut(Contract):
    """It was killed at its time cap."""

    outcome: Literal["timed_out"] = "timed_out"
    stage: str
    limit_s: float


class OutOfMemory(Contract):
    """It was killed by the kernel for want of memory, or raised MemoryError."""

    outcome: Literal["out_of_memory"] = "out_of_memory"
    stage: str


class Crashed(Contract):
    """It died of a signal."""

    outcome: Literal["crashed"] = "crashed"
    stage: str
    signal: str


class Unstable(Contract):
    """It ran, but the machine was too noisy to say how fast."""

    outcome: Literal["unstable"] = "unstable"
    result: Result
    reason: str


Outcome: TypeAlias = Annotated[
    Measured | Failed | TimedOut | OutOfMemory | Crashed | Unstable,
    Field(discriminator="outcome"),
]


class EvidenceKind(StrEnum):
    """What was asked of the machine."""

    PROFILE = "profile"
    BUILD = "build"
    TRIAL = "trial"
    SWEEP = "sweep"
    COMPARISON = "comparison"
    EDGE_CASES = "edge_cases"


class Evidence(Contract):
    """The immutable record of one thing that was measured."""

    id: str
    """Digest of the question: kind, workload, recipe, parameters, hardware, versions, protocol."""
    kind: EvidenceKind
    workload: str
    recipe: Recipe
    parameters: dict[str, Any]
    hardware: str
    versions: dict[str, str]
    protocol: str = PROTOCOL_VERSION
    outcome: Outcome
    seconds: float
    """Wall-clock seconds that it cost."""
    created: str
    """UTC, ISO 8601."""


# --- decisions -----------------------------------------------------------------------------------------------


class Option(Contract):
    """Something that could have been chosen."""

    name: str
    evidence: tuple[str, ...] = ()
    facts: dict[str, JsonScalar] = {}
    """The numbers that counted, by name."""
    rejected_because: str | None = None


class Decision(Contract):
    """A question, what could be answered, what was, by which rule, and why."""

    id: str
    node: str
    question: str
    options: tuple[Option, ...]
    chosen: str | None
    rule: str
    reason: str
    by: Literal["policy", "model", "person"] = "policy"

    @property
    def evidence(self) -> tuple[str, ...]:
        """Ids of all the evidence that any option rests on."""
        return tuple(dict.fromkeys(e for o in self.options for e in o.evidence))


class Verdict(StrEnum):
    """How a session ended."""

    MET = "MET"
    INFEASIBLE = "INFEASIBLE"
    UNSTABLE = "UNSTABLE"
    INTERRUPTED = "INTERRUPTED"


class Gate(Contract):
    """One line of the checklist before optimizing, after it, or before deploying."""

    stage: Literal["before optimizing", "after optimizing", "before deploying"]
    name: str
    passed: bool
    detail: str
    """The evidence in a sentence, or why the gate is open."""
    evidence: tuple[str, ...] = ()
