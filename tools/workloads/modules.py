"""PyTorch modules: loading them from an artifact, calling them with named arrays, saving their weights.

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

Array = npt.NDArray[Any]

_POSITIONAL = re.compile(r"input_\d+")
_HALF = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}
_SHOWN = 3


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
    module = build_module(artifact.factory)
    if artifact.precision in _HALF:
        module.to(_HALF[artifact.precision])
    load_weights(module, file)
    return _for_inference(module)


def build_module(factory: str) -> torch.nn.Module:
    """Call a factory, with the random numbers seeded so that a model without weights is the same each time.

    Raises:
        WorkloadError: it fails, or returns no `torch.nn.Module`, or one whose shapes are not known yet.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = code.call(factory)
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
        raise _unreadable(file, "a program saved by torch.export.save", error) from error
    return module.requires_grad_(requires_grad=False), program  # it has no train and eval modes


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
        raise _unreadable(file, "a file saved by torch.jit.save", error) from error
    return _for_inference(module)


def load_weights(module: torch.nn.Module, file: Path) -> None:
    """Load a `.safetensors` or `.pt` state dict into a module: every tensor must have its place and its shape.

    Raises:
        WorkloadError: the file is damaged, needs more than tensors to be unpickled, or does not fit the module.
    """
    state = _read_state(file)
    own = module.state_dict()
    for name in state.keys() & own.keys():
        if state[name].shape != own[name].shape:
            raise WorkloadError(
                f"`{name}` has shape {tuple(state[name].shape)}, the model wants {tuple(own[name].shape)}.",
                where=str(file),
                fix="Check that the factory builds the model which these weights were trained with.",
            )
    loaded_storages = {_identity(own[name]) for name in state.keys() & own.keys()}
    missing = [name for name, value in own.items() if name not in state and _identity(value) not in loaded_storages]
    unexpected = [name for name in state if name not in own]
    if missing or unexpected:
        parts = [_listed("missing", missing)] * bool(missing) + [_listed("unexpected", unexpected)] * bool(unexpected)
        wrapped = all(name.startswith("module.") for name in unexpected) and unexpected
        fix = "Check that the factory builds the model which these weights were trained with."
        if wrapped:
            fix = "They were saved from a DataParallel wrapper: save `model.module.state_dict()`."
        raise WorkloadError(f"the weights do not fit the model: {'; '.join(parts)}.", where=str(file), fix=fix)
    module.load_state_dict(state, strict=False)  # strict was checked above, and knows of tied weights


def save_weights(module: torch.nn.Module, file: Path) -> None:
    """Write a module's state dict as safetensors: the same bytes for the same weights, tied weights once.

    Raises:
        WorkloadError: the state holds something else than tensors.
    """
    import safetensors.torch

    seen: set[tuple[Any, ...]] = set()
    tensors: dict[str, torch.Tensor] = {}
    for name, value in module.state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise WorkloadError(
                f"the model's state `{name}` is a {type(value).__name__}, and only tensors can be saved.",
                fix="Keep it as a plain attribute that the factory sets.",
            )
        identity = _identity(value)
        if identity not in seen:
            seen.add(identity)
            tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    safetensors.torch.save_file(tensors, file)


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
    return module.eval().requires_grad_(requires_grad=False)


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


def _identity(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Equal for two names of one tensor (tied weights), different for tensors without memory."""
    if tensor.numel() == 0 or tensor.is_meta:
        return (id(tensor),)
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _read_state(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise WorkloadError("no such file.", where=str(file), fix="Check `weights` in the spec.")
    if file.suffix == ".safetensors":
        import safetensors
        import safetensors.torch

        try:
            loaded: dict[str, torch.Tensor] = safetensors.torch.load_file(file)
        except safetensors.SafetensorError as error:
            raise _unreadable(file, "a safetensors file", error) from error
        return loaded
    return _read_pickle(file)


def _read_pickle(file: Path) -> dict[str, torch.Tensor]:
    import pickle

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WorkloadError(
            "holds more than tensors, and loading it could run any code, so it is refused.",
            where=str(file),
            fix="Save the weights alone: `torch.save(model.state_dict(), path)`, or as .safetensors.",
        ) from error
    except (RuntimeError, EOFError, LookupError, ValueError, OSError) as error:
        raise _unreadable(file, "a state dict saved by torch.save", error) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # the usual shape of a training checkpoint
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WorkloadError(
            "is not a state dict (a mapping of names to tensors).",
            where=str(file),
            fix="Save the weights alone: `torch.save(model.state_dict(), path)`.",
        )
    return dict(state)


def _listed(what: str, names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{what} {', '.join(f'`{name}`' for name in names[:_SHOWN])}{more}"


def _unreadable(file: Path, kind: str, error: Exception) -> WorkloadError:
    if not file.is_file():
        return WorkloadError("no such file.", where=str(file), fix="Check the path in the spec.")
    text = " ".join(str(error).split())[:200]
    return WorkloadError(
        f"is not {kind}, or is damaged ({type(error).__name__}: {text}).",
        where=str(file),
        fix="Write it again, and compare the sizes if it was copied.",
    )
