"""Run a model that infertune logged: OpenVINO, TorchScript, a torch.export program, or a module with its weights.

This file is copied into every MLflow model that needs it, and MLflow calls `_load_pyfunc`. It therefore imports nothing
of infertune: the model runs wherever its own requirements are installed. `serve.json` beside the files says what they
are (see `tools.tracking.model`).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Arrays: TypeAlias = dict[str, np.ndarray]


class ServedModel:
    """What `mlflow.pyfunc.load_model(...)` wraps."""

    def __init__(self, names: list[str], run: Callable[[Arrays], Arrays]) -> None:
        self._names = names
        self._run = run

    def predict(self, data: np.ndarray | Mapping[str, np.ndarray], params: dict[str, Any] | None = None) -> Arrays:  # noqa: ARG002  MLflow's signature
        """Run one batch.

        Args:
            data: the only input, or every input by name; batch first.
            params: unused, there is nothing to choose.

        Returns:
            The outputs by name, as float32 where the model computes in a shorter float.
        """
        inputs = dict(data) if isinstance(data, Mapping) else {self._names[0]: np.asarray(data)}
        return self._run(inputs)


def _load_pyfunc(path: str) -> ServedModel:
    folder = Path(path)
    serve = json.loads((folder / "serve.json").read_text())
    names: list[str] = serve["inputs"]
    if serve["format"] == "openvino":
        return ServedModel(names, _openvino(folder / serve["file"], names, serve["inference_precision"]))
    if serve["format"] == "pt2":
        module, positional = _torch_program(folder / serve["file"])
    else:
        module, positional = _torch_module(folder, serve), all(_POSITIONAL.fullmatch(name) for name in names)
    return ServedModel(names, _torch(module, names, serve["precision"], positional=positional))


def _openvino(file: Path, names: list[str], precision: str) -> Callable[[Arrays], Arrays]:
    import openvino as ov

    # Without the hint OpenVINO picks BF16 where the CPU has it, which is not what was measured.
    hint = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[precision]
    compiled = ov.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": hint})
    ports = [next((n for n in names if n in port.get_names()), index) for index, port in enumerate(compiled.inputs)]
    outputs = [next(iter(sorted(port.get_names())), f"output_{i}") for i, port in enumerate(compiled.outputs)]

    def run(inputs: Arrays) -> Arrays:
        feed = {p: inputs[p] if isinstance(p, str) else inputs[names[p]] for p in ports}
        found = compiled(feed)
        return {name: np.array(found[i]) for i, name in enumerate(outputs)}

    return run


def _torch_program(file: Path) -> tuple[Any, bool]:
    """Return a torch.export program, and whether it was exported with positional arguments: it insists on the same."""
    import torch

    program = torch.export.load(file)
    positional, _keywords = program.call_spec.in_spec.children()
    return program.module(), positional.num_children > 0


def _torch_module(folder: Path, serve: dict[str, Any]) -> Any:
    import torch

    file = folder / serve["file"]
    if serve["format"] == "torchscript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch deprecates TorchScript; the file is one all the same
            load: Any = torch.jit.load  # has no annotations
            return load(str(file), map_location="cpu").eval()
    from safetensors.torch import load_model

    module = _factory(folder, serve["factory"])()
    if serve["precision"] in _SHORT_FLOATS:
        module = module.to(getattr(torch, _SHORT_FLOATS[serve["precision"]]))
    load_model(module, str(file))
    return module.eval()


_POSITIONAL = re.compile(r"input_\d+")
"""Names that infertune gives to inputs which are passed by position, in this order; others are keywords."""
_SHORT_FLOATS = {"bf16": "bfloat16", "fp16": "float16"}


def _factory(folder: Path, reference: str) -> Callable[[], Any]:
    """Find the function that builds the module: in the copied file, or in a package that must be installed."""
    source, _, function = reference.rpartition(":")
    try:
        if source.endswith(".py"):
            spec = importlib.util.spec_from_file_location("infertune_factory", folder / source)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(source)
    except ImportError as error:
        msg = f"this model is built by {reference}, which cannot be imported here ({error}); install what it needs"
        raise ImportError(msg) from error
    found: Callable[[], Any] = getattr(module, function)
    return found


def _torch(module: Any, names: list[str], precision: str, *, positional: bool) -> Callable[[Arrays], Arrays]:
    import torch

    dtype = getattr(torch, _SHORT_FLOATS.get(precision, "float32"))

    def tensor(array: np.ndarray) -> Any:
        value = torch.from_numpy(np.ascontiguousarray(array))
        return value.to(dtype) if value.is_floating_point() else value

    def run(inputs: Arrays) -> Arrays:
        tensors = {name: tensor(inputs[name]) for name in names}
        with torch.inference_mode():
            found = module(*tensors.values()) if positional else module(**tensors)
        return _named_arrays(found)

    return run


def _named_arrays(found: Any, name: str = "") -> Arrays:
    """Name the outputs as infertune does: by the keys of a dict, `output_0`, `output_1`, ... otherwise."""
    if found is None:  # an optional field
        return {}
    if isinstance(found, Mapping):
        items = [(f"{name}.{key}" if name else str(key), value) for key, value in found.items()]
    elif isinstance(found, tuple | list):
        items = [(f"{name}.{i}" if name else f"output_{i}", value) for i, value in enumerate(found)]
    else:
        value = found.detach()
        return {name or "output_0": (value.float() if value.is_floating_point() else value).numpy()}
    return {key: array for path, value in items for key, array in _named_arrays(value, path).items()}
