"""INT4 weights of linear layers, arithmetic in float: less to read from memory, which is what they wait for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tools.artifacts import model_file, model_file_name, write_artifact
from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, Precision, WorkloadInfo
from tools.errors import TransformError
from tools.transforms.base import Stage
from tools.transforms.convert_openvino import save_openvino
from tools.transforms.graph_facts import OPENVINO_LAYERS, node_counts, quantized_result, refuse_quantized

DEFAULT_GROUP = 64
GROUPS = (16, 32, 64, 128, 256)
"""What ONNX Runtime's kernels take."""
SMALLEST_SIDE = 64
"""Inputs and outputs of a linear layer that is worth it."""
LEAST_SHARE = 0.1
"""Of a model's weights that such layers must hold: elsewhere nothing would be saved."""

_WITH_WEIGHTS = {*OPENVINO_LAYERS, "Gather"}
"""What NNCF compresses unless told otherwise."""


class QuantizeWeightsOnnx:
    """Uses ONNX Runtime's `MatMulNBits`, rounding to the nearest: no data are needed.

    Settings:
        group_size: weights that share a scale: 16, 32, 64 (default), 128 or 256. Smaller is more accurate, and larger.
        symmetric: scales without zero points; default false.
    """

    name: ClassVar[str] = "quantize-weights-onnx"
    stage: ClassVar[Stage] = Stage.QUANTIZE
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.ONNX})
    produces: ClassVar[ModelFormat] = ModelFormat.ONNX
    needs_calibration: ClassVar[bool] = False
    needs_training: ClassVar[bool] = False

    def apply(
        self,
        artifact: ArtifactRef,
        workload: WorkloadInfo,  # noqa: ARG002  the protocol's signature
        settings: Mapping[str, JsonScalar],
        root: Path,
    ) -> BuildResult:
        """Pack the weights of the large linear layers.

        Raises:
            TransformError: a setting is unknown, the model is quantized already, or has no large linear layers.
        """
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        group, symmetric = _options(settings)
        model = onnx.load(str(model_file(artifact)))
        before = node_counts(model)
        refuse_quantized(before)
        _split_gemms(model)
        sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        linear = {
            node.name: sizes[node.input[1]]
            for node in model.graph.node
            if node.op_type == "MatMul" and len(sizes.get(node.input[1], ())) == 2
        }
        chosen = _large(linear, sum(map(math.prod, sizes.values())))
        quantizer = MatMulNBitsQuantizer(
            model,
            block_size=group,
            is_symmetric=symmetric,
            nodes_to_exclude=[name for name in linear if name not in chosen],
            op_types_to_quantize=("MatMul",),
        )
        quantizer.process()
        made = write_artifact(
            root,
            ModelFormat.ONNX,
            Precision.INT4_WEIGHTS,
            lambda folder: quantizer.model.save_model_to_file(str(folder / model_file_name(ModelFormat.ONNX))),
            fixed_batch=artifact.fixed_batch,
        )
        return quantized_result(artifact, before, made)


class QuantizeWeights:
    """Uses NNCF's weight compression, rounding to the nearest: no data are needed.

    Settings:
        group_size: as for `quantize-weights-onnx`; halved for layers that it does not divide.
        symmetric: likewise.
    """

    name: ClassVar[str] = "quantize-weights"
    stage: ClassVar[Stage] = Stage.QUANTIZE
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.OPENVINO})
    produces: ClassVar[ModelFormat] = ModelFormat.OPENVINO
    needs_calibration: ClassVar[bool] = False
    needs_training: ClassVar[bool] = False

    def apply(
        self,
        artifact: ArtifactRef,
        workload: WorkloadInfo,  # noqa: ARG002  the protocol's signature
        settings: Mapping[str, JsonScalar],
        root: Path,
    ) -> BuildResult:
        """Pack the weights of the large linear layers.

        Raises:
            TransformError: a setting is unknown, the model is quantized already, or has no large linear layers.
        """
        import nncf
        import openvino as ov

        group, symmetric = _options(settings)
        model = ov.Core().read_model(str(model_file(artifact)))
        before = node_counts(model)
        refuse_quantized(before)
        constants = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
        linear = _openvino_linear(model)
        chosen = _large(linear, sum(math.prod(node.get_output_shape(0)) for node in constants))
        layers = [node.get_friendly_name() for node in model.get_ops() if node.get_type_name() in _WITH_WEIGHTS]
        compressed = nncf.compress_weights(
            model,
            mode=nncf.CompressWeightsMode.INT4_SYM if symmetric else nncf.CompressWeightsMode.INT4_ASYM,
            ratio=1.0,
            group_size=group,
            all_layers=True,
            ignored_scope=nncf.IgnoredScope(names=[name for name in layers if name not in chosen]),
            advanced_parameters=nncf.AdvancedCompressionParameters(
                group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST
            ),
        )
        made = save_openvino(compressed, root, Precision.INT4_WEIGHTS, artifact.fixed_batch)
        return quantized_result(artifact, before, made)


def _options(settings: Mapping[str, JsonScalar]) -> tuple[int, bool]:
    group = settings.get("group_size", DEFAULT_GROUP)
    if group not in GROUPS:
        raise TransformError(
            f"weights cannot share scales in groups of {group}.", fix=f"Known: {', '.join(map(str, GROUPS))}."
        )
    return int(group), bool(settings.get("symmetric", False))


def _large(linear: Mapping[str, tuple[int, ...]], weights: int) -> set[str]:
    """Return the linear layers that are worth it.

    Args:
        linear: each layer's weight matrix's shape, by name.
        weights: numbers in all weights of the model.

    Raises:
        TransformError: they hold too little of the model.
    """
    large = {name for name, shape in linear.items() if min(shape) >= SMALLEST_SIDE}
    share = sum(math.prod(linear[name]) for name in large) / max(weights, 1)
    if share < LEAST_SHARE:
        raise TransformError(
            f"linear layers of at least {SMALLEST_SIDE} inputs and outputs hold {share:.1%} of its weights: "
            "4 bits would save next to nothing."
        )
    return large


def _openvino_linear(model: Any) -> dict[str, tuple[int, ...]]:
    found = {}
    for node in model.get_ops():
        if node.get_type_name() == "MatMul":
            weights = node.input_value(1)
            if weights.get_node().get_type_name() == "Constant" and len(weights.get_shape()) == 2:
                found[node.get_friendly_name()] = tuple(weights.get_shape())
    return found


def _split_gemms(model: Any) -> None:
    """Write `Gemm` with constant weights as `MatMul` and `Add`: `MatMulNBits` replaces `MatMul` only."""
    import onnx
    from onnx import helper, numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        plain = attributes.get("alpha", 1.0) == 1.0 == attributes.get("beta", 1.0) and not attributes.get("transA", 0)
        if node.op_type != "Gemm" or node.input[1] not in tensors or not plain:
            nodes.append(node)
            continue
        weights = numpy_helper.to_array(tensors[node.input[1]])
        matrix = numpy_helper.from_array(
            weights.T.copy() if attributes.get("transB", 0) else weights, f"{node.name}_matrix"
        )
        model.graph.initializer.append(matrix)
        has_bias = len(node.input) > 2 and bool(node.input[2])
        product = f"{node.output[0]}_product" if has_bias else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], matrix.name], [product], name=f"{node.name}_matmul"))
        if has_bias:
            nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}_bias"))
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(kept)
    onnx.checker.check_model(model)
