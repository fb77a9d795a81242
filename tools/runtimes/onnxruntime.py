"""ONNX Runtime on the CPU."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tools.artifacts import model_file
from tools.contracts import ArtifactRef, Availability, Hardware, ModelFormat, Recipe
from tools.runtimes.base import Arrays, Runner


class OnnxRuntime:
    """Runs an ONNX file with the CPU execution provider, all graph optimizations on."""

    name: ClassVar[str] = "onnxruntime"
    formats: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.ONNX})
    needs_torch: ClassVar[bool] = False
    compiles_per_batch: ClassVar[bool] = False

    @classmethod
    def availability(cls, hardware: Hardware) -> Availability:  # noqa: ARG003
        """Available wherever the package is installed."""
        from tools.runtimes import library

        return library(cls.name, "onnxruntime", "onnxruntime-gpu", "onnxruntime")

    def load(
        self,
        artifact: ArtifactRef,
        recipe: Recipe,  # noqa: ARG002
        *,
        batch_size: int,  # noqa: ARG002
        threads: int,
        example: Arrays,  # noqa: ARG002
    ) -> Runner:
        """Create the session."""
        return session_runner(create_session(artifact, threads, ["CPUExecutionProvider"]))


def create_session(artifact: ArtifactRef, threads: int, providers: list[str]) -> Any:
    """Create an `onnxruntime.InferenceSession` for an ONNX artifact."""
    import onnxruntime as ort

    return ort.InferenceSession(str(model_file(artifact)), session_options(threads), providers=providers)


def session_options(threads: int) -> Any:
    """Return the options that every session here starts from: so many threads, quiet, all graph optimizations."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    return options


def session_runner(session: Any) -> Runner:
    """Wrap a session as numpy in, numpy out."""
    outputs = [output.name for output in session.get_outputs()]

    def run(inputs: Arrays) -> tuple[np.ndarray, ...]:
        return tuple(session.run(outputs, dict(inputs)))

    return run
