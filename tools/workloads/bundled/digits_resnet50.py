"""The reference workload: torchvision's ResNet-50 on handwritten digits at 64x64. Start your own from this file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tools.workloads.bundled import digits
from tools.workloads.bundled.training import TrainingPlan

PLAN = TrainingPlan(epochs=6)


def build() -> torch.nn.Module:
    """Return the untrained model: (n, 3, 64, 64) float32 to (n, 10) logits."""
    import torchvision

    module: torch.nn.Module = torchvision.models.resnet50(num_classes=digits.CLASSES)
    return module


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
    """Turn (n, 8, 8) raw images into (n, 3, 64, 64) inputs."""
    return digits.enlarged(raw, size=64, channels=3)


def postprocess(logits: Any) -> list[dict[str, float]]:
    """Turn (n, 10) logits into each item's digit and its probability."""
    return digits.answers(logits)
