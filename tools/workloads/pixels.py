"""Items that are normalized 8-bit images, and models that take the pixels and normalize them by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tools.contracts import Normalization
from tools.errors import WorkloadError
from tools.runtimes.base import Arrays, Runner

if TYPE_CHECKING:  # a replica's process needs no YAML
    from tools.spec import NormalizationSpec

Array = npt.NDArray[Any]

OFF_GRID = 0.05
"""How far from a whole pixel value an item may lie: float32 after a division, and no image that was resized later."""
CHECKED_ITEMS = 64


def describe_normalization(spec: NormalizationSpec, inputs: Mapping[str, Array], where: str) -> Normalization:
    """Return how the items were normalized, if that is true of them.

    Args:
        spec: what the spec says.
        inputs: items by input name, (n, *shape).
        where: names the items in messages.

    Raises:
        WorkloadError: there is no such input or channel axis, mean and std do not fit the channels, or the items are
            not 8-bit images that were normalized so.
    """
    floats = [name for name, array in inputs.items() if array.dtype.kind == "f"]
    name = spec.input if spec.input is not None else floats[0] if len(floats) == 1 else None
    if name is None or name not in inputs:
        raise WorkloadError(
            f"`normalization.input` must name one of the inputs {', '.join(inputs)}.", where="workload.normalization"
        )
    array = inputs[name]
    if spec.axis >= array.ndim:
        raise WorkloadError(f"the input `{name}` has no axis {spec.axis}.", where="workload.normalization")
    channels = array.shape[spec.axis]
    if not {len(spec.mean), len(spec.std)} <= {1, channels}:
        raise WorkloadError(
            f"`{name}` has {channels} channels on axis {spec.axis}: give as many means and stds, or one of each.",
            where="workload.normalization",
        )
    found = Normalization(input=name, mean=spec.mean, std=spec.std, scale=spec.scale, axis=spec.axis)
    exact = _exact_pixels(found, np.asarray(array[:CHECKED_ITEMS]))
    off = float(np.abs(exact - np.clip(np.rint(exact), 0, 255)).max())
    if not off <= OFF_GRID:
        raise WorkloadError(
            f"the input `{name}` does not hold 8-bit images that were normalized so: undone, a value is {off:.3g} away "
            "from the nearest of 0 to 255.",
            where=f"workload.normalization, {where}",
            fix="Check mean, std and scale; an image that was resized after it was read has no whole pixel values.",
        )
    return found


def to_pixels(normalization: Normalization, inputs: Arrays) -> dict[str, Array]:
    """Return inputs with the normalized one as 8-bit pixels again, rounded, and cut off at 0 and 255."""
    exact = _exact_pixels(normalization, inputs[normalization.input])
    pixels = np.clip(np.rint(exact), 0, 255).astype(np.uint8)
    return {**inputs, normalization.input: np.ascontiguousarray(pixels)}


def factors(normalization: Normalization, ndim: int) -> tuple[Array, Array]:
    """Return `m` and `s` with `x = (p - m) * s`, float32, shaped to broadcast over an input of `ndim` dimensions."""
    mean, std = (np.asarray(v, np.float64) for v in (normalization.mean, normalization.std))
    shape = [1] * ndim
    shape[normalization.axis] = -1
    subtract, multiply = mean * normalization.scale, 1 / (std * normalization.scale)
    return subtract.reshape(shape).astype(np.float32), multiply.reshape(shape).astype(np.float32)


class PixelRunner:
    """Feeds normalized items to a model that takes pixels."""

    def __init__(self, runner: Runner, normalization: Normalization) -> None:
        self._runner = runner
        self._normalization = normalization

    def __call__(self, inputs: Arrays) -> tuple[Array, ...]:
        """Run one batch of the workload's own items."""
        return self._runner(to_pixels(self._normalization, inputs))


def _exact_pixels(normalization: Normalization, array: Array) -> Array:
    subtract, multiply = (f.astype(np.float64) for f in factors(normalization, array.ndim))
    exact: Array = array.astype(np.float64) / multiply + subtract
    return exact
