"""The model as it is given: opened from any of its four sources, runnable as a baseline, and written as an artifact.

Imported by workers only: it needs torch or onnx.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tools.artifacts import model_file_name
from tools.contracts import ModelFormat, Precision
from tools.errors import WorkloadError
from tools.spec import ModelSpec
from tools.workloads import code, modules, onnx_models
from tools.workloads.batches import Items
from tools.workloads.onnx_models import Declared
from tools.workloads.weights import load_weights, save_weights

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Source:
    """A model that was opened.

    Attributes:
        run: one batch in, outputs by name; raises what the model raises.
        fill: writes the files of the source artifact into a folder.
        declared: the inputs that the program itself names, in order; empty where only calling tells.
        by_position: a program that takes its declared inputs by position.
        architecture: qualified class name of a module that a factory built.
        fixed_batch: the batch size written into the program.
    """

    where: str
    format: ModelFormat
    precision: Precision
    parameters: int
    run: Callable[[Mapping[str, Array]], dict[str, Array]]
    fill: Callable[[Path], None]
    factory: str | None = None
    architecture: str | None = None
    declared: tuple[Declared, ...] = ()
    by_position: bool = False
    fixed_batch: int | None = None
    notes: tuple[str, ...] = field(default=())


def open_source(model: ModelSpec) -> Source:
    """Open the model that a spec names.

    Raises:
        WorkloadError: a file is missing or damaged, the factory fails, or the weights do not fit.
    """
    if model.factory is not None:
        return _from_factory(model.factory, model.weights)
    if model.onnx is not None:
        return _from_onnx(Path(model.onnx))
    if model.pt2 is not None:
        return _from_program(Path(model.pt2))
    assert model.torchscript is not None
    return _from_torchscript(Path(model.torchscript))


def fit_items(source: Source, items: Items, where: str) -> Items:
    """Name and order the items' inputs as the program declares them, and give them its dtypes.

    Raises:
        WorkloadError: number, names, dtypes or shapes of the inputs do not fit.
    """
    if not source.declared:
        return items
    expected = {d.name: d for d in source.declared}
    given = items.inputs
    listed = f"it takes {', '.join(expected)}; the data have {', '.join(given)}"
    if len(given) != len(expected):
        raise WorkloadError(f"the model has {len(expected)} inputs: {listed}.", where=where)
    if not modules.is_positional(given) and set(given) != set(expected):
        raise WorkloadError(
            f"the names of the inputs do not fit: {listed}.",
            where=where,
            fix="Use the model's names, or give the inputs by position, as a tuple.",
        )
    notes = list(items.notes)
    inputs = {}
    for index, declared in enumerate(source.declared):
        value = given[declared.name] if set(given) == set(expected) else given[f"input_{index}"]
        name = f"input_{index}" if source.by_position else declared.name
        inputs[name] = _fitted(declared, value, where, notes)
    return replace(items, inputs=inputs, notes=tuple(notes))


def _fitted(declared: Declared, value: Array, where: str, notes: list[str]) -> Array:
    shape = value.shape[1:]
    fits = len(shape) == len(declared.shape) and all(
        want is None or want == have for want, have in zip(declared.shape, shape, strict=True)
    )
    if not fits:
        wanted = tuple("any" if d is None else d for d in declared.shape)
        raise WorkloadError(f"`{declared.name}` has items of {shape}, the model takes {wanted}.", where=where)
    if declared.dtype is None or value.dtype == declared.dtype:
        return value
    if value.dtype.kind != np.dtype(declared.dtype).kind:
        raise WorkloadError(
            f"`{declared.name}` is {value.dtype}, the model takes {declared.dtype}.",
            where=where,
            fix="Convert it in the data factory.",
        )
    notes.append(f"`{declared.name}` of {where} was {value.dtype} and is used as {declared.dtype}, as the model asks.")
    return value.astype(declared.dtype)


def _from_factory(factory: str, weights: str | None) -> Source:
    module = modules.build_module(factory)
    notes: tuple[str, ...] = ()
    if weights is not None:
        load_weights(module, Path(weights))
    else:
        notes = ("No weights are given: those that the factory returns are used.",)

    def fill(folder: Path) -> None:
        save_weights(module, folder / model_file_name(ModelFormat.TORCH))
        # The digest of the artifact must change when the code that builds the model does.
        (folder / "code.json").write_text(json.dumps({"factory_source": code.source_digest(factory)}))

    return Source(
        where=factory,
        format=ModelFormat.TORCH,
        factory=factory,
        architecture=f"{type(module).__module__}.{type(module).__qualname__}",
        fill=fill,
        notes=notes,
        **_of_module(module, factory),
    )


def _from_torchscript(file: Path) -> Source:
    module = modules.load_torchscript(file)
    return Source(
        where=str(file),
        format=ModelFormat.TORCHSCRIPT,
        fill=_copy_of(file, ModelFormat.TORCHSCRIPT),
        **_of_module(module, str(file)),
    )


def _from_program(file: Path) -> Source:
    module, program = modules.load_program(file)
    names = program.graph_signature.user_inputs
    arguments = program.call_spec.in_spec
    if arguments is None or len(arguments.children()) != 2:
        raise WorkloadError("has no usable call signature.", where=str(file), fix="Export it again.")
    positional, keyword = (spec.num_leaves for spec in arguments.children())
    if positional and keyword:
        raise WorkloadError(
            "takes some inputs by position and some by keyword.",
            where=str(file),
            fix="Export it with all inputs as `args`, or all as `kwargs`.",
        )
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.name in names}
    sizes = {name: _static(value.shape) for name, value in values.items() if isinstance(value, torch.Tensor)}
    declared = tuple(
        Declared(name=str(name), dtype=None, shape=sizes[str(name)][1:], batch=sizes[str(name)][0])
        for name in names
        if sizes.get(str(name))
    )
    if len(declared) != len(names):
        raise WorkloadError("takes inputs that are not batches of tensors.", where=str(file))
    return Source(
        where=str(file),
        format=ModelFormat.PT2,
        fill=_copy_of(file, ModelFormat.PT2),
        declared=declared,
        by_position=keyword == 0,
        fixed_batch=_common_batch(declared),
        **_of_module(module, str(file)),
    )


def _from_onnx(file: Path) -> Source:
    graph = onnx_models.open_onnx(file)
    return Source(
        where=str(file),
        format=ModelFormat.ONNX,
        precision=graph.precision,
        parameters=graph.parameters,
        run=graph.run,
        fill=lambda folder: graph.write(folder / model_file_name(ModelFormat.ONNX)),
        declared=graph.inputs,
        fixed_batch=_common_batch(graph.inputs),
        notes=graph.notes,
    )


def _of_module(module: torch.nn.Module, reference: str) -> dict[str, Any]:
    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        args, kwargs = modules.call_arguments(module, inputs)
        with torch.inference_mode(), code.user_code(reference, "running one batch"):
            outputs = modules.named_outputs(module(*args, **kwargs))
            return {name: modules.to_numpy(tensor) for name, tensor in outputs.items()}
        raise AssertionError  # `user_code` never swallows what it sees

    return {
        "run": run,
        "precision": modules.precision_of(module),
        "parameters": sum(p.numel() for p in module.parameters()),
    }


def _copy_of(file: Path, model_format: ModelFormat) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        shutil.copyfile(file, folder / model_file_name(model_format))

    return fill


def _static(shape: torch.Size) -> tuple[int | None, ...]:
    """Sizes as numbers, None where the program takes any."""
    return tuple(size if isinstance(size, int) else None for size in shape)


def _common_batch(declared: tuple[Declared, ...]) -> int | None:
    """The batch size written into a program, if it is written into any of its inputs."""
    return next((d.batch for d in declared if d.batch is not None), None)
