"""OpenVINO on the CPU, compiled for the batch size in use, inputs bound once."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tools.artifacts import model_file
from tools.contracts import ArtifactRef, Availability, Hardware, ModelFormat, Precision, Recipe
from tools.runtimes.base import Arrays, Runner


class OpenVino:
    """Runs an OpenVINO model.

    OpenVINO picks BF16 by itself where the CPU has it; here the recipe's precision decides. A dynamic batch can cost
    it half its speed, so the model is reshaped to the example before it is compiled.
    """

    name: ClassVar[str] = "openvino"
    formats: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.OPENVINO})
    needs_torch: ClassVar[bool] = False
    compiles_per_batch: ClassVar[bool] = False

    @classmethod
    def availability(cls, hardware: Hardware) -> Availability:  # noqa: ARG003
        """Available wherever the package is installed."""
        from tools.runtimes import library

        return library(cls.name, "openvino", "openvino")

    def load(
        self,
        artifact: ArtifactRef,
        recipe: Recipe,
        *,
        batch_size: int,  # noqa: ARG002
        threads: int,
        example: Arrays,
    ) -> Runner:
        """Reshape to the example, compile for latency, and bind the inputs."""
        import openvino as ov

        core = ov.Core()
        model = core.read_model(str(model_file(artifact)))
        if artifact.fixed_batch is None:
            model.reshape({name: ov.PartialShape(list(array.shape)) for name, array in example.items()})
        hint = {Precision.BF16: "bf16", Precision.FP16: "f16"}.get(recipe.precision, "f32")
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": 1,
                "INFERENCE_NUM_THREADS": threads,
                "INFERENCE_PRECISION_HINT": hint,
            },
        )
        request = compiled.create_infer_request()
        bound = {}
        for port in compiled.inputs:
            name = next(n for n in port.get_names() if n in example)
            bound[name] = ov.Tensor(np.ascontiguousarray(example[name]))
            request.set_tensor(port, bound[name])
        buffers = {name: tensor.data for name, tensor in bound.items()}
        outputs = range(len(compiled.outputs))

        def run(inputs: Arrays) -> tuple[np.ndarray, ...]:
            for name, buffer in buffers.items():
                np.copyto(buffer, inputs[name])
            request.infer()
            return tuple(np.array(request.get_output_tensor(i).data) for i in outputs)

        return run
