"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from tools.artifacts import model_file
from tools.contracts import ArtifactRef, Availability, Hardware, ModelFormat, Recipe
from tools.runtimes.availability import library
from tools.runtimes.base import Arrays, Runner
from tools.runtimes.settings import RuntimeSettings, read_settings
from tools.runtimes.streams import ParallelRunner, divide, part_sizes

CPU = "CPUExecutionProvider"


class OnnxRuntime:
    """Runs an ONNX file with the CPU execution provider, all graph optimizations on unless the recipe says less."""

    name: ClassVar[str] = "onnxruntime"
    formats: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.ONNX})
    needs_torch: ClassVar[bool] = False
    compiles_per_batch: ClassVar[bool] = False
    device: ClassVar[Literal["cpu", "cuda"]] = "cpu"
    settings: ClassVar[frozenset[str]] = frozenset({"threads", "streams", "arena", "execution", "spinning", "level"})

    @classmethod
    def availability(cls, hardware: Hardware) -> Availability:  # noqa: ARG003
        """Available wherever the package is installed."""
        return library(cls.name, "onnxruntime", "onnxruntime-gpu", "onnxruntime")

    def load(
        self,
        artifact: ArtifactRef,
        recipe: Recipe,
        *,
        batch_size: int,
        threads: int,
        example: Arrays,  # noqa: ARG002
    ) -> Runner:
        """Create a session, or one for each part of a batch that runs at the same time as others.

        Parts that have one thread each share a session, and so the weights: it then runs on the thread that calls it.
        """
        settings = read_settings(recipe, self.settings, threads=threads)
        sizes = part_sizes(artifact, batch_size, settings.streams)
        if settings.threads == len(sizes):
            runners = [session_runner(create_session(artifact, 1, [CPU], settings))] * len(sizes)
        else:
            shares = divide(settings.threads, len(sizes))
            runners = [session_runner(create_session(artifact, share, [CPU], settings)) for share in shares]
        return runners[0] if len(runners) == 1 else ParallelRunner(runners, sizes)


def create_session(
    artifact: ArtifactRef,
    threads: int,
    providers: Sequence[str | tuple[str, dict[str, str]]],
    settings: RuntimeSettings | None = None,
) -> Any:
    """Create an `onnxruntime.InferenceSession` for an ONNX artifact.

    Args:
        artifact: the model.
        threads: of this session.
        providers: execution providers, most wanted first, with their options.
        settings: what else the recipe says, where there is one.
    """
    import onnxruntime as ort

    # without fallback: a provider that fails is an error, not a slower run that passes for it
    return ort.InferenceSession(
        str(model_file(artifact)), session_options(threads, settings), providers=list(providers), enable_fallback=0
    )


def session_options(threads: int, settings: RuntimeSettings | None = None) -> Any:
    """Return the options that every session here starts from: quiet, and all graph optimizations by default.

    Args:
        threads: of this session.
        settings: what else the recipe says, where there is one.
    """
    import onnxruntime as ort

    chosen = settings or RuntimeSettings(threads=threads)
    parallel = chosen.execution == "parallel" and threads > 1
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = threads if parallel else 1
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL if parallel else ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = chosen.arena
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[chosen.level])
    for pool in ("intra_op", "inter_op"):
        options.add_session_config_entry(f"session.{pool}.allow_spinning", "1" if chosen.spinning else "0")
    return options


_LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


def session_runner(session: Any) -> Runner:
    """Wrap a session as numpy in, numpy out."""
    outputs = [output.name for output in session.get_outputs()]

    def run(inputs: Arrays) -> tuple[np.ndarray, ...]:
        return tuple(session.run(outputs, dict(inputs)))

    return run
