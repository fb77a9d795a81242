"""TorchScript: traced, frozen, and optimized for inference when it is loaded."""

from __future__ import annotations

import warnings
from typing import ClassVar

from tools.artifacts import model_file
from tools.contracts import ArtifactRef, Availability, Hardware, ModelFormat, Recipe
from tools.runtimes.base import Arrays, Runner


class TorchScript:
    """Runs a frozen TorchScript program.

    The artifact holds the frozen program only: what `optimize_for_inference` makes of it (weights packed for this
    CPU) cannot be saved and read back, so that is done here.
    """

    name: ClassVar[str] = "torchscript"
    formats: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.TORCHSCRIPT})
    needs_torch: ClassVar[bool] = True
    compiles_per_batch: ClassVar[bool] = False

    @classmethod
    def availability(cls, hardware: Hardware) -> Availability:  # noqa: ARG003
        """Available with torch, for as long as torch ships TorchScript."""
        from tools.runtimes import library

        return library(cls.name, "torch", "torch")

    def load(
        self,
        artifact: ArtifactRef,
        recipe: Recipe,  # noqa: ARG002
        *,
        batch_size: int,  # noqa: ARG002
        threads: int,
        example: Arrays,
    ) -> Runner:
        """Load, optimize, and run the example until the profiling executor has specialized."""
        import torch

        from tools.runtimes.eager import torch_runner

        torch.set_num_threads(threads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch deprecates TorchScript; here it is one candidate
            module = torch.jit.load(str(model_file(artifact)), map_location="cpu").eval()  # type: ignore[no-untyped-call]
            if hasattr(module, "training"):
                module = torch.jit.freeze(module)
            module = torch.jit.optimize_for_inference(module)
        runner = torch_runner(module)
        for _ in range(3):
            runner(example)
        return runner
