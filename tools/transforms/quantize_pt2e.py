"""INT8 weights and activations with calibrated ranges, in PyTorch's own format, by torchao."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tools.artifacts import model_file_name, write_artifact
from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, Precision, WorkloadInfo
from tools.errors import TransformError
from tools.transforms.base import Stage
from tools.worker import stage

if TYPE_CHECKING:
    import torch

_LAYERS = ("conv1d", "conv2d", "conv3d", "linear", "addmm", "bmm", "matmul")
"""ATen operators with weights, without their overloads."""


class QuantizePt2e:
    """Activations U8, weights S8 per channel, ranges from the calibration items, for Inductor's x86 kernels.

    Setting `reduce_range`: activations of 7 bits, for CPUs without VNNI. Made for the runtime `compiled`. Whether it
    comes out faster than float there is far from certain (pytorch/pytorch#144434): it is measured like everything.
    """

    name: ClassVar[str] = "quantize-pt2e"
    stage: ClassVar[Stage] = Stage.QUANTIZE
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.TORCH})
    produces: ClassVar[ModelFormat] = ModelFormat.PT2
    needs_calibration: ClassVar[bool] = True
    needs_training: ClassVar[bool] = False

    def apply(
        self, artifact: ArtifactRef, workload: WorkloadInfo, settings: Mapping[str, JsonScalar], root: Path
    ) -> BuildResult:
        """Export, observe the calibration items, and replace what was observed by integer arithmetic.

        The program takes any batch size, and sequences of the one length that all items are padded to.

        Returns:
            With the facts `layers` and `quantized_layers`: convolutions and matrix products, in all and in INT8.
        """
        if find_spec("torchao") is None:
            raise TransformError("needs torchao, which is not installed.", fix="pip install 'infertune[torchao]'")
        if artifact.precision is not Precision.FP32:
            raise TransformError(f"quantizes fp32 models, and this one is {artifact.precision.value}.")
        import torch

        from tools.transforms.example import EXPORT_BATCH, example_call, fixed_length_note
        from tools.workloads.modules import load_module

        length = None if workload.sequence is None else workload.sequence.length
        call = example_call(workload, artifact.fixed_batch or EXPORT_BATCH, padded=True)
        dynamic = artifact.fixed_batch is None
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torchao's and torch.export's chatter about their own internals
            stage("exporting")
            program = _export(load_module(artifact), *call, dynamic=dynamic)
            quantized = _quantize(program.module(), workload, artifact, reduce_range=bool(settings.get("reduce_range")))
            layers, quantized_layers = _counts(quantized)
            if not quantized_layers:
                raise TransformError("torchao found no layer that it can quantize in this model.")
            stage("saving")
            program = _export(quantized, *call, dynamic=dynamic)
            made = write_artifact(
                root,
                ModelFormat.PT2,
                Precision.INT8_STATIC,
                lambda folder: torch.export.save(program, folder / model_file_name(ModelFormat.PT2)),
                fixed_batch=artifact.fixed_batch,
            )
        return BuildResult(
            artifact=made.model_copy(update={"fixed_length": length}),
            facts={"layers": layers, "quantized_layers": quantized_layers},
            notes=() if length is None else (fixed_length_note(length),),
        )


def _export(
    module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], *, dynamic: bool
) -> torch.export.ExportedProgram:
    """Export with the origin of each operator, by which torchao's quantizer finds its patterns.

    Only strict export tells two calls of one module apart (a ResNet's blocks share their ReLU), and from which Python
    operator an addition came; without, the quantizer gives up on the first and misses the second. A model that cannot
    be exported so is exported without.
    """
    import torch

    shapes: Any = None
    if dynamic:
        batch = {0: torch.export.Dim("batch", min=1, max=4096)}
        shapes = dict.fromkeys(keywords, batch) if keywords else tuple(batch for _ in arguments)
    try:
        return torch.export.export(module, arguments, keywords, dynamic_shapes=shapes, strict=True)
    except Exception as error:  # noqa: BLE001  torch.export raises many kinds; without strictness is the way out
        print(f"strict export gave up ({error}); going on without it")  # noqa: T201  to the log
        return torch.export.export(module, arguments, keywords, dynamic_shapes=shapes, strict=False)


def _quantize(
    module: torch.fx.GraphModule, workload: WorkloadInfo, artifact: ArtifactRef, *, reduce_range: bool
) -> torch.fx.GraphModule:
    """Return the exported module with quantized operators.

    Raises:
        TransformError: the quantizer gives up on this model.
    """
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    from tools.transforms.quantize_static import calibration_batches
    from tools.workloads.modules import call_module

    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config(reduce_range=reduce_range))
    try:
        prepared = prepare_pt2e(module, quantizer)
    except ValueError as error:  # "Input partition has more than one output node" and its like
        raise TransformError(f"torchao's quantizer gave up on this model: {error}.") from error
    stage("calibrating")
    for batch in calibration_batches(workload, artifact):
        call_module(prepared, batch)
    stage("converting")
    converted: torch.fx.GraphModule = convert_pt2e(prepared)
    _drop_unused(converted)
    return converted


def _drop_unused(module: torch.fx.GraphModule) -> None:
    """Forget the float weights, which converting leaves beside the quantized ones."""
    used = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in (*module.named_parameters(), *module.named_buffers()) if name not in used]:
        owner, _, attribute = name.rpartition(".")
        delattr(module.get_submodule(owner), attribute)


def _counts(module: torch.fx.GraphModule) -> tuple[int, int]:
    """Return how many layers there are, and how many of them take a dequantized input."""
    layers = [node for node in module.graph.nodes if str(node.target).split(".")[1:2] in [[name] for name in _LAYERS]]
    quantized = [
        node for node in layers if any("dequantize_per_tensor" in str(parent.target) for parent in node.all_input_nodes)
    ]
    return len(layers), len(quantized)
