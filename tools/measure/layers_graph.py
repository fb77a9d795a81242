"""Where the time of a torch program without live modules goes: exported (`.pt2`) and TorchScript.

An exported program is a graph of ATen calls that still knows which module each came from: it is run node by node.
TorchScript runs inside of C++: PyTorch's own profiler says which operators it called, and how long they took.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tools.measure.layers import MIN_PASSES, Layer, Measured, alternate, kind_of, typical_ms
from tools.measure.layers_torch import ModuleCall, bytes_moved, flop_counter

if TYPE_CHECKING:
    import torch.fx

_Key = tuple[str, str]
"""Path of a layer and its operator."""


@dataclass
class _Pass:
    """One run of a graph, by layer: how much the meter moved, and the bytes that went in and out."""

    spent: defaultdict[_Key, float] = field(default_factory=lambda: defaultdict(float))
    bytes_moved: defaultdict[_Key, float] = field(default_factory=lambda: defaultdict(float))


def profile_exported(call: ModuleCall, budget_s: float) -> Measured:
    """Measure the layers of an exported program: one row for each PyTorch layer, and for each function outside of them.

    Args:
        call: the `GraphModule` of the exported program with its inputs.
        budget_s: how long to repeat forward passes, whole and node by node in turn.
    """
    call()
    with flop_counter() as counter:
        counted = _run_nodes(call, lambda: float(counter.get_total_flops()), weigh=True)
        total = float(counter.get_total_flops())
    passes: list[dict[_Key, float]] = []

    def attached() -> None:
        spent = _run_nodes(call, time.perf_counter_ns).spent
        passes.append({layer: nanoseconds / 1e6 for layer, nanoseconds in spent.items()})

    forward_ms = alternate(call, attached, budget_s)
    layers = (
        Layer(path, operator, ms, counted.spent[path, operator], counted.bytes_moved[path, operator])
        for (path, operator), ms in typical_ms(passes).items()
    )
    worth_a_row = (layer for layer in layers if layer.flops or kind_of(layer.operator) != "other")
    return Measured(tuple(worth_a_row), forward_ms, total)


def profile_torchscript(call: ModuleCall, budget_s: float) -> Measured:
    """Measure a TorchScript module by operator; a row's path is the operator's name.

    FLOPs and bytes are known for kinds of operators, and shared out within a kind by time.

    Args:
        call: the TorchScript module with its inputs.
        budget_s: how long to repeat forward passes without the profiler.
    """
    from torch.profiler import ProfilerActivity, profile

    forward_ms = alternate(call, lambda: None, budget_s)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(MIN_PASSES):
            call()
    ms: defaultdict[str, float] = defaultdict(float)
    for event in profiler.events() or ():
        if _is_outermost_operator(event):
            ms[event.name] += event.cpu_time_total / 1e3 / MIN_PASSES

    by_kind: defaultdict[str, float] = defaultdict(float)
    for name, time_ms in ms.items():
        by_kind[kind_of(name)] += time_ms
    flops, traffic, total = _count_by_kind(call)
    layers = []
    for name, time_ms in ms.items():
        kind = kind_of(name)
        share = time_ms / by_kind[kind] if by_kind[kind] > 0 else 0.0
        layers.append(Layer(name, name, time_ms, flops[kind] * share, traffic[kind] * share))
    return Measured(tuple(layers), forward_ms, total)


def _run_nodes(call: ModuleCall, meter: Callable[[], float], *, weigh: bool = False) -> _Pass:
    """Run an exported program node by node.

    Args:
        call: the `GraphModule` with its inputs.
        meter: read before and after each node; what it moved is put down to the node's layer.
        weigh: whether to add up tensors too.
    """
    import torch
    from torch.fx import Interpreter

    graph = call.module.graph
    layers = {node: _layer_of(node) for node in graph.nodes if node.op == "call_function"}
    result = _Pass()

    class Metered(Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            layer = layers.get(n)
            if layer is None:
                return super().run_node(n)
            arguments, keywords = self.fetch_args_kwargs_from_env(n)
            before = meter()
            output = self.call_function(n.target, arguments, keywords)
            result.spent[layer] += meter() - before
            if weigh and not _is_view(n):
                parameters = [self.env[source] for source in n.all_input_nodes if source.op == "get_attr"]
                inputs = [self.env[source] for source in n.all_input_nodes if source.op != "get_attr"]
                result.bytes_moved[layer] += bytes_moved(layer[1], parameters, inputs, output)
            return output

    placeholders = [str(node.target) for node in graph.nodes if node.op == "placeholder"]
    by_name = [call.keywords[name] for name in placeholders[len(call.positional) :]]
    with torch.inference_mode():
        Metered(call.module).run(*call.positional, *by_name, enable_io_processing=False)
    return result


def _layer_of(node: torch.fx.Node) -> _Key:
    """Return the PyTorch layer that a call came from, else the module of the user's with the function's name."""
    operator = str(getattr(node.target, "_opname", getattr(node.target, "__name__", node.target)))
    stack = [(str(path), str(kind)) for path, kind in (node.meta.get("nn_module_stack") or {}).values()]
    path, kind = stack[-1] if stack else ("", "")
    if kind.startswith("torch.nn.modules."):
        return path or kind.rpartition(".")[2], kind.rpartition(".")[2]
    return f"{path}.{operator}".lstrip("."), operator


def _is_view(node: torch.fx.Node) -> bool:
    """Whether a call only describes its input anew, or is no operator at all, so that no tensor is read or written."""
    from torch._ops import OpOverload

    return not isinstance(node.target, OpOverload) or node.target.is_view


def _is_outermost_operator(event: Any) -> bool:
    """Whether a profiler's event is an operator (`aten::linear`) that no other operator called."""
    above = event.cpu_parent
    while above is not None:
        if "::" in above.name:
            return False
        above = above.cpu_parent
    return "::" in event.name


def _count_by_kind(call: ModuleCall) -> tuple[dict[str, float], dict[str, float], float]:
    """Return FLOPs and bytes of one pass by kind of operator, and the pass's FLOPs."""
    from torch.utils._python_dispatch import TorchDispatchMode

    flops: defaultdict[str, float] = defaultdict(float)
    traffic: defaultdict[str, float] = defaultdict(float)

    with flop_counter() as counter:

        class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
            """Sees an operator before the counter takes it apart, so that an LSTM's products are the LSTM's."""

            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                operator = func._opname  # noqa: SLF001
                before = counter.get_total_flops()
                output = func(*args, **(kwargs or {}))
                flops[kind_of(operator)] += counter.get_total_flops() - before
                if not func.is_view:
                    traffic[kind_of(operator)] += bytes_moved(operator, (), (args, kwargs), output)
                return output

        with Operators():  # type: ignore[no-untyped-call]
            call()
        total = float(counter.get_total_flops())
    return flops, traffic, total
