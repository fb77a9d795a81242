"""TorchScript: traced, frozen, and optimized for inference when it is loaded."""

from __future__ import annotations

import warnings
from typing import ClassVar, Literal

from tools.artifacts import model_file
from tools.contracts import ArtifactRef, Availability, Hardware, ModelFormat, Recipe
from tools.runtimes.availability import library
from tools.runtimes.base import Arrays, Runner
from tools.runtimes.settings import read_settings


class TorchScript:
    """Runs a frozen TorchScript program.

    The artifact holds the frozen program only: what `optimize_for_inference` makes of it (weights packed for this
    CPU) cannot be saved and read back, so that is done here.
    """

    name: ClassVar[str] = "torchscript"
    formats: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.TORCHSCRIPT})
    needs_torch: ClassVar[bool] = True
    compiles_per_batch: ClassVar[bool] = False
    device: ClassVar[Literal["cpu", "cuda"]] = "cpu"
    settings: ClassVar[frozenset[str]] = frozenset({"threads"})

    @classmethod
    def availability(cls, hardware: Hardware) -> Availability:  # noqa: ARG003
        """Available with torch, for as long as torch ships TorchScript."""
        return library(cls.name, "torch", "torch")

    def load(
        self,
        artifact: ArtifactRef,
        recipe: Recipe,
        *,
        batch_size: int,  # noqa: ARG002
        threads: int,
        example: Arrays,
    ) -> Runner:
        """Load, optimize, and run the example until the profiling executor has specialized."""
        settings = read_settings(recipe, self.settings, threads=threads)
        import torch

        from tools.runtimes.torch_runner import TorchRunner

        torch.set_num_threads(settings.threads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch deprecates TorchScript; here it is one candidate
            module = torch.jit.load(str(model_file(artifact)), map_location="cpu").eval()  # type: ignore[no-untyped-call]
            if hasattr(module, "training"):
                module = torch.jit.freeze(module)
            module = torch.jit.optimize_for_inference(module)
        runner = TorchRunner(module, module)
        for _ in range(3):
            runner(example)
        return runner
