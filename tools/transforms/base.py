"""The protocol of a transform: artifact in, artifact out."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import ClassVar, Protocol

from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, WorkloadInfo


class Stage(IntEnum):
    """Where a transform may stand in a recipe. Stages never go back, so an illegal order cannot be built."""

    DISTILL = 10
    """A smaller architecture takes the model's place, and learns from it."""
    PRUNE = 20
    FINETUNE = 25
    """What pruning lost is learnt again."""
    CAST = 30
    EXPORT = 40
    CONVERT = 50
    QUANTIZE = 60
    FOLD = 70
    """What came before the model becomes part of it; last, so that calibration sees the items as they are."""


class Transform(Protocol):
    """One technique. Runs in a worker: it may fail, hang or eat memory, and that is an outcome."""

    name: ClassVar[str]
    stage: ClassVar[Stage]
    consumes: ClassVar[frozenset[ModelFormat]]
    produces: ClassVar[ModelFormat]
    needs_calibration: ClassVar[bool]
    """Whether its result depends on the calibration data."""
    needs_training: ClassVar[bool]
    """Whether it trains, so that the workload must have training data."""

    def apply(
        self, artifact: ArtifactRef, workload: WorkloadInfo, settings: Mapping[str, JsonScalar], root: Path
    ) -> BuildResult:
        """Write the transformed artifact below `root`, and say what there is to say about it.

        Raises:
            TransformError: this transform cannot work on this artifact; the message says why.
        """
        ...
