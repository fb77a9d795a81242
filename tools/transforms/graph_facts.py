"""What a graph is made of: operators by kind, and how many layers have integer weights."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.artifacts import model_file
from tools.contracts import ArtifactRef, BuildResult
from tools.errors import TransformError

TOTAL = "total"
"""Key of the number of all operators."""

OPTIMIZATION_LEVELS = ("disabled", "basic", "extended", "all")
"""ONNX Runtime's levels of graph optimization, rising."""

_LEVEL_NAMES = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_NO_WORK = {"Constant", "Parameter", "Result"}
"""Nodes that compute nothing."""

_QUANTIZED = ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "MatMulNBits", "FakeQuantize")
"""What only quantized graphs have."""

_ONNX_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_ONNX_INTEGER = {
    "ConvInteger",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "QGemm",
    "MatMulNBits",
    "DynamicQuantizeMatMul",
}
OPENVINO_LAYERS = {
    "Convolution",
    "ConvolutionBackpropData",
    "GroupConvolution",
    "GroupConvolutionBackpropData",
    "MatMul",
}
_OPENVINO_INTEGERS = {"i4", "i8", "u4", "u8"}
_WEIGHT_INPUT = 1
_LONGEST_CHAIN = 8
"""Operators between a constant and its layer: a dequantization is a conversion, a subtraction, a product, a reshape."""


def node_counts(model: Any) -> dict[str, int]:
    """Count the operators of a graph by kind, and in `total`; constants, inputs and outputs are left out.

    Operators in the bodies of loops and branches are not counted.

    Args:
        model: path of an `.onnx` or an OpenVINO `.xml` file, or such a model in memory.
    """
    graph = _opened(model)
    kinds = (
        [node.op_type for node in graph.graph.node]
        if _is_onnx(graph)
        else [operator.get_type_name() for operator in graph.get_ops()]
    )
    counts = Counter(kind for kind in kinds if kind not in _NO_WORK)
    return {TOTAL: counts.total(), **dict(sorted(counts.items()))}


def quantized_layers(model: Any) -> int:
    """Count the convolutions and matrix products whose weights are integers, whatever the activations are.

    Args:
        model: as for `node_counts`.
    """
    graph = _opened(model)
    return _onnx_quantized(graph) if _is_onnx(graph) else _openvino_quantized(graph)


def optimized_node_counts(file: Path, level: str) -> dict[str, int]:
    """Count what ONNX Runtime's optimizer leaves of an ONNX file on the CPU, as `node_counts` does.

    Args:
        file: the ONNX model.
        level: one of `OPTIMIZATION_LEVELS`.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3  # it warns that the graph it saves is meant for this machine only
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVEL_NAMES[level])
    with tempfile.TemporaryDirectory() as scratch:
        options.optimized_model_filepath = str(Path(scratch) / "optimized.onnx")
        ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        return node_counts(Path(options.optimized_model_filepath))


def quantized_result(source: ArtifactRef, before: Mapping[str, int], made: ArtifactRef) -> BuildResult:
    """Return what every quantization tells: operators before and after, and layers with integer weights.

    Args:
        source: what was quantized; what is made takes the same length of sequences.
        before: its `node_counts`.
        made: what became of it.
    """
    after = model_file(made)
    return BuildResult(
        artifact=made.model_copy(update={"fixed_length": source.fixed_length}),
        facts={
            "nodes_before": before[TOTAL],
            "nodes_after": node_counts(after)[TOTAL],
            "quantized_layers": quantized_layers(after),
        },
    )


def refuse_quantized(counts: Mapping[str, int]) -> None:
    """Refuse a model that is quantized already.

    Raises:
        TransformError: its `node_counts` have an operator that only quantized models have.
    """
    found = next((kind for kind in counts if kind in _QUANTIZED), None)
    if found is not None:
        raise TransformError(f"the model is quantized already: it has the operator {found}.")


def _opened(model: Any) -> Any:
    if not isinstance(model, str | Path):
        return model
    if Path(model).suffix == ".xml":
        import openvino as ov

        return ov.Core().read_model(str(model))
    import onnx

    return onnx.load(str(model), load_external_data=False)


def _is_onnx(model: Any) -> bool:
    return hasattr(model, "graph")


def _onnx_quantized(model: Any) -> int:
    produced = {output: node for node in model.graph.node for output in node.output}

    def is_integer(node: Any) -> bool:
        if node.op_type in _ONNX_INTEGER:
            return True
        if node.op_type not in _ONNX_LAYERS:
            return False
        source = produced.get(node.input[_WEIGHT_INPUT])
        # a dequantized activation comes from a node; dequantized weights from a tensor of the file
        return source is not None and source.op_type == "DequantizeLinear" and source.input[0] not in produced

    return sum(map(is_integer, model.graph.node))


def _openvino_quantized(model: Any) -> int:
    return sum(
        _has_integer_weights(operator) for operator in model.get_ops() if operator.get_type_name() in OPENVINO_LAYERS
    )


def _has_integer_weights(layer: Any) -> bool:
    """Follow the weights of a layer up to their constant: integers, or floats that are quantized on the way."""
    node, quantized = layer.input_value(_WEIGHT_INPUT).get_node(), False
    for _ in range(_LONGEST_CHAIN):
        kind = node.get_type_name()
        if kind == "Constant":
            return quantized or node.get_element_type().get_type_name() in _OPENVINO_INTEGERS
        quantized = quantized or kind == "FakeQuantize"
        if node.get_input_size() == 0:
            return False
        node = node.input_value(0).get_node()
    return False
