"""What is checked and counted of a module before it is trained.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import torch

from tools.contracts import WorkloadInfo
from tools.errors import InfertuneError, TransformError
from tools.workloads.datasets import describe, tensor_specs
from tools.workloads.modules import call_module

Arrays = Mapping[str, npt.NDArray[Any]]


def check_fits(module: torch.nn.Module, workload: WorkloadInfo, example: Arrays) -> None:
    """Check that a module can stand in for the workload's model.

    Args:
        module: for inference.
        workload: whose model.
        example: a batch of its inputs.

    Raises:
        TransformError: the module cannot take the inputs, or gives other outputs.
    """
    try:
        outputs = call_module(module, example)
    except (InfertuneError, MemoryError):
        raise
    except Exception as error:  # layers raise anything
        inputs = describe(tensor_specs(example))
        raise TransformError(f"the student cannot take the model's inputs ({inputs}): {one_line(error)}.") from error
    wanted = [spec.shape for spec in workload.outputs]
    found = [output.shape[1:] for output in outputs]
    if found != wanted:
        raise TransformError(
            f"the student gives {_listed(found)}, and the model {_listed(wanted)}.",
            fix="A student's factory that takes `num_classes` is called with the model's.",
        )


def count_parameters(module: torch.nn.Module) -> int:
    """Return how many parameters a module has, tied ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def one_line(error: Exception) -> str:
    """Return what was raised in one line, without the full stop."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}".rstrip(".")


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return f"{len(shapes)} output{'' if len(shapes) == 1 else 's'} of shape {', '.join(map(str, shapes))} an item"
