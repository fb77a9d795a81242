"""PyTorch as it comes, on an NVIDIA GPU. Written for it, but not run on one while this was developed."""

from __future__ import annotations

from typing import ClassVar, Literal

from tools.contracts import ArtifactRef, Availability, Hardware, ModelFormat, Recipe
from tools.runtimes.availability import torch_on_cuda
from tools.runtimes.base import Arrays, Runner
from tools.runtimes.settings import read_settings


class EagerCuda:
    """Runs the module itself. A recipe of precision bf16 or fp16 runs in it, whether the weights were cast or not."""

    name: ClassVar[str] = "eager-cuda"
    formats: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.TORCH, ModelFormat.TORCHSCRIPT})
    needs_torch: ClassVar[bool] = True
    compiles_per_batch: ClassVar[bool] = False
    device: ClassVar[Literal["cpu", "cuda"]] = "cuda"
    settings: ClassVar[frozenset[str]] = frozenset({"threads", "channels_last", "fuse"})

    @classmethod
    def availability(cls, hardware: Hardware) -> Availability:
        """Available with a CUDA build of torch and an NVIDIA GPU."""
        return torch_on_cuda(cls.name, hardware)

    def load(
        self,
        artifact: ArtifactRef,
        recipe: Recipe,
        *,
        batch_size: int,  # noqa: ARG002
        threads: int,
        example: Arrays,
    ) -> Runner:
        """Build the module, load its weights, and move it to the first GPU.

        Raises:
            UnavailableError: torch sees no GPU.
        """
        settings = read_settings(recipe, self.settings, threads=threads)
        import torch

        from tools.runtimes.torch_runner import TorchRunner, module_on_cuda

        torch.set_num_threads(settings.threads)
        module = module_on_cuda(artifact, recipe, settings, example)
        return TorchRunner(module, module, device="cuda", channels_last=settings.channels_last)
