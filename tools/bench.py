"""The bench: what can be asked of the machine about a workload, each as a question that is asked once.

See `tools.inquiry` for how: what the session or the store already answers is not measured again, and what is measured
is stored before it is used. Without a machine a bench answers from what is known alone: so a session is replayed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tools.contracts import (
    ArtifactRef,
    BuildResult,
    Evidence,
    EvidenceKind,
    Measured,
    Recipe,
    Step,
    Unstable,
    digest_of,
)
from tools.inquiry import Inquiry, NotMeasuredError, Question, Task
from tools.measure.comparison import FEWEST_PARTS
from tools.outcomes import trial_result
from tools.runtimes import get_runtime
from tools.transforms import check_order
from tools.worker import Returned, TaskOutcome

__all__ = ["Bench", "NotMeasuredError"]

APPLY_STEP = "tools.transforms:apply_step"


class Bench(Inquiry):
    """Profiles, builds, times, compares and troubles candidates."""

    def profile(self, baseline: Recipe) -> Evidence:
        """Profile the workload's own model. The Chrome trace goes below `home/traces/`."""
        trace = self.home / "traces" / f"{self.workload.digest}.json"
        arguments = {
            "workload": self.workload.model_dump(mode="json"),
            "hardware": self.hardware.model_dump(mode="json"),
            "trace_path": str(trace),
            "threads": self.threads,
            "tolerate_noise": self.limits.tolerate_noise,
        }
        return self.ask(
            EvidenceKind.PROFILE,
            baseline,
            {"threads": self.threads, "tolerate_noise": self.limits.tolerate_noise},
            lambda task: task.run("tools.measure.profile:profile_workload", arguments, needs_torch=True),
            headline="where the time goes",
        )

    def trial(
        self,
        recipe: Recipe,
        *,
        reference: Evidence | None,
        batch_size: int = 1,
        attempt: int = 1,
        give_up_ms: float | None = None,
        give_up_drop: float | None = None,
        to_the_end: bool = False,
    ) -> Evidence:
        """Build a candidate and measure it at one batch size, with its accuracy on the held-out items.

        When to give up is no part of the question: a trial that was given up is an answer, and says so.

        Args:
            recipe: the candidate.
            reference: the baseline's trial, to pair the accuracy with; None when this is the baseline.
            batch_size: usually 1.
            attempt: counts up when a trial is repeated, because it was unstable, or given up.
            give_up_ms: a median clearly above this is not measured to the end.
            give_up_drop: nor is an accuracy that clearly drops by more than this.
            to_the_end: whether to measure even what is clearly slower than the baseline to the end.
        """
        limits = {"give_up_ms": give_up_ms, "give_up_drop": give_up_drop, "to_the_end": to_the_end or None}
        return self._measure(
            EvidenceKind.TRIAL,
            recipe,
            [batch_size],
            reference,
            with_accuracy=True,
            attempt=attempt,
            give_up={name: value for name, value in limits.items() if value is not None},
        )

    def sweep(self, recipe: Recipe, batch_sizes: Sequence[int]) -> Evidence:
        """Measure a candidate at rising batch sizes; stops early where throughput no longer rises."""
        return self._measure(EvidenceKind.SWEEP, recipe, list(batch_sizes), None, with_accuracy=False)

    def for_longer(self, recipe: Recipe, batch_size: int) -> Evidence:
        """Measure one batch size for as long as enough calls to bound a p99 take, or a third of a trial's cap."""
        return self._measure(
            EvidenceKind.SWEEP,
            recipe,
            [batch_size],
            None,
            with_accuracy=False,
            point_s=self.limits.trial_s / 3,
            enough_s=self.limits.longer_s,
        )

    def tail(self, recipe: Recipe, batch_size: int, calls: int) -> Evidence:
        """Measure one batch size with so many calls that they bound its p99 closely, if `limits.tail_s` allows them."""
        return self._measure(
            EvidenceKind.SWEEP,
            recipe,
            [batch_size],
            None,
            with_accuracy=False,
            point_s=self.limits.tail_s,
            calls=calls,
        )

    def compare(
        self, rival: Evidence, rival_batch: int, candidate: Evidence, candidate_batch: int, *, attempt: int = 1
    ) -> Evidence:
        """Time a rival and a candidate in turn, each at its own batch size. Both must have been measured.

        Args:
            rival: the trial of what is to be beaten.
            rival_batch: its batch size.
            candidate: the trial of what is to beat it.
            candidate_batch: its batch size.
            attempt: counts up when a comparison that was disturbed is repeated.
        """
        parameters = {
            "baseline": rival.recipe.digest,
            "baseline_batch": rival_batch,
            "candidate_batch": candidate_batch,
            "low_batch": self.workload.source.fixed_batch or 1,
            "threads": self.threads,
            "processes": self.limits.comparison_processes,
            "rounds": self.limits.comparison_rounds,
            "block_s": self.limits.comparison_block_s,
            "tolerate_noise": self.limits.tolerate_noise,
            "attempt": attempt,
        }

        def run(task: Task) -> TaskOutcome:
            arguments = {
                "workload": self.workload.model_dump(mode="json"),
                **{k: v for k, v in parameters.items() if k not in ("baseline", "attempt", "processes")},
            }
            for side, evidence in (("baseline", rival), ("candidate", candidate)):
                artifact = self.artifact_of(evidence)
                if not isinstance(artifact, ArtifactRef):
                    return artifact
                arguments[side] = {
                    "artifact": artifact.model_dump(mode="json"),
                    "recipe": evidence.recipe.model_dump(mode="json"),
                }
            return self._in_several_processes(task, arguments)

        return self.ask(
            EvidenceKind.COMPARISON,
            candidate.recipe,
            parameters,
            run,
            headline=f"{rival.recipe.name} and {candidate.recipe.name} in turn",
        )

    def _in_several_processes(self, task: Task, arguments: dict[str, Any]) -> TaskOutcome:
        """Run a comparison's parts until enough of them are undisturbed, twice as many in all, or the time is up."""
        wanted, started = self.limits.comparison_processes, time.perf_counter()
        parts: list[dict[str, Any]] = []
        while sum(part["stable"] for part in parts) < wanted and len(parts) < 2 * wanted:
            if len(parts) >= FEWEST_PARTS and time.perf_counter() - started > self.limits.comparison_s:
                wanted = len(parts)
                break
            outcome = task.run(
                "tools.measure.comparison:run_comparison", {**arguments, "part": len(parts)}, needs_torch=True
            )
            if not isinstance(outcome, Returned):
                return outcome
            parts.append(outcome.value)
        batches = {side: arguments[side] for side in ("baseline_batch", "candidate_batch")}
        return task.run(
            "tools.measure.comparison:combine", {"parts": parts, "wanted": wanted, **batches}, needs_torch=False
        )

    def edge_cases(self, candidate: Evidence, batch_sizes: Sequence[int]) -> Evidence:
        """Give a measured candidate unusual inputs."""
        parameters = {"batch_sizes": list(batch_sizes), "threads": self.threads}

        def run(task: Task) -> TaskOutcome:
            artifact = self.artifact_of(candidate)
            if not isinstance(artifact, ArtifactRef):
                return artifact
            arguments = {
                "workload": self.workload.model_dump(mode="json"),
                "artifact": artifact.model_dump(mode="json"),
                "recipe": candidate.recipe.model_dump(mode="json"),
                **parameters,
            }
            needs_torch = get_runtime(candidate.recipe.runtime).needs_torch
            return task.run("tools.measure.edge_cases:run_edge_cases", arguments, needs_torch=needs_torch)

        return self.ask(
            EvidenceKind.EDGE_CASES,
            candidate.recipe,
            parameters,
            run,
            headline=f"edge cases of {candidate.recipe.name}",
        )

    def scaling(self, recipe: Recipe, question: dict[str, Any], trace: dict[str, Any]) -> Evidence:
        """Search the settings of an autoscaler for measured traffic and a measured replica.

        Args:
            recipe: what the replica runs.
            question: the arguments of `tools.scaling.task.recommend_scaling`, but for these two:
            trace: the traffic, dumped; the question names it by its digest.
        """
        arguments = {**question, "trace": trace, "processes": self.threads}
        return self.ask(
            EvidenceKind.SCALING,
            recipe,
            {**question, "trace": digest_of({k: v for k, v in trace.items() if k != "source"})},
            lambda task: task.run("tools.scaling.task:recommend_scaling", arguments, needs_torch=False),
            headline="autoscaler settings in the twin",
        )

    def advice(self, parameters: dict[str, Any], ask: Callable[[], TaskOutcome], *, headline: str) -> Evidence:
        """Ask a language model. Its answer holds for this session alone: another day it may say something else.

        Args:
            parameters: what the question is about, JSON-ready.
            ask: asks it; returns an `AdviceResult` or `WordingResult`, dumped, or why there is none.
            headline: what a person who watches reads.
        """
        nobody = Recipe(runtime="advisor")
        question = {**parameters, "session": self.session}
        return self.ask(EvidenceKind.ADVICE, nobody, question, lambda _: ask(), headline=headline)

    def prepare(self, recipes: Sequence[Recipe]) -> None:
        """Build what several recipes need before the first of them is timed: at the same time where that is possible.

        A beginning that recipes share is built once. What cannot be built is an answer too; the trial will find it.
        """
        built: dict[tuple[str, ...], ArtifactRef] = {(): self.workload.source}  # by the digests of the beginnings
        for length in range(max((len(r.steps) for r in recipes), default=0)):
            longer = [r for r in recipes if len(r.steps) > length and _digests(r, length) in built]
            wanted = {_digests(r, length + 1): r for r in longer}
            questions = []
            for recipe in wanted.values():
                artifact = built[_digests(recipe, length)]
                prefix, parameters = self._build_question(recipe, length, artifact)
                step = recipe.steps[length]
                questions.append(
                    Question(
                        kind=EvidenceKind.BUILD,
                        recipe=prefix,
                        parameters=parameters,
                        task=APPLY_STEP,
                        arguments=self._step_arguments(artifact, step),
                        headline=step.transform,
                    )
                )
            for beginning, evidence in zip(wanted, self.ask_all(questions), strict=True):
                match evidence:
                    case Evidence(outcome=Measured(result=BuildResult(artifact=made))):
                        built[beginning] = self.here(made)

    def artifact_of(self, trial: Evidence) -> ArtifactRef | TaskOutcome:
        """Return the files of a measured candidate, made again where they were lost or damaged on disk."""
        result = trial_result(trial)
        assert result is not None, "the candidate was not measured"
        artifact = self.here(result.artifact)
        return artifact if self.intact(artifact) else self._build(trial.recipe)

    # --- how a question is asked -------------------------------------------------------------------------------

    def _measure(
        self,
        kind: EvidenceKind,
        recipe: Recipe,
        batch_sizes: list[int],
        reference: Evidence | None,
        *,
        with_accuracy: bool,
        point_s: float | None = None,
        enough_s: float | None = None,
        calls: int | None = None,
        attempt: int = 1,
        give_up: Mapping[str, float] | None = None,
    ) -> Evidence:
        if point_s is None:
            point_s = self.limits.screen_point_s if kind is EvidenceKind.TRIAL else self.limits.sweep_point_s
        parameters = {
            "batch_sizes": batch_sizes,
            "threads": self.threads,
            "point_s": point_s,
            "reference": None if reference is None else reference.question,
            "enough_s": enough_s,
            "tolerate_noise": self.limits.tolerate_noise,
            "attempt": attempt,
            **({} if calls is None else {"calls": calls}),
        }

        self._recall_builds(recipe)

        def run(task: Task) -> TaskOutcome:
            before = time.perf_counter()
            built = self._build(recipe)
            if not isinstance(built, ArtifactRef):
                return built
            task.raw = f"{task.question}-{secrets.token_hex(4)}.npz"
            arguments = {
                "workload": self.workload.model_dump(mode="json"),
                "artifact": built.model_dump(mode="json"),
                "recipe": recipe.model_dump(mode="json"),
                "batch_sizes": batch_sizes,
                "threads": self.threads,
                "point_max_s": point_s,
                "raw": str(self.home / "raw" / task.raw),
                "reference": None if reference is None else str(self.raw_path(reference)),
                "with_accuracy": with_accuracy,
                "enough_s": point_s if enough_s is None else enough_s,
                "tolerate_noise": self.limits.tolerate_noise,
                "build_s": time.perf_counter() - before,
                **({} if calls is None else {"calls": calls}),
                **(give_up or {}),
            }
            needs_torch = get_runtime(recipe.runtime).needs_torch
            return task.run("tools.measure.trial:run_trial", arguments, needs_torch=needs_torch)

        return self.ask(kind, recipe, parameters, run, headline=recipe.name)

    def _build(self, recipe: Recipe) -> ArtifactRef | TaskOutcome:
        """Apply the recipe's steps one after the other, reusing every prefix that was built before."""
        check_order(self.workload.source.format, recipe.steps)
        artifact = self.workload.source
        for index, step in enumerate(recipe.steps):
            evidence = self.ask(
                EvidenceKind.BUILD,
                *self._build_question(recipe, index, artifact),
                lambda task, artifact=artifact, step=step: self._run_step(artifact, step, task),  # type: ignore[misc]
                headline=f"{step.transform}",
            )
            match evidence.outcome:
                case Measured(result=BuildResult(artifact=made)):
                    artifact = self.here(made)
                case Measured() | Unstable():
                    raise AssertionError("a build answers with an artifact")
                case failure:
                    return failure
        return artifact

    def _build_question(self, recipe: Recipe, index: int, artifact: ArtifactRef) -> tuple[Recipe, dict[str, Any]]:
        prefix = Recipe(steps=recipe.steps[: index + 1], runtime="build")
        return prefix, {"from": artifact.digest, "calibration": self.workload.calibration.digest}

    def _recall_builds(self, recipe: Recipe) -> None:
        """Use what is known of a recipe's builds: a trial that was measured before asks for none, and they tell facts.

        So that decisions are the same whether a trial is measured or found.
        """
        artifact = self.workload.source
        for index in range(len(recipe.steps)):
            known = self.recall(EvidenceKind.BUILD, *self._build_question(recipe, index, artifact))
            match known:
                case Evidence(outcome=Measured(result=BuildResult(artifact=made))):
                    artifact = self.here(made)
                case _:
                    return

    def _run_step(self, artifact: ArtifactRef, step: Step, task: Task) -> TaskOutcome:
        return task.run(APPLY_STEP, self._step_arguments(artifact, step), needs_torch=True)

    def _step_arguments(self, artifact: ArtifactRef, step: Step) -> dict[str, Any]:
        return {
            "artifact": artifact.model_dump(mode="json"),
            "workload": self.workload.model_dump(mode="json"),
            "step": step.model_dump(mode="json"),
            "root": str(self.home / "artifacts"),
        }


def _digests(recipe: Recipe, length: int) -> tuple[str, ...]:
    """Return a name for the beginning of a recipe, the same for all recipes that begin so."""
    return tuple(digest_of(step.model_dump(mode="json")) for step in recipe.steps[:length])
