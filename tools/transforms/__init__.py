"""Transforms by name, and the order that recipes must keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.contracts import ArtifactRef, ModelFormat, Step, WorkloadInfo
from tools.errors import TransformError
from tools.registry import Registry
from tools.transforms.base import Stage, Transform
from tools.worker import stage

__all__ = ["TRANSFORMS", "TRANSFORM_NAMES", "Stage", "Transform", "apply_step", "check_order", "get_transform"]

TRANSFORMS = Registry[Transform](
    kind="transform",
    group="infertune.transforms",
    built_in={
        "distill": "tools.transforms.distill:Distill",
        "prune-channels": "tools.transforms.prune_channels:PruneChannels",
        "prune-iteratively": "tools.transforms.prune_iteratively:PruneIteratively",
        "prune-weights": "tools.transforms.prune_weights:PruneWeights",
        "finetune": "tools.transforms.finetune:Finetune",
        "cast": "tools.transforms.cast:Cast",
        "script": "tools.transforms.script:Script",
        "export-onnx": "tools.transforms.export_onnx:ExportOnnx",
        "quantize-pt2e": "tools.transforms.quantize_pt2e:QuantizePt2e",
        "convert-openvino": "tools.transforms.convert_openvino:ConvertOpenVino",
        "quantize-dynamic": "tools.transforms.quantize_dynamic:QuantizeDynamic",
        "quantize-static": "tools.transforms.quantize_static:QuantizeStatic",
        "quantize-nncf": "tools.transforms.quantize_nncf:QuantizeNncf",
        "quantize-mixed": "tools.transforms.quantize_mixed:QuantizeMixed",
        "quantize-mixed-onnx": "tools.transforms.quantize_mixed:QuantizeMixedOnnx",
        "quantize-weights-onnx": "tools.transforms.quantize_weights:QuantizeWeightsOnnx",
        "quantize-weights": "tools.transforms.quantize_weights:QuantizeWeights",
        "quantize-aware": "tools.transforms.quantize_aware:QuantizeAware",
        "fold-normalization": "tools.transforms.fold_normalization:FoldNormalization",
        "fold-normalization-onnx": "tools.transforms.fold_normalization:FoldNormalizationOnnx",
    },
    protocol=Transform,
    error=TransformError,
)
TRANSFORM_NAMES = tuple(TRANSFORMS.built_in)
"""infertune's own; `TRANSFORMS.names()` has those of plugins too."""


def get_transform(name: str) -> Transform:
    """Return the transform called `name`, infertune's own or a plugin's.

    Raises:
        TransformError: there is none of this name, or it is a plugin's and cannot be used.
    """
    return TRANSFORMS.get(name)


def check_order(source: ModelFormat, steps: Sequence[Step]) -> ModelFormat:
    """Check that each step can follow the one before, and return the format that comes out.

    Raises:
        TransformError: a stage goes back, or a step cannot read what comes before it.
    """
    current, stage = source, Stage(min(Stage))
    for step in steps:
        transform = get_transform(step.transform)
        if transform.stage < stage:
            raise TransformError(f"{step.transform} cannot come this late in a recipe.")
        if current not in transform.consumes:
            raise TransformError(f"{step.transform} cannot read {current.value}.")
        current, stage = transform.produces, transform.stage
    return current


def apply_step(artifact: dict[str, Any], workload: dict[str, Any], step: dict[str, Any], root: str) -> dict[str, Any]:
    """Apply one step; a worker task, so everything is JSON. Returns a `BuildResult`."""
    parsed, given = Step.model_validate(step), ArtifactRef.model_validate(artifact)
    stage(f"applying {parsed.transform}")
    transform = get_transform(parsed.transform)
    made = transform.apply(given, WorkloadInfo.model_validate(workload), parsed.settings, Path(root))
    if transform.stage >= Stage.CONVERT and made.artifact.fixed_length is None:  # a length in a program stays in it
        made = made.model_copy(
            update={"artifact": made.artifact.model_copy(update={"fixed_length": given.fixed_length})}
        )
    return made.model_dump(mode="json")
