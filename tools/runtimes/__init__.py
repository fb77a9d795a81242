"""Runtimes by name. Their libraries are imported only when something is loaded."""

from __future__ import annotations

from tools.contracts import Availability, Hardware
from tools.errors import UnavailableError
from tools.registry import Registry
from tools.runtimes.availability import library
from tools.runtimes.base import Arrays, Runner, Runtime

__all__ = ["RUNTIMES", "RUNTIME_NAMES", "Arrays", "Runner", "Runtime", "availabilities", "get_runtime", "library"]

RUNTIMES = Registry[Runtime](
    kind="runtime",
    group="infertune.runtimes",
    built_in={
        "eager": "tools.runtimes.eager:Eager",
        "compiled": "tools.runtimes.compiled:Compiled",
        "torchscript": "tools.runtimes.torchscript:TorchScript",
        "onnxruntime": "tools.runtimes.onnxruntime:OnnxRuntime",
        "openvino": "tools.runtimes.openvino:OpenVino",
        "eager-cuda": "tools.runtimes.eager_cuda:EagerCuda",
        "compiled-cuda": "tools.runtimes.compiled_cuda:CompiledCuda",
        "onnxruntime-cuda": "tools.runtimes.onnxruntime_cuda:OnnxRuntimeCuda",
        "onnxruntime-tensorrt": "tools.runtimes.onnxruntime_tensorrt:OnnxRuntimeTensorrt",
    },
    protocol=Runtime,
    error=UnavailableError,
)
RUNTIME_NAMES = tuple(RUNTIMES.built_in)
"""infertune's own; `RUNTIMES.names()` has those of plugins too."""


def get_runtime(name: str) -> Runtime:
    """Return the adapter called `name`, infertune's own or a plugin's.

    Raises:
        UnavailableError: there is none of this name, or it is a plugin's and cannot be used.
    """
    return RUNTIMES.get(name)


def availabilities(hardware: Hardware) -> dict[str, Availability]:
    """Ask every runtime whether it can be used here; a plugin that fails cannot."""
    found = {name: get_runtime(name).availability(hardware) for name in RUNTIME_NAMES}
    for name in RUNTIMES.names()[len(found) :]:
        try:
            found[name] = get_runtime(name).availability(hardware)
        except Exception as error:  # noqa: BLE001  a plugin may raise anything
            reason = str(error) if isinstance(error, UnavailableError) else f"{type(error).__name__}: {error}"
            found[name] = Availability(name=name, available=False, reason=reason)
    return found
