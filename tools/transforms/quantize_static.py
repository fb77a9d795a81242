"""INT8 weights and activations with calibrated ranges, as QDQ nodes, by ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from tools.artifacts import model_file_name, write_artifact
from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, Precision, WorkloadInfo
from tools.transforms.base import Stage
from tools.transforms.quantize_dynamic import prepare

CALIBRATION_BATCH = 10


class QuantizeStatic:
    """Activations U8, weights S8 per channel, ranges from the calibration items' minima and maxima.

    U8S8 is the pair that ONNX Runtime's x86 kernels are written for; S8S8 falls back to slow paths there. Without
    VNNI the products may saturate, so weights then use 7 bits (`reduce_range`), as ONNX Runtime's documentation asks.
    """

    name: ClassVar[str] = "quantize-static"
    stage: ClassVar[Stage] = Stage.QUANTIZE
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.ONNX})
    produces: ClassVar[ModelFormat] = ModelFormat.ONNX
    needs_calibration: ClassVar[bool] = True
    needs_training: ClassVar[bool] = False

    def apply(
        self, artifact: ArtifactRef, workload: WorkloadInfo, settings: Mapping[str, JsonScalar], root: Path
    ) -> BuildResult:
        """Calibrate and quantize. Setting `reduce_range`: see the class."""
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        with tempfile.TemporaryDirectory() as scratch:
            prepared = prepare(artifact, Path(scratch))

            def fill(folder: Path) -> None:
                quantize_static(
                    str(prepared),
                    str(folder / model_file_name(ModelFormat.ONNX)),
                    _Reader(calibration_batches(workload, artifact)),
                    quant_format=QuantFormat.QDQ,
                    per_channel=True,
                    reduce_range=bool(settings.get("reduce_range", False)),
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    calibrate_method=CalibrationMethod.MinMax,
                )

            made = write_artifact(root, ModelFormat.ONNX, Precision.INT8_STATIC, fill, fixed_batch=artifact.fixed_batch)
        return BuildResult(artifact=made)


class _Reader:
    """What ONNX Runtime reads calibration batches from."""

    def __init__(self, batches: Iterator[dict[str, np.ndarray]]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def calibration_batches(workload: WorkloadInfo, artifact: ArtifactRef) -> Iterator[dict[str, np.ndarray]]:
    """Yield the calibration items in batches that the artifact accepts; an incomplete last batch is left out."""
    from tools.workloads.datasets import load_inputs

    total = workload.calibration.n
    size = artifact.fixed_batch or min(CALIBRATION_BATCH, total)
    for start in range(0, total - size + 1, size):
        yield {
            name: np.ascontiguousarray(array) for name, array in load_inputs(workload.calibration, start, size).items()
        }
