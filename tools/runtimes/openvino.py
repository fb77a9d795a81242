"""OpenVINO on the CPU, compiled for the batch size in use, inputs bound once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from tools.artifacts import model_file
from tools.contracts import ArtifactRef, Availability, Hardware, ModelFormat, Precision, Recipe
from tools.runtimes.availability import library
from tools.runtimes.base import Arrays, Runner
from tools.runtimes.settings import RuntimeSettings, read_settings
from tools.runtimes.streams import joined, part_sizes, slices_of


class OpenVino:
    """Runs an OpenVINO model.

    OpenVINO picks BF16 by itself where the CPU has it; here the recipe's precision decides. A dynamic batch can cost
    it half its speed, so the model is reshaped to the example before it is compiled.
    """

    name: ClassVar[str] = "openvino"
    formats: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.OPENVINO})
    needs_torch: ClassVar[bool] = False
    compiles_per_batch: ClassVar[bool] = False
    device: ClassVar[Literal["cpu", "cuda"]] = "cpu"
    settings: ClassVar[frozenset[str]] = frozenset({"threads", "streams"})

    @classmethod
    def availability(cls, hardware: Hardware) -> Availability:  # noqa: ARG003
        """Available wherever the package is installed."""
        return library(cls.name, "openvino", "openvino")

    def load(
        self,
        artifact: ArtifactRef,
        recipe: Recipe,
        *,
        batch_size: int,
        threads: int,
        example: Arrays,
    ) -> Runner:
        """Reshape to the parts of the example, compile each shape once, and bind the inputs."""
        settings = read_settings(recipe, self.settings, threads=threads)
        sizes = part_sizes(artifact, batch_size, settings.streams)
        compiled = {size: _compile(artifact, recipe, settings, example, size, len(sizes)) for size in set(sizes)}
        requests = [
            _Request(compiled[size], {name: array[part] for name, array in example.items()})
            for size, part in zip(sizes, slices_of(sizes), strict=True)
        ]
        return requests[0] if len(requests) == 1 else _Requests(requests, sizes)


def _compile(  # noqa: PLR0917
    artifact: ArtifactRef, recipe: Recipe, settings: RuntimeSettings, example: Arrays, size: int, streams: int
) -> Any:
    """Compile the model for parts of `size` items, `streams` of which run at the same time."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(str(model_file(artifact)))
    if artifact.fixed_batch is None:
        model.reshape({name: ov.PartialShape([size, *array.shape[1:]]) for name, array in example.items()})
    hint = {Precision.BF16: "bf16", Precision.FP16: "f16"}.get(recipe.precision, "f32")
    return core.compile_model(
        model,
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": settings.threads,
            "INFERENCE_PRECISION_HINT": hint,
        },
    )


class _Request:
    """An inference request with input buffers of its own."""

    def __init__(self, compiled: Any, example: Arrays) -> None:
        import openvino as ov

        self._request = compiled.create_infer_request()
        self._buffers: dict[str, np.ndarray] = {}
        for port in compiled.inputs:
            name = next(n for n in port.get_names() if n in example)
            tensor = ov.Tensor(np.ascontiguousarray(example[name]))
            self._request.set_tensor(port, tensor)
            self._buffers[name] = tensor.data
        self._ports = compiled.outputs
        # outputs of static shape stay in one place: a view of each saves asking for it in every run
        static = all(port.get_partial_shape().is_static for port in self._ports)
        self._views = self._look() if static else None

    def __call__(self, inputs: Arrays) -> tuple[np.ndarray, ...]:
        self._fill(inputs)
        self._request.infer(share_outputs=True)  # else it copies all outputs into a dictionary that nobody reads
        return self._results()

    def start(self, inputs: Arrays) -> None:
        self._fill(inputs)
        self._request.start_async()

    def finish(self) -> tuple[np.ndarray, ...]:
        self._request.wait()
        return self._results()

    def _fill(self, inputs: Arrays) -> None:
        for name, buffer in self._buffers.items():
            np.copyto(buffer, inputs[name])

    def _look(self) -> list[np.ndarray]:
        return [self._request.get_tensor(port).data for port in self._ports]

    def _results(self) -> tuple[np.ndarray, ...]:
        return tuple(view.copy() for view in (self._views or self._look()))


class _Requests:
    """Requests that run at the same time, each on its part of the batch."""

    def __init__(self, requests: Sequence[_Request], sizes: Sequence[int]) -> None:
        self._requests = requests
        self._slices = slices_of(sizes)

    def __call__(self, inputs: Arrays) -> tuple[np.ndarray, ...]:
        for request, part in zip(self._requests, self._slices, strict=True):
            request.start({name: array[part] for name, array in inputs.items()})
        return joined([request.finish() for request in self._requests])
