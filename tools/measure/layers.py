"""Rows of a layer profile, whichever library they were measured in: shares that sum to one, and kinds of operators."""

from __future__ import annotations

import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tools.contracts import LayerProfile

Key = TypeVar("Key", bound=Hashable)

OTHER = "(other)"
"""Path of the row for work outside of any layer."""

WARMUP_PASSES = 3
MIN_PASSES = 5
MAX_PASSES = 60
"""Enough for medians of layers; more would only bury the trace."""

OPERATOR_KINDS = (
    "convolution",
    "linear",
    "attention",
    "normalization",
    "activation",
    "pooling",
    "embedding",
    "recurrent",
    "elementwise",
    "other",
)

_KIND_PATTERNS = (
    # The first match counts, so that `EmbedLayerNormalization` is an embedding and `BiasGelu` an activation.
    ("other", r"upsampl|resiz|interpolat"),  # by bilinear weights, but no linear layer
    ("attention", r"attention|transformer_?(encoder|decoder)"),
    ("recurrent", r"lstm|gru|rnn"),
    ("convolution", r"conv(?!ert)"),
    ("embedding", r"embed|^gather$"),
    ("pooling", r"pool"),
    ("normalization", r"norm|^lrn$"),
    ("linear", r"(?<!quantize)linear|gemm|matmul|^(add)?b?mm$|^baddbmm$|^addmv$|^mv$|^einsum$"),
    (
        "activation",
        r"relu|gelu|elu$|silu|swish|mish$|sigmoid|tanh|soft(max|plus|sign|min|shrink)|shrink$|^threshold|glu$|^cl(ip|amp)",
    ),
    (
        "elementwise",
        (
            r"^(add|sum|r?sub|mul|div|pow|r?sqrt|square|reciprocal|exp|log|neg|abs|sign|sin|cos|erf|floor|round|ceil|"
            r"max|min|maximum|minimum|equal|greater|less|not|and|or|where|eq|ne|[gl][te]|masked_fill|cast|to|to_copy|"
            r"identity|(alpha)?dropout\w*|floatfunctional|(de|dynamic)?quantizelinear)$"
        ),
    ),
)


@dataclass(frozen=True)
class Layer:
    """One measured layer, before shares are taken.

    Attributes:
        path: where it is in the model, e.g. `layer1.0.conv2`.
        operator: what it computes: a module's class, an ONNX operator or an ATen function.
        ms: in a typical forward pass, all calls added.
        flops: of one forward pass; a multiply-add counts as two.
        bytes_moved: inputs, outputs and parameters once each.
    """

    path: str
    operator: str
    ms: float
    flops: float = 0.0
    bytes_moved: float = 0.0


@dataclass(frozen=True)
class Measured:
    """What one of the layer profilers found.

    Attributes:
        layers: in any order, without the remainder.
        forward_ms: median of whole forward passes that nothing was attached to.
        flops: of the whole forward pass, in layers or not.
    """

    layers: tuple[Layer, ...]
    forward_ms: float
    flops: float


def layer_profiles(measured: Measured) -> tuple[LayerProfile, ...]:
    """Turn measured layers into shares of the forward pass, slowest first.

    What the layers leave of `forward_ms` goes into a last row `(other)`. Where noise makes the layers add up to more
    than the whole, they are scaled down to it, so that shares always sum to one.
    """
    total = sum(layer.ms for layer in measured.layers)
    forward = measured.forward_ms if measured.forward_ms > 0 else total
    scale = min(1.0, forward / total) if total > 0 else 1.0
    rows = [
        _row(layer, layer.ms * scale, forward)
        for layer in sorted(measured.layers, key=lambda layer: (-layer.ms, layer.path))
    ]
    rest = max(0.0, forward - total * scale)
    if forward > 0 and rest / forward > 1e-9:
        flops = max(0.0, measured.flops - sum(layer.flops for layer in measured.layers))
        rows.append(_row(Layer(OTHER, OTHER, rest, flops), rest, forward))
    return tuple(rows)


def typical_ms(passes: Sequence[Mapping[Key, float]]) -> dict[Key, float]:
    """Return each layer's time in a typical pass, so that together they take as long as the layers typically do.

    On a busy machine every pass is disturbed somewhere else: medians of layers leave that out, while the median of
    the whole has it in. Medians are therefore scaled to the median of the passes' sums.

    Args:
        passes: milliseconds by layer, of each pass; one that is missing took no time.
    """
    keys = dict.fromkeys(key for one in passes for key in one)
    medians = {key: statistics.median(one.get(key, 0.0) for one in passes) for key in keys}
    together = sum(medians.values())
    if together <= 0:
        return medians
    scale = statistics.median(sum(one.values()) for one in passes) / together
    return {key: ms * scale for key, ms in medians.items()}


def operator_shares(layers: Sequence[LayerProfile]) -> dict[str, float]:
    """Return each operator kind's share of the forward pass, largest first; kinds that do not occur are left out."""
    shares: defaultdict[str, float] = defaultdict(float)
    for layer in layers:
        shares[kind_of(layer.operator)] += layer.share
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def kind_of(operator: str) -> str:
    """Return the kind, one of `OPERATOR_KINDS`, of a module class, an ONNX operator or an ATen function.

    >>> [kind_of(name) for name in ("BatchNorm2d", "FusedConv", "QLinearAdd", "aten::addmm", "relu_")]
    ['normalization', 'convolution', 'elementwise', 'linear', 'activation']
    """
    name = operator.lower().rpartition("::")[2].split(".")[0].strip("_")
    name = re.sub(r"^qlinear", "", name) or name
    return next((kind for kind, pattern in _KIND_PATTERNS if re.search(pattern, name)), "other")


def alternate(plain: Callable[[], object], attached: Callable[[], object], budget_s: float) -> float:
    """Run both in turn, so that a slow moment of the machine hits both, and time the one with nothing attached.

    Returns:
        The median time of `plain` in milliseconds, over `MIN_PASSES` to `MAX_PASSES` passes within the budget.
    """
    for _ in range(WARMUP_PASSES):
        plain()
    times: list[int] = []
    deadline = time.perf_counter() + budget_s
    while len(times) < MIN_PASSES or (len(times) < MAX_PASSES and time.perf_counter() < deadline):
        before = time.perf_counter_ns()
        plain()
        times.append(time.perf_counter_ns() - before)
        attached()
    return statistics.median(times) / 1e6


def _row(layer: Layer, ms: float, forward_ms: float) -> LayerProfile:
    return LayerProfile(
        path=layer.path,
        operator=layer.operator,
        ms=ms,
        share=ms / forward_ms if forward_ms > 0 else 0.0,
        flops=layer.flops,
        bytes_moved=layer.bytes_moved,
        gflops_per_s=layer.flops / (ms * 1e6) if ms > 0 else 0.0,
    )
