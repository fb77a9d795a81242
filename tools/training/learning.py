"""Learning from the original model: what distillation and fine-tuning have in common.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import torch

from tools.contracts import JsonScalar, WorkloadInfo
from tools.training.features import FeatureLoss, FeatureTap
from tools.training.judging import Judge
from tools.training.lessons import load_lessons
from tools.training.losses import Losses
from tools.training.pupil import Pupil
from tools.training.settings import TrainingSettings
from tools.training.trainer import Run, Trainer
from tools.worker import stage

_LOOKED_AT = 8
"""Items that tell whether outputs are probabilities."""


@dataclass(frozen=True)
class Learnt:
    """What came of a training.

    Attributes:
        facts: `epochs`, `planned_epochs`, `loss` (of the epoch that is kept), `agreement` with the original on the
            items held out from the training (share of equal first choices, or R^2), `seconds` in all.
        notes: what a person should know, in sentences.
    """

    facts: dict[str, JsonScalar]
    notes: tuple[str, ...]


def learn(
    module: torch.nn.Module,
    workload: WorkloadInfo,
    settings: TrainingSettings,
    *,
    fixed_batch: int | None = None,
    keep_zeros: bool = False,
) -> Learnt:
    """Train a module on the workload's training items to do what the workload's model does.

    Args:
        module: with the inputs and outputs of the model; trained in place, and for inference afterwards.
        workload: its model teaches, its training items are learnt from, its metric judges.
        settings: how.
        fixed_batch: the only batch size that the module takes, if there is one.
        keep_zeros: whether weights of convolutions and linear layers that are zero stay zero.

    Raises:
        TransformError: the items are too few, the module does not fit the model, or the loss does not stay finite.
        WorkloadError: the user's loss raised, or the model's own outputs are not finite.
    """
    started = time.perf_counter()
    stage("running the original model on the training items")
    lessons = load_lessons(workload, features=settings.features, seed=settings.seed)
    pupil = Pupil(module, lessons, fixed_batch)
    losses = Losses.of(
        workload,
        lessons.answers.outputs,
        pupil.answers(lessons.train[:_LOOKED_AT]),
        lessons.targets,
        temperature=settings.temperature,
        alpha=settings.alpha,
    )
    judge = Judge(workload, lessons, losses)
    notes = [*losses.notes, *judge.notes]
    with torch.random.fork_rng(devices=[]):
        features = _features(pupil, notes) if settings.features else None
        with contextlib.nullcontext() if features is None else features.tap:
            trainer = Trainer(pupil, losses, judge, settings, features=features, keep_zeros=keep_zeros)
            run = trainer.train()
    pupil.graduate()
    return Learnt(
        facts={
            "epochs": run.epochs,
            "planned_epochs": run.plan.epochs,
            "loss": run.loss,
            "agreement": run.mark.agreement,
            "seconds": time.perf_counter() - started,
        },
        notes=(_told(run, pupil, judge), *notes, *trainer.notes),
    )


def _features(pupil: Pupil, notes: list[str]) -> FeatureLoss | None:
    """Return the loss of the pupil's features, or None and say why there is none."""
    wanted = pupil.lessons.answers.features
    layer = None if wanted is None else pupil.last_linear()
    if wanted is None or layer is None:
        whose = "The original" if wanted is None else "What was trained"
        notes.append(f"{whose} has no linear layer to take features from: it learnt from outputs alone.")
        return None
    return FeatureLoss(FeatureTap(layer), wanted)


def _told(run: Run, pupil: Pupil, judge: Judge) -> str:
    lessons = pupil.lessons
    epochs = f"{run.epochs} epoch{'' if run.epochs == 1 else 's'}"
    return (
        f"Learnt from {len(lessons.train)} items in {epochs}; on {len(lessons.held)} others held out from the training "
        f"items, {judge.metric} is {abs(run.mark.score):.4g}, the original's {abs(judge.original):.4g}."
    )
