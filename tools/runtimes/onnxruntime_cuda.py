"""ONNX Runtime on an NVIDIA GPU. Written for it, but not run on one while this was developed."""

from __future__ import annotations

from typing import ClassVar

from tools.contracts import ArtifactRef, Availability, Hardware, ModelFormat, Recipe
from tools.errors import UnavailableError
from tools.runtimes.base import Arrays, Runner


class OnnxRuntimeCuda:
    """Runs an ONNX file with the CUDA execution provider. `session.run` returns host arrays, so it synchronizes."""

    name: ClassVar[str] = "onnxruntime-cuda"
    formats: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.ONNX})
    needs_torch: ClassVar[bool] = False
    compiles_per_batch: ClassVar[bool] = False

    @classmethod
    def availability(cls, hardware: Hardware) -> Availability:
        """Available with onnxruntime-gpu and an NVIDIA device."""
        from tools.runtimes import library

        found = library(cls.name, "onnxruntime", "onnxruntime-gpu")
        if found.available and not hardware.accelerators:
            return Availability(
                name=cls.name,
                available=False,
                version=found.version,
                reason="no NVIDIA GPU was found on this machine (nvidia-smi lists none)",
                enable="run on a machine with an NVIDIA GPU and its driver",
            )
        return found

    def load(
        self,
        artifact: ArtifactRef,
        recipe: Recipe,  # noqa: ARG002
        *,
        batch_size: int,  # noqa: ARG002
        threads: int,
        example: Arrays,  # noqa: ARG002
    ) -> Runner:
        """Create the session, and refuse when ONNX Runtime quietly fell back to the CPU.

        Raises:
            UnavailableError: the CUDA provider could not be loaded.
        """
        from tools.runtimes.onnxruntime import create_session, session_runner

        session = create_session(artifact, threads, ["CUDAExecutionProvider", "CPUExecutionProvider"])
        if "CUDAExecutionProvider" not in session.get_providers():
            raise UnavailableError(
                "ONNX Runtime could not load its CUDA provider.", fix="Check CUDA and cuDNN versions."
            )
        return session_runner(session)
