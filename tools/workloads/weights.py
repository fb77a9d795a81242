"""Weights of PyTorch modules: state dicts in safetensors, or in pickles that hold nothing but tensors.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import torch

from tools.errors import WorkloadError

_SHOWN = 3
_FITS = "Check that the factory builds the model which these weights were trained with."


def load_weights(module: torch.nn.Module, file: Path) -> None:
    """Load a `.safetensors` or `.pt` state dict into a module: every tensor must have its place and its shape.

    Raises:
        WorkloadError: the file is damaged, needs more than tensors to be unpickled, or does not fit the module.
    """
    state = _read_state(file)
    own = {name: value for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
    shared = [name for name in own if name in state]
    for name in shared:
        if state[name].shape != own[name].shape:
            raise WorkloadError(
                f"`{name}` has shape {tuple(state[name].shape)}, the model wants {tuple(own[name].shape)}.",
                where=str(file),
                fix=_FITS,
            )
    loaded = {_identity(own[name]) for name in shared}
    missing = [name for name, value in own.items() if name not in state and _identity(value) not in loaded]
    unexpected = [name for name in state if name not in own]
    if missing or unexpected:
        problems = [_listed(what, names) for what, names in (("missing", missing), ("unexpected", unexpected)) if names]
        wrapped = bool(unexpected) and all(name.startswith("module.") for name in unexpected)
        raise WorkloadError(
            f"the weights do not fit the model: {'; '.join(problems)}.",
            where=str(file),
            fix="They were saved from a DataParallel wrapper: save `model.module.state_dict()`." if wrapped else _FITS,
        )
    module.load_state_dict(state, strict=False)  # strict was checked above, and knows of tied weights


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor in a safetensors file, without reading the tensors."""
    import safetensors

    with safetensors.safe_open(file, framework="numpy") as opened:
        return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118  no mapping


def save_weights(module: torch.nn.Module, file: Path) -> None:
    """Write a module's state dict as safetensors: the same bytes for the same weights, tied weights once.

    Raises:
        WorkloadError: the state holds something else than tensors.
    """
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
    save_tensors(tensors, file)


def save_tensors(tensors: dict[str, torch.Tensor], file: Path) -> None:
    """Write tensors as safetensors.

    Raises:
        OSError: the disk is full, or the folder cannot be written; safetensors has an error of its own for that.
    """
    import safetensors
    import safetensors.torch

    try:
        safetensors.torch.save_file(tensors, file)
    except safetensors.SafetensorError as error:
        raise OSError(errno.EIO, str(error)) from None


def unreadable(file: Path, kind: str, error: Exception) -> WorkloadError:
    """Say that a file is missing, damaged or of another kind."""
    if not file.is_file():
        return WorkloadError("no such file.", where=str(file), fix="Check the path in the spec.")
    text = " ".join(str(error).split())[:200]
    return WorkloadError(
        f"is not {kind}, or is damaged ({type(error).__name__}: {text}).",
        where=str(file),
        fix="Write it again, and compare the sizes if it was copied.",
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
            raise unreadable(file, "a safetensors file", error) from error
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
        raise unreadable(file, "a state dict saved by torch.save", error) from error
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
