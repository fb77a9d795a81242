"""`torch.compile` on an NVIDIA GPU, with CUDA graphs. Written for it, but not run on one while this was developed."""

from __future__ import annotations

from typing import ClassVar, Literal

from tools.contracts import ArtifactRef, Availability, Hardware, ModelFormat, Recipe
from tools.runtimes.availability import torch_on_cuda
from tools.runtimes.base import Arrays, Runner
from tools.runtimes.settings import read_settings

RECORDING_RUNS = 3
"""Inductor warms a CUDA graph up in the first run after compiling, records it in the second, and replays it then."""


class CompiledCuda:
    """Runs the module through Inductor's Triton kernels, launched as one CUDA graph.

    A graph leaves out the time that the CPU takes to launch each kernel, most of all at small batch sizes. It writes
    its outputs where it wrote them before: they are copied to the host before the next run starts.
    """

    name: ClassVar[str] = "compiled-cuda"
    formats: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.TORCH})
    needs_torch: ClassVar[bool] = True
    compiles_per_batch: ClassVar[bool] = True
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
        """Compile for the example's shapes and record the CUDA graph.

        Raises:
            UnavailableError: torch sees no GPU.
        """
        settings = read_settings(recipe, self.settings, threads=threads)
        import torch

        from tools.runtimes.torch_runner import TorchRunner, module_on_cuda

        torch.set_num_threads(settings.threads)
        torch._dynamo.config.suppress_errors = False  # noqa: SLF001  else a fall back to eager passes as "compiled"
        module = module_on_cuda(artifact, recipe, settings, example)
        call = torch.compile(module, dynamic=False, mode="reduce-overhead")
        runner = TorchRunner(call, module, device="cuda", channels_last=settings.channels_last)
        for _ in range(RECORDING_RUNS):
            runner(example)
        return runner
