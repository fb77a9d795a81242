"""PyTorch as it comes: the module called under inference mode. The baseline for models given as PyTorch."""

from __future__ import annotations

from typing import ClassVar, Literal

from tools.contracts import ArtifactRef, Availability, Hardware, ModelFormat, Recipe
from tools.runtimes.availability import library
from tools.runtimes.base import Arrays, Runner
from tools.runtimes.settings import read_settings


class Eager:
    """Runs the module itself."""

    name: ClassVar[str] = "eager"
    formats: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.TORCH, ModelFormat.PT2, ModelFormat.TORCHSCRIPT})
    needs_torch: ClassVar[bool] = True
    compiles_per_batch: ClassVar[bool] = False
    device: ClassVar[Literal["cpu", "cuda"]] = "cpu"
    settings: ClassVar[frozenset[str]] = frozenset({"threads", "channels_last", "fuse"})

    @classmethod
    def availability(cls, hardware: Hardware) -> Availability:  # noqa: ARG003  the protocol's signature
        """Available wherever torch is installed."""
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
        """Build the module and load its weights."""
        settings = read_settings(recipe, self.settings, threads=threads)
        import torch

        from tools.runtimes.torch_runner import TorchRunner, prepared_module

        torch.set_num_threads(settings.threads)
        module = prepared_module(artifact, settings, example)
        return TorchRunner(module, module, channels_last=settings.channels_last)
