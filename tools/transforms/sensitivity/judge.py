"""How much worse a model is than its float original, on items that no evaluation will see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.contracts import DatasetRef, WorkloadInfo
from tools.errors import TransformError

Array = npt.NDArray[Any]
Outputs = tuple[Array, ...]

MOST_ITEMS = 1000
MOST_MB = 100
"""Of inputs to judge by: they are run a dozen times, and large inputs usually mean a large model."""
_LABELLED = ("top1", "top5")


@dataclass(frozen=True)
class Items:
    """Calibration items, and training items where there are some.

    Attributes:
        inputs: (n, *shape) by name.
        targets: (n, ...); None where some of them have none.
    """

    inputs: dict[str, Array]
    targets: Array | None

    @property
    def n(self) -> int:
        """How many there are."""
        return len(next(iter(self.inputs.values())))

    def some(self, count: int) -> Items:
        """Return `count` of them, evenly spaced; all of them where there are fewer."""
        rows = _spread(self.n, count)
        return Items(
            {name: array[rows] for name, array in self.inputs.items()},
            None if self.targets is None else self.targets[rows],
        )


def read_items(workload: WorkloadInfo) -> Items:
    """Read the items that a transform may judge by: those for calibration, then training items, evenly spaced.

    At most `MOST_ITEMS`, and `MOST_MB` of them.
    """
    item_mb = sum(math.prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in workload.inputs) / 1e6
    most = max(1, min(MOST_ITEMS, int(MOST_MB / item_mb)))
    parts = [_take(workload.calibration, most)]
    if workload.training is not None and parts[0].n < most:
        parts.append(_take(workload.training, most - parts[0].n))
    targets = [part.targets for part in parts if part.targets is not None]
    return Items(
        {name: np.concatenate([part.inputs[name] for part in parts]) for name in parts[0].inputs},
        np.concatenate(targets) if len(targets) == len(parts) else None,
    )


class Judge:
    """Compares outputs with those of the float model, item by item.

    Without targets, `top1` and `top5` ask for the float model's likeliest class.

    Raises:
        TransformError: the float model's own outputs are not finite.
    """

    def __init__(self, workload: WorkloadInfo, items: Items, float_outputs: Outputs) -> None:
        self._metric = workload.metric
        self._sign = 1.0 if workload.higher_is_better else -1.0
        self._targets = items.targets
        self._float = float_outputs
        if not _finite(float_outputs):
            raise TransformError("the float model's outputs of some calibration items are not finite.")
        if self._targets is None and self._metric in _LABELLED:
            self._targets = float_outputs[0].argmax(axis=1)
        self._float_score = self._score(float_outputs)

    def drop(self, outputs: Outputs) -> float:
        """Return how much worse the metric is, in its unit; infinite where an output is not finite."""
        if not _finite(outputs):
            return float("inf")
        return self._sign * (self._float_score - self._score(outputs))

    def error(self, outputs: Outputs) -> float:
        """Return the mean squared difference to the float model's outputs, over the variance of these."""
        if not _finite(outputs):
            return float("inf")
        errors = [
            np.square(found.astype(np.float64) - wanted).mean() / max(wanted.astype(np.float64).var(), 1e-30)
            for found, wanted in zip(outputs, self._float, strict=True)
        ]
        return float(np.mean(errors))

    def _score(self, outputs: Outputs) -> float:
        from tools.workloads.metrics import score

        return float(score(self._metric, outputs, self._targets, baseline=self._float).mean())


def _take(data: DatasetRef, most: int) -> Items:
    from tools.workloads.datasets import load_inputs, load_targets

    rows = _spread(data.n, most)
    targets = load_targets(data)
    return Items(
        {name: np.ascontiguousarray(array[rows]) for name, array in load_inputs(data).items()},
        None if targets is None else targets[rows],
    )


def _spread(n: int, count: int) -> npt.NDArray[np.int64]:
    return np.linspace(0, n - 1, min(n, count)).round().astype(np.int64)


def _finite(outputs: Sequence[Array]) -> bool:
    return all(bool(np.isfinite(output).all()) for output in outputs if output.dtype.kind == "f")
