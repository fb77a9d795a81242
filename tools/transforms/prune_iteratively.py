"""Structured pruning in steps, with some training after each: more channels can go for the same accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from tools.contracts import ArtifactRef, BuildResult, JsonScalar, ModelFormat, WorkloadInfo
from tools.errors import TransformError
from tools.training.settings import TrainingSettings, read_settings
from tools.transforms.base import Stage
from tools.transforms.example import EXPORT_BATCH
from tools.transforms.prune_channels import PruneChannelsSettings, write_pruned
from tools.worker import stage


class PruneIterativelySettings(PruneChannelsSettings, TrainingSettings):
    """Settings of `prune-iteratively`: those of `prune-channels`, and of a training; `max_s` is for all steps."""

    steps: int = Field(3, ge=2, le=10, description="how often some channels go and the others learn")
    learning_rate: float = Field(5e-4, gt=0, description="the highest one of each step's cycle, of AdamW")


class PruneIteratively:
    """Narrows the layers of a torch model step by step. Settings: `PruneIterativelySettings`.

    After each step the model learns from the original what it lost. Each step takes about as many channels.
    """

    name: ClassVar[str] = "prune-iteratively"
    stage: ClassVar[Stage] = Stage.PRUNE
    consumes: ClassVar[frozenset[ModelFormat]] = frozenset({ModelFormat.TORCH})
    produces: ClassVar[ModelFormat] = ModelFormat.TORCH
    needs_calibration: ClassVar[bool] = False
    needs_training: ClassVar[bool] = True

    def apply(
        self, artifact: ArtifactRef, workload: WorkloadInfo, settings: Mapping[str, JsonScalar], root: Path
    ) -> BuildResult:
        """Remove and learn in turn, and write what is left."""
        from tools.training.learning import learn
        from tools.workloads.datasets import batch_of
        from tools.workloads.modules import call_arguments, load_module
        from tools.workloads.shrink import NothingToNarrowError, channel_counts, narrow

        wanted = read_settings(PruneIterativelySettings, settings, self.name)
        if workload.training is None:
            raise TransformError(
                f"{self.name} trains, and the workload has no training items.",
                fix="Add `workload.training` to the spec, or use prune-channels.",
            )
        before = load_module(artifact)
        example = call_arguments(before, batch_of(workload.calibration, artifact.fixed_batch or EXPORT_BATCH))
        training = wanted.model_copy(update={"max_s": wanted.max_s / wanted.steps})
        counts = channel_counts(before, example)
        module, notes = before, list[str]()
        learnt: list[dict[str, JsonScalar]] = []
        for step in range(1, wanted.steps + 1):
            stage("removing channels")
            share = 1 - wanted.ratio * step / wanted.steps
            try:
                module = narrow(module, example, share=share, scope=wanted.scope, counts=counts)
            except NothingToNarrowError:
                if step == wanted.steps and not learnt:
                    raise
                continue  # numbers of channels are rounded: this step is too small to matter
            lesson = learn(module, workload, training, fixed_batch=artifact.fixed_batch)
            learnt.append(lesson.facts)
            notes.extend(lesson.notes)
        made = write_pruned(module, artifact, workload, root, before=before, reshaped=True)
        return made.model_copy(update={"facts": {**_total(learnt), **made.facts}, "notes": tuple(dict.fromkeys(notes))})


def _total(learnt: Sequence[Mapping[str, JsonScalar]]) -> dict[str, JsonScalar]:
    """Return the facts of the last training, with the epochs and seconds of all."""
    sums = {name: sum(float(facts[name] or 0) for facts in learnt) for name in ("epochs", "planned_epochs", "seconds")}
    whole = {name: int(sums[name]) for name in ("epochs", "planned_epochs")}
    return {**learnt[-1], **whole, "seconds": sums["seconds"]}
