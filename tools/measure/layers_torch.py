"""Where the time of an eager `torch.nn.Module` goes, layer by layer.

A layer is a module that calls no other module, as seen while running rather than as written: a
`TransformerEncoderLayer` on its fast path computes everything in one kernel and never calls its children. A module that
does call others is a layer too where it multiplies matrices by functions (an attention that calls
`scaled_dot_product_attention`), with the time that its children leave. All else is the remainder.

Hooks are PyTorch's global ones: those of a single module would switch the fast paths off, and measure something else.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tools.measure.layers import Layer, Measured, alternate, kind_of, typical_ms

if TYPE_CHECKING:
    import torch
    from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class ModuleCall:
    """A torch module with the arguments of one forward pass. Calling it runs the pass under inference mode."""

    module: Any
    positional: tuple[torch.Tensor, ...]
    keywords: dict[str, torch.Tensor]

    @classmethod
    def of(cls, module: Any, inputs: Mapping[str, np.ndarray]) -> Self:
        """Convert a batch of arrays to the module's arguments."""
        from tools.workloads.modules import call_arguments

        positional, keywords = call_arguments(module, inputs)
        return cls(module, positional, keywords)

    def __call__(self) -> Any:
        """Run one forward pass."""
        import torch

        with torch.inference_mode():
            return self.module(*self.positional, **self.keywords)


@dataclass
class _Span:
    """One call of a module while it runs."""

    module: torch.nn.Module
    entered: int
    started: int = 0
    inside_children: int = 0
    """What children took together with the hooks around them, so that hooks are nobody's time."""
    called_others: bool = False


class _Spans:
    """Times every module call while it is entered, by global hooks.

    Attributes:
        own_ns: by module, time of its calls that was not spent in other modules.
        callers: modules that called others.
    """

    def __init__(self) -> None:
        self.own_ns: defaultdict[torch.nn.Module, int] = defaultdict(int)
        self.callers: set[torch.nn.Module] = set()
        self._open: list[_Span] = []
        self._handles: tuple[Any, ...] = ()

    def __enter__(self) -> Self:
        from torch.nn.modules import module as modules

        self._handles = (
            modules.register_module_forward_pre_hook(self._enter),
            modules.register_module_forward_hook(self._exit),
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()

    def _enter(self, module: torch.nn.Module, _arguments: Any) -> None:
        span = _Span(module, time.perf_counter_ns())
        self._open.append(span)
        span.started = time.perf_counter_ns()

    def _exit(self, module: torch.nn.Module, _arguments: Any, _output: Any) -> None:
        ended = time.perf_counter_ns()
        span = self._open.pop()
        self.own_ns[module] += ended - span.started - span.inside_children
        if span.called_others:
            self.callers.add(module)
        if self._open:
            parent = self._open[-1]
            parent.called_others = True
            parent.inside_children += time.perf_counter_ns() - span.entered


def profile_modules(call: ModuleCall, budget_s: float) -> Measured:
    """Measure the layers of an eager module.

    Args:
        call: the module with its inputs.
        budget_s: how long to repeat forward passes, with and without hooks in turn.
    """
    call()
    with _Spans() as structure:
        call()
    flops = _count_flops(call)
    traffic = _count_bytes(call, structure.callers)
    modules = [module for module in structure.own_ns if module not in structure.callers or flops.own[module]]
    passes: list[dict[torch.nn.Module, float]] = []

    def attached() -> None:
        with _Spans() as spans:
            call()
        passes.append({module: spans.own_ns[module] / 1e6 for module in modules})

    forward_ms = alternate(call, attached, budget_s)
    paths = {module: path for path, module in call.module.named_modules()}
    layers = (
        Layer(
            path=paths.get(module) or _class_name(module),
            operator=_class_name(module),
            ms=ms,
            # Counted with other kernels than timed, the leaf of a fast path calls its children.
            flops=flops.own[module] if module in structure.callers else flops.inclusive[module],
            bytes_moved=traffic[module],
        )
        for module, ms in typical_ms(passes).items()
    )
    return Measured(tuple(layers), forward_ms, flops.total)


@contextlib.contextmanager
def countable_kernels() -> Iterator[None]:
    """Switch off the kernels that the FLOP counter cannot see into: fused attention and oneDNN's recurrent layers."""
    import torch

    fast_path = torch.backends.mha.get_fastpath_enabled()
    onednn = torch._C._get_mkldnn_enabled()  # noqa: SLF001  `mkldnn.flags` also sets TF32, and warns about it
    torch.backends.mha.set_fastpath_enabled(value=False)
    torch._C._set_mkldnn_enabled(False)  # noqa: FBT003, SLF001
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(onednn)  # noqa: SLF001
        torch.backends.mha.set_fastpath_enabled(fast_path)


@contextlib.contextmanager
def flop_counter() -> Iterator[FlopCounterMode]:
    """Count the FLOPs of matrix products, convolutions and attention; a multiply-add counts as two."""
    from torch.utils.flop_counter import FlopCounterMode

    with countable_kernels(), FlopCounterMode(display=False) as counter:
        yield counter


@dataclass(frozen=True)
class _Flops:
    """FLOPs of one forward pass: of each module with what it calls, and without, and of the whole."""

    inclusive: dict[torch.nn.Module, float]
    own: dict[torch.nn.Module, float]
    total: float


def _count_flops(call: ModuleCall) -> _Flops:
    from torch.nn.modules import module as modules

    inclusive: defaultdict[torch.nn.Module, float] = defaultdict(float)
    own: defaultdict[torch.nn.Module, float] = defaultdict(float)
    open_calls: list[list[float]] = []  # FLOPs so far when the module was entered, and those of its children

    with flop_counter() as counter:

        def enter(_module: torch.nn.Module, _arguments: Any) -> None:
            open_calls.append([float(counter.get_total_flops()), 0.0])

        def leave(module: torch.nn.Module, _arguments: Any, _output: Any) -> None:
            before, children = open_calls.pop()
            flops = counter.get_total_flops() - before
            inclusive[module] += flops
            own[module] += flops - children
            if open_calls:
                open_calls[-1][1] += flops

        handles = (modules.register_module_forward_pre_hook(enter), modules.register_module_forward_hook(leave))
        try:
            call()
        finally:
            for handle in handles:
                handle.remove()
        total = float(counter.get_total_flops())
    return _Flops(inclusive, own, total)


def _count_bytes(call: ModuleCall, callers: set[torch.nn.Module]) -> dict[torch.nn.Module, float]:
    """Return, by module, the bytes of its inputs and outputs (of every call) and parameters (once).

    The parameters of a module that calls others are only those that it holds itself.
    """
    from torch.nn.modules import module as modules

    traffic: defaultdict[torch.nn.Module, float] = defaultdict(float)

    def add(module: torch.nn.Module, arguments: Any, keywords: Any, output: Any) -> None:
        parameters: list[torch.Tensor] = []
        if module not in traffic:
            below = module not in callers
            parameters = [*module.parameters(recurse=below), *module.buffers(recurse=below)]
        traffic[module] += bytes_moved(_class_name(module), parameters, (arguments, keywords), output)

    handle = modules.register_module_forward_hook(add, with_kwargs=True)
    try:
        call()
    finally:
        handle.remove()
    return traffic


def bytes_moved(operator: str, parameters: Any, inputs: Any, outputs: Any) -> float:
    """Return the bytes of one call's tensors, given in any nested structure; within each, a tensor counts once.

    A lookup reads as many rows of its table as it returns, not the whole of it.
    """
    answers = _tensor_bytes(outputs)
    weights = _tensor_bytes(parameters)
    return (min(weights, answers) if kind_of(operator) == "embedding" else weights) + _tensor_bytes(inputs) + answers


def _tensor_bytes(tree: Any) -> float:
    import torch
    from torch.utils._pytree import tree_leaves

    tensors = {id(leaf): leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)}
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()))


def _class_name(module: torch.nn.Module) -> str:
    return str(getattr(module, "original_name", type(module).__name__))
