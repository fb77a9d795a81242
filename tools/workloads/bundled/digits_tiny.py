"""A small convolutional net on handwritten digits at 16x16: trained in seconds, to try things out and for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tools.workloads.bundled import digits
from tools.workloads.bundled.training import TrainingPlan

PLAN = TrainingPlan(epochs=6, batch=100, learning_rate=2e-2)


def build() -> torch.nn.Module:
    """Return the untrained model: (n, 1, 16, 16) float32 to (n, 10) logits."""
    return torch.nn.Sequential(
        *_block(1, 16),
        torch.nn.MaxPool2d(2),
        *_block(16, 32),
        torch.nn.MaxPool2d(2),
        *_block(32, 64),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(64, digits.CLASSES),
    )


def evaluation() -> Iterator[tuple[Any, Any]]:
    """Yield the 597 held-out items, raw."""
    return digits.batches(*digits.held_out_items())


def calibration() -> Iterator[tuple[Any, Any]]:
    """Yield 200 of the training items, raw."""
    images, labels = digits.training_items()
    return digits.batches(images[: digits.CALIBRATION_ITEMS], labels[: digits.CALIBRATION_ITEMS])


def training() -> Iterator[tuple[Any, Any]]:
    """Yield the 1,200 training items, raw."""
    return digits.batches(*digits.training_items())


def preprocess(raw: Any) -> npt.NDArray[np.float32]:
    """Turn (n, 8, 8) raw images into (n, 1, 16, 16) inputs."""
    return digits.enlarged(raw, size=16, channels=1)


def postprocess(logits: Any) -> list[dict[str, float]]:
    """Turn (n, 10) logits into each item's digit and its probability."""
    return digits.answers(logits)


def _block(inputs: int, outputs: int) -> tuple[torch.nn.Module, ...]:
    return (
        torch.nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False),
        torch.nn.BatchNorm2d(outputs),
        torch.nn.ReLU(),
    )
