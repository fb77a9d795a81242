"""The vocabulary: frozen, validated values that every part of infertune speaks in.

Everything here is JSON-ready (`model_dump(mode="json")`), so it can live in a checkpoint, a journal line or a
database row, and can be read back years later. Units are in the names: `_ms`, `_s`, `_mb` (10^6 bytes), `_rps`
(requests per second), `_usd`. One request is one item; a batch of b items serves b requests.
"""

from tools.contracts.advice import AdviceResult, Exchange, WordingResult
from tools.contracts.base import Contract, Interval, JsonScalar, Latency, digest_of
from tools.contracts.decisions import Decision, Gate, Option, Verdict
from tools.contracts.evidence import PROTOCOL_VERSION, Evidence, EvidenceKind, Finding
from tools.contracts.hardware import Availability, Hardware
from tools.contracts.outcomes import Crashed, Failed, Measured, Outcome, OutOfMemory, TimedOut, Unstable
from tools.contracts.recipe import Recipe, Step
from tools.contracts.recommendation import Recommendation
from tools.contracts.results import (
    Accuracy,
    BatchPoint,
    BuildResult,
    ComparisonResult,
    EdgeCase,
    EdgeCaseResult,
    EndToEnd,
    LayerProfile,
    LayerSensitivity,
    ProfileResult,
    Result,
    Roofline,
    ScalingResult,
    TrialResult,
)
from tools.contracts.scaling import (
    OWNED_FIELDS,
    Bounds,
    DayOutcome,
    Delays,
    HpaRef,
    HpaSpec,
    ScalingOption,
    ScalingPlan,
    ServiceCurve,
    ServicePoint,
)
from tools.contracts.workload import (
    ArtifactRef,
    DatasetRef,
    ModelFormat,
    Normalization,
    Precision,
    Student,
    TensorSpec,
    WorkloadInfo,
)

__all__ = [
    "OWNED_FIELDS",
    "PROTOCOL_VERSION",
    "Accuracy",
    "AdviceResult",
    "ArtifactRef",
    "Availability",
    "BatchPoint",
    "Bounds",
    "BuildResult",
    "ComparisonResult",
    "Contract",
    "Crashed",
    "DatasetRef",
    "DayOutcome",
    "Decision",
    "Delays",
    "EdgeCase",
    "EdgeCaseResult",
    "EndToEnd",
    "Evidence",
    "EvidenceKind",
    "Exchange",
    "Failed",
    "Finding",
    "Gate",
    "Hardware",
    "HpaRef",
    "HpaSpec",
    "Interval",
    "JsonScalar",
    "Latency",
    "LayerProfile",
    "LayerSensitivity",
    "Measured",
    "ModelFormat",
    "Normalization",
    "Option",
    "OutOfMemory",
    "Outcome",
    "Precision",
    "ProfileResult",
    "Recipe",
    "Recommendation",
    "Result",
    "Roofline",
    "ScalingOption",
    "ScalingPlan",
    "ScalingResult",
    "ServiceCurve",
    "ServicePoint",
    "Step",
    "Student",
    "TensorSpec",
    "TimedOut",
    "TrialResult",
    "Unstable",
    "Verdict",
    "WordingResult",
    "WorkloadInfo",
    "digest_of",
]
