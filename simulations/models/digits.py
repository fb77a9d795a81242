"""Data of the vision transformer and of the LSTM: scikit-learn's handwritten digits, enlarged to 32x32.

The split is fixed: 1,200 of the 1,797 images to train with, the 597 others to evaluate, 200 of the former to calibrate.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

SCALE = 4
"""Each of the 8x8 pixels becomes 4x4."""
TRAINING_ITEMS = 1200
CALIBRATION_ITEMS = 200
BATCH = 100

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def evaluation_images() -> Iterator[tuple[Images, Labels]]:
    """Yield the 597 items to evaluate, as (b, 3, 32, 32) images."""
    return _batches(slice(TRAINING_ITEMS, None))


def calibration_images() -> Iterator[tuple[Images, Labels]]:
    """Yield 200 items to calibrate with, as images."""
    return _batches(slice(CALIBRATION_ITEMS))


def training_images() -> Iterator[tuple[Images, Labels]]:
    """Yield the 1,200 items to train with, as images."""
    return _batches(slice(TRAINING_ITEMS))


def evaluation_rows() -> Iterator[tuple[Images, Labels]]:
    """Yield the items to evaluate as sequences of rows, (b, 32, 32): 32 steps of 32 pixels."""
    return _rows(evaluation_images())


def calibration_rows() -> Iterator[tuple[Images, Labels]]:
    """Yield the items to calibrate with, as sequences of rows."""
    return _rows(calibration_images())


def training_rows() -> Iterator[tuple[Images, Labels]]:
    """Yield the items to train with, as sequences of rows."""
    return _rows(training_images())


def _rows(batches: Iterator[tuple[Images, Labels]]) -> Iterator[tuple[Images, Labels]]:
    for images, labels in batches:
        yield images[:, 0], labels


def _images() -> tuple[Images, Labels]:
    """Return all images, (1797, 3, 32, 32) in -1 to 1, and their labels, in an order that is always the same."""
    digits: Any = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    grey = digits.images[order].astype(np.float32) / 8 - 1  # pixels are 0 to 16
    large = grey.repeat(SCALE, axis=1).repeat(SCALE, axis=2)
    return np.stack([large] * 3, axis=1), digits.target[order].astype(np.int64)


def _batches(chosen: slice) -> Iterator[tuple[Images, Labels]]:
    all_images, all_labels = _images()
    images, labels = all_images[chosen], all_labels[chosen]
    for start in range(0, len(images), BATCH):
        yield images[start : start + BATCH], labels[start : start + BATCH]
