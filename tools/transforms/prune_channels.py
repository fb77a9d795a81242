"""Structured pruning: whole channels go, so that every runtime has less to compute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, WorkloadInfo
from tools.contracts.base import Contract
from tools.training.settings import read_settings
from tools.transforms.base import Stage
from tools.transforms.example import EXPORT_BATCH

if TYPE_CHECKING:
    import torch


class PruneChannelsSettings(Contract):
    """Settings of `prune-channels`."""

    ratio: float = Field(
        0.5, gt=0, lt=1, description="share of the channels that goes, those with the smallest weights"
    )
    scope: Literal["local", "global"] = Field(
        "local", description="`local`: this share of each layer's; `global`: of all layers' together"
    )


class PruneChannels:
    """Narrows the layers of a torch model. Settings: `PruneChannelsSettings`.

    Without fine-tuning afterwards, most of the accuracy is usually lost.
    """

    name: ClassVar[str] = "prune-channels"
    stage: ClassVar[Stage] = Stage.PRUNE
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.TORCH})
    produces: ClassVar[ModelFormat] = ModelFormat.TORCH
    needs_calibration: ClassVar[bool] = False
    needs_training: ClassVar[bool] = False

    def apply(
        self, artifact: ArtifactRef, workload: WorkloadInfo, settings: Mapping[str, JsonScalar], root: Path
    ) -> BuildResult:
        """Remove the channels, and write what is left."""
        from tools.workloads.datasets import batch_of
        from tools.workloads.modules import call_arguments, load_module
        from tools.workloads.shrink import narrow

        wanted = read_settings(PruneChannelsSettings, settings, self.name)
        module = load_module(artifact)
        example = call_arguments(module, batch_of(workload.calibration, artifact.fixed_batch or EXPORT_BATCH))
        narrowed = narrow(module, example, share=1 - wanted.ratio, scope=wanted.scope)
        return write_pruned(narrowed, artifact, workload, root, before=module, reshaped=True)


def write_pruned(
    module: torch.nn.Module,
    artifact: ArtifactRef,
    workload: WorkloadInfo,
    root: Path,
    *,
    before: torch.nn.Module,
    reshaped: bool,
) -> BuildResult:
    """Write a pruned module as an artifact, with the facts of it and of the module before.

    Args:
        module: what pruning left.
        artifact: what was pruned.
        workload: whose calibration items the work is counted with.
        root: where artifacts live.
        before: the module that was pruned.
        reshaped: whether layers are narrower now.

    Raises:
        TransformError: built again from what is written, it gives other outputs.
    """
    from tools.measure.flops_torch import structure_facts
    from tools.training.saving import save_trained
    from tools.workloads import code
    from tools.workloads.datasets import batch_of

    example = batch_of(workload.calibration, artifact.fixed_batch or EXPORT_BATCH)
    old = structure_facts(before, example)
    made = save_trained(
        module,
        root,
        example,
        like=artifact,
        code=None if artifact.factory is None else code.source_digest(artifact.factory),
        reshaped=reshaped,
    )
    facts = {
        **structure_facts(module, example),
        "parameters_before": old["parameters"],
        "flops_before": old["flops"],
    }
    return BuildResult(artifact=made, facts=facts)
