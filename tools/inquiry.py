"""Asking: each question once, to what the session and the store already know, and only then to the machine."""

from __future__ import annotations

import datetime as dt
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
    TrialResult,
    Unstable,
    WorkloadInfo,
    digest_of,
)
from tools.evidence import EvidenceStore
from tools.limits import BenchLimits
from tools.machine import INTERRUPTED, Job, Machine
from tools.observer import Observer
from tools.outcomes import describe, from_task, is_lasting
from tools.transforms import get_transform
from tools.worker import TaskOutcome


class NotMeasuredError(LookupError):
    """A bench without a machine was asked something that nobody measured."""

    def __init__(self, kind: EvidenceKind, recipe: Recipe, parameters: dict[str, Any]) -> None:
        self.kind = kind
        self.recipe = recipe
        self.parameters = parameters
        super().__init__(f"{kind.value} of {recipe.name} was not measured")


@dataclass
class Task:
    """One question on its way to the machine."""

    machine: Machine
    question: str
    raw: str | None = None

    def run(self, task: str, arguments: dict[str, Any], *, needs_torch: bool) -> TaskOutcome:
        """Run a task on the machine; its log is named by the question."""
        return self.machine.run(task, arguments, label=self.question, needs_torch=needs_torch)


@dataclass(frozen=True)
class Question:
    """What may be asked beside other questions, since nothing is timed in it. Its task needs torch."""

    kind: EvidenceKind
    recipe: Recipe
    parameters: dict[str, Any]
    task: str
    arguments: dict[str, Any]
    headline: str


@dataclass
class Inquiry:
    """Asks, and remembers.

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

    def raw_path(self, evidence: Evidence) -> Path:
        """Return where the raw samples of an evidence are."""
        assert evidence.raw is not None, "a trial or a sweep that was measured"
        return self.home / "raw" / evidence.raw

    def ask(
        self,
        kind: EvidenceKind,
        recipe: Recipe,
        parameters: dict[str, Any],
        run: Callable[[Task], TaskOutcome],
        *,
        headline: str,
    ) -> Evidence:
        """Return what is known of a question, or have the machine answer it, and store that.

        Args:
            kind: what is asked.
            recipe: about which candidate.
            parameters: all else that the answer depends on, JSON-ready.
            run: answers it on the machine.
            headline: what a person who watches reads.

        Raises:
            NotMeasuredError: it is not known, and there is no machine.
            StorageError: the answer cannot be stored.
        """
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
        task = Task(self.machine, question)
        outcome: Outcome = Failed(stage="starting", reason=INTERRUPTED)
        if not self.machine.stopped:
            outcome = from_task(run(task))
        seconds = time.perf_counter() - started
        evidence = self._evidence(
            question,
            kind,
            recipe,
            parameters,
            outcome=outcome,
            seconds=seconds - (self.charged_s - charged),
            raw=task.raw,
        )
        if not _is_interrupted(outcome):
            if self.store is not None:
                self.store.put(evidence)
            self._use(question, evidence)
        self.observer.finished(what, outcome=outcome.outcome, headline=describe(evidence), seconds=seconds)
        return evidence

    def ask_all(self, questions: Sequence[Question]) -> list[Evidence | None]:
        """Return what is known of questions, and have the machine answer the others, at the same time where it can.

        Each answer is stored when it comes. They are used in the order of the questions, whatever came first, and
        together cost what a person waited for them: so the session's clock is the same when it is replayed.

        Returns:
            The evidence of each; None where nothing is known and there is no machine.

        Raises:
            StorageError: an answer cannot be stored.
        """
        names = [self._question(q.kind, q.recipe, q.parameters) for q in questions]
        found = {name: known for name in names if (known := self._known(name)) is not None}
        asked = {name: q for name, q in zip(names, questions, strict=True) if name not in found}
        if self.machine is not None and asked:
            found |= self._answers(self.machine, asked)
        for name in dict.fromkeys(names):
            if name in found and not _is_interrupted(found[name].outcome):
                self._use(name, found[name])
        return [found.get(name) for name in names]

    def _answers(self, machine: Machine, asked: dict[str, Question]) -> dict[str, Evidence]:
        """Have the machine answer questions, and store each answer when it comes."""
        for q in asked.values():
            self.observer.started(f"{q.kind.value}: {q.headline}")
        found: dict[str, Evidence] = {}
        before = time.perf_counter()
        for job, ended in machine.run_many([Job(q.task, q.arguments, name) for name, q in asked.items()]):
            q, outcome = asked[job.label], from_task(ended)
            now = time.perf_counter()
            evidence = self._evidence(job.label, q.kind, q.recipe, q.parameters, outcome=outcome, seconds=now - before)
            if self.store is not None and not _is_interrupted(outcome):
                self.store.put(evidence)
            found[job.label] = evidence
            self.observer.finished(
                f"{q.kind.value}: {q.headline}",
                outcome=outcome.outcome,
                headline=describe(evidence),
                seconds=now - before,
            )
            before = now
        return found

    def recall(self, kind: EvidenceKind, recipe: Recipe, parameters: dict[str, Any]) -> Evidence | None:
        """Use what is known of a question, whether or not its files are still there; None when nobody asked it."""
        question = self._question(kind, recipe, parameters)
        known = self._used.get(question) or self._recorded.get(question)
        if known is None and self.store is not None and not self.fresh:
            known = next((e for e in self.store.answers(question) if is_lasting(e.outcome)), None)
        if known is not None:
            self._use(question, known)
        return known

    def _evidence(
        self,
        question: str,
        kind: EvidenceKind,
        recipe: Recipe,
        parameters: dict[str, Any],
        *,
        outcome: Outcome,
        seconds: float,
        raw: str | None = None,
    ) -> Evidence:
        return Evidence.of(
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
                raw=raw if isinstance(outcome, Measured | Unstable) else None,
                outcome=outcome,
                seconds=max(seconds, 0.0),
                created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            )
        )

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
                **self._learnt_from(recipe),
            }
        )

    def _learnt_from(self, recipe: Recipe) -> dict[str, Any]:
        """Return what a recipe that trains depends on beside the workload: what it learns from, and who learns."""
        steps = [s for s in recipe.steps if get_transform(s.transform).needs_training]
        if not steps:
            return {}
        students = {s.name: s.code for s in self.workload.students}
        return {
            "training": None if self.workload.training is None else self.workload.training.digest,
            "loss": self.workload.code.get("loss"),
            "students": [students.get(str(s.settings.get("student"))) for s in steps],
        }

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
                return self.intact(self.here(artifact))
            case Measured(result=TrialResult()) if evidence.parameters["reference"] is None:
                return self.raw_path(evidence).is_file()  # accuracy is paired with the baseline's
        return True

    def here(self, artifact: ArtifactRef) -> ArtifactRef:
        """Return an artifact as it is found in this home, and with this workload's factory: both may have moved."""
        factory = None if artifact.factory is None else self.workload.source.factory
        student = next((s for s in self.workload.students if s.name == artifact.student), None)
        if student is not None and student.factory is not None:
            factory = student.factory
        folder = self.home / "artifacts" / artifact.digest
        return artifact.model_copy(update={"directory": str(folder), "factory": factory})

    def intact(self, artifact: ArtifactRef) -> bool:
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


def _is_interrupted(outcome: Outcome) -> bool:
    return isinstance(outcome, Failed) and outcome.reason == INTERRUPTED
