"""ONNX Runtime on an NVIDIA GPU. Written for it, but not run on one while this was developed."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np

from tools.contracts import ArtifactRef, Availability, Hardware, ModelFormat, Recipe
from tools.errors import UnavailableError
from tools.runtimes.availability import onnxruntime_provider
from tools.runtimes.base import Arrays, Runner
from tools.runtimes.onnxruntime import CPU, create_session
from tools.runtimes.settings import RuntimeSettings, read_settings

CUDA = "CUDAExecutionProvider"


class OnnxRuntimeCuda:
    """Runs an ONNX file with the CUDA execution provider; nodes that it lacks run on the CPU."""

    name: ClassVar[str] = "onnxruntime-cuda"
    formats: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.ONNX})
    needs_torch: ClassVar[bool] = False
    compiles_per_batch: ClassVar[bool] = False
    device: ClassVar[Literal["cpu", "cuda"]] = "cuda"
    settings: ClassVar[frozenset[str]] = frozenset({"threads", "level"})

    @classmethod
    def availability(cls, hardware: Hardware) -> Availability:
        """Available with onnxruntime-gpu and an NVIDIA GPU."""
        return onnxruntime_provider(cls.name, "cuda", hardware)

    def load(
        self,
        artifact: ArtifactRef,
        recipe: Recipe,
        *,
        batch_size: int,  # noqa: ARG002
        threads: int,
        example: Arrays,
    ) -> Runner:
        """Create the session and its buffers on the GPU.

        Raises:
            UnavailableError: the CUDA provider could not be loaded.
        """
        settings = read_settings(recipe, self.settings, threads=threads)
        return BoundRunner(gpu_session(artifact, settings, {CUDA: {"device_id": "0"}}), example, device="cuda")


def gpu_session(artifact: ArtifactRef, settings: RuntimeSettings, providers: dict[str, dict[str, str]]) -> Any:
    """Create a session on a GPU, and refuse when ONNX Runtime quietly does without it.

    Args:
        artifact: the model.
        settings: of the recipe.
        providers: options by execution provider, most wanted first; the CPU's comes last by itself.

    Raises:
        UnavailableError: the first provider could not be loaded.
    """
    import onnxruntime as ort

    wanted = next(iter(providers))
    if wanted not in ort.get_available_providers():
        raise UnavailableError(f"this ONNX Runtime has no {wanted}.", fix="pip install onnxruntime-gpu")
    ort.preload_dlls()  # CUDA and cuDNN as pip installs them, which no library path points to
    try:
        session = create_session(artifact, settings.threads, [*providers.items(), CPU], settings)
    except RuntimeError as error:  # what a provider raises whose driver is missing or too old
        raise UnavailableError(f"ONNX Runtime could not start its {wanted}: {error}") from error
    if wanted not in session.get_providers():
        raise UnavailableError(
            f"ONNX Runtime could not load its {wanted}.",
            fix="Check that the GPU's driver, CUDA, cuDNN and TensorRT have the versions that it was built for.",
        )
    return session


class BoundRunner:
    """A session with its inputs and outputs bound to buffers on a device.

    Buffers are allocated once for the shapes in use, and anew when these change. Each call copies the inputs there,
    runs, and copies the outputs back, which waits for the device to finish.
    """

    def __init__(self, session: Any, example: Arrays, *, device: str) -> None:
        """Bind.

        Args:
            session: an `onnxruntime.InferenceSession`.
            example: inputs of the shapes in use.
            device: as ONNX Runtime calls it: `cuda` or `cpu`.
        """
        self._session = session
        self._device = device
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._bind(example)

    def __call__(self, inputs: Arrays) -> tuple[np.ndarray, ...]:
        """Run one batch."""
        if any(array.shape != self._shapes[name] for name, array in inputs.items()):
            self._bind(inputs)
        for name, value in self._inputs.items():
            value.update_inplace(np.ascontiguousarray(inputs[name]))
        self._session.run_with_iobinding(self._binding)
        return tuple(self._binding.copy_outputs_to_cpu())

    def _bind(self, inputs: Arrays) -> None:
        import onnxruntime as ort

        self._shapes = {name: array.shape for name, array in inputs.items()}
        self._binding = self._session.io_binding()
        self._inputs = {
            # a copy: on the CPU the buffer is the array itself, which then must not be the caller's
            name: ort.OrtValue.ortvalue_from_numpy(np.array(array, order="C"), self._device, 0)
            for name, array in inputs.items()
        }
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for output in self._session.get_outputs():
            self._binding.bind_output(output.name, self._device)
