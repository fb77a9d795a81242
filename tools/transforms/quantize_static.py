"""INT8 weights and activations with calibrated ranges, as QDQ nodes, by ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tools.artifacts import model_file, model_file_name, write_artifact
from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, Precision, WorkloadInfo
from tools.errors import TransformError
from tools.transforms.base import Stage
from tools.transforms.graph_facts import node_counts, quantized_layers, quantized_result, refuse_quantized
from tools.transforms.quantize_dynamic import prepare

CALIBRATION_BATCH = 10

_METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}


class QuantizeStatic:
    """Activations U8, weights S8 per channel, ranges from the calibration items' minima and maxima.

    U8S8 is the pair that ONNX Runtime's x86 kernels are written for; S8S8 falls back to slow paths there. Without
    VNNI the products may saturate, so weights then use 7 bits (`reduce_range`), as ONNX Runtime's documentation asks.

    Settings:
        method: how ranges follow from what was seen: `minmax` (default); `entropy` (the cut that keeps most of the
            distribution) and `percentile` (all but the outermost 0.001 %), which both help where there are outliers.
        symmetric: activations as S8 around zero; default false.
        per_channel: a scale for each channel of the weights; default true.
        reduce_range: weights of 7 bits; default false.
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
        """Calibrate and quantize.

        Raises:
            TransformError: a setting is unknown, the calibration items cannot be used, or there is nothing to quantize.
        """
        options = static_options(settings)
        before = node_counts(model_file(artifact))
        refuse_quantized(before)
        batches = list(calibration_batches(workload, artifact))
        with tempfile.TemporaryDirectory() as scratch:
            prepared = prepare(artifact, Path(scratch))

            def fill(folder: Path) -> None:
                target = folder / model_file_name(ModelFormat.ONNX)
                quantize_calibrated(prepared, target, batches, options)
                if quantized_layers(target) == 0:
                    raise TransformError("it has no convolution or matrix product that ONNX Runtime can quantize.")

            made = write_artifact(root, ModelFormat.ONNX, Precision.INT8_STATIC, fill, fixed_batch=artifact.fixed_batch)
        return quantized_result(artifact, before, made)


def static_options(settings: Mapping[str, JsonScalar]) -> dict[str, Any]:
    """Return the arguments of `onnxruntime.quantization.quantize_static` that these settings stand for.

    Raises:
        TransformError: there is no such method.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType

    method = str(settings.get("method", "minmax"))
    if method not in _METHODS:
        raise TransformError(f"there is no calibration method {method!r}.", fix=f"Known: {', '.join(_METHODS)}.")
    symmetric = bool(settings.get("symmetric", False))
    return {
        "quant_format": QuantFormat.QDQ,
        "per_channel": bool(settings.get("per_channel", True)),
        "reduce_range": bool(settings.get("reduce_range", False)),
        "activation_type": QuantType.QInt8 if symmetric else QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
        "calibrate_method": getattr(CalibrationMethod, _METHODS[method]),
        # One batch at a time: histograms are made of whole activations, which would all be kept otherwise.
        "extra_options": {"ActivationSymmetric": symmetric, "CalibStridedMinMax": 1},
    }


def quantize_calibrated(
    prepared: Path, target: Path, batches: list[dict[str, np.ndarray]], options: Mapping[str, Any], **chosen: Any
) -> None:
    """Quantize an ONNX file with ranges from these batches.

    Args:
        prepared: the float model, as `prepare` leaves it.
        target: where the quantized one goes.
        batches: inputs by name, as many items each as the model takes.
        options: of `static_options`.
        chosen: further arguments of `quantize_static`: which nodes, and where ranges are kept.
    """
    from onnxruntime.quantization import quantize_static

    quantize_static(str(prepared), str(target), _Reader(batches), **options, **chosen)


class _Reader:
    """What ONNX Runtime reads calibration batches from, all of them or a range."""

    def __init__(self, batches: list[dict[str, np.ndarray]]) -> None:
        self._batches = batches
        self._left = iter(batches)

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


def calibration_batches(workload: WorkloadInfo, artifact: ArtifactRef) -> Iterator[dict[str, np.ndarray]]:
    """Yield the calibration items in batches that the artifact accepts; an incomplete last batch is left out.

    Raises:
        TransformError: the items do not fill a single batch, or one of them is not finite.
    """
    from tools.workloads.datasets import load_inputs
    from tools.workloads.sequences import trimmed

    total = workload.calibration.n
    size = artifact.fixed_batch or min(CALIBRATION_BATCH, total)
    if total < size:
        raise TransformError(f"{total} calibration items do not fill one batch of {size}, which this model asks for.")
    for start in range(0, total - size + 1, size):
        inputs = load_inputs(workload.calibration, start, size)
        batch = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        if artifact.fixed_length is None:
            batch = trimmed(workload.sequence, batch)
        _refuse_not_finite(batch, start)
        yield batch


def _refuse_not_finite(batch: Mapping[str, np.ndarray], start: int) -> None:
    for name, array in batch.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            item = start + int((~np.isfinite(array)).any(axis=tuple(range(1, array.ndim))).argmax())
            raise TransformError(
                f"the calibration item {item} has NaN or infinity in `{name}`, from which no range follows.",
                fix="Leave it out of the calibration data.",
            )
