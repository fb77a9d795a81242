"""INT8 for OpenVINO by training with the rounding in place: the weights learn to live with it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, Precision, WorkloadInfo
from tools.errors import TransformError
from tools.transforms.base import Stage
from tools.transforms.convert_openvino import convert_torch, save_openvino
from tools.transforms.graph_facts import TOTAL, node_counts, quantized_layers
from tools.transforms.quantize_nncf import nncf_options
from tools.transforms.quantize_static import calibration_batches
from tools.worker import stage


class QuantizeAware:
    """Inserts NNCF's fake quantizers into the PyTorch model, trains weights and ranges, and converts the result.

    It learns from the float model's outputs alone (self-distillation), so no loss and no labels are needed. Statistics
    of batch normalization and dropout stay as in inference.

    Settings:
        epochs: passes over the training items; default 3.
        learning_rate: of Adam, falling to zero along a cosine; default 1e-4.
        max_s: after so many seconds no further epoch begins; default 60.
        seed: of the order of the items; default 0.
        preset: as for `quantize-nncf`.
    """

    name: ClassVar[str] = "quantize-aware"
    stage: ClassVar[Stage] = Stage.QUANTIZE
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.TORCH})
    produces: ClassVar[ModelFormat] = ModelFormat.OPENVINO
    needs_calibration: ClassVar[bool] = True
    needs_training: ClassVar[bool] = True

    def apply(
        self, artifact: ArtifactRef, workload: WorkloadInfo, settings: Mapping[str, JsonScalar], root: Path
    ) -> BuildResult:
        """Calibrate, train, convert.

        Raises:
            TransformError: there are no training items, a setting or the calibration items cannot be used, or there is
                nothing to quantize.
        """
        import nncf

        from tools.transforms.quantize_aware_training import (
            BATCH,
            has_quantizers,
            nncf_arguments,
            train,
            use_plain_quantizers,
            wrappable,
        )
        from tools.workloads.modules import load_module

        if workload.training is None:
            raise TransformError("it trains, and the workload has no training data.", fix="Name some in the spec.")
        options = nncf_options({name: value for name, value in settings.items() if name == "preset"})
        teacher = load_module(artifact)
        stage("inserting quantizers")
        use_plain_quantizers()
        items = list(calibration_batches(workload, artifact))
        batches = [nncf_arguments(teacher, batch) for batch in items]
        student = nncf.quantize(
            wrappable(load_module(artifact)), nncf.Dataset(batches), subset_size=len(batches), **options
        )
        if not has_quantizers(student):
            raise TransformError("it has no operator that NNCF can quantize.")
        facts = train(student, teacher, workload.training, items, settings, size=artifact.fixed_batch or BATCH)
        stage("converting")
        model = _converted(nncf.strip(student, example_input=batches[0]), artifact, workload)
        made = save_openvino(model, root, Precision.INT8_STATIC, artifact.fixed_batch)
        facts |= {"nodes_after": node_counts(model)[TOTAL], "quantized_layers": quantized_layers(model)}
        made = made.model_copy(update={"fixed_length": artifact.fixed_length})
        return BuildResult(artifact=made, facts=facts)


def _converted(module: Any, artifact: ArtifactRef, workload: WorkloadInfo) -> Any:
    """Return the module as an OpenVINO model whose weights are integers, with the open sizes that the artifact has."""
    from nncf.openvino.quantization.quantize_model import compress_quantize_weights_transformation

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates the tracing that OpenVINO uses
        model = convert_torch(module.eval(), artifact, workload)
    compress_quantize_weights_transformation(model)
    return model
