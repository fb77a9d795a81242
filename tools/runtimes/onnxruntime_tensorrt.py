"""ONNX Runtime with TensorRT on an NVIDIA GPU. Written for it, but not run on one while this was developed."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal

from tools.contracts import ArtifactRef, Availability, Hardware, ModelFormat, Precision, Recipe
from tools.runtimes.availability import onnxruntime_provider, tensorrt_library
from tools.runtimes.base import Arrays, Runner
from tools.runtimes.onnxruntime_cuda import CUDA, BoundRunner, gpu_session
from tools.runtimes.settings import read_settings

TENSORRT = "TensorrtExecutionProvider"


class OnnxRuntimeTensorrt:
    """Runs what TensorRT takes of an ONNX file as TensorRT engines, and the rest with the CUDA provider.

    The recipe's precision says in which arithmetic engines may compute. Building one takes minutes; it is kept in
    `engines/` beside the artifacts, for one model, precision and batch size.
    """

    name: ClassVar[str] = "onnxruntime-tensorrt"
    formats: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.ONNX})
    needs_torch: ClassVar[bool] = False
    compiles_per_batch: ClassVar[bool] = True
    device: ClassVar[Literal["cpu", "cuda"]] = "cuda"
    settings: ClassVar[frozenset[str]] = frozenset({"threads", "level"})

    @classmethod
    def availability(cls, hardware: Hardware) -> Availability:
        """Available with onnxruntime-gpu, an NVIDIA GPU and TensorRT's library."""
        return tensorrt_library(onnxruntime_provider(cls.name, "tensorrt", hardware))

    def load(
        self,
        artifact: ArtifactRef,
        recipe: Recipe,
        *,
        batch_size: int,
        threads: int,
        example: Arrays,
    ) -> Runner:
        """Build the engines or read them from the cache, and bind buffers on the GPU.

        Raises:
            UnavailableError: the TensorRT provider could not be loaded.
        """
        settings = read_settings(recipe, self.settings, threads=threads)
        if find_spec("tensorrt_libs") is not None:
            importlib.import_module("tensorrt_libs")  # loads libnvinfer as pip installs it, off every library path
        cache = Path(artifact.directory).parents[1] / "engines"
        folder = cache / f"{artifact.digest}-{recipe.precision.value}-b{batch_size}"
        folder.mkdir(parents=True, exist_ok=True)
        options = engine_options(recipe.precision, folder, example, fixed=artifact.fixed_batch is not None)
        session = gpu_session(artifact, settings, {TENSORRT: options, CUDA: {"device_id": "0"}})
        return BoundRunner(session, example, device="cuda")


def engine_options(precision: Precision, cache: Path, example: Arrays, *, fixed: bool) -> dict[str, str]:
    """Return the TensorRT provider's options for one batch size.

    See https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html.

    Args:
        precision: of the recipe. INT8 is for models that carry their own ranges (QDQ nodes).
        cache: where engines and kernel timings are kept.
        example: inputs of that batch size. Engines are built for their shapes alone; from a dynamic batch TensorRT
            would build one for the first shapes that it sees, and again for each that lies outside.
        fixed: whether the model's shapes are fixed already.
    """
    options = {
        "device_id": "0",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(cache),
    }
    flag = {
        Precision.FP16: "trt_fp16_enable",
        Precision.BF16: "trt_bf16_enable",
        Precision.INT8_STATIC: "trt_int8_enable",
        Precision.INT8_MIXED: "trt_int8_enable",
    }.get(precision)
    if flag is not None:
        options[flag] = "True"
    if not fixed:
        shapes = ",".join(f"{name}:{'x'.join(map(str, array.shape))}" for name, array in example.items())
        options |= {f"trt_profile_{bound}_shapes": shapes for bound in ("min", "opt", "max")}
    return options
