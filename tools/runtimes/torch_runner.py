"""PyTorch modules as runners, on the CPU or on an NVIDIA GPU.

Imported when something is loaded: it needs torch.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from tools.contracts import ArtifactRef, ModelFormat, Precision, Recipe
from tools.errors import TransformError, UnavailableError
from tools.runtimes.base import Arrays
from tools.runtimes.settings import RuntimeSettings
from tools.workloads.modules import flatten_outputs, is_positional, load_module, to_numpy

TORCHAO_FIX = "pip install 'infertune[torchao]'"
HALF = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}
FLOATS = (Precision.FP32, *HALF, Precision.FP8)
_NORMALIZATIONS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)


class TorchRunner:
    """Numpy in, numpy out around a torch callable.

    Floating-point inputs become bf16 or fp16 if the module is that, after they were moved: what a GPU can do, the CPU
    need not. Outputs come back to the host, which waits for a GPU to finish; bf16 becomes float32.
    """

    def __init__(self, call: Any, module: torch.nn.Module, *, device: str = "cpu", channels_last: bool = False) -> None:
        """Wrap a callable.

        Args:
            call: what runs: the module itself, or what was compiled from it.
            module: says which precision its parameters have.
            device: where the module is.
            channels_last: give it its images as channels-last tensors.
        """
        first = next((p.dtype for p in module.parameters() if p.dtype.is_floating_point), None)
        self._half = first if first in HALF.values() else None
        self._call = call
        self._device = torch.device(device)
        self._channels_last = channels_last
        self.device_ms: float | None = None
        """Time of the last call on the GPU alone, between two CUDA events; None on the CPU."""

    def __call__(self, inputs: Arrays) -> tuple[np.ndarray, ...]:
        """Run one batch.

        Raises:
            WorkloadError: an output is no tensor.
        """
        with torch.inference_mode():
            tensors = {name: self._placed(array) for name, array in inputs.items()}
            if self._device.type != "cuda":
                return self._to_host(self._run(tensors))
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            before.record()
            output = self._run(tensors)
            after.record()
            answer = self._to_host(output)  # waits for the GPU, and so for both events
            self.device_ms = before.elapsed_time(after)
            return answer

    def _run(self, tensors: dict[str, torch.Tensor]) -> Any:
        if is_positional(tensors):
            return self._call(*(tensors[name] for name in sorted(tensors, key=_position)))
        return self._call(**tensors)

    @staticmethod
    def _to_host(output: Any) -> tuple[np.ndarray, ...]:
        return tuple(to_numpy(tensor) for tensor in flatten_outputs(output))

    def _placed(self, array: np.ndarray) -> torch.Tensor:
        """Return the tensor that the module wants; on the CPU it shares memory with the array where it can."""
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy()).to(self._device)
        if self._half is not None and tensor.is_floating_point():
            tensor = tensor.to(self._half)
        if self._channels_last and tensor.ndim == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor


def _position(name: str) -> int:
    return int(name.removeprefix("input_"))


def prepared_module(artifact: ArtifactRef, settings: RuntimeSettings, example: Arrays) -> torch.nn.Module:
    """Load a module and lay it out as the settings say.

    Raises:
        TransformError: a setting makes no sense for this model.
        UnavailableError: it was quantized by torchao, which is not installed here.
    """
    module = load_quantizable(artifact)
    if settings.fuse:
        module = fused(module)
    if settings.channels_last:
        if all(array.ndim != 4 for array in example.values()):
            raise TransformError("channels_last is for inputs of shape (N, C, H, W), and this model has none.")
        module = module.to(memory_format=torch.channels_last)
    return module


def load_quantizable(artifact: ArtifactRef) -> torch.nn.Module:
    """Load a module; the operators of a quantized program are registered first.

    Raises:
        UnavailableError: they are torchao's, which is not installed here.
    """
    if artifact.format is ModelFormat.PT2 and not artifact.precision.is_float:
        register_quantized_operators()
    return load_module(artifact)


def module_on_cuda(
    artifact: ArtifactRef, recipe: Recipe, settings: RuntimeSettings, example: Arrays
) -> torch.nn.Module:
    """Load a module onto the first GPU, in the recipe's precision.

    Raises:
        TransformError: a setting makes no sense for this model, or the precision is none that this runtime has.
        UnavailableError: torch sees no GPU.
    """
    if not torch.cuda.is_available():
        raise UnavailableError(
            "torch sees no NVIDIA GPU.", fix="Check that nvidia-smi lists one, and that torch is a build for its CUDA."
        )
    if recipe.precision not in FLOATS:
        raise TransformError(f"{recipe.runtime} runs float models only, not {recipe.precision.value}.")
    module = prepared_module(artifact, settings, example).to("cuda")
    if recipe.precision is Precision.FP8:
        return in_fp8(module)
    return module.to(HALF[recipe.precision]) if recipe.precision in HALF else module


def in_fp8(module: torch.nn.Module) -> torch.nn.Module:
    """Return a module whose linear layers multiply in E4M3: weights scaled by rows once, activations at each call.

    Raises:
        TransformError: it has no linear layer, or this GPU multiplies no 8-bit floats.
        UnavailableError: torchao is not installed.
    """
    if not any(isinstance(part, torch.nn.Linear) for part in module.modules()):
        raise TransformError("FP8 is for linear layers, and this model has none.")
    if find_spec("torchao") is None:
        raise UnavailableError("FP8 is torchao's, which is not installed here.", fix=TORCHAO_FIX)
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_

    module = module.to(torch.bfloat16)
    try:
        quantize_(module, Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()))
    except AssertionError as error:  # how torchao says that the GPU is too old
        raise TransformError(f"FP8 cannot run here: {error}") from error
    return module


def register_quantized_operators() -> None:
    """Make torch know the operators of programs that `quantize-pt2e` wrote, and Inductor their INT8 kernels.

    torchao adds its patterns to Inductor when its x86 quantizer is imported. Without them a compiled program is still
    right, but dequantizes everything and computes in float, slower than the float model.

    Raises:
        UnavailableError: torchao is not installed.
    """
    if find_spec("torchao") is None:
        raise UnavailableError("this model was quantized by torchao, which is not installed here.", fix=TORCHAO_FIX)
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer  # noqa: F401


def fused(module: torch.nn.Module) -> torch.nn.Module:
    """Return a copy whose batch normalizations are merged into the convolutions and linear layers before them.

    Raises:
        TransformError: torch.fx cannot trace the module, or there is nothing to merge.
    """
    from torch.fx.experimental.optimization import fuse

    try:
        merged: torch.nn.Module = fuse(module)
    except Exception as error:  # tracing runs the model's own code, which may raise anything on a proxy
        raise TransformError(f"fuse needs a model that torch.fx can trace, and this one is not: {error}") from error
    if _count(merged) == _count(module):
        raise TransformError("fuse found no batch normalization right after a convolution or a linear layer.")
    return merged.eval()


def _count(module: torch.nn.Module) -> int:
    """Return how many batch normalizations there are."""
    return sum(isinstance(part, _NORMALIZATIONS) for part in module.modules())
