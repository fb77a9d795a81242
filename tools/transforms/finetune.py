"""Fine-tuning: what pruning lost is learnt back from the original model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, WorkloadInfo
from tools.training.settings import TrainingSettings, read_settings
from tools.transforms.base import Stage

_PRUNED = 0.2
"""Of the weights: no training leaves so many at exactly zero, so somebody meant them to be."""


class FinetuneSettings(TrainingSettings):
    """Settings of `finetune`."""

    learning_rate: float = Field(5e-4, gt=0, description="the highest one of the cycle, of AdamW")
    keep_zeros: bool | None = Field(
        None,
        description="whether weights that are zero stay zero; default: if more than 20 % of those of convolutions and "
        "linear layers are",
    )


class Finetune:
    """Trains an artifact to give the outputs of the workload's own model again. Settings: `FinetuneSettings`."""

    name: ClassVar[str] = "finetune"
    stage: ClassVar[Stage] = Stage.FINETUNE
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.TORCH})
    produces: ClassVar[ModelFormat] = ModelFormat.TORCH
    needs_calibration: ClassVar[bool] = False
    needs_training: ClassVar[bool] = True

    def apply(
        self, artifact: ArtifactRef, workload: WorkloadInfo, settings: Mapping[str, JsonScalar], root: Path
    ) -> BuildResult:
        """Train the artifact on the workload's training items, and write it."""
        from tools.measure.flops_torch import count_flops
        from tools.training.checks import count_parameters
        from tools.training.learning import learn
        from tools.training.pupil import zero_share
        from tools.training.saving import save_trained
        from tools.workloads import code
        from tools.workloads.modules import load_module
        from tools.workloads.sequences import served_batch

        wanted = read_settings(FinetuneSettings, settings, self.name)
        module = load_module(artifact)
        keep_zeros = zero_share(module) > _PRUNED if wanted.keep_zeros is None else wanted.keep_zeros
        learnt = learn(module, workload, wanted, fixed_batch=artifact.fixed_batch, keep_zeros=keep_zeros)
        one = served_batch(workload, workload.calibration, artifact.fixed_batch or 1)
        made = save_trained(
            module,
            root,
            one,
            like=artifact,
            code=None if artifact.factory is None else code.source_digest(artifact.factory),
        )
        facts: dict[str, JsonScalar] = {
            "parameters": count_parameters(module),
            "flops": count_flops(module, one),
            "sparsity": zero_share(module),
            **learnt.facts,
        }
        return BuildResult(artifact=made, facts=facts, notes=learnt.notes)
