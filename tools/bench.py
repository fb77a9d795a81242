"""The bench: asks the machine one question at a time, isolates it, times it, and never asks twice.

Every question has an id, the digest of everything that its answer depends on. What the store already answers is not
measured again; what is measured is stored before it is used.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.contracts import (
    PROTOCOL_VERSION,
    ArtifactRef,
    BuildResult,
    Evidence,
    EvidenceKind,
    Failed,
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
from tools.observer import Observer
from tools.outcomes import describe, from_task, is_lasting, trial_result
from tools.runtimes import get_runtime
from tools.transforms import check_order
from tools.worker import Returned, TaskOutcome, Worker

INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class BenchLimits:
    """Seconds that things may take."""

    trial_s: float = 300.0
    screen_point_s: float = 6.0
    sweep_point_s: float = 5.0
    comparison_rounds: int = 12
    comparison_block_s: float = 0.1


@dataclass
class Bench:
    """Measures, caches, isolates.

    Args:
        home: where artifacts, raw samples and logs go.
        workload: what is tuned.
        hardware: this machine.
        versions: of the libraries that matter.
        threads: CPU threads that a replica has.
        torch_worker: warm process that has imported torch.
        light_worker: warm process without it: replicas that need no torch are measured there, and so use less memory.
        store: where evidence goes.
        observer: who is told what happens.
        limits: how long things may take.
        on_evidence: called with each evidence that this session uses, new or found, before it is used.
        fresh: measure again what the store already answers.
    """

    home: Path
    workload: WorkloadInfo
    hardware: Hardware
    versions: dict[str, str]
    threads: int
    torch_worker: Worker
    light_worker: Worker
    store: EvidenceStore
    observer: Observer
    limits: BenchLimits = field(default_factory=BenchLimits)
    on_evidence: Callable[[Evidence], None] = lambda _: None
    fresh: bool = False
    spent_s: float = 0.0
    """Seconds spent in workers so far."""
    stopped: bool = False
    _seen: dict[str, Evidence] = field(default_factory=dict)
    _current: Worker | None = None

    def stop(self) -> None:
        """Kill what runs and answer every later question with `Failed(reason="interrupted")`. For signal handlers."""
        self.stopped = True
        if self._current is not None:
            self._current.cancel()

    def profile(self, baseline: Recipe) -> Evidence:
        """Profile the workload's own model. The Chrome trace goes below `home/traces/`."""
        trace = self.home / "traces" / f"{self.workload.digest}.json"
        return self._ask(
            EvidenceKind.PROFILE,
            baseline,
            {"threads": self.threads},
            lambda label: self._run(
                self.torch_worker,
                "tools.measure.profile:profile_workload",
                {
                    "workload": self.workload.model_dump(mode="json"),
                    "hardware": self.hardware.model_dump(mode="json"),
                    "trace_path": str(trace),
                    "threads": self.threads,
                },
                label,
            ),
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

    def bound_p99(self, recipe: Recipe, batch_size: int) -> Evidence:
        """Measure one batch size for as long as a bounded p99 takes, or half of a trial's time cap."""
        return self._measure(
            EvidenceKind.SWEEP, recipe, [batch_size], None, with_accuracy=False, point_s=self.limits.trial_s / 2
        )

    def compare(self, rival: Evidence, rival_batch: int, candidate: Evidence, candidate_batch: int) -> Evidence:
        """Time a rival and a candidate in turn, each at its own batch size. Both must have been measured."""
        sides = {}
        for name, evidence in (("baseline", rival), ("candidate", candidate)):
            result = trial_result(evidence)
            assert result is not None, f"{name} was not measured"
            sides[name] = {
                "artifact": result.artifact.model_dump(mode="json"),
                "recipe": evidence.recipe.model_dump(mode="json"),
            }
        parameters = {
            "baseline": rival.recipe.digest,
            "baseline_batch": rival_batch,
            "candidate_batch": candidate_batch,
            "low_batch": self.workload.source.fixed_batch or 1,
            "threads": self.threads,
            "rounds": self.limits.comparison_rounds,
            "block_s": self.limits.comparison_block_s,
        }
        arguments = {
            "workload": self.workload.model_dump(mode="json"),
            **{k: v for k, v in parameters.items() if k != "baseline"},
            **sides,
        }
        return self._ask(
            EvidenceKind.COMPARISON,
            candidate.recipe,
            parameters,
            lambda label: self._run(self.torch_worker, "tools.measure.comparison:run_comparison", arguments, label),
            headline=f"{rival.recipe.name} and {candidate.recipe.name} in turn",
        )

    def edge_cases(self, candidate: Evidence, batch_sizes: Sequence[int]) -> Evidence:
        """Give a measured candidate unusual inputs."""
        result = trial_result(candidate)
        assert result is not None, "the candidate was not measured"
        parameters = {"batch_sizes": list(batch_sizes), "threads": self.threads}
        return self._ask(
            EvidenceKind.EDGE_CASES,
            candidate.recipe,
            parameters,
            lambda label: self._run(
                self._worker_for(candidate.recipe),
                "tools.measure.edge_cases:run_edge_cases",
                {
                    "workload": self.workload.model_dump(mode="json"),
                    "artifact": result.artifact.model_dump(mode="json"),
                    "recipe": candidate.recipe.model_dump(mode="json"),
                    **parameters,
                },
                label,
            ),
            headline=f"edge cases of {candidate.recipe.name}",
        )

    def background(self, task: str, arguments: dict[str, Any], *, label: str) -> TaskOutcome:
        """Run something that is no trial (a report, the record) away from the main process."""
        return self.light_worker.run(task, arguments, label=label, limit_s=self.limits.trial_s)

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
        attempt: int = 1,
    ) -> Evidence:
        if point_s is None:
            point_s = self.limits.screen_point_s if kind is EvidenceKind.TRIAL else self.limits.sweep_point_s
        parameters = {
            "batch_sizes": batch_sizes,
            "threads": self.threads,
            "point_s": point_s,
            "reference": None if reference is None else reference.id,
            "attempt": attempt,
        }

        def run(label: str) -> TaskOutcome:
            before = self.spent_s
            built = self._build(recipe)
            if not isinstance(built, ArtifactRef):
                return built
            return self._run(
                self._worker_for(recipe),
                "tools.measure.trial:run_trial",
                {
                    "workload": self.workload.model_dump(mode="json"),
                    "artifact": built.model_dump(mode="json"),
                    "recipe": recipe.model_dump(mode="json"),
                    "batch_sizes": batch_sizes,
                    "threads": self.threads,
                    "point_max_s": point_s,
                    "raw": str(self.raw_path(label)),
                    "reference": None if reference is None else str(self.raw_path(reference.id)),
                    "with_accuracy": with_accuracy,
                    "build_s": self.spent_s - before,
                },
                label,
            )

        return self._ask(kind, recipe, parameters, run, headline=recipe.name)

    def raw_path(self, identity: str) -> Path:
        """Return where the raw samples of an evidence are."""
        return self.home / "raw" / f"{identity}.npz"

    def _build(self, recipe: Recipe) -> ArtifactRef | TaskOutcome:
        """Apply the recipe's steps one after the other, reusing every prefix that was built before."""
        check_order(self.workload.source.format, recipe.steps)
        artifact = self.workload.source
        for index, step in enumerate(recipe.steps):
            prefix = Recipe(steps=recipe.steps[: index + 1], runtime="build")
            evidence = self._ask(
                EvidenceKind.BUILD,
                prefix,
                {"from": artifact.digest, "calibration": self.workload.calibration.digest},
                lambda label, artifact=artifact, step=step: self._run_step(artifact, step, label),  # type: ignore[misc]
                headline=f"{step.transform}",
            )
            match evidence.outcome:
                case Measured(result=BuildResult(artifact=made)):
                    artifact = made
                case Measured() | Unstable():
                    raise AssertionError("a build answers with an artifact")
                case failure:
                    return failure
        return artifact

    def _run_step(self, artifact: ArtifactRef, step: Step, label: str) -> TaskOutcome:
        outcome = self._run(
            self.torch_worker,
            "tools.transforms:apply_step",
            {
                "artifact": artifact.model_dump(mode="json"),
                "workload": self.workload.model_dump(mode="json"),
                "step": step.model_dump(mode="json"),
                "root": str(self.home / "artifacts"),
            },
            label,
        )
        if isinstance(outcome, Returned):
            return Returned(value={"kind": "build", "artifact": outcome.value})
        return outcome

    def _ask(
        self,
        kind: EvidenceKind,
        recipe: Recipe,
        parameters: dict[str, Any],
        run: Callable[[str], TaskOutcome],
        *,
        headline: str,
    ) -> Evidence:
        identity = self._identity(kind, recipe, parameters)
        if identity in self._seen:
            return self._seen[identity]
        known = None if self.fresh else self._stored(identity)
        if known is not None:
            self._use(known)
            if kind is not EvidenceKind.BUILD:
                self.observer.finished(
                    f"{kind.value}: {headline}", outcome="cached", headline=describe(known), seconds=0.0
                )
            return known
        started = time.perf_counter()
        self.observer.started(f"{kind.value}: {headline}")
        outcome: Outcome = Failed(stage="starting", reason=INTERRUPTED)
        if not self.stopped:
            outcome = from_task(run(identity))
        evidence = Evidence(
            id=identity,
            kind=kind,
            workload=self.workload.digest,
            recipe=recipe,
            parameters=parameters,
            hardware=self.hardware.digest,
            versions=self.versions,
            outcome=outcome,
            seconds=time.perf_counter() - started,
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        )
        if not (isinstance(outcome, Failed) and outcome.reason == INTERRUPTED):
            self.store.put(evidence)
            self._use(evidence)
        self.observer.finished(
            f"{kind.value}: {headline}",
            outcome=outcome.outcome,
            headline=describe(evidence),
            seconds=evidence.seconds,
        )
        return evidence

    def _identity(self, kind: EvidenceKind, recipe: Recipe, parameters: dict[str, Any]) -> str:
        return digest_of(
            {
                "kind": kind,
                "workload": self.workload.digest,
                "recipe": recipe.model_dump(mode="json"),
                "parameters": parameters,
                "hardware": self.hardware.digest,
                "versions": self.versions,
                "protocol": PROTOCOL_VERSION,
            }
        )

    def _stored(self, identity: str) -> Evidence | None:
        """Evidence of an earlier session, if it still stands: its files are there, and its outcome says something."""
        found = self.store.get(identity)
        if found is None or not is_lasting(found.outcome):
            return None
        match found.outcome:
            case Measured(result=BuildResult(artifact=artifact)):
                return found if Path(artifact.directory).is_dir() else None
            case Measured(result=TrialResult(artifact=artifact)):
                return found if Path(artifact.directory).is_dir() and self.raw_path(found.id).is_file() else None
        return found

    def _use(self, evidence: Evidence) -> None:
        if evidence.id not in self._seen:
            self._seen[evidence.id] = evidence
            self.on_evidence(evidence)

    def _worker_for(self, recipe: Recipe) -> Worker:
        return self.torch_worker if get_runtime(recipe.runtime).needs_torch else self.light_worker

    def _run(self, worker: Worker, task: str, arguments: dict[str, Any], label: str) -> TaskOutcome:
        if self.stopped:
            return Failed(stage="starting", reason=INTERRUPTED)
        started = time.perf_counter()
        self._current = worker
        try:
            return worker.run(task, arguments, label=label, limit_s=self.limits.trial_s, on_event=self.observer.event)
        finally:
            self._current = None
            self.spent_s += time.perf_counter() - started
