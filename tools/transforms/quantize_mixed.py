"""INT8, but for the layers that lose too much accuracy by it for the time they save."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from tools.artifacts import model_file
from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, WorkloadInfo
from tools.errors import TransformError
from tools.transforms.base import Stage
from tools.transforms.graph_facts import node_counts, quantized_result, refuse_quantized
from tools.transforms.quantize_dynamic import prepare
from tools.transforms.quantize_nncf import nncf_options
from tools.transforms.quantize_static import calibration_batches, static_options

DEFAULT_MAX_DROP = 0.01


class QuantizeMixed:
    """Quantizes with NNCF, and takes layers back to float.

    Settings:
        max_drop: how much worse the metric may be than the float model's, in its unit, on the calibration and training
            items; default 0.01.
        preset: as for `quantize-nncf`.
    """

    name: ClassVar[str] = "quantize-mixed"
    stage: ClassVar[Stage] = Stage.QUANTIZE
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.OPENVINO})
    produces: ClassVar[ModelFormat] = ModelFormat.OPENVINO
    needs_calibration: ClassVar[bool] = True
    needs_training: ClassVar[bool] = False

    def apply(
        self, artifact: ArtifactRef, workload: WorkloadInfo, settings: Mapping[str, JsonScalar], root: Path
    ) -> BuildResult:
        """Calibrate once, and search.

        Raises:
            TransformError: a setting or the calibration items cannot be used, or no layer can be in INT8.
        """
        import openvino as ov

        from tools.transforms.sensitivity.layers_openvino import OpenVinoLayers
        from tools.transforms.sensitivity.search import mixed

        max_drop = _max_drop(settings)
        options = nncf_options({name: value for name, value in settings.items() if name == "preset"})
        model = ov.Core().read_model(str(model_file(artifact)))
        before = node_counts(model)
        refuse_quantized(before)
        batches = list(calibration_batches(workload, artifact))
        layers = OpenVinoLayers(model, batches, options, artifact.fixed_batch)
        made = mixed(layers, workload, max_drop, root)
        return _with_facts(made, quantized_result(artifact, before, made.artifact))


class QuantizeMixedOnnx:
    """Quantizes with ONNX Runtime, and takes layers back to float.

    Settings:
        max_drop: as for `quantize-mixed`.
        method, symmetric, per_channel, reduce_range: as for `quantize-static`.
    """

    name: ClassVar[str] = "quantize-mixed-onnx"
    stage: ClassVar[Stage] = Stage.QUANTIZE
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.ONNX})
    produces: ClassVar[ModelFormat] = ModelFormat.ONNX
    needs_calibration: ClassVar[bool] = True
    needs_training: ClassVar[bool] = False

    def apply(
        self, artifact: ArtifactRef, workload: WorkloadInfo, settings: Mapping[str, JsonScalar], root: Path
    ) -> BuildResult:
        """Calibrate once, and search.

        Raises:
            TransformError: a setting or the calibration items cannot be used, or no layer can be in INT8.
        """
        from tools.transforms.sensitivity.layers_onnx import OnnxLayers
        from tools.transforms.sensitivity.search import mixed

        max_drop, options = _max_drop(settings), static_options(settings)
        before = node_counts(model_file(artifact))
        refuse_quantized(before)
        batches = list(calibration_batches(workload, artifact))
        with tempfile.TemporaryDirectory() as scratch:
            prepared = prepare(artifact, Path(scratch))
            layers = OnnxLayers(prepared, batches, options, artifact.fixed_batch, Path(scratch))
            made = mixed(layers, workload, max_drop, root)
        return _with_facts(made, quantized_result(artifact, before, made.artifact))


def _max_drop(settings: Mapping[str, JsonScalar]) -> float:
    value = float(settings.get("max_drop", DEFAULT_MAX_DROP) or 0.0)
    if value < 0:
        raise TransformError(
            f"the metric cannot be asked to drop by {value:g} or less.", fix="Set `max_drop` to 0 or more."
        )
    return value


def _with_facts(made: BuildResult, told: BuildResult) -> BuildResult:
    return made.model_copy(update={"artifact": told.artifact, "facts": made.facts | told.facts})
