"""Let a model take 8-bit pixels: the normalization that the items went through becomes the first part of its graph.

A request is then a quarter of the size, and nobody normalizes outside. The arithmetic is that of the preprocessing, so
that answers stay the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tools.artifacts import model_file, model_file_name, write_artifact
from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, Normalization, WorkloadInfo, digest_of
from tools.errors import TransformError
from tools.transforms.base import Stage
from tools.workloads.pixels import factors

NOTE = "The model takes 8-bit pixels: leave the normalization out of what prepares a request."


def folding_settings(normalization: Normalization) -> dict[str, JsonScalar]:
    """Return the settings of the step: which normalization, so that another one is another recipe."""
    return {"normalization": digest_of(normalization.model_dump(mode="json"))}


class FoldNormalization:
    """For OpenVINO: a conversion, a subtraction and a multiplication before the input."""

    name: ClassVar[str] = "fold-normalization"
    stage: ClassVar[Stage] = Stage.FOLD
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.OPENVINO})
    produces: ClassVar[ModelFormat] = ModelFormat.OPENVINO
    needs_calibration: ClassVar[bool] = False
    needs_training: ClassVar[bool] = False

    def apply(
        self, artifact: ArtifactRef, workload: WorkloadInfo, settings: Mapping[str, JsonScalar], root: Path
    ) -> BuildResult:
        """Put conversion, subtraction and multiplication before the input.

        Raises:
            TransformError: the workload does not say how its items were normalized, or the model takes no floats.
        """
        import openvino as ov
        from openvino import opset13 as ops

        from tools.transforms.convert_openvino import save_openvino

        normalization = _normalization(artifact, workload, settings)
        model = ov.Core().read_model(str(model_file(artifact)))
        port = next((p for p in model.inputs if normalization.input in p.get_names()), None)
        if port is None or not port.get_element_type().is_real():
            raise TransformError(f"its input `{normalization.input}` takes no floats.")
        floats, consumers = port.get_element_type(), list(port.get_target_inputs())
        shape = port.get_partial_shape()
        subtract, multiply = factors(normalization, shape.rank.get_length())
        pixels = ops.parameter(shape, ov.Type.u8)
        pixels.set_friendly_name(port.get_node().get_friendly_name())
        converted = ops.convert(pixels, ov.Type.f32)
        normalized = ops.multiply(ops.subtract(converted, ops.constant(subtract)), ops.constant(multiply))
        source = normalized if floats == ov.Type.f32 else ops.convert(normalized, floats)
        for consumer in consumers:
            consumer.replace_source_output(source.output(0))
        parameters = [
            pixels if p.get_friendly_name() == pixels.get_friendly_name() else p for p in model.get_parameters()
        ]
        folded = ov.Model(model.get_results(), parameters, model.get_friendly_name())
        pixels.output(0).set_names({normalization.input})
        made = save_openvino(folded, root, artifact.precision, artifact.fixed_batch)
        return _result(artifact, made, normalization)


class FoldNormalizationOnnx:
    """For ONNX: three nodes before the input."""

    name: ClassVar[str] = "fold-normalization-onnx"
    stage: ClassVar[Stage] = Stage.FOLD
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.ONNX})
    produces: ClassVar[ModelFormat] = ModelFormat.ONNX
    needs_calibration: ClassVar[bool] = False
    needs_training: ClassVar[bool] = False

    def apply(
        self, artifact: ArtifactRef, workload: WorkloadInfo, settings: Mapping[str, JsonScalar], root: Path
    ) -> BuildResult:
        """Put `Cast`, `Sub` and `Mul` before the input.

        Raises:
            TransformError: the workload does not say how its items were normalized, or the model takes no floats.
        """
        import onnx

        normalization = _normalization(artifact, workload, settings)
        model = onnx.load(str(model_file(artifact)))
        _fold_onnx(model.graph, normalization)
        made = write_artifact(
            root,
            ModelFormat.ONNX,
            artifact.precision,
            lambda folder: onnx.save(model, str(folder / model_file_name(ModelFormat.ONNX))),
            fixed_batch=artifact.fixed_batch,
        )
        return _result(artifact, made, normalization)


def _fold_onnx(graph: Any, normalization: Normalization) -> None:
    """Change a graph in place: its input becomes uint8, and what read it reads the normalized values."""
    from onnx import TensorProto, helper, numpy_helper

    name = normalization.input
    entry = next((i for i in graph.input if i.name == name), None)
    floats = None if entry is None else entry.type.tensor_type.elem_type
    if entry is None or floats not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16):
        raise TransformError(f"its input `{name}` takes no floats.")
    inside = f"{name}_normalized"
    taken = {output for node in graph.node for output in node.output}
    while inside in taken:
        inside += "_"
    for node in graph.node:
        for place, given in enumerate(node.input):
            if given == name:
                node.input[place] = inside
    entry.type.tensor_type.elem_type = TensorProto.UINT8
    subtract, multiply = factors(normalization, len(entry.type.tensor_type.shape.dim))
    constants = {f"{inside}_mean": subtract, f"{inside}_scale": multiply}
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    nodes = [
        helper.make_node("Cast", [name], [f"{inside}_pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", [f"{inside}_pixels", f"{inside}_mean"], [f"{inside}_centred"]),
        helper.make_node("Mul", [f"{inside}_centred", f"{inside}_scale"], [f"{inside}_float"]),
        helper.make_node("Cast", [f"{inside}_float"], [inside], to=floats),
    ]
    if floats == TensorProto.FLOAT:  # the last cast would change nothing
        del nodes[-1]
        nodes[-1].output[0] = inside
    for place, node in enumerate(nodes):
        graph.node.insert(place, node)


def _normalization(artifact: ArtifactRef, workload: WorkloadInfo, settings: Mapping[str, JsonScalar]) -> Normalization:
    found = workload.normalization
    if found is None or folding_settings(found) != dict(settings):
        raise TransformError(
            "the workload does not say that its items were normalized so.", fix="Give `workload.normalization`."
        )
    if artifact.pixels is not None:
        raise TransformError("the model takes pixels already.")
    return found


def _result(artifact: ArtifactRef, made: ArtifactRef, normalization: Normalization) -> BuildResult:
    made = made.model_copy(update={"pixels": normalization, "fixed_length": artifact.fixed_length})
    return BuildResult(artifact=made, notes=(NOTE,))
