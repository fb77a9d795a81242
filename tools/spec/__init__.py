"""`tuning.yaml`: what a person asks for, validated before anything is loaded.

Paths in a spec are relative to the spec's own folder. Code is named as `path/to/file.py:function` or
`package.module:function`.
"""

from tools.spec.scaling import ClusterSpec, HpaFileSpec, PrometheusSpec, ScalingMetric, ScalingSpec, TrafficSpec
from tools.spec.search import SAME, SearchSpec, parse_student
from tools.spec.tuning import (
    BudgetSpec,
    HardwareSpec,
    Objective,
    TuningSpec,
    describe_validation_error,
    load_spec,
    spec_schema,
)
from tools.spec.workload import (
    BUILTIN_LOSSES,
    BUILTIN_METRICS,
    DataSpec,
    ModelSpec,
    NormalizationSpec,
    SequenceSpec,
    WorkloadSpec,
)

__all__ = [
    "BUILTIN_LOSSES",
    "BUILTIN_METRICS",
    "SAME",
    "BudgetSpec",
    "ClusterSpec",
    "DataSpec",
    "HardwareSpec",
    "HpaFileSpec",
    "ModelSpec",
    "NormalizationSpec",
    "Objective",
    "PrometheusSpec",
    "ScalingMetric",
    "ScalingSpec",
    "SearchSpec",
    "SequenceSpec",
    "TrafficSpec",
    "TuningSpec",
    "WorkloadSpec",
    "describe_validation_error",
    "load_spec",
    "parse_student",
    "spec_schema",
]
