"""Scikit-learn's handwritten digits: 1,797 images of 8x8 pixels in 17 shades, ten classes, no download.

Raw items are (n, 8, 8) uint8, as a camera would send them; turning them into a model's input is preprocessing, and is
timed as such. The split is fixed: 1,200 images to train, 597 held out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

TRAINING_ITEMS = 1200
CALIBRATION_ITEMS = 200
CLASSES = 10
_BRIGHTEST = 16.0
_BATCH = 100

Array = npt.NDArray[Any]


def training_items() -> tuple[Array, Array]:
    """Return (1200, 8, 8) uint8 images and (1200,) int64 labels."""
    images, labels = _shuffled()
    return images[:TRAINING_ITEMS], labels[:TRAINING_ITEMS]


def held_out_items() -> tuple[Array, Array]:
    """Return (597, 8, 8) uint8 images and (597,) int64 labels that no training sees."""
    images, labels = _shuffled()
    return images[TRAINING_ITEMS:], labels[TRAINING_ITEMS:]


def batches(images: Array, labels: Array) -> Iterator[tuple[Array, Array]]:
    """Yield (raw images, labels), 100 at a time."""
    for start in range(0, len(images), _BATCH):
        yield images[start : start + _BATCH], labels[start : start + _BATCH]


def enlarged(raw: Array, *, size: int, channels: int) -> npt.NDArray[np.float32]:
    """Return (n, channels, size, size) float32 in -1 to 1, resized bilinearly, of (n, 8, 8) images in 0 to 16."""
    images = torch.from_numpy(np.asarray(raw, dtype=np.float32))[:, None] / _BRIGHTEST
    resized = torch.nn.functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    normalized: npt.NDArray[np.float32] = ((resized - 0.5) / 0.5).repeat(1, channels, 1, 1).numpy()
    return normalized


def answers(logits: Array) -> list[dict[str, float]]:
    """Return what a client would get for (n, 10) logits: each item's digit and its probability."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    digits = probabilities.argmax(axis=1)
    return [{"digit": int(d), "probability": float(p[d])} for d, p in zip(digits, probabilities, strict=True)]


def _shuffled() -> tuple[Array, Array]:
    from sklearn.datasets import load_digits

    data = load_digits()
    order = torch.randperm(len(data.images), generator=torch.Generator().manual_seed(0)).numpy()
    return data.images.astype(np.uint8)[order], data.target.astype(np.int64)[order]
