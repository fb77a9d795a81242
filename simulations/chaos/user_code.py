"""What users write, at its worst: metrics that misbehave when they see INT8's outputs, and a model without an export.

The targets are the float model's outputs, so a metric can tell a quantized model by its rounding. What the metric does
then happens in that candidate's trial alone: the model as given is well.
"""

import ctypes
import os
import signal
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

ROUNDING = 1e-4
"""Float runtimes differ by less, relative to the largest output; INT8 by more."""
PRINTED_BYTES = 1_000_000_000
_CHUNK_BYTES = 1 << 20


def hang(outputs: Floats, targets: Floats) -> Floats:
    """Sleep in C without letting go of the interpreter, so that no thread of this process runs any more."""
    if _is_quantized(outputs, targets):
        ctypes.PyDLL(None).sleep(3600)
    return _agreement(outputs, targets)


def allocate(outputs: Floats, targets: Floats) -> Floats:
    """Take memory, and use it, until somebody says no."""
    taken = []
    while _is_quantized(outputs, targets):
        taken.append(np.ones(10_000_000))
    return _agreement(outputs, targets)


def crash(outputs: Floats, targets: Floats) -> Floats:
    """Read from address 0."""
    if _is_quantized(outputs, targets):
        ctypes.string_at(0)
    return _agreement(outputs, targets)


def kill_itself(outputs: Floats, targets: Floats) -> Floats:
    """Look as if somebody killed this process, every time."""
    if _is_quantized(outputs, targets):
        os.kill(os.getpid(), signal.SIGKILL)
    return _agreement(outputs, targets)


def print_a_lot(outputs: Floats, targets: Floats) -> Floats:
    """Print a gigabyte."""
    if _is_quantized(outputs, targets):
        for _ in range(PRINTED_BYTES // _CHUNK_BYTES):
            os.write(1, b"all work and no play" * (_CHUNK_BYTES // 20))
    return _agreement(outputs, targets)


def _is_quantized(outputs: Floats, targets: Floats) -> bool:
    return bool(np.abs(outputs - targets).max() > ROUNDING * np.abs(targets).max())


def _agreement(outputs: Floats, targets: Floats) -> Floats:
    """Return 1 for each item whose largest output is the float model's, else 0."""
    same: npt.NDArray[np.bool_] = outputs.argmax(1) == targets.argmax(1)
    return same.astype(np.float32)


def without_export() -> Any:
    """Return a PyTorch model that looks at a value to decide what to do, which no exported graph can."""
    import torch

    class Undecided(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = torch.nn.Linear(64, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 1e9:
                _give_up()
            y: torch.Tensor = self.layer(x.flatten(1))
            return y

    return Undecided().eval()


def _give_up() -> NoReturn:
    raise ValueError("such inputs do not exist")


def items() -> Iterator[tuple[Floats, npt.NDArray[np.int64]]]:
    """Yield inputs and labels for `without_export`; the labels are what the model itself says."""
    import torch

    inputs = np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32)
    with torch.no_grad():
        labels = without_export()(torch.from_numpy(inputs)).argmax(1).numpy()
    yield inputs, labels
