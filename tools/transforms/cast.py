"""Cast a torch model's weights and arithmetic to BF16 or FP16."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from tools.artifacts import model_file, model_file_name, write_artifact
from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, Precision, WorkloadInfo
from tools.transforms.base import Stage


class Cast:
    """Setting `precision`: `bf16` or `fp16`. Integer tensors are left alone."""

    name: ClassVar[str] = "cast"
    stage: ClassVar[Stage] = Stage.CAST
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.TORCH})
    produces: ClassVar[ModelFormat] = ModelFormat.TORCH
    needs_calibration: ClassVar[bool] = False
    needs_training: ClassVar[bool] = False

    def apply(
        self,
        artifact: ArtifactRef,
        workload: WorkloadInfo,  # noqa: ARG002  the protocol's signature
        settings: Mapping[str, JsonScalar],
        root: Path,
    ) -> BuildResult:
        """Cast every floating-point tensor of the weights file."""
        import torch
        from safetensors.torch import load_file

        from tools.workloads.weights import save_tensors

        precision = Precision(str(settings["precision"]))
        dtype = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}[precision]
        weights = {
            name: tensor.to(dtype) if tensor.is_floating_point() else tensor
            for name, tensor in load_file(model_file(artifact)).items()
        }
        made = write_artifact(
            root,
            ModelFormat.TORCH,
            precision,
            lambda folder: save_tensors(weights, folder / model_file_name(ModelFormat.TORCH)),
            like=artifact,
        )
        return BuildResult(artifact=made)
