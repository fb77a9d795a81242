"""INT8 weights with activations quantized on the fly, by ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from tools.artifacts import model_file, model_file_name, write_artifact
from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, Precision, WorkloadInfo
from tools.errors import TransformError
from tools.transforms.base import Stage
from tools.transforms.graph_facts import node_counts, quantized_layers, quantized_result, refuse_quantized


class QuantizeDynamic:
    """Needs no calibration. Meant for linear layers; on convolutions it is usually slower than float."""

    name: ClassVar[str] = "quantize-dynamic"
    stage: ClassVar[Stage] = Stage.QUANTIZE
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.ONNX})
    produces: ClassVar[ModelFormat] = ModelFormat.ONNX
    needs_calibration: ClassVar[bool] = False
    needs_training: ClassVar[bool] = False

    def apply(
        self,
        artifact: ArtifactRef,
        workload: WorkloadInfo,  # noqa: ARG002
        settings: Mapping[str, JsonScalar],  # noqa: ARG002
        root: Path,
    ) -> BuildResult:
        """Quantize every supported operator's weights, per tensor.

        Raises:
            TransformError: the model is quantized already, or there is nothing to quantize.
        """
        from onnxruntime.quantization import QuantType, quantize_dynamic

        before = node_counts(model_file(artifact))
        refuse_quantized(before)
        with tempfile.TemporaryDirectory() as scratch:
            prepared = prepare(artifact, Path(scratch))

            def fill(folder: Path) -> None:
                target = folder / model_file_name(ModelFormat.ONNX)
                quantize_dynamic(str(prepared), str(target), weight_type=QuantType.QInt8)
                if quantized_layers(target) == 0:
                    raise TransformError("it has no convolution or matrix product that ONNX Runtime can quantize.")

            made = write_artifact(
                root, ModelFormat.ONNX, Precision.INT8_DYNAMIC, fill, fixed_batch=artifact.fixed_batch
            )
        return quantized_result(artifact, before, made)


def prepare(artifact: ArtifactRef, scratch: Path) -> Path:
    """Infer shapes and fuse, as ONNX Runtime asks for before quantization.

    Symbolic shape inference gives up on some exported graphs; then the model goes in with ONNX's own inference only.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = scratch / "prepared.onnx"
    try:
        quant_pre_process(str(model_file(artifact)), str(prepared))
    except Exception as error:  # noqa: BLE001  it raises plain Exception("Incomplete symbolic shape inference")
        print(f"symbolic shape inference gave up ({error}); going on without it")  # noqa: T201  to the log
        quant_pre_process(str(model_file(artifact)), str(prepared), skip_symbolic_shape=True)
    return prepared
