"""The trainer: makes a module do what the original model does, in the time there is.

Knowledge distillation (Hinton et al., 2015) with the original's outputs computed once. AdamW, one cycle of the learning
rate, gradients clipped; bfloat16 arithmetic where the CPU has it. The best weights by held-out items are kept.

Everything follows from the seed but one thing: how many epochs fit into the time. That is planned after timing the
first steps, printed, and told in the facts; with `epochs` set to what was planned, the same weights come again.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch

from tools.errors import InfertuneError, TransformError
from tools.training import schedule
from tools.training.checks import one_line
from tools.training.features import FeatureLoss
from tools.training.judging import WORST, Judge, Mark
from tools.training.losses import Losses
from tools.training.pupil import Pupil, State, layer_weights
from tools.training.schedule import Indices, Plan
from tools.training.settings import TrainingSettings
from tools.worker import emit, stage

_TIMED_STEPS = 3
_TIMING_SHARE = 0.05
"""Of the time there is: slower steps are not timed again."""
_CLIP_NORM = 1.0
_WEIGHT_DECAY = 0.01
_RETRY = 0.1
"""Of the learning rate, after the loss was not finite."""
_GOOD_EPOCHS = 2
"""Epochs in a row that come close enough to the original end a training."""
_TELLING = 30
"""Fewer items held out are matched by luck: the schedule is short then anyway, and is gone through to its end."""


@dataclass
class Run:
    """One run through a schedule.

    Attributes:
        plan: what was to be done.
        epochs: what was done.
        loss: mean loss of the epoch whose weights are the best.
        mark: how they were judged.
        best: the weights.
    """

    plan: Plan
    epochs: int = 0
    loss: float = math.nan
    mark: Mark = WORST
    best: State | None = None


class _NotFiniteError(Exception):
    """The loss, or what is judged, is NaN or infinite."""


class Trainer:
    """Trains a pupil. Random numbers are seeded globally: fork their state around it.

    Args:
        pupil: what is trained.
        losses: what is made small.
        judge: says which weights are the best, and when they are good enough.
        settings: how it is trained.
        features: the loss of its features too, its tap entered.
        keep_zeros: whether weights of convolutions and linear layers that are zero stay zero.

    Attributes:
        notes: what a person should know, in sentences.
    """

    def __init__(
        self,
        pupil: Pupil,
        losses: Losses,
        judge: Judge,
        settings: TrainingSettings,
        *,
        features: FeatureLoss | None,
        keep_zeros: bool,
    ) -> None:
        self.notes: list[str] = []
        self._pupil = pupil
        self._lessons = pupil.lessons
        self._losses = losses
        self._judge = judge
        self._settings = settings
        self._deadline = time.perf_counter() + settings.max_s
        self._size = pupil.fixed_batch or schedule.batch_size(len(self._lessons.train), settings.batch)
        self._half = has_fast_bfloat16()
        self._kept = [(weight, weight != 0) for weight in layer_weights(pupil.module)] if keep_zeros else []
        self._features = features
        learning = [parameter for parameter in pupil.module.parameters() if parameter.requires_grad]
        self._learning = learning if features is None else [*learning, *features.parameters()]

    def train(self) -> Run:
        """Plan, train, and leave the best weights in the pupil.

        Raises:
            TransformError: the loss was not finite, and not with a lower learning rate either.
        """
        stage("timing the first steps")
        start = self._pupil.state()
        step_s, judging_s = self._timed()
        stage("training")
        rate = self._settings.learning_rate
        try:
            run = self._attempt(start, rate, step_s, judging_s)
        except _NotFiniteError as error:
            self.notes.append(f"With a learning rate of {rate:g}, {error}: trained with {rate * _RETRY:g} instead.")
            print(self.notes[-1])  # noqa: T201  to the log
            try:
                run = self._attempt(start, rate * _RETRY, step_s, judging_s)
            except _NotFiniteError as again:
                raise TransformError(
                    f"{again} with a learning rate of {rate * _RETRY:g}, and likewise with {rate:g}.",
                    fix="Set a lower `learning_rate`, and check that the loss is finite for every item.",
                ) from again
        assert run.best is not None, "every run judges at least once"
        self._pupil.restore(run.best)
        return run

    def _attempt(self, start: State, rate: float, step_s: float, judging_s: float) -> Run:
        self._pupil.restore(start)
        torch.manual_seed(self._settings.seed)
        if self._features is not None:
            self._features.reset()
        plan = schedule.plan_schedule(
            step_s=step_s,
            judging_s=judging_s,
            steps=schedule.count_steps(len(self._lessons.train), self._size),
            epochs=self._settings.epochs,
            budget_s=self._deadline - time.perf_counter(),
        )
        print(f"planned: {plan.epochs} epochs of {plan.steps} steps with {self._size} items, {step_s:.3g} s each")  # noqa: T201
        run, good = Run(plan), 0
        optimizer = self._optimizer(rate)
        cycle = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: schedule.learning_rate_factor(step, plan.epochs * plan.steps)
        )
        shuffler = np.random.default_rng(self._settings.seed)
        for epoch in range(1, plan.epochs + 1):
            loss = self._epoch(epoch, plan.steps, optimizer, cycle, shuffler)
            mark = self._mark(epoch)
            emit("training", epoch=epoch, epochs=plan.epochs, loss=loss)
            run.epochs = epoch
            if mark > run.mark:
                run.loss, run.mark, run.best = loss, mark, self._pupil.state()
            good = good + 1 if mark.score >= self._judge.original - self._settings.enough else 0
            if good >= _GOOD_EPOCHS and len(self._lessons.held) >= _TELLING:
                break
            if self._is_late():
                if epoch < plan.epochs:
                    self.notes.append(
                        f"It went slower than planned: the time was over in epoch {epoch} of {plan.epochs}."
                    )
                break
        return run

    def _epoch(
        self,
        epoch: int,
        steps: int,
        optimizer: torch.optim.Optimizer,
        cycle: torch.optim.lr_scheduler.LambdaLR,
        shuffler: np.random.Generator,
    ) -> float:
        """Go once through the items, and return the mean loss."""
        exactly = self._pupil.fixed_batch is not None
        found = []
        for items in schedule.batches(self._lessons.train, self._size, shuffler, exactly=exactly)[:steps]:
            loss = self._step(items, optimizer)
            cycle.step()
            if not math.isfinite(loss):
                msg = f"the loss turned {'NaN' if math.isnan(loss) else 'infinite'} in epoch {epoch}"
                raise _NotFiniteError(msg)
            found.append(loss)
            if self._is_late():
                break
        return statistics.fmean(found)

    def _step(self, items: Indices, optimizer: torch.optim.Optimizer) -> float:
        """Learn from a batch, and return its loss before that."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._half):
            outputs = self._pupil.forward(items)
        found = [output.float() if output.is_floating_point() else output for output in outputs]
        loss = self._losses(found, self._lessons.answers_to(items), self._lessons.targets_of(items))
        if self._features is not None:
            loss = loss + self._features(items)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._learning, _CLIP_NORM)
        optimizer.step()
        with torch.no_grad():
            for weight, kept in self._kept:
                weight.mul_(kept)
        return float(loss.detach())

    def _mark(self, epoch: int) -> Mark:
        outputs = self._pupil.answers(self._lessons.held)
        if not all(np.isfinite(output).all() for output in outputs):
            msg = f"the outputs turned NaN or infinite in epoch {epoch}"
            raise _NotFiniteError(msg)
        return self._judge.mark(outputs)

    def _timed(self) -> tuple[float, float]:
        """Return the seconds of a step, and of judging. What the steps learn is forgotten afterwards.

        Raises:
            TransformError: the module cannot be trained.
        """
        try:
            return self._time_steps()
        except (InfertuneError, MemoryError):
            raise
        except Exception as error:  # layers raise anything
            if not self._half:
                raise TransformError(f"cannot be trained: {one_line(error)}.") from error
            self.notes.append(f"Trained in float32, since a layer refused bfloat16: {one_line(error)}.")
            self._half = False
            return self._timed()

    def _time_steps(self) -> tuple[float, float]:
        optimizer = self._optimizer(0.0)
        shuffler = np.random.default_rng(self._settings.seed)
        exactly = self._pupil.fixed_batch is not None
        items = schedule.batches(self._lessons.train, self._size, shuffler, exactly=exactly)[0]
        self._step(items, optimizer)  # the first one prepares what all the others use
        seconds = []
        for _ in range(_TIMED_STEPS):
            before = time.perf_counter()
            self._step(items, optimizer)
            seconds.append(time.perf_counter() - before)
            if sum(seconds) > _TIMING_SHARE * self._settings.max_s:
                break
        before = time.perf_counter()
        self._pupil.answers(self._lessons.held)
        return statistics.median(seconds), time.perf_counter() - before

    def _optimizer(self, rate: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self._learning, lr=rate, weight_decay=_WEIGHT_DECAY, fused=True)

    def _is_late(self) -> bool:
        return time.perf_counter() > self._deadline


def has_fast_bfloat16() -> bool:
    """Whether the CPU has bfloat16 instructions; emulated, it is slower than float32."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))
