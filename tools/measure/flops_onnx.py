"""FLOPs of ONNX nodes from the shapes that they ran with. A multiply-add counts as two."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

Shape: TypeAlias = Sequence[int]
Shapes: TypeAlias = Sequence[Shape]


def node_flops(operator: str, inputs: Shapes, outputs: Shapes) -> float:
    """Return the FLOPs of one run of a node; 0 for operators without matrix arithmetic, and for unknown ones.

    Args:
        operator: ONNX operator, or one of ONNX Runtime's own that graph optimization puts in its place.
        inputs: shapes of the inputs in the operator's order, weights included.
        outputs: shapes of the outputs.
    """
    formula = _FORMULAS.get(operator)
    if formula is None or not outputs:
        return 0.0
    try:
        return 2.0 * formula(inputs, outputs)
    except IndexError:  # fewer shapes than the operator's definition has: an optional input or a scalar was left out
        return 0.0


def _convolution(weight: int) -> Callable[[Shapes, Shapes], float]:
    """Each output element is a dot product over a filter (input channels of its group times the kernel)."""

    def multiply_adds(inputs: Shapes, outputs: Shapes) -> float:
        return math.prod(outputs[0]) * math.prod(inputs[weight][1:])

    return multiply_adds


def _transposed_convolution(inputs: Shapes, _outputs: Shapes) -> float:
    """Each input element is spread over a filter (output channels of its group times the kernel)."""
    return math.prod(inputs[0]) * math.prod(inputs[1][1:])


def _general_product(second: int) -> Callable[[Shapes, Shapes], float]:
    """M * N * K of a product that may transpose its operands: sqrt(MK * KN * MN), whichever way they lie."""

    def multiply_adds(inputs: Shapes, outputs: Shapes) -> float:
        left, right, output = inputs[0], inputs[second], outputs[0]
        batch = math.prod(output[:-2]) if min(len(left), len(right)) > 2 else 1
        return math.sqrt(math.prod(left) * math.prod(right) * math.prod(output) / max(batch, 1))

    return multiply_adds


def _product(inputs: Shapes, outputs: Shapes) -> float:
    """Each output element is a dot product over the first operand's last axis."""
    return math.prod(outputs[0]) * inputs[0][-1]


def _recurrent(inputs: Shapes, _outputs: Shapes) -> float:
    """In each step every weight of the input (W) and of the state (R) meets each item of the batch once."""
    steps, batch = inputs[0][:2]
    return steps * batch * (math.prod(inputs[1]) + math.prod(inputs[2]))


def _attention(inputs: Shapes, _outputs: Shapes) -> float:
    """`com.microsoft.Attention`: one product for queries, keys and values, then scores, then their weighted sum."""
    batch, length, _ = inputs[0]
    hidden = inputs[1][1] // 3
    return batch * length * math.prod(inputs[1]) + 2 * batch * length * length * hidden


def _attention_heads(inputs: Shapes, outputs: Shapes) -> float:
    """`com.microsoft.MultiHeadAttention`: scores and their weighted sum; queries, keys and values come in."""
    batch, length, hidden = inputs[0][:3]
    context = inputs[1][1] if len(inputs[1]) == 3 else inputs[1][-2]
    return batch * length * context * (hidden + outputs[0][-1])


_FORMULAS: dict[str, Callable[[Shapes, Shapes], float]] = {
    "Conv": _convolution(1),
    "FusedConv": _convolution(1),
    "NhwcFusedConv": _convolution(1),
    "ConvInteger": _convolution(1),
    "QLinearConv": _convolution(3),  # scale and zero point of x come between
    "ConvTranspose": _transposed_convolution,
    "Gemm": _general_product(1),
    "FusedGemm": _general_product(1),
    "QGemm": _general_product(3),
    "MatMul": _product,
    "FusedMatMul": _general_product(1),
    "MatMulInteger": _product,
    "MatMulIntegerToFloat": _product,
    "DynamicQuantizeMatMul": _product,
    "QLinearMatMul": _product,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Attention": _attention,
    "MultiHeadAttention": _attention_heads,
}
