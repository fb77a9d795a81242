"""Running batches of any length: cut to a largest one, padded to buckets, the model loaded for each where need be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tools.contracts import JsonScalar
from tools.contracts.workload import SequenceInfo
from tools.errors import TransformError, WorkloadError
from tools.workloads.sequences import Array, Arrays, batch_length, resize, resized

SETTINGS = frozenset({"buckets", "max_length"})
"""Settings of a recipe that are for `SequenceRunner`, and not for the runtime below it."""
DEFAULT_BUCKETS = 4
SMALLEST_BUCKET = 8

Runner = Callable[[Arrays], tuple[Array, ...]]
"""A loaded model, as in `tools.runtimes.base`."""


@dataclass(frozen=True)
class Lengths:
    """At which lengths batches are run.

    Attributes:
        buckets: rising; a batch is padded up to the next one. Empty to run each at its own length.
        max_length: longer batches are cut to this.
    """

    buckets: tuple[int, ...] = ()
    max_length: int | None = None

    @classmethod
    def of(
        cls, settings: Mapping[str, JsonScalar], sequence: SequenceInfo, *, one_shape: bool, fixed: int | None = None
    ) -> Lengths:
        """Read a recipe's settings `buckets` ("16,32,64") and `max_length`.

        Args:
            settings: of the recipe.
            sequence: what is served.
            one_shape: whether the runtime has to be loaded for each length: then there are buckets in any case.
            fixed: the only length that the artifact accepts.

        Raises:
            TransformError: they are no rising whole numbers; the longest items fit into no bucket; or they contradict
                the artifact.
        """
        max_length = settings.get("max_length")
        if max_length is not None and (isinstance(max_length, bool) or not isinstance(max_length, int)):
            raise TransformError(f"`max_length` must be a whole number, not {max_length!r}.")
        if max_length is not None and max_length < 1:
            raise TransformError(f"`max_length` must be at least 1, not {max_length}.")
        longest = min(sequence.length, max_length or sequence.length)
        text = settings.get("buckets")
        if fixed is not None:
            if text is not None:
                raise TransformError(f"the program accepts sequences of {fixed} only: there can be no `buckets`.")
            return cls((fixed,), max_length)
        if text is not None:
            buckets = _parse_buckets(text)
            if buckets[-1] < longest:
                raise TransformError(
                    f"the last bucket is {buckets[-1]}, and there are batches as long as {longest}.",
                    fix="Add a larger one, or set `max_length`.",
                )
        else:
            buckets = default_buckets(longest) if one_shape else ()
        return cls(buckets, max_length)

    def kept(self, length: int) -> int:
        """Return how much of a batch of this length is run."""
        return length if self.max_length is None else min(length, self.max_length)

    def padded(self, length: int) -> int:
        """Return the length that a batch of this length is padded to.

        Raises:
            WorkloadError: it is longer than the last bucket.
        """
        if not self.buckets:
            return length
        for bucket in self.buckets:
            if length <= bucket:
                return bucket
        raise WorkloadError(f"a batch of length {length} fits into no bucket; the last is {self.buckets[-1]}.")


def default_buckets(longest: int) -> tuple[int, ...]:
    """Return the longest length and its half, quarter and eighth, in multiples of `SMALLEST_BUCKET`.

    Each is a model compiled and held in memory, so they are few.
    """
    halves = (math.ceil(longest / 2**power / SMALLEST_BUCKET) * SMALLEST_BUCKET for power in range(DEFAULT_BUCKETS))
    return tuple(sorted({min(length, longest) for length in halves}))


class SequenceRunner:
    """Runs batches of any length: cuts them to `max_length`, pads them to a bucket, and loads what that takes.

    Args:
        load: loads the model for batches of a length.
        sequence: what varies.
        varies: for each output, whether it is as long as the batch.
        lengths: at which lengths to run.
        one_shape: whether the runtime has to be loaded for each length.
    """

    def __init__(
        self,
        load: Callable[[int], Runner],
        sequence: SequenceInfo,
        varies: Sequence[bool],
        lengths: Lengths,
        *,
        one_shape: bool,
    ) -> None:
        self._load = load
        self._sequence = sequence
        self._varies = tuple(varies)
        self._lengths = lengths
        self._one_shape = one_shape
        self._runners: dict[int, Runner] = {}

    def __call__(self, inputs: Arrays) -> tuple[Array, ...]:
        """Run one batch; outputs that vary with it have its length again, with zeros where it was cut.

        Raises:
            WorkloadError: it is longer than the last bucket.
        """
        given = batch_length(self._sequence, inputs)
        kept = self._lengths.kept(given)
        length = self._lengths.padded(kept)
        runner = self._runner(length)
        if kept != given:
            inputs = resized(self._sequence, inputs, kept)
        if length != kept:
            inputs = resized(self._sequence, inputs, length)
        outputs = runner(inputs)
        if length == given:
            return outputs
        axis = self._sequence.axis
        return tuple(
            resize(output, axis, given, 0) if varies else output
            for output, varies in zip(outputs, self._varies, strict=True)
        )

    def prepare(self, batches: Sequence[Arrays]) -> None:
        """Load what these batches take, and run each length once: libraries make kernels for shapes they first see."""
        seen = set()
        for batch in batches:
            length = self._lengths.padded(self._lengths.kept(batch_length(self._sequence, batch)))
            if length not in seen:
                seen.add(length)
                self(batch)

    def _runner(self, length: int) -> Runner:
        key = length if self._one_shape else 0
        if key not in self._runners:
            self._runners[key] = self._load(length)
        return self._runners[key]


def _parse_buckets(text: JsonScalar) -> tuple[int, ...]:
    parts = str(text).split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise TransformError(f"`buckets` must be lengths with commas between them, as in 16,32,64; not {text!r}.")
    buckets = tuple(int(part) for part in parts)
    if buckets[0] < 1 or any(a >= b for a, b in itertools.pairwise(buckets)):
        raise TransformError(f"`buckets` must rise, and begin with at least 1; found {text!r}.")
    return buckets
