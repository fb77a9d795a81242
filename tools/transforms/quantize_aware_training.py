"""Training a PyTorch module that has NNCF's fake quantizers in it.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from tools.contracts import DatasetRef, JsonScalar
from tools.worker import emit, stage
from tools.workloads.datasets import load_inputs
from tools.workloads.modules import call_arguments, flatten_outputs

BATCH = 32
DEFAULT_EPOCHS = 3
DEFAULT_RATE = 1e-4
DEFAULT_SECONDS = 60.0


class Whole(torch.nn.Module):
    """Calls another module. NNCF adds a child of its own to what it wraps, which a `Sequential` would call as well."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, value: torch.Tensor) -> Any:
        """Call it."""
        return self.module(value)


def use_plain_quantizers() -> None:
    """Have NNCF quantize with PyTorch's own operators.

    Left alone it compiles an extension when it is first used: that needs a compiler, takes minutes on a busy machine,
    and leaves a lock behind when the process is killed. These are its own reference, which it compiles otherwise.
    """
    from nncf.torch.quantization.extensions import QuantizedFunctionsCPU
    from nncf.torch.quantization.reference import torch_executor

    plain = SimpleNamespace(Quantize_forward=torch_executor.forward, Quantize_backward=torch_executor.backward)
    QuantizedFunctionsCPU._loaded_namespace = plain  # noqa: SLF001  there is no public switch


def has_quantizers(module: torch.nn.Module) -> bool:
    """Whether NNCF found anything to quantize."""
    from nncf.torch.quantization.layers import BaseQuantizer

    return any(isinstance(part, BaseQuantizer) for part in module.modules())


def wrappable(module: torch.nn.Module) -> torch.nn.Module:
    """Return a module that NNCF can wrap, which is the same one unless it is a `Sequential`."""
    return Whole(module) if isinstance(module, torch.nn.Sequential) else module


def train(
    student: torch.nn.Module,
    teacher: torch.nn.Module,
    data: DatasetRef,
    judged: Sequence[Mapping[str, np.ndarray]],
    settings: Mapping[str, JsonScalar],
    *,
    size: int,
) -> dict[str, JsonScalar]:
    """Train in place towards the teacher's outputs, until the epochs or the time are used up, and keep the best epoch.

    Args:
        student: with fake quantizers, for inference: dropout and the statistics of batch normalization stay so.
        teacher: the float model.
        data: items to learn from; their targets are not used.
        judged: batches by which the best epoch is known; what was there before the training counts as one.
        settings: `epochs`, `learning_rate`, `max_s` and `seed`, as `QuantizeAware` says.
        size: items in a batch.

    Returns:
        Facts: `epochs`, and the loss on `judged` before the training and of what is kept.
    """
    epochs, seconds = int(settings.get("epochs") or DEFAULT_EPOCHS), float(settings.get("max_s") or DEFAULT_SECONDS)
    order = np.random.default_rng(int(settings.get("seed") or 0))
    for parameter in student.parameters():
        parameter.requires_grad = parameter.dtype.is_floating_point
    optimizer = torch.optim.Adam(
        [p for p in student.parameters() if p.requires_grad], lr=float(settings.get("learning_rate") or DEFAULT_RATE)
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * max(1, data.n // size))
    before = lowest = _judge(student, teacher, judged)
    best, done, started = copy.deepcopy(student.state_dict()), 0, time.monotonic()
    for epoch in range(1, epochs + 1):
        stage(f"training with quantizers, epoch {epoch} of {epochs}")
        for batch in _batches(data, order, size):
            _step(student, teacher, batch, optimizer)
            schedule.step()
        loss, done = _judge(student, teacher, judged), epoch
        emit("training", epoch=epoch, epochs=epochs, loss=loss)
        if loss < lowest:
            lowest, best = loss, copy.deepcopy(student.state_dict())
        if time.monotonic() - started > seconds:
            break
    student.load_state_dict(best)
    return {"epochs": done, "loss_before": before, "loss": lowest}


def _judge(student: torch.nn.Module, teacher: torch.nn.Module, batches: Sequence[Mapping[str, np.ndarray]]) -> float:
    with torch.no_grad():
        return float(np.mean([float(_loss(student, teacher, batch)) for batch in batches]))


def _step(
    student: torch.nn.Module, teacher: torch.nn.Module, batch: Mapping[str, np.ndarray], optimizer: torch.optim.Adam
) -> None:
    optimizer.zero_grad()
    _loss(student, teacher, batch).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _loss(student: torch.nn.Module, teacher: torch.nn.Module, batch: Mapping[str, np.ndarray]) -> torch.Tensor:
    """Return the mean squared difference to the teacher's outputs, over their variance."""
    arguments, keywords = call_arguments(teacher, batch)
    with torch.no_grad():
        wanted = flatten_outputs(teacher(*arguments, **keywords))
    found = flatten_outputs(student(*arguments, **keywords))
    parts = [
        (f - w).square().mean() / w.var().clamp_min(1e-12)
        for f, w in zip(found, wanted, strict=True)
        if w.dtype.is_floating_point
    ]
    return torch.stack(parts).mean()


def _batches(data: DatasetRef, order: np.random.Generator, size: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield all items, shuffled, but for a last batch that is not full; fewer items than one batch repeat."""
    inputs = load_inputs(data)
    shuffled = np.resize(order.permutation(data.n), max(data.n, size))
    for start in range(0, len(shuffled) - size + 1, size):
        rows = np.sort(shuffled[start : start + size])
        yield {name: np.ascontiguousarray(array[rows]) for name, array in inputs.items()}


def nncf_arguments(module: torch.nn.Module, batch: Mapping[str, np.ndarray]) -> Any:
    """Return a batch as NNCF calls a module with it: a tensor, a tuple for several, or a mapping for keywords."""
    arguments, keywords = call_arguments(module, batch)
    return keywords or (arguments if len(arguments) > 1 else arguments[0])
