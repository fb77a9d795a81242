"""Profiling the baseline: where the time of one forward pass, and of one request, goes. A worker's task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tools.contracts import EndToEnd, Hardware, ModelFormat, ProfileResult, Roofline, WorkloadInfo
from tools.measure.end_to_end import Stages, end_to_end
from tools.measure.layers import Measured, layer_profiles, operator_shares
from tools.measure.noise import NoiseMeter
from tools.measure.profile_bottleneck import bottleneck
from tools.measure.roofline import noted, roofline
from tools.worker import stage

LAYERS_BUDGET_S = 1.0
"""How long forward passes are repeated for, half of the time with nothing attached."""
TRACED_PASSES = 3


def profile_workload(
    workload: dict[str, Any],
    hardware: dict[str, Any],
    trace_path: str,
    threads: int,
    *,
    tolerate_noise: bool = False,
) -> dict[str, Any]:
    """Profile the model as it was given, on the CPU, one item at a time.

    Args:
        workload: a `WorkloadInfo`, as JSON.
        hardware: a `Hardware`, as JSON.
        trace_path: where to write a trace that chrome://tracing and Perfetto read.
        threads: CPU threads to use.
        tolerate_noise: do not wait for a quiet machine.

    Returns:
        A `ProfileResult`, as JSON.

    Raises:
        WorkloadError: the model cannot be loaded, or the user's pre- or postprocessing raised.
    """
    info, machine = WorkloadInfo.model_validate(workload), Hardware.model_validate(hardware)
    trace = Path(trace_path)
    trace.parent.mkdir(parents=True, exist_ok=True)
    meter = NoiseMeter(threads, tolerant=tolerate_noise)
    stage("waiting for a quiet machine")
    disturbed = meter.wait_until_quiet()
    stage("measuring the machine's peak")
    peaks = noted(roofline(machine, threads), disturbed)
    if disturbed is None:  # a machine that stayed noisy is not waited for twice: shares of layers hold on it too
        meter.wait_until_quiet()
    if info.source.format is ModelFormat.ONNX:
        measured, request = _profile_onnx(info, trace, threads)
    else:
        measured, request = _profile_torch(info, trace, threads)
    return _result(measured, request, peaks, machine, trace).model_dump(mode="json")


def _result(measured: Measured, request: EndToEnd, peaks: Roofline, machine: Hardware, trace: Path) -> ProfileResult:
    layers = layer_profiles(measured)
    fastest = max((layer.gflops_per_s for layer in layers), default=0.0)
    if fastest > max(peaks.fp32_gflops, peaks.bf16_gflops or 0.0):
        note = f"A layer reached {fastest:.0f} GFLOP/s: the machine was disturbed while its peak was measured."
        peaks = peaks.model_copy(update={"notes": (*peaks.notes, note)})
    return ProfileResult(
        layers=layers,
        forward_ms=measured.forward_ms,
        flops=measured.flops,
        share_of_peak=measured.flops / (measured.forward_ms / 1e3) / (peaks.fp32_gflops * 1e9),
        roofline=peaks,
        end_to_end=request,
        operators=operator_shares(layers),
        bottleneck=bottleneck(layers, peaks, machine),
        chrome_trace=str(trace),
    )


def _profile_onnx(info: WorkloadInfo, trace: Path, threads: int) -> tuple[Measured, EndToEnd]:
    import onnxruntime as ort

    from tools.measure.layers_onnx import create_session, profile_onnx
    from tools.workloads.sequences import served_batch

    inputs = served_batch(info, info.evaluation, info.source.fixed_batch or 1)
    stage("profiling layers")
    measured = profile_onnx(info.source, inputs, threads=threads, budget_s=LAYERS_BUDGET_S, trace=trace)
    stage("timing one request")
    outputs = create_session(info.source, threads).run(None, inputs)
    stages = Stages(
        transfer=lambda: [ort.OrtValue.ortvalue_from_numpy(array) for array in inputs.values()],
        forward_ms=measured.forward_ms,
        read_out=lambda: outputs,
        notes=("ONNX Runtime returns arrays: reading them out is part of the forward pass.",),
    )
    return measured, end_to_end(info, stages)


def _profile_torch(info: WorkloadInfo, trace: Path, threads: int) -> tuple[Measured, EndToEnd]:
    import torch

    from tools.measure.layers_graph import profile_exported, profile_torchscript
    from tools.measure.layers_torch import ModuleCall, profile_modules
    from tools.workloads.modules import call_arguments, flatten_outputs, load_module, to_numpy
    from tools.workloads.sequences import served_batch

    torch.set_num_threads(threads)
    stage("loading the model")
    module = load_module(info.source)
    inputs = served_batch(info, info.evaluation, info.source.fixed_batch or 1)
    call = ModuleCall.of(module, inputs)
    profilers = {ModelFormat.PT2: profile_exported, ModelFormat.TORCHSCRIPT: profile_torchscript}
    stage("profiling layers")
    measured = profilers.get(info.source.format, profile_modules)(call, LAYERS_BUDGET_S)
    stage("writing the trace")
    _write_torch_trace(call, trace)
    stage("timing one request")
    output = call()
    stages = Stages(
        transfer=lambda: call_arguments(module, inputs),
        forward_ms=measured.forward_ms,
        read_out=lambda: [to_numpy(tensor) for tensor in flatten_outputs(output)],
        notes=("On the CPU tensors share their memory with arrays: nothing is copied in either direction.",),
    )
    return measured, end_to_end(info, stages)


def _write_torch_trace(call: Any, trace: Path) -> None:
    """Write what PyTorch's profiler sees of a few forward passes; it prints complaints about missing GPUs to stderr."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(TRACED_PASSES):
            call()
    profiler.export_chrome_trace(str(trace))
