"""INT8 weights and activations with calibrated ranges for OpenVINO, by NNCF."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tools.artifacts import model_file
from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, Precision, WorkloadInfo
from tools.errors import TransformError
from tools.transforms.base import Stage
from tools.transforms.convert_openvino import save_openvino
from tools.transforms.graph_facts import node_counts, quantized_layers, quantized_result, refuse_quantized
from tools.transforms.quantize_static import calibration_batches

_PRESETS = ("performance", "mixed")
_MODEL_TYPES = ("transformer",)


class QuantizeNncf:
    """Calibrates with NNCF.

    Calibration items go in by tens: NNCF's per-batch bookkeeping takes most of the time otherwise (39 s against 5 s
    for 200 items of a ResNet-50, seen with NNCF 3.4).

    Settings:
        preset: `performance` (default: symmetric activations, faster) or `mixed` (asymmetric, often more accurate).
        model_type: `transformer` keeps what hurts transformers in float, and smooths activations before matrix
            products (SmoothQuant, Xiao et al. 2023); default none.
        smooth: SmoothQuant's alpha, 0 to 1: how much of the activations' range is moved into the weights; -1 for no
            smoothing. For transformers only; NNCF's own default where it is not given.
        fast_bias_correction: correct biases layer by layer (default true), or one after another on the quantized
            model, which is slower and more accurate.
    """

    name: ClassVar[str] = "quantize-nncf"
    stage: ClassVar[Stage] = Stage.QUANTIZE
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.OPENVINO})
    produces: ClassVar[ModelFormat] = ModelFormat.OPENVINO
    needs_calibration: ClassVar[bool] = True
    needs_training: ClassVar[bool] = False

    def apply(
        self, artifact: ArtifactRef, workload: WorkloadInfo, settings: Mapping[str, JsonScalar], root: Path
    ) -> BuildResult:
        """Calibrate and quantize.

        Raises:
            TransformError: a setting is unknown, the calibration items cannot be used, or there is nothing to quantize.
        """
        import nncf
        import openvino as ov

        model = ov.Core().read_model(str(model_file(artifact)))
        before = node_counts(model)
        refuse_quantized(before)
        options = nncf_options(settings)
        batches = list(calibration_batches(workload, artifact))
        quantized = nncf.quantize(model, nncf.Dataset(batches), subset_size=len(batches), **options)
        if quantized_layers(quantized) == 0:
            raise TransformError("it has no convolution or matrix product that NNCF can quantize.")
        made = save_openvino(quantized, root, Precision.INT8_STATIC, artifact.fixed_batch)
        return quantized_result(artifact, before, made)


def nncf_options(settings: Mapping[str, JsonScalar]) -> dict[str, Any]:
    """Return the arguments of `nncf.quantize` that these settings stand for.

    Raises:
        TransformError: a setting has a value that NNCF does not know, or `smooth` stands without a transformer.
    """
    import nncf

    preset, model_type = str(settings.get("preset", "performance")), settings.get("model_type")
    if preset not in _PRESETS:
        raise TransformError(f"there is no preset {preset!r}.", fix=f"Known: {', '.join(_PRESETS)}.")
    if model_type is not None and model_type not in _MODEL_TYPES:
        raise TransformError(f"NNCF has no scheme for the model type {model_type!r}.", fix="Known: transformer.")
    options: dict[str, Any] = {
        "preset": nncf.QuantizationPreset(preset),
        "fast_bias_correction": bool(settings.get("fast_bias_correction", True)),
    }
    if model_type is not None:
        options["model_type"] = nncf.ModelType(model_type)
    smooth = settings.get("smooth")
    if smooth is not None:
        if model_type is None:
            raise TransformError("NNCF smooths activations for transformers only.", fix="Set `model_type` too.")
        alphas = nncf.AdvancedSmoothQuantParameters(matmul=float(smooth))
        options["advanced_parameters"] = nncf.AdvancedQuantizationParameters(smooth_quant_alphas=alphas)
    return options
