"""Export a torch model to ONNX with a dynamic batch where the model allows it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tools.artifacts import model_file_name, write_artifact
from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, Precision, WorkloadInfo
from tools.errors import TransformError
from tools.transforms.base import Stage


class ExportOnnx:
    """Uses torch.onnx's exporter on top of torch.export. All weights go into the one file."""

    name: ClassVar[str] = "export-onnx"
    stage: ClassVar[Stage] = Stage.EXPORT
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.TORCH, ModelFormat.PT2})
    produces: ClassVar[ModelFormat] = ModelFormat.ONNX
    needs_calibration: ClassVar[bool] = False
    needs_training: ClassVar[bool] = False

    def apply(
        self,
        artifact: ArtifactRef,
        workload: WorkloadInfo,
        settings: Mapping[str, JsonScalar],  # noqa: ARG002
        root: Path,
    ) -> BuildResult:
        """Export; a model that refuses a dynamic batch is exported with a fixed one, which the artifact then says."""
        import torch

        from tools.transforms.example import EXPORT_BATCH, example_call
        from tools.workloads.modules import load_module

        arguments, keywords = example_call(workload, artifact.fixed_batch or EXPORT_BATCH)
        names = [spec.name for spec in workload.inputs]
        module = load_module(artifact)
        fixed = artifact.fixed_batch
        if artifact.format is ModelFormat.PT2:
            program, fixed = torch.export.load(_pt2(artifact)), artifact.fixed_batch
        else:
            try:
                program = _export(module, arguments, keywords, dynamic=fixed is None)
            except Exception as error:  # torch.export raises many kinds; the fixed batch is the way out
                if fixed is not None:
                    raise
                print(f"dynamic batch refused, exporting batch 1: {error}")  # noqa: T201  to the log
                arguments, keywords = example_call(workload, 1)
                program, fixed = _export(module, arguments, keywords, dynamic=False), 1

        def fill(folder: Path) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the exporter's chatter about its own internals
                torch.onnx.export(
                    program,
                    (),
                    str(folder / model_file_name(ModelFormat.ONNX)),
                    input_names=names,
                    output_names=[spec.name for spec in workload.outputs],
                    external_data=False,
                    dynamo=True,
                    verbose=False,
                )

        made = write_artifact(root, ModelFormat.ONNX, Precision.FP32, fill, fixed_batch=fixed)
        if made.size_mb == 0:
            raise TransformError("the exporter wrote an empty file.")
        return BuildResult(artifact=made)


def _pt2(artifact: ArtifactRef) -> str:
    from tools.artifacts import model_file

    return str(model_file(artifact))


def _export(module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], *, dynamic: bool) -> Any:
    import torch

    shapes: Any = None
    if dynamic:
        batch = {0: torch.export.Dim("batch", min=1, max=4096)}
        # one entry a parameter of forward(): a mapping for keywords, a tuple for positional arguments
        shapes = dict.fromkeys(keywords, batch) if keywords else tuple(batch for _ in arguments)
    with torch.no_grad():
        return torch.export.export(module, arguments, keywords, dynamic_shapes=shapes)
