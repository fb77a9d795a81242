"""Layers of an OpenVINO model, quantized by NNCF and taken back to float one by one.

NNCF's accuracy control has the pieces for this: which quantizers belong together, and how to remove them with the
original weights and biases restored. Its loop, which reverts one layer after another by accuracy alone, is not used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tools.contracts import ArtifactRef, Precision
from tools.errors import TransformError
from tools.transforms.convert_openvino import save_openvino
from tools.transforms.sensitivity.batching import JUDGING_BATCH, Call, first, median_ms, rounds, run_all
from tools.transforms.sensitivity.choice import clear_difference_ms
from tools.transforms.sensitivity.judge import Array, Outputs

_CONVERTED_BIAS = "/WithoutBiases"
"""What OpenVINO appends to the name of a convolution whose bias it splits off."""


class OpenVinoLayers:
    """A model that was calibrated once. A layer is an operator, with others that share its quantizers.

    Raises:
        TransformError: there is nothing in it that NNCF quantizes.
    """

    def __init__(
        self, model: Any, batches: Sequence[Mapping[str, Array]], options: Mapping[str, Any], fixed_batch: int | None
    ) -> None:
        """Calibrate.

        Args:
            model: the float model, `openvino.Model`.
            batches: calibration items, by input name.
            options: further arguments of `nncf.quantize`.
            fixed_batch: the only batch size that the model takes.
        """
        import nncf
        from nncf.common.factory import build_graph
        from nncf.quantization.algorithms.accuracy_control.algorithm import QuantizationAccuracyRestorer
        from nncf.quantization.algorithms.accuracy_control.openvino_backend import OVAccuracyControlAlgoBackend
        from nncf.quantization.algorithms.accuracy_control.ranker import Ranker

        self._float = model
        self._fixed_batch = fixed_batch
        # The weights stay floats that are quantized on the fly, so that they can be had back.
        advanced = nncf.AdvancedQuantizationParameters(backend_params={"compress_weights": False})
        self._quantized = nncf.quantize(
            model, nncf.Dataset(list(batches)), subset_size=len(batches), advanced_parameters=advanced, **options
        )
        self._graph = build_graph(self._quantized)
        self._backend = OVAccuracyControlAlgoBackend()
        QuantizationAccuracyRestorer._collect_original_biases_and_weights(  # noqa: SLF001  there is no public way
            build_graph(model), self._graph, model, self._backend
        )
        ranker = Ranker(1, nncf.Dataset([]), self._backend, None)
        found = ranker.find_groups_of_quantizers_to_rank(self._graph)[::-1]  # it goes from the outputs to the inputs
        if not found:
            raise TransformError("it has no operator that NNCF can quantize.")
        self._groups = {_name(group): group for group in found}

    @property
    def layers(self) -> tuple[str, ...]:
        """Names, roughly in the order of execution."""
        return tuple(self._groups)

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
        loaded = [_compiled(model, batch, profile=True) for model in (self._float, self._variant(frozenset()))]
        times: list[dict[str, list[float]]] = [defaultdict(list) for _ in loaded]
        owners = [_owners(compiled, self._groups) for compiled in loaded]
        requests = [compiled.create_infer_request() for compiled in loaded]
        for request in requests:
            request.infer(batch)  # the first run allocates
        for _ in rounds():
            for request, owner, found in zip(requests, owners, times, strict=True):
                request.infer(batch)
                run: dict[str, float] = dict.fromkeys(self._groups, 0.0)
                for node in request.profiling_info:
                    for layer in owner.get(node.node_name, ()):
                        run[layer] += node.real_time.total_seconds() * 1e3 / len(owner[node.node_name]) / size
                for layer, ms in run.items():
                    found[layer].append(ms)
        return {layer: clear_difference_ms(times[0][layer], times[1][layer]) for layer in self._groups}

    def time_ms(self, variants: tuple[frozenset[str], ...], inputs: Mapping[str, Array]) -> tuple[float, ...]:
        """Time variants in turn, at the smallest batch that the model takes."""
        batch = first(inputs, self._fixed_batch or 1)
        return median_ms([_call(_compiled(self._variant(variant), batch)) for variant in variants], batch)

    def write(self, in_float: frozenset[str], root: Path) -> ArtifactRef:
        """Write the model with integer weights, but for these layers."""
        from nncf.openvino.quantization.quantize_model import compress_quantize_weights_transformation

        model = self._variant(in_float)
        compress_quantize_weights_transformation(model)
        precision = Precision.INT8_MIXED if in_float else Precision.INT8_STATIC
        return save_openvino(model, root, precision, self._fixed_batch)

    def _variant(self, in_float: frozenset[str]) -> Any:
        from nncf.common.quantization.quantizer_removal import revert_operations_to_floating_point_precision
        from nncf.quantization.advanced_parameters import RestoreMode

        groups = [self._groups[layer] for layer in self._groups if layer in in_float]
        # by name: two groups may share an operator
        operations = {node.node_name: node for group in groups for node in group.operations}
        quantizers = {node.node_name: node for group in groups for node in group.quantizers}
        return revert_operations_to_floating_point_precision(
            list(operations.values()),
            list(quantizers.values()),
            self._quantized,
            self._graph,
            RestoreMode.ACTIVATIONS_AND_WEIGHTS,
            self._backend.get_op_with_weights_metatypes(),
            self._backend.is_node_with_weight,
            self._backend.get_weight_tensor_port_ids,
        )

    def _run_all(self, model: Any, inputs: Mapping[str, Array]) -> Outputs:
        size = self._fixed_batch or min(JUDGING_BATCH, len(next(iter(inputs.values()))))
        return run_all(_call(_compiled(model, first(inputs, size))), inputs, size)


def _compiled(model: Any, batch: Mapping[str, Array], *, profile: bool = False) -> Any:
    """Compile for the shapes of a batch as the runtime does: what is not quantized is computed in FP32."""
    import openvino as ov

    shaped = model.clone()
    shaped.reshape({name: ov.PartialShape(list(array.shape)) for name, array in batch.items()})
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": profile}
    return ov.Core().compile_model(shaped, "CPU", options)


def _call(compiled: Any) -> Call:
    request = compiled.create_infer_request()

    def call(inputs: Mapping[str, Array]) -> Outputs:
        request.infer(dict(inputs))
        return tuple(np.array(request.get_output_tensor(i).data) for i in range(len(compiled.outputs)))

    return call


def _owners(compiled: Any, groups: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the layers that each executed node computes: OpenVINO fuses operators, and tells which."""
    layer_of = {node.node_name: layer for layer, group in groups.items() for node in group.operations}
    owners = {}
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        names = str(info["originalLayersNames"].astype(str)).split(",") if "originalLayersNames" in info else []
        owners[node.get_friendly_name()] = sorted({layer_of[name] for name in names if name in layer_of})
    return owners


def _name(group: Any) -> str:
    """Return the name of a group's first operator with weights, or its first one, or else its quantizer's."""
    nodes = sorted(group.operations, key=lambda node: node.node_id) or group.quantizers
    chosen = next((node for node in nodes if node.layer_attributes is not None), nodes[0])
    return str(chosen.node_name).removesuffix(_CONVERTED_BIAS)
