"""Where the time of an ONNX model goes in ONNX Runtime, node by node as its optimizer left them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from tools.artifacts import model_file
from tools.contracts import ArtifactRef
from tools.measure.flops_onnx import node_flops
from tools.measure.layers import Layer, Measured, alternate, kind_of, typical_ms
from tools.runtimes.onnxruntime import session_options

_KERNEL_SUFFIX = "_kernel_time"


_Key = tuple[str, str]
"""Name of a node, which ONNX does not force to be unique, and its index in the optimized graph."""


@dataclass
class _Node:
    """What one node did in one run; a node in a loop's body does it several times."""

    operator: str
    ms: float = 0.0
    flops: float = 0.0
    bytes_moved: float = 0.0


def profile_onnx(
    artifact: ArtifactRef, inputs: Mapping[str, npt.NDArray[Any]], *, threads: int, budget_s: float, trace: Path
) -> Measured:
    """Measure the nodes of an ONNX model on the CPU, after ONNX Runtime's default optimizations.

    Weights that are repacked for a kernel vanish from the profile's shapes, so FLOPs and bytes come from one run of a
    session that repacks nothing. Where channels are padded to the vector width, the padding is computed and counted.

    Args:
        artifact: an ONNX model.
        inputs: one batch, by name.
        threads: CPU threads that it may use.
        budget_s: how long to repeat runs, without and with profiling in turn.
        trace: where the profile is left; it is in Chrome's trace format.
    """
    session = create_session(artifact, threads)
    feed = dict(inputs)
    with tempfile.TemporaryDirectory() as folder:
        unpacked = create_session(artifact, threads, profile=Path(folder) / "unpacked", repack=False)
        unpacked.run(None, feed)
        counted = _runs(json.loads(Path(unpacked.end_profiling()).read_text()))[0]
        del unpacked
        profiled = create_session(artifact, threads, profile=Path(folder) / "profiled")
        profiled.run(None, feed)  # the first run allocates
        forward_ms = alternate(lambda: session.run(None, feed), lambda: profiled.run(None, feed), budget_s)
        written = Path(profiled.end_profiling())
        runs = _runs(json.loads(written.read_text()))[1:]
        trace.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(written, trace)

    operators = {key: node.operator for run in runs for key, node in run.items()}
    nothing = _Node("")
    layers = tuple(
        Layer(
            path=key[0],
            operator=operators[key],
            ms=ms,
            flops=counted.get(key, nothing).flops,
            bytes_moved=counted.get(key, nothing).bytes_moved,
        )
        for key, ms in typical_ms([{key: node.ms for key, node in run.items()} for run in runs]).items()
    )
    return Measured(layers, forward_ms, sum(node.flops for node in counted.values()))


def create_session(artifact: ArtifactRef, threads: int, *, profile: Path | None = None, repack: bool = True) -> Any:
    """Create an ONNX Runtime session on the CPU.

    Args:
        artifact: an ONNX model.
        threads: CPU threads that it may use.
        profile: prefix of a profile to write.
        repack: whether kernels may bring weights into a layout of their own.
    """
    import onnxruntime as ort

    options = session_options(threads)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    if not repack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    return ort.InferenceSession(str(model_file(artifact)), options, providers=["CPUExecutionProvider"])


def _runs(events: list[dict[str, Any]]) -> list[dict[_Key, _Node]]:
    """Return what each node did in each run of a profile; a run's nodes precede its `model_run`."""
    runs: list[dict[_Key, _Node]] = []
    current: dict[_Key, _Node] = {}
    for event in events:
        if event.get("name") == "model_run":
            runs.append(current)
            current = {}
        elif event.get("cat") == "Node" and event["name"].endswith(_KERNEL_SUFFIX):
            details = event["args"]
            operator = str(details["op_name"])
            name = event["name"].removesuffix(_KERNEL_SUFFIX)
            node = current.setdefault((name, str(details["node_index"])), _Node(operator))
            node.ms += float(event["dur"]) / 1e3
            node.flops += node_flops(
                operator, _shapes(details["input_type_shape"]), _shapes(details["output_type_shape"])
            )
            node.bytes_moved += _bytes_moved(operator, details)
    return runs


def _bytes_moved(operator: str, details: dict[str, Any]) -> float:
    """Return the bytes of inputs, outputs and parameters; of a table no more than the rows that are looked up."""
    inputs, parameters, outputs = (float(details[f"{name}_size"]) for name in ("activation", "parameter", "output"))
    return inputs + outputs + (min(parameters, outputs) if kind_of(operator) == "embedding" else parameters)


def _shapes(described: list[dict[str, list[int]]]) -> list[list[int]]:
    """Return the shapes of `[{"float": [1, 8]}, {"int64": [2]}]`."""
    return [next(iter(entry.values()), []) for entry in described]
