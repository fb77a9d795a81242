"""The protocol that every runtime speaks. An adapter is one short file for those who know the library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Protocol

import numpy as np

from tools.contracts import ArtifactRef, Availability, Hardware, ModelFormat, Recipe

Arrays = Mapping[str, np.ndarray]
"""Inputs by name, batch first."""


class Runner(Protocol):
    """A loaded model. Calling it runs one batch, numpy in and numpy out, as a server would."""

    def __call__(self, inputs: Arrays) -> tuple[np.ndarray, ...]:
        """Run one batch and return the outputs in the model's order."""
        ...


class Runtime(Protocol):
    """Something that can load an artifact and run it."""

    name: ClassVar[str]
    formats: ClassVar[frozenset[ModelFormat]]
    """What it can load."""
    needs_torch: ClassVar[bool]
    """Whether its process has to import torch; without it a replica is some 400 MB smaller."""
    compiles_per_batch: ClassVar[bool]
    """Whether a new batch size costs seconds of compiling, so that accuracy is better evaluated at the loaded one."""
    device: ClassVar[Literal["cpu", "cuda"]]
    """Where it computes."""
    settings: ClassVar[frozenset[str]]
    """The settings of a recipe that it understands (`tools.runtimes.settings`)."""

    @classmethod
    def availability(cls, hardware: Hardware) -> Availability:
        """Say whether this runtime can be used here, quickly and without importing its library."""
        ...

    def load(self, artifact: ArtifactRef, recipe: Recipe, *, batch_size: int, threads: int, example: Arrays) -> Runner:
        """Load the artifact for one batch size.

        Args:
            artifact: in one of `formats`.
            recipe: what is being measured: its precision and its settings.
            batch_size: the batch size that the runner will be called with.
            threads: CPU threads it may use.
            example: inputs of that batch size.

        Raises:
            TransformError: the recipe's settings make no sense here.
            UnavailableError: the runtime cannot be used on this machine after all.
        """
        ...
