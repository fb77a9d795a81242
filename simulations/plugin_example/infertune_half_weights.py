"""An infertune plugin: ONNX weights in 16 bits on disk, in 32 bits at work."""
# ruff: noqa: INP001  a distribution of its own, with this one module

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tools.artifacts import model_file, model_file_name, write_artifact
from tools.contracts import ArtifactRef, BuildResult, Hardware, JsonScalar, ModelFormat, Recipe, Step, WorkloadInfo
from tools.errors import TransformError
from tools.transforms import Stage

if TYPE_CHECKING:
    import onnx

FEWEST_ELEMENTS = 1024
"""A smaller tensor would save less than the node that widens it costs."""
_LARGEST = {"fp16": 65504.0, "bf16": 3.3895e38}
"""What fits into the type; bfloat16 has float32's range, and three bits of precision less than float16."""


class HalfWeights:
    """Keeps large float weights in 16 bits and has the runtime widen them: it folds that when it loads the model.

    Setting `weights`: `fp16` (default) or `bf16`, for weights that are beyond float16's range.
    """

    name: ClassVar[str] = "half-weights"
    stage: ClassVar[Stage] = Stage.CONVERT
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.ONNX})
    produces: ClassVar[ModelFormat] = ModelFormat.ONNX
    needs_calibration: ClassVar[bool] = False
    needs_training: ClassVar[bool] = False

    def propose(self, workload: WorkloadInfo, hardware: Hardware) -> Sequence[Recipe]:  # noqa: ARG002
        """Return the recipe for ONNX Runtime with the smallest float artifact, where the model can be exported."""
        steps = {
            ModelFormat.TORCH: (Step(transform="export-onnx"),),
            ModelFormat.PT2: (Step(transform="export-onnx"),),
            ModelFormat.ONNX: (),
        }.get(workload.source.format)
        if steps is None:
            return ()
        half = Step(transform=self.name, settings={"weights": "fp16"})
        return (Recipe(runtime="onnxruntime", steps=(*steps, half)),)

    def apply(
        self,
        artifact: ArtifactRef,
        workload: WorkloadInfo,  # noqa: ARG002
        settings: Mapping[str, JsonScalar],
        root: Path,
    ) -> BuildResult:
        """Narrow every float32 weight of `FEWEST_ELEMENTS` or more.

        Raises:
            TransformError: the setting is unknown, a weight is out of range, or there is nothing to narrow.
        """
        import onnx

        weights = str(settings.get("weights", "fp16"))
        if weights not in _LARGEST:
            raise TransformError(f"half-weights knows no weights {weights!r}.", fix=f"Known: {', '.join(_LARGEST)}.")
        model = onnx.load(str(model_file(artifact)))
        narrowed = _narrow(model.graph, weights)
        if not narrowed:
            raise TransformError(f"the model has no float32 weight of {FEWEST_ELEMENTS} elements or more.")
        made = write_artifact(
            root,
            ModelFormat.ONNX,
            artifact.precision,
            lambda folder: onnx.save(model, str(folder / model_file_name(ModelFormat.ONNX))),
            fixed_batch=artifact.fixed_batch,
        )
        return BuildResult(artifact=made, facts={"narrowed_weights": narrowed})


def _narrow(graph: onnx.GraphProto, weights: str) -> int:
    """Replace large initializers by narrow ones and a Cast each, in place. Returns how many elements were narrowed."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    narrow_type = onnx.helper.tensor_dtype_to_np_dtype(
        onnx.TensorProto.FLOAT16 if weights == "fp16" else onnx.TensorProto.BFLOAT16
    )
    casts, narrowed = [], 0
    given = {value.name for value in graph.input}  # before IR version 4, weights are inputs with a default
    for initializer in graph.initializer:
        if initializer.data_type != onnx.TensorProto.FLOAT or initializer.name in given:
            continue
        values = numpy_helper.to_array(initializer)
        if values.size < FEWEST_ELEMENTS:
            continue
        if float(np.abs(values).max()) > _LARGEST[weights]:
            raise TransformError(
                f"the weight {initializer.name} is beyond the range of {weights}.",
                fix="Use weights=bf16." if weights == "fp16" else None,
            )
        name, narrow_name = initializer.name, f"{initializer.name}_{weights}"
        initializer.CopyFrom(numpy_helper.from_array(values.astype(narrow_type), narrow_name))
        casts.append(onnx.helper.make_node("Cast", [narrow_name], [name], to=onnx.TensorProto.FLOAT))
        narrowed += values.size
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return narrowed
