"""Layers of an ONNX model, quantized by ONNX Runtime with ranges that are calibrated once."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tools.artifacts import model_file_name, write_artifact
from tools.contracts import ArtifactRef, ModelFormat, Precision
from tools.errors import TransformError
from tools.runtimes.onnxruntime import session_options
from tools.transforms.quantize_static import quantize_calibrated
from tools.transforms.sensitivity.batching import JUDGING_BATCH, Call, first, median_ms, rounds, run_all
from tools.transforms.sensitivity.choice import clear_difference_ms
from tools.transforms.sensitivity.judge import Array, Outputs

_PASSING = {
    "Flatten",
    "Gather",
    "MaxPool",
    "Pad",
    "Reshape",
    "Relu",
    "Clip",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}
"""Operators that only pass on what others quantized."""
_JOINING = {"Add", "Clip", "Relu", "Sigmoid", "LeakyRelu", "Tanh", "HardSigmoid"}
"""Operators that ONNX Runtime computes with the convolution before them."""
_KERNEL = re.compile(r"(.*?)(_nchwc|_nhwc|_token_\d+|_fused)*_kernel_time")
"""Name of a timed kernel: that of its node, or of the tensor that it makes, and what the optimizer did to it."""


class OnnxLayers:
    """A model that was calibrated once. A layer is an operator whose inputs are quantized.

    Raises:
        TransformError: there is nothing in it that ONNX Runtime quantizes.
    """

    def __init__(
        self,
        prepared: Path,
        batches: list[dict[str, Array]],
        options: Mapping[str, Any],
        fixed_batch: int | None,
        scratch: Path,
    ) -> None:
        """Calibrate.

        Args:
            prepared: the float model, with shapes; its operators get names if they have none.
            batches: calibration items, by input name.
            options: further arguments of `onnxruntime.quantization.quantize_static`.
            fixed_batch: the only batch size that the model takes.
            scratch: an empty folder.
        """
        self._float = prepared
        self._batches = batches
        self._options = options
        self._fixed_batch = fixed_batch
        self._ranges = scratch / "ranges.json"
        self._variant_file = scratch / "variant.onnx"
        self._scratch = scratch
        _name_nodes(prepared)
        self._layers: tuple[str, ...] = ()
        self._layers = tuple(_quantized_nodes(self._variant(frozenset())))
        self._owners = _owners(prepared, self._layers)
        if not self._layers:
            raise TransformError("it has no operator that ONNX Runtime can quantize.")

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the nodes, in order of execution."""
        return self._layers

    def run_float(self, inputs: Mapping[str, Array]) -> Outputs:
        """Run the model as it was."""
        return self._run_all(self._float, inputs)

    def run(self, in_float: frozenset[str], inputs: Mapping[str, Array]) -> Outputs:
        """Run it with these layers in float."""
        return self._run_all(self._variant(in_float), inputs)

    def float_ms(self, inputs: Mapping[str, Array]) -> dict[str, float]:
        """Profile the float and the INT8 model in turn, one item at a time if the model allows."""
        size = self._fixed_batch or 1
        batch = first(inputs, size)
        sessions = []
        for index, file in enumerate((self._float, self._variant(frozenset()))):
            sessions.append(_session(file, profile=self._scratch / f"profile{index}"))
            sessions[-1].run(None, batch)  # the first run allocates
        for _ in rounds():
            for session in sessions:
                session.run(None, batch)
        slow, fast = (self._times_ms(Path(session.end_profiling())) for session in sessions)
        return {layer: clear_difference_ms(slow[layer], fast[layer]) / size for layer in self._layers}

    def time_ms(self, variants: tuple[frozenset[str], ...], inputs: Mapping[str, Array]) -> tuple[float, ...]:
        """Time variants in turn, at the smallest batch that the model takes."""
        batch = first(inputs, self._fixed_batch or 1)
        return median_ms([_call(_session(self._variant(variant))) for variant in variants], batch)

    def write(self, in_float: frozenset[str], root: Path) -> ArtifactRef:
        """Write the model with these layers in float."""
        return write_artifact(
            root,
            ModelFormat.ONNX,
            Precision.INT8_MIXED if in_float else Precision.INT8_STATIC,
            lambda folder: self._quantize(in_float, folder / model_file_name(ModelFormat.ONNX)),
            fixed_batch=self._fixed_batch,
        )

    def _times_ms(self, profile: Path) -> dict[str, list[float]]:
        """Return each layer's time in each run but the first; a kernel that computes several is shared out."""
        runs, current = [], dict.fromkeys(self._layers, 0.0)
        for event in json.loads(profile.read_text()):
            kernel = _KERNEL.fullmatch(event.get("name", ""))
            if event.get("name") == "model_run":
                runs.append(current)
                current = dict.fromkeys(self._layers, 0.0)
            elif kernel is not None and event.get("cat") == "Node":
                owners = self._owners[kernel[1]]
                for layer in owners:
                    current[layer] += event["dur"] / 1e3 / len(owners)
        return {layer: [run[layer] for run in runs[1:]] for layer in self._layers}

    def _variant(self, in_float: frozenset[str]) -> Path:
        self._quantize(in_float, self._variant_file)
        return self._variant_file

    def _quantize(self, in_float: frozenset[str], target: Path) -> None:
        quantize_calibrated(
            self._float,
            target,
            self._batches,
            self._options,
            nodes_to_exclude=[layer for layer in self._layers if layer in in_float],
            calibration_cache_path=self._ranges,
        )

    def _run_all(self, file: Path, inputs: Mapping[str, Array]) -> Outputs:
        size = self._fixed_batch or min(JUDGING_BATCH, len(next(iter(inputs.values()))))
        return run_all(_call(_session(file)), inputs, size)


def _session(file: Path, *, profile: Path | None = None) -> Any:
    import onnxruntime as ort

    options = session_options(len(os.sched_getaffinity(0)))
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _call(session: Any) -> Call:
    return lambda inputs: tuple(session.run(None, dict(inputs)))


def _name_nodes(file: Path) -> None:
    """Give a name to each node that has none, or one that another has too."""
    import onnx

    model = onnx.load(str(file))
    seen: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
        seen.add(node.name)
    onnx.save(model, str(file))


def _quantized_nodes(file: Path) -> Iterable[str]:
    import onnx

    graph = onnx.load(str(file)).graph
    dequantized = {output for node in graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    for node in graph.node:
        if node.op_type not in {*_PASSING, "QuantizeLinear", "DequantizeLinear"} and dequantized & set(node.input):
            yield node.name


def _owners(file: Path, layers: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the layers that a kernel of some name computes.

    A kernel is called as one of its operators, or as the tensor that the last of them makes: an activation or a sum
    that is the only reader of a convolution is computed with it.
    """
    import onnx

    graph = onnx.load(str(file)).graph
    readers: dict[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    owners: dict[str, list[str]] = defaultdict(list)
    for node in graph.node:
        if node.name not in layers:
            continue
        owners[node.name].append(node.name)
        last = node
        owners[last.output[0]].append(node.name)
        while len(readers[last.output[0]]) == 1 and readers[last.output[0]][0].op_type in _JOINING:
            last = readers[last.output[0]][0]
            owners[last.output[0]].append(node.name)
    return owners
