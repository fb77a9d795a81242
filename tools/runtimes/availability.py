"""Whether a runtime can be used here, found out quickly and without importing its library."""

from __future__ import annotations

import ctypes.util
import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from tools.contracts import Availability, Hardware

_TORCH_CUDA = re.compile(r"^cuda\b[^=]*=\s*['\"]([\d.]+)['\"]", re.MULTILINE)


def library(name: str, module: str, *distributions: str) -> Availability:
    """Return the availability of a Python library, found without importing it."""
    if find_spec(module) is None:
        return Availability(
            name=name,
            available=False,
            reason=f"the Python package {distributions[0]} is not installed",
            enable=f"pip install {distributions[0]}",
        )
    for distribution in distributions:
        try:
            return Availability(name=name, available=True, version=version(distribution))
        except PackageNotFoundError:
            continue
    return Availability(name=name, available=True)


def torch_on_cuda(name: str, hardware: Hardware) -> Availability:
    """Return the availability of PyTorch on an NVIDIA GPU."""
    found = library(name, "torch", "torch")
    if found.available and _torch_cuda_version() is None:
        return _missing(
            found,
            "this PyTorch was built without CUDA",
            "install a CUDA build of torch, see https://pytorch.org/get-started/locally/",
        )
    return _with_gpu(found, hardware)


def onnxruntime_provider(name: str, provider: str, hardware: Hardware) -> Availability:
    """Return the availability of an execution provider of ONNX Runtime that needs an NVIDIA GPU.

    Args:
        name: the runtime's.
        provider: as ONNX Runtime names its library: `cuda` or `tensorrt`.
        hardware: this machine.
    """
    found = library(name, "onnxruntime", "onnxruntime-gpu", "onnxruntime")
    if not found.available:
        return found.model_copy(update={"enable": "pip install onnxruntime-gpu"})
    if not any((folder / "capi").glob(f"*onnxruntime_providers_{provider}.*") for folder in _folders("onnxruntime")):
        return _missing(
            found,
            f"this ONNX Runtime was built without its {provider} provider",
            "pip uninstall onnxruntime, then pip install onnxruntime-gpu",
        )
    return _with_gpu(found, hardware)


def tensorrt_library(found: Availability) -> Availability:
    """Say that TensorRT's own library is missing, where a runtime that needs it would be available otherwise."""
    if found.available and find_spec("tensorrt_libs") is None and ctypes.util.find_library("nvinfer") is None:
        return _missing(found, "TensorRT's library (libnvinfer) is not installed", "pip install tensorrt")
    return found


def _with_gpu(found: Availability, hardware: Hardware) -> Availability:
    if found.available and not hardware.accelerators:
        return _missing(
            found,
            "no NVIDIA GPU was found on this machine (nvidia-smi lists none)",
            "run on a machine with an NVIDIA GPU and its driver",
        )
    return found


def _missing(found: Availability, reason: str, enable: str) -> Availability:
    return found.model_copy(update={"available": False, "reason": reason, "enable": enable})


def _torch_cuda_version() -> str | None:
    """Return the CUDA version that the installed torch was built for, as its `version.py` says it."""
    for folder in _folders("torch"):
        file = folder / "version.py"
        if file.is_file() and (match := _TORCH_CUDA.search(file.read_text(encoding="utf-8"))):
            return match.group(1)
    return None


def _folders(module: str) -> list[Path]:
    """Return where a package's files are, without importing it."""
    spec = find_spec(module)
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec is not None else []
