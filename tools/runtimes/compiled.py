"""`torch.compile` with the Inductor back end, one static batch size at a time."""

from __future__ import annotations

import shutil
from typing import ClassVar, Literal

from tools.contracts import ArtifactRef, Availability, Hardware, ModelFormat, Recipe
from tools.runtimes.availability import library
from tools.runtimes.base import Arrays, Runner
from tools.runtimes.settings import read_settings


class Compiled:
    """Runs the module through Inductor's generated C++ kernels.

    The weights of INT8 programs are frozen: Inductor takes them for constants and packs them for oneDNN once, without
    which it has no INT8 kernels. Frozen float weights were no faster (ResNet-18 at 64x64, seen with torch 2.15).
    """

    name: ClassVar[str] = "compiled"
    formats: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.TORCH, ModelFormat.PT2})
    needs_torch: ClassVar[bool] = True
    compiles_per_batch: ClassVar[bool] = True
    device: ClassVar[Literal["cpu", "cuda"]] = "cpu"
    settings: ClassVar[frozenset[str]] = frozenset({"threads", "channels_last", "fuse"})

    @classmethod
    def availability(cls, hardware: Hardware) -> Availability:  # noqa: ARG003
        """Available with torch and a C++ compiler, which Inductor calls."""
        found = library(cls.name, "torch", "torch")
        if found.available and not any(shutil.which(compiler) for compiler in ("g++", "c++", "clang++")):
            return Availability(
                name=cls.name,
                available=False,
                version=found.version,
                reason="torch.compile needs a C++ compiler on this machine, and none is on the PATH",
                enable="install g++",
            )
        return found

    def load(
        self,
        artifact: ArtifactRef,
        recipe: Recipe,
        *,
        batch_size: int,  # noqa: ARG002
        threads: int,
        example: Arrays,
    ) -> Runner:
        """Compile for the example's shapes. Takes tens of seconds for a large model."""
        settings = read_settings(recipe, self.settings, threads=threads)
        import torch

        from tools.runtimes.torch_runner import TorchRunner, prepared_module

        torch.set_num_threads(settings.threads)
        torch._dynamo.config.suppress_errors = False  # noqa: SLF001  else a fall back to eager passes as "compiled"
        # set for the process: as an option of `torch.compile`, tracing would not know of it
        torch._inductor.config.freezing = not artifact.precision.is_float  # noqa: SLF001
        module = prepared_module(artifact, settings, example)
        call = torch.compile(module, dynamic=False)
        runner = TorchRunner(call, module, channels_last=settings.channels_last)
        runner(example)
        return runner
