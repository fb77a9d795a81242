"""The data: scikit-learn's handwritten digits, 1,797 images of 8x8 pixels, enlarged to 32x32. The split is fixed."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

SCALE = 4
"""Each pixel becomes 4x4."""
TRAINING_ITEMS = 1200
CALIBRATION_ITEMS = 200
BATCH = 100

Batch = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


def evaluation() -> Iterator[Batch]:
    """Yield the 597 items that accuracy is measured on. No training may have seen them."""
    images, labels = _items()
    return _batches(images[TRAINING_ITEMS:], labels[TRAINING_ITEMS:])


def calibration() -> Iterator[Batch]:
    """Yield 200 training items, from which static INT8 learns the ranges of the activations."""
    images, labels = _items()
    return _batches(images[:CALIBRATION_ITEMS], labels[:CALIBRATION_ITEMS])


def training() -> Iterator[Batch]:
    """Yield the 1,200 items that `train.py` trains on."""
    images, labels = _items()
    return _batches(images[:TRAINING_ITEMS], labels[:TRAINING_ITEMS])


def _items() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return all images, (1797, 1, 32, 32) in -1 to 1, and their labels, in an order that is always the same."""
    digits: Any = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    grey = digits.images[order].astype(np.float32) / 8 - 1  # pixels are 0 to 16
    large = grey.repeat(SCALE, axis=1).repeat(SCALE, axis=2)
    return large[:, None], digits.target[order].astype(np.int64)


def _batches(images: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Iterator[Batch]:
    for start in range(0, len(images), BATCH):
        yield images[start : start + BATCH], labels[start : start + BATCH]
