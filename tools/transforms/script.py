"""Trace and freeze a torch module as TorchScript."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from tools.artifacts import model_file_name, write_artifact
from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, Precision, WorkloadInfo
from tools.transforms.base import Stage


class Script:
    """Traces on calibration items: control flow that depends on the data is frozen as the trace took it."""

    name: ClassVar[str] = "script"
    stage: ClassVar[Stage] = Stage.EXPORT
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.TORCH, ModelFormat.PT2})
    produces: ClassVar[ModelFormat] = ModelFormat.TORCHSCRIPT
    needs_calibration: ClassVar[bool] = False
    needs_training: ClassVar[bool] = False

    def apply(
        self,
        artifact: ArtifactRef,
        workload: WorkloadInfo,
        settings: Mapping[str, JsonScalar],  # noqa: ARG002
        root: Path,
    ) -> BuildResult:
        """Trace, freeze, save."""
        import torch

        from tools.transforms.example import EXPORT_BATCH, example_call
        from tools.workloads.modules import load_module

        arguments, keywords = example_call(workload, artifact.fixed_batch or EXPORT_BATCH)
        with warnings.catch_warnings(), torch.inference_mode(mode=False), torch.no_grad():
            warnings.simplefilter("ignore", FutureWarning)  # torch deprecates TorchScript; here it is one candidate
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]  # accuracy is measured on the result
            module = load_module(artifact)
            if keywords:
                traced = torch.jit.trace(module, example_kwarg_inputs=keywords, strict=False)  # type: ignore[no-untyped-call]
            else:
                traced = torch.jit.trace(module, arguments, strict=False)  # type: ignore[no-untyped-call]
            frozen = torch.jit.freeze(traced.eval())
            made = write_artifact(
                root,
                ModelFormat.TORCHSCRIPT,
                Precision.FP32,
                lambda folder: frozen.save(str(folder / model_file_name(ModelFormat.TORCHSCRIPT))),
                fixed_batch=artifact.fixed_batch,
            )
        return BuildResult(artifact=made)
