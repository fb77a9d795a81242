"""PyTorch as it comes: the module called under inference mode. The baseline for models given as PyTorch."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tools.contracts import ArtifactRef, Availability, Hardware, ModelFormat, Recipe
from tools.runtimes.base import Arrays, Runner


class Eager:
    """Runs the module itself."""

    name: ClassVar[str] = "eager"
    formats: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.TORCH, ModelFormat.PT2, ModelFormat.TORCHSCRIPT})
    needs_torch: ClassVar[bool] = True
    compiles_per_batch: ClassVar[bool] = False

    @classmethod
    def availability(cls, hardware: Hardware) -> Availability:  # noqa: ARG003  the protocol's signature
        """Available wherever torch is installed."""
        from tools.runtimes import library

        return library(cls.name, "torch", "torch")

    def load(
        self,
        artifact: ArtifactRef,
        recipe: Recipe,  # noqa: ARG002
        *,
        batch_size: int,  # noqa: ARG002
        threads: int,
        example: Arrays,  # noqa: ARG002
    ) -> Runner:
        """Build the module and load its weights."""
        import torch

        from tools.workloads.modules import load_module

        torch.set_num_threads(threads)
        return torch_runner(load_module(artifact))


def torch_runner(module: Any) -> Runner:
    """Wrap a torch callable as numpy in, numpy out."""
    from tools.workloads.modules import call_module

    def run(inputs: Arrays) -> tuple[np.ndarray, ...]:
        return call_module(module, inputs)

    return run
