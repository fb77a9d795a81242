"""Convert ONNX, TorchScript or a torch.export program to OpenVINO's own format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tools.artifacts import model_file, model_file_name, write_artifact
from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, Precision, WorkloadInfo
from tools.transforms.base import Stage


class ConvertOpenVino:
    """Weights stay FP32 on disk: the precision of the arithmetic is chosen when the model is compiled."""

    name: ClassVar[str] = "convert-openvino"
    stage: ClassVar[Stage] = Stage.CONVERT
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.ONNX, ModelFormat.TORCHSCRIPT, ModelFormat.PT2})
    produces: ClassVar[ModelFormat] = ModelFormat.OPENVINO
    needs_calibration: ClassVar[bool] = False
    needs_training: ClassVar[bool] = False

    def apply(
        self,
        artifact: ArtifactRef,
        workload: WorkloadInfo,
        settings: Mapping[str, JsonScalar],  # noqa: ARG002
        root: Path,
    ) -> BuildResult:
        """Convert, and name the inputs as the workload names them."""
        import openvino as ov

        if artifact.format is ModelFormat.ONNX:
            model = ov.convert_model(str(model_file(artifact)))
        else:
            from tools.workloads.modules import load_module

            model = convert_torch(load_module(artifact), artifact, workload)
        made = save_openvino(model, root, artifact.precision, artifact.fixed_batch)
        return BuildResult(artifact=made.model_copy(update={"fixed_length": artifact.fixed_length}))


def save_openvino(model: Any, root: Path, precision: Precision, fixed_batch: int | None) -> ArtifactRef:
    """Write an OpenVINO model as an artifact."""
    import openvino as ov

    return write_artifact(
        root,
        ModelFormat.OPENVINO,
        precision,
        lambda folder: ov.save_model(
            model, str(folder / model_file_name(ModelFormat.OPENVINO)), compress_to_fp16=False
        ),
        fixed_batch=fixed_batch,
    )


def convert_torch(module: Any, artifact: ArtifactRef, workload: WorkloadInfo) -> Any:
    """Return a module as an OpenVINO model with the workload's input names.

    Args:
        module: for inference.
        artifact: what it was loaded from: says which batch size or length is fixed; other sizes stay open.
        workload: gives an example and the inputs.
    """
    import openvino as ov

    from tools.transforms.example import EXPORT_BATCH, any_size, example_call

    size = artifact.fixed_batch or EXPORT_BATCH
    arguments, keywords = example_call(workload, size, padded=artifact.fixed_length is not None)
    varying = any_size(workload, batch=artifact.fixed_batch is None, length=artifact.fixed_length is None)
    shapes = [
        [-1 if axis in varying[spec.name] else n for axis, n in enumerate((size, *spec.shape))]
        for spec in workload.inputs
    ]
    model = ov.convert_model(
        module,
        example_input=keywords or (arguments if len(arguments) > 1 else arguments[0]),
        input=[ov.PartialShape(shape) for shape in shapes],
    )
    for port, spec in zip(model.inputs, workload.inputs, strict=True):
        port.set_names({spec.name})
    return model
