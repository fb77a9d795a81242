"""What this machine really reaches: arithmetic on a large matrix product, memory bandwidth on a large copy.

Williams, Waterman, Patterson: Roofline, an insightful visual performance model, CACM 52(4), 2009. The figures are
what a library gets here and now, with other tenants and in this container, not what a data sheet promises.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tools.contracts import Hardware, Roofline
from tools.hardware import has_bf16_kernels, last_level_cache_bytes

if TYPE_CHECKING:
    import torch

SMALLEST = 256
LARGEST = 4096
"""Sides of the square matrices that are tried."""
LONG_ENOUGH_S = 0.02
"""A product that takes this long is large enough: starting threads, and other tenants' turns, are lost in it."""
BUDGET_S = 0.15
"""How long each figure is measured for; the best repetition counts, since disturbance only ever slows down."""
MIN_REPEATS = 3
MEMORY_SHARE = 0.1
"""At most this share of memory is taken for the copy, both sides together."""
LEAST_COPY_BYTES = 64 * 2**20

Matrix = npt.NDArray[Any]


def noted(peaks: Roofline, disturbed: str | None) -> Roofline:
    """Add a note when the machine did not become quiet before its peaks were measured."""
    if disturbed is None:
        return peaks
    note = f"The machine was not quiet when its peaks were measured: {disturbed}."
    return peaks.model_copy(update={"notes": (*peaks.notes, note)})


def roofline(hardware: Hardware, threads: int) -> Roofline:
    """Measure peak arithmetic in FP32, BF16 and INT8, and memory bandwidth, of the CPU."""
    import torch

    torch.set_num_threads(threads)
    notes = [f"Figures are the CPU's: {name} was not measured." for name in hardware.accelerators]
    with torch.inference_mode():
        bf16 = None
        if has_bf16_kernels(hardware):
            bf16 = _peak(lambda n: _float_product(n, torch.bfloat16))
        else:
            notes.append("BF16 was not measured: this CPU has no instructions for it.")
        fp32 = _peak(lambda n: _float_product(n, torch.float32))
        return Roofline(
            fp32_gflops=fp32,
            bf16_gflops=bf16,
            int8_gops=_int8_peak(threads, fp32, notes),
            memory_gb_per_s=_bandwidth(hardware, notes),
            notes=tuple(notes),
        )


def _float_product(n: int, dtype: torch.dtype) -> Callable[[], object]:
    import torch

    left, right = torch.rand(n, n).to(dtype), torch.rand(n, n).to(dtype)
    output = torch.empty(n, n, dtype=dtype)
    return lambda: torch.mm(left, right, out=output)


def _peak(product: Callable[[int], Callable[[], object]]) -> float:
    """Return the largest GFLOP/s of a square matrix product, which does 2 n^3 operations.

    Args:
        product: given n, returns a function that multiplies two (n, n) matrices.
    """
    best = 0.0
    n = SMALLEST
    while True:
        multiply = product(n)
        multiply()
        seconds = _best_s(multiply, 0.0)
        large = seconds >= LONG_ENOUGH_S or n >= LARGEST
        if large:
            seconds = min(seconds, _best_s(multiply, BUDGET_S))
        best = max(best, 2 * n**3 / seconds / 1e9)
        if large:
            return best
        n *= 2


def _best_s(call: Callable[[], object], budget_s: float) -> float:
    """Return the shortest of the times of `call` that fit into the budget, of at least `MIN_REPEATS`."""
    times: list[float] = []
    deadline = time.perf_counter() + budget_s
    while len(times) < MIN_REPEATS or time.perf_counter() < deadline:
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return max(min(times), 1e-9)


def _int8_peak(threads: int, fp32_gflops: float, notes: list[str]) -> float | None:
    """Return the largest GOP/s of the integer products that compute rightly here.

    PyTorch's is tried first. Where it is slower than FP32 it is a plain loop, and ONNX Runtime's is tried too.
    """
    kernels = {
        "torch._int_mm": _torch_int8,
        "ONNX Runtime's MatMulInteger": lambda left, right: _onnx_int8(left, right, threads),
    }
    random = np.random.default_rng(0)
    best = None
    for name, kernel in kernels.items():
        fault = _int8_fault(kernel, random)
        if fault is not None:
            notes.append(f"INT8 by {name} was not counted: {fault}.")
            continue
        gops = _peak(lambda n, kernel=kernel: kernel(*_int8_matrices(n, random)))  # type: ignore[misc]
        best = gops if best is None else max(best, gops)
        if best > fp32_gflops:
            break
    return best


def _int8_fault(kernel: Callable[[Matrix, Matrix], Callable[[], Any]], random: np.random.Generator) -> str | None:
    """Return why a kernel cannot be used: it is missing here, or saturates where 32 bits would not."""
    left, right = _int8_matrices(64, random)
    try:
        product = np.asarray(kernel(left, right)())
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        return " ".join(str(error).split())[:100] or type(error).__name__
    if not np.array_equal(product, left.astype(np.int32) @ right.astype(np.int32)):
        return "its result differs from 32-bit arithmetic"
    return None


def _int8_matrices(n: int, random: np.random.Generator) -> tuple[Matrix, Matrix]:
    """Return two (n, n) int8 matrices; extreme values are as likely as others, so that saturation shows."""
    left, right = random.integers(-128, 128, (2, n, n), dtype=np.int8)
    return left, right


def _torch_int8(left: Matrix, right: Matrix) -> Callable[[], Any]:
    import torch

    a, b = torch.from_numpy(left), torch.from_numpy(right)
    return lambda: torch._int_mm(a, b)  # noqa: SLF001  the only INT8 product that torch has


def _onnx_int8(left: Matrix, right: Matrix, threads: int) -> Callable[[], Any]:
    import onnx
    import onnxruntime as ort

    n = len(left)
    shape = [n, n]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMulInteger", ["left", "right"], ["product"])],
        "int8",
        [onnx.helper.make_tensor_value_info("left", onnx.TensorProto.INT8, shape)],
        [onnx.helper.make_tensor_value_info("product", onnx.TensorProto.INT32, shape)],
        [onnx.numpy_helper.from_array(right, "right")],  # a weight, which the kernel may bring into its own layout
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"left": left})[0]


def _bandwidth(hardware: Hardware, notes: list[str]) -> float:
    """Return the GB/s, read and written, of a copy between buffers that together exceed the last-level cache twice."""
    import torch

    cache = last_level_cache_bytes()
    cap = int(hardware.memory_mb * 1e6 * MEMORY_SHARE / 2)
    size = min(max(cache, LEAST_COPY_BYTES), cap)
    if size < cache:
        notes.append(
            f"Memory bandwidth was measured on two buffers of {size / 1e6:.0f} MB, to spare memory; "
            f"the cache of {cache / 1e6:.0f} MB may have helped."
        )
    source = torch.ones(size // 4, dtype=torch.float32)
    target = torch.zeros_like(source)
    target.copy_(source)  # the pages exist from here
    return 2 * source.numel() * 4 / _best_s(lambda: target.copy_(source), BUDGET_S) / 1e9
