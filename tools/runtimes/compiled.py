"""`torch.compile` with the Inductor back end, one static batch size at a time."""

from __future__ import annotations

import shutil
from typing import ClassVar

from tools.contracts import ArtifactRef, Availability, Hardware, ModelFormat, Recipe
from tools.runtimes.base import Arrays, Runner


class Compiled:
    """Runs the module through Inductor's generated C++ kernels."""

    name: ClassVar[str] = "compiled"
    formats: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.TORCH, ModelFormat.PT2})
    needs_torch: ClassVar[bool] = True
    compiles_per_batch: ClassVar[bool] = True

    @classmethod
    def availability(cls, hardware: Hardware) -> Availability:  # noqa: ARG003
        """Available with torch and a C++ compiler, which Inductor calls."""
        from tools.runtimes import library

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
        recipe: Recipe,  # noqa: ARG002
        *,
        batch_size: int,  # noqa: ARG002
        threads: int,
        example: Arrays,
    ) -> Runner:
        """Compile for the example's shapes. Takes tens of seconds for a large model."""
        import torch

        from tools.runtimes.eager import torch_runner
        from tools.workloads.modules import load_module

        torch.set_num_threads(threads)
        torch._dynamo.config.suppress_errors = False  # noqa: SLF001  else a fall back to eager passes as "compiled"
        runner = torch_runner(torch.compile(load_module(artifact), dynamic=False))
        runner(example)
        return runner
