"""PyTorch modules: loading them from an artifact, and calling them with named arrays.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tools.artifacts import model_file
from tools.contracts import ArtifactRef, ModelFormat, Precision
from tools.errors import WorkloadError
from tools.workloads import code
from tools.workloads.weights import load_weights, read_shapes, unreadable

Array = npt.NDArray[Any]

_POSITIONAL = re.compile(r"input_\d+")
_HALF = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


def load_module(artifact: ArtifactRef) -> torch.nn.Module:
    """Load an artifact of format torch, pt2 or torchscript, for inference: eval mode, no gradients.

    A `torch` artifact of precision bf16 or fp16 is converted to it before its weights are loaded.

    Raises:
        WorkloadError: a file is damaged, the factory fails, or the weights do not fit what it builds.
        ValueError: the format is not one of PyTorch's.
    """
    file = model_file(artifact)
    if artifact.format is ModelFormat.PT2:
        return load_program(file)[0]
    if artifact.format is ModelFormat.TORCHSCRIPT:
        return load_torchscript(file)
    if artifact.format is not ModelFormat.TORCH or artifact.factory is None:
        msg = f"{artifact.format} artifacts are not PyTorch modules"
        raise ValueError(msg)
    module = build_module(artifact.factory, num_classes=artifact.num_classes)
    if artifact.precision in _HALF:
        module.to(_HALF[artifact.precision])
    if artifact.reshaped:
        from tools.workloads.structure import fit

        fit(module, read_shapes(file))
    load_weights(module, file)
    return _for_inference(module)


def build_module(factory: str, *, num_classes: int | None = None) -> torch.nn.Module:
    """Call a factory, with the random numbers seeded so that a model without weights is the same each time.

    Args:
        factory: `file.py:function` or `package.module:function`.
        num_classes: given to the factory by that name; None to call it without arguments.

    Raises:
        WorkloadError: it fails, or returns no `torch.nn.Module`, or one whose shapes are not known yet.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = code.call(factory, **({} if num_classes is None else {"num_classes": num_classes}))
    if not isinstance(module, torch.nn.Module):
        raise WorkloadError(f"must return a torch.nn.Module, not {type(module).__name__}.", where=factory)
    lazy = [name for name, value in module.named_parameters() if torch.nn.parameter.is_lazy(value)]
    if lazy:
        raise WorkloadError(
            f"returns a model whose layers do not know their shapes yet (`{lazy[0]}`).",
            where=factory,
            fix="Run one batch through the model before returning it, or use layers that are not lazy.",
        )
    return _for_inference(module)


def load_program(file: Path) -> tuple[torch.nn.Module, torch.export.ExportedProgram]:
    """Load what `torch.export.save` wrote: the module to call, and the program with its signature.

    Raises:
        WorkloadError: the file is damaged or of another kind.
    """
    try:
        program: torch.export.ExportedProgram = torch.export.load(file)
        module: torch.nn.Module = program.module()
    except Exception as error:  # torch raises RuntimeError, KeyError, AssertionError and more for bad archives
        raise unreadable(file, "a program saved by torch.export.save", error) from error
    return _without_gradients(module), program  # it has no train and eval modes


def load_torchscript(file: Path) -> torch.nn.Module:
    """Load what `torch.jit.save` wrote.

    Raises:
        WorkloadError: the file is damaged or of another kind.
    """
    try:
        with warnings.catch_warnings():  # we read the files people still have; we write none
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.load` is deprecated", category=Warning)
            module: torch.nn.Module = torch.jit.load(str(file), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise unreadable(file, "a file saved by torch.jit.save", error) from error
    return _for_inference(module)


def precision_of(module: torch.nn.Module) -> Precision:
    """Return the precision that most of a module's floating-point parameters have."""
    counts = dict.fromkeys(Precision, 0)
    for value in module.parameters():
        match = [precision for precision, dtype in _HALF.items() if value.dtype is dtype]
        counts[match[0] if match else Precision.FP32] += value.numel()
    return max(counts, key=lambda precision: counts[precision])


def is_positional(names: Iterable[str]) -> bool:
    """Whether these inputs (`input_0`, `input_1`, ...) are passed by position; others are passed by keyword."""
    return all(_POSITIONAL.fullmatch(name) for name in names)


def call_arguments(
    module: torch.nn.Module, inputs: Mapping[str, Array]
) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """Return positional and keyword arguments to call a module with; floats become bf16 or fp16 if it is that.

    Memory is shared with writable arrays that need no conversion.
    """
    first = next((p.dtype for p in module.parameters() if p.dtype.is_floating_point), None)
    half = first if first in _HALF.values() else None
    tensors = {}
    for name, value in inputs.items():
        tensor = torch.from_numpy(value if value.flags.writeable else value.copy())
        tensors[name] = tensor.to(half) if half is not None and tensor.dtype.is_floating_point else tensor
    if is_positional(tensors):
        return tuple(tensors[name] for name in sorted(tensors, key=lambda n: int(n.removeprefix("input_")))), {}
    return (), tensors


def call_module(module: torch.nn.Module, inputs: Mapping[str, Array]) -> tuple[Array, ...]:
    """Run one batch and return the outputs as arrays, bf16 as float32.

    Args:
        module: for inference, on the CPU.
        inputs: (b, *shape) for each input, by name.

    Raises:
        WorkloadError: an output is no tensor.
    """
    args, kwargs = call_arguments(module, inputs)
    with torch.inference_mode():
        return tuple(to_numpy(tensor) for tensor in flatten_outputs(module(*args, **kwargs)))


def flatten_outputs(output: Any) -> list[torch.Tensor]:
    """Return the tensors of a model's output, in order: a tensor, or tuples, lists and dicts of them.

    Raises:
        WorkloadError: there is something else in it.
    """
    return list(named_outputs(output).values())


def named_outputs(output: Any) -> dict[str, torch.Tensor]:
    """Like `flatten_outputs`, with names: the keys of a dict, `output_0`, `output_1`, ... otherwise.

    Raises:
        WorkloadError: there is something else than tensors in it, or nothing at all.
    """
    tensors: dict[str, torch.Tensor] = {}
    _collect(output, "", tensors)
    if not tensors:
        raise WorkloadError("the model returns no tensor.")
    return tensors


def to_numpy(value: Any) -> Array:
    """Convert a tensor (bf16 becomes float32) or anything array-like."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        array: Array = (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()
        return array
    return np.asarray(value)


def _for_inference(module: torch.nn.Module) -> torch.nn.Module:
    return _without_gradients(module.eval())


def _without_gradients(module: torch.nn.Module) -> torch.nn.Module:
    for parameter in module.parameters():  # `module.requires_grad_` is refused by TorchScript
        parameter.requires_grad = False
    return module


def _collect(value: Any, name: str, into: dict[str, torch.Tensor]) -> None:
    if value is None:  # an optional field of a ModelOutput
        return
    if isinstance(value, torch.Tensor):
        into[name or "output_0"] = value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _collect(item, f"{name}.{key}" if name else str(key), into)
    elif isinstance(value, tuple | list):
        for index, item in enumerate(value):
            _collect(item, f"{name}.{index}" if name else f"output_{index}", into)
    else:
        raise WorkloadError(
            f"the model returns a {type(value).__name__} ({name or 'its output'}), and only tensors can be compared.",
            fix="Return a tensor, or a tuple, list or dict of tensors.",
        )
