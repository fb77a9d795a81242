"""Export a torch model to ONNX, with a dynamic batch and length where the model allows it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tools.artifacts import model_file_name, write_artifact
from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, WorkloadInfo
from tools.errors import TransformError
from tools.transforms.base import Stage
from tools.transforms.example import fixed_length_note


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
        """Export; what refuses a dynamic length or batch is exported with a fixed one, which the artifact then says.

        Raises:
            TransformError: torch.export cannot follow the model; the message is torch's own.
        """
        exported = _program(artifact, workload)
        names = [spec.name for spec in workload.inputs]

        def fill(folder: Path) -> None:
            import torch

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the exporter's chatter about its own internals
                torch.onnx.export(
                    exported.program,
                    (),
                    str(folder / model_file_name(ModelFormat.ONNX)),
                    input_names=names,
                    output_names=[spec.name for spec in workload.outputs],
                    external_data=False,
                    dynamo=True,
                    verbose=False,
                )

        made = write_artifact(root, ModelFormat.ONNX, artifact.precision, fill, fixed_batch=exported.fixed_batch)
        if made.size_mb == 0:
            raise TransformError("the exporter wrote an empty file.")
        return BuildResult(
            artifact=made.model_copy(update={"fixed_length": exported.fixed_length}), notes=exported.notes
        )


@dataclass(frozen=True)
class _Exported:
    program: Any
    fixed_batch: int | None
    fixed_length: int | None
    notes: tuple[str, ...] = ()


def _program(artifact: ArtifactRef, workload: WorkloadInfo) -> _Exported:
    """Return the model as a program of torch.export, with as many sizes left open as it allows.

    First all of them, then with the length fixed to what the items are padded to, then with a batch of one as well.
    """
    import torch

    from tools.artifacts import model_file
    from tools.transforms.example import EXPORT_BATCH
    from tools.workloads.modules import load_module

    if artifact.format is ModelFormat.PT2:
        return _Exported(torch.export.load(model_file(artifact)), artifact.fixed_batch, artifact.fixed_length)
    module = load_module(artifact)
    length = None if workload.sequence is None else workload.sequence.length
    attempts = [(artifact.fixed_batch, artifact.fixed_length)]
    if length is not None and artifact.fixed_length is None:
        attempts.append((artifact.fixed_batch, length))
    if artifact.fixed_batch is None:
        attempts.append((1, length))
    first: Exception | None = None
    for fixed_batch, fixed_length in attempts:
        try:
            program = _export(module, workload, fixed_batch or EXPORT_BATCH, fixed_batch, fixed_length)
        except Exception as error:  # noqa: BLE001  torch.export raises many kinds; fewer open sizes are the way out
            first = first or error
            print(f"refused with batch {fixed_batch or 'any'}, length {fixed_length or 'any'}: {error}")  # noqa: T201  to the log
            continue
        notes = () if fixed_length is None else (fixed_length_note(fixed_length),)
        return _Exported(program, fixed_batch, fixed_length, notes)
    assert first is not None
    raise TransformError(
        f"torch.export cannot follow the model ({type(first).__name__}: {_first_line(first)})."
    ) from first


def _export(module: Any, workload: WorkloadInfo, size: int, fixed_batch: int | None, fixed_length: int | None) -> Any:
    import torch

    from tools.transforms.example import any_size, example_call

    arguments, keywords = example_call(workload, size, padded=fixed_length is not None)
    # the batch has a range of its own; the largest length is the program's business (a table of positions may end)
    dims = {0: torch.export.Dim("batch", min=1, max=4096)}
    open_axes = any_size(workload, batch=fixed_batch is None, length=fixed_length is None)
    shapes = {
        name: {axis: dims.get(axis, torch.export.Dim.DYNAMIC) for axis in axes} for name, axes in open_axes.items()
    }
    # one entry a parameter of forward(): a mapping for keywords, a tuple for positional arguments
    dynamic: Any = {name: shapes[name] for name in keywords} if keywords else tuple(shapes.values())
    with torch.no_grad():
        return torch.export.export(
            module, arguments, keywords, dynamic_shapes=dynamic if any(shapes.values()) else None
        )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")[:300].rstrip(".")
