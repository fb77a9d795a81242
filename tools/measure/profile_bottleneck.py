"""From a profile to one sentence: what dominates, what bounds it, and what is worth trying."""

from __future__ import annotations

from collections.abc import Sequence

from tools.contracts import Hardware, LayerProfile, Roofline
from tools.hardware import has_bf16_kernels, has_int8_kernels
from tools.measure.layers import kind_of

OVERHEAD_BOUND = 0.25
"""Layers that reach less than this part of what the roofline allows are held up by something else: starting kernels,
threads and Python, or kernels that do not suit their shapes."""

_PLURALS = {
    "convolution": "Convolutions",
    "linear": "Linear layers",
    "attention": "Attention layers",
    "normalization": "Normalizations",
    "activation": "Activations",
    "pooling": "Pooling layers",
    "embedding": "Embeddings",
    "recurrent": "Recurrent layers",
    "elementwise": "Elementwise operations",
    "other": "Operations outside of the layers",
}


def bottleneck(layers: Sequence[LayerProfile], roofline: Roofline, hardware: Hardware) -> str:
    """Name the kind of layers that takes the most time, what bounds it, and what usually helps.

    The bound follows from the roofline model: with F FLOPs and B bytes a layer cannot take less than
    max(F / peak, B / bandwidth). Far above that it is bound by overhead; else by arithmetic where F / B exceeds
    peak / bandwidth, and by memory where it does not.
    """
    by_kind: dict[str, list[LayerProfile]] = {}
    for layer in layers:
        by_kind.setdefault(kind_of(layer.operator), []).append(layer)
    if not by_kind:
        return "No layer took any time."
    kind, group = max(by_kind.items(), key=lambda item: (sum(layer.share for layer in item[1]), item[0]))
    share = sum(layer.share for layer in group)
    seconds = sum(layer.ms for layer in group) / 1e3
    flops = sum(layer.flops for layer in group)
    moved = sum(layer.bytes_moved for layer in group)
    takes = f"{_PLURALS[kind]} take {_percent(share)} of the forward pass"
    if kind == "other":
        return (
            f"{takes}: functions called between layers, data movement and Python. A graph runtime that fuses them and "
            "leaves Python out (ONNX Runtime, OpenVINO) usually helps; to be measured."
        )
    peak, bandwidth = roofline.fp32_gflops * 1e9, roofline.memory_gb_per_s * 1e9
    if flops and flops / seconds <= peak:
        takes += f" at {_percent(flops / seconds / peak)} of this machine's FP32 peak"
    least_s = sum(max(layer.flops / peak, layer.bytes_moved / bandwidth) for layer in group)
    if least_s < OVERHEAD_BOUND * seconds:
        return (
            f"{takes}, and the roofline would allow {seconds / least_s if least_s else float('inf'):.0f}x less time: "
            f"the overhead of many small kernels bounds them. {_overhead_remedy(hardware)}"
        )
    intensity = flops / moved if moved else float("inf")
    ridge = peak / bandwidth
    if intensity >= ridge:
        return (
            f"{takes}, and at {intensity:.0f} FLOPs a byte (ridge: {ridge:.0f}) they are bound by arithmetic. "
            f"{_compute_remedy(hardware)}"
        )
    return (
        f"{takes}, and at {intensity:.2g} FLOPs a byte (ridge: {ridge:.0f}) they are bound by memory traffic. "
        f"{_memory_remedy(hardware)}"
    )


def _overhead_remedy(hardware: Hardware) -> str:
    quantized = " and INT8" if has_int8_kernels(hardware) else ""
    return f"A graph runtime that fuses them (ONNX Runtime, OpenVINO){quantized} usually helps; to be measured."


def _compute_remedy(hardware: Hardware) -> str:
    precisions = [
        name for name, usable in (("INT8", has_int8_kernels(hardware)), ("BF16", has_bf16_kernels(hardware))) if usable
    ]
    if precisions:
        return f"{' or '.join(precisions)} usually helps here, then fewer channels by pruning; to be measured."
    return "Fewer channels by pruning, or a smaller student, usually help; to be measured."


def _memory_remedy(hardware: Hardware) -> str:
    smaller = "INT8 weights" if has_int8_kernels(hardware) else "smaller weights"
    return f"Fused operators and {smaller} move fewer bytes, larger batches reuse them; to be measured."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"
