"""Runtimes by name. Their libraries are imported only when something is loaded."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from tools.contracts import Availability, Hardware
from tools.errors import UnavailableError
from tools.runtimes.base import Arrays, Runner, Runtime

__all__ = ["RUNTIME_NAMES", "Arrays", "Runner", "Runtime", "availabilities", "get_runtime", "library"]

_ADAPTERS = {
    "eager": "tools.runtimes.eager:Eager",
    "compiled": "tools.runtimes.compiled:Compiled",
    "torchscript": "tools.runtimes.torchscript:TorchScript",
    "onnxruntime": "tools.runtimes.onnxruntime:OnnxRuntime",
    "openvino": "tools.runtimes.openvino:OpenVino",
    "onnxruntime-cuda": "tools.runtimes.onnxruntime_cuda:OnnxRuntimeCuda",
}
RUNTIME_NAMES = tuple(_ADAPTERS)


def get_runtime(name: str) -> Runtime:
    """Return the adapter called `name`.

    Raises:
        UnavailableError: there is none of this name.
    """
    if name not in _ADAPTERS:
        raise UnavailableError(f"there is no runtime {name!r}.", fix=f"Known: {', '.join(_ADAPTERS)}.")
    module, _, attribute = _ADAPTERS[name].partition(":")
    adapter: Runtime = getattr(importlib.import_module(module), attribute)()
    return adapter


def availabilities(hardware: Hardware) -> dict[str, Availability]:
    """Ask every runtime whether it can be used here."""
    return {name: get_runtime(name).availability(hardware) for name in _ADAPTERS}


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
