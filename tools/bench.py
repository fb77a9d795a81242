"""The bench: asks the machine one question at a time, and never asks twice.

Every question is the digest of everything that its answer depends on. What the session or the store already answers
is not measured again; what is measured is stored before it is used. Without a machine a bench answers from what is
known alone: so a session is replayed.
"""

from __future__ import annotations

import datetime as dt
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.artifacts import is_intact, set_aside
from tools.contracts import (
    PROTOCOL_VERSION,
    ArtifactRef,
    BuildResult,
    Evidence,
    EvidenceKind,
    Failed,
    Finding,
    Hardware,
    Measured,
    Outcome,
    Recipe,
    Step,
    TrialResult,
    Unstable,
    WorkloadInfo,
    digest_of,
)
from tools.evidence import EvidenceStore
from tools.limits import BenchLimits
from tools.machine import INTERRUPTED, Machine
from tools.measure.comparison import FEWEST_PARTS
from tools.observer import Observer
from tools.outcomes import describe, from_task, is_lasting, trial_result
from tools.runtimes import get_runtime
from tools.transforms import check_order
from tools.worker import Returned, TaskOutcome


class NotMeasuredError(LookupError):
    """A bench without a machine was asked something that nobody measured."""

    def __init__(self, kind: EvidenceKind, recipe: Recipe, parameters: dict[str, Any]) -> None:
        self.kind = kind
        self.recipe = recipe
        self.parameters = parameters
        super().__init__(f"{kind.value} of {recipe.name} was not measured")


@dataclass
class Bench:
    """Measures, and remembers.

    Args:
        home: where artifacts and raw samples go.
        session: whose questions these are.
        workload: what is tuned.
        hardware: the machine that the answers hold for.
        versions: of the libraries that matter.
        threads: CPU threads that a replica has.
        store: where evidence goes; what earlier sessions found is taken from there.
        observer: who is told what happens.
        machine: measures; None to answer from what is known alone.
        recorded: what this session used before it was interrupted, or all that it used, to replay it.
        protocol: version of the measuring protocol that the answers must have.
        limits: how long things may take.
        on_evidence: called with each evidence that this session uses, new or found, before it is used.
        fresh: measure again what earlier sessions measured.
    """

    home: Path
    session: str
    workload: WorkloadInfo
    hardware: Hardware
    versions: dict[str, str]
    threads: int
    store: EvidenceStore | None
    observer: Observer
    machine: Machine | None = None
    recorded: Iterable[Evidence] = ()
    protocol: str = PROTOCOL_VERSION
    limits: BenchLimits = field(default_factory=BenchLimits)
    on_evidence: Callable[[Evidence], None] = lambda _: None
    fresh: bool = False
    charged_s: float = 0.0
    """Seconds that this session's own measurements cost, as they are recorded: its clock, the same when replayed."""

    def __post_init__(self) -> None:
        # by the question as it is asked today: how a digest is made may have changed since it was recorded
        self._recorded = {self._question(e.kind, e.recipe, e.parameters): e for e in self.recorded}
        self._used: dict[str, Evidence] = {}
        self._verified: set[str] = set()

    @property
    def stopped(self) -> bool:
        """Whether a person wants the session to end."""
        return self.machine is not None and self.machine.stopped

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
        return self._ask(
            EvidenceKind.PROFILE,
            baseline,
            {"threads": self.threads, "tolerate_noise": self.limits.tolerate_noise},
            lambda task: task.run("tools.measure.profile:profile_workload", arguments, needs_torch=True),
            headline="where the time goes",
        )

    def trial(self, recipe: Recipe, *, reference: Evidence | None, batch_size: int = 1, attempt: int = 1) -> Evidence:
        """Build a candidate and measure it at one batch size, with its accuracy on the held-out items.

        Args:
            recipe: the candidate.
            reference: the baseline's trial, to pair the accuracy with; None when this is the baseline.
            batch_size: usually 1.
            attempt: counts up when a trial that turned out unstable is repeated.
        """
        return self._measure(EvidenceKind.TRIAL, recipe, [batch_size], reference, with_accuracy=True, attempt=attempt)

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

        def run(task: _Task) -> TaskOutcome:
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

        return self._ask(
            EvidenceKind.COMPARISON,
            candidate.recipe,
            parameters,
            run,
            headline=f"{rival.recipe.name} and {candidate.recipe.name} in turn",
        )

    def _in_several_processes(self, task: _Task, arguments: dict[str, Any]) -> TaskOutcome:
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

        def run(task: _Task) -> TaskOutcome:
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

        return self._ask(
            EvidenceKind.EDGE_CASES,
            candidate.recipe,
            parameters,
            run,
            headline=f"edge cases of {candidate.recipe.name}",
        )

    def artifact_of(self, trial: Evidence) -> ArtifactRef | TaskOutcome:
        """Return the files of a measured candidate, made again where they were lost or damaged on disk."""
        result = trial_result(trial)
        assert result is not None, "the candidate was not measured"
        artifact = self._here(result.artifact)
        return artifact if self._intact(artifact) else self._build(trial.recipe)

    def raw_path(self, evidence: Evidence) -> Path:
        """Return where the raw samples of an evidence are."""
        assert evidence.raw is not None, "a trial or a sweep that was measured"
        return self.home / "raw" / evidence.raw

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
        attempt: int = 1,
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
        }

        def run(task: _Task) -> TaskOutcome:
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
            }
            needs_torch = get_runtime(recipe.runtime).needs_torch
            return task.run("tools.measure.trial:run_trial", arguments, needs_torch=needs_torch)

        return self._ask(kind, recipe, parameters, run, headline=recipe.name)

    def _build(self, recipe: Recipe) -> ArtifactRef | TaskOutcome:
        """Apply the recipe's steps one after the other, reusing every prefix that was built before."""
        check_order(self.workload.source.format, recipe.steps)
        artifact = self.workload.source
        for index, step in enumerate(recipe.steps):
            evidence = self._ask(
                EvidenceKind.BUILD,
                Recipe(steps=recipe.steps[: index + 1], runtime="build"),
                {"from": artifact.digest, "calibration": self.workload.calibration.digest},
                lambda task, artifact=artifact, step=step: self._run_step(artifact, step, task),  # type: ignore[misc]
                headline=f"{step.transform}",
            )
            match evidence.outcome:
                case Measured(result=BuildResult(artifact=made)):
                    artifact = self._here(made)
                case Measured() | Unstable():
                    raise AssertionError("a build answers with an artifact")
                case failure:
                    return failure
        return artifact

    def _run_step(self, artifact: ArtifactRef, step: Step, task: _Task) -> TaskOutcome:
        arguments = {
            "artifact": artifact.model_dump(mode="json"),
            "workload": self.workload.model_dump(mode="json"),
            "step": step.model_dump(mode="json"),
            "root": str(self.home / "artifacts"),
        }
        outcome = task.run("tools.transforms:apply_step", arguments, needs_torch=True)
        if isinstance(outcome, Returned):
            return Returned(value={"kind": "build", "artifact": outcome.value})
        return outcome

    def _ask(
        self,
        kind: EvidenceKind,
        recipe: Recipe,
        parameters: dict[str, Any],
        run: Callable[[_Task], TaskOutcome],
        *,
        headline: str,
    ) -> Evidence:
        question = self._question(kind, recipe, parameters)
        known = self._known(question)
        what = f"{kind.value}: {headline}"
        if known is not None:
            if question not in self._used and kind is not EvidenceKind.BUILD:
                self.observer.finished(what, outcome="cached", headline=describe(known), seconds=0.0)
            self._use(question, known)
            return known
        if self.machine is None:
            raise NotMeasuredError(kind, recipe, parameters)
        self.observer.started(what)
        started, charged = time.perf_counter(), self.charged_s
        task = _Task(self.machine, question)
        outcome: Outcome = Failed(stage="starting", reason=INTERRUPTED)
        if not self.machine.stopped:
            outcome = from_task(run(task))
        seconds = time.perf_counter() - started
        evidence = Evidence.of(
            Finding(
                question=question,
                kind=kind,
                workload=self.workload.digest,
                recipe=recipe,
                parameters=parameters,
                hardware=self.hardware.digest,
                versions=self.versions,
                protocol=self.protocol,
                session=self.session,
                raw=task.raw if isinstance(outcome, Measured | Unstable) else None,
                outcome=outcome,
                seconds=max(seconds - (self.charged_s - charged), 0.0),
                created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            )
        )
        if not (isinstance(outcome, Failed) and outcome.reason == INTERRUPTED):
            if self.store is not None:
                self.store.put(evidence)
            self._use(question, evidence)
        self.observer.finished(what, outcome=outcome.outcome, headline=describe(evidence), seconds=seconds)
        return evidence

    def _question(self, kind: EvidenceKind, recipe: Recipe, parameters: dict[str, Any]) -> str:
        return digest_of(
            {
                "kind": kind,
                "workload": self.workload.digest,
                "recipe": recipe.model_dump(mode="json"),
                "parameters": parameters,
                "hardware": self.hardware.digest,
                "versions": self.versions,
                "protocol": self.protocol,
            }
        )

    def _known(self, question: str) -> Evidence | None:
        """Return the answer that stands: this session's own, or an earlier one's that says something about today.

        What this very session found stands whatever it is, a time-out too, and even if it was killed before the
        journal had it.
        """
        own = self._used.get(question) or self._recorded.get(question)
        if own is not None:
            return own if self._is_usable(own) else None
        if self.store is None:
            return None
        for evidence in self.store.answers(question):
            own_one = evidence.session == self.session
            if (own_one or (not self.fresh and is_lasting(evidence.outcome))) and self._is_usable(evidence):
                return evidence
        return None

    def _is_usable(self, evidence: Evidence) -> bool:
        """Whether what later questions need of an answer is still on disk: an artifact, whole; the raw samples."""
        if self.machine is None:
            return True
        match evidence.outcome:
            case Measured(result=BuildResult(artifact=artifact)):
                return self._intact(self._here(artifact))
            case Measured(result=TrialResult()) if evidence.parameters["reference"] is None:
                return self.raw_path(evidence).is_file()  # accuracy is paired with the baseline's
        return True

    def _here(self, artifact: ArtifactRef) -> ArtifactRef:
        """Return an artifact as it is found in this home, and with this workload's factory: both may have moved."""
        factory = None if artifact.factory is None else self.workload.source.factory
        folder = self.home / "artifacts" / artifact.digest
        return artifact.model_copy(update={"directory": str(folder), "factory": factory})

    def _intact(self, artifact: ArtifactRef) -> bool:
        """Whether an artifact's files are what its digest says. Damaged ones are set aside, and said so, once."""
        if artifact.digest in self._verified:
            return True
        folder = Path(artifact.directory)
        if not folder.is_dir():
            return False
        if not is_intact(folder, artifact.digest):
            kept = set_aside(folder)
            self.observer.finding(f"The artifact {folder} was damaged on disk: set aside as {kept.name}, made again.")
            return False
        self._verified.add(artifact.digest)
        return True

    def _use(self, question: str, evidence: Evidence) -> None:
        if self._used.get(question) == evidence:
            return
        self._used[question] = evidence
        if evidence.session == self.session:
            self.charged_s += evidence.seconds
        self.on_evidence(evidence)


@dataclass
class _Task:
    """One question on its way to the machine."""

    machine: Machine
    question: str
    raw: str | None = None

    def run(self, task: str, arguments: dict[str, Any], *, needs_torch: bool) -> TaskOutcome:
        return self.machine.run(task, arguments, label=self.question, needs_torch=needs_torch)
