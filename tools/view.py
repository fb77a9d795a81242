"""What a session knows, arranged for deciding. Pure: evidence in, facts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from tools.contracts import (
    Accuracy,
    ArtifactRef,
    Availability,
    BatchPoint,
    BuildResult,
    ComparisonResult,
    EdgeCaseResult,
    Evidence,
    EvidenceKind,
    Hardware,
    Measured,
    ProfileResult,
    Recipe,
    WorkloadInfo,
)
from tools.outcomes import reason, trial_result
from tools.spec import TuningSpec


@dataclass(frozen=True)
class Tried:
    """All that is known of one recipe."""

    recipe: Recipe
    evidence: tuple[str, ...]
    outcome: str
    reason: str | None
    points: dict[int, BatchPoint] = field(default_factory=dict)
    artifact: ArtifactRef | None = None
    accuracy: Accuracy | None = None
    output_difference: float | None = None
    seconds: float = 0.0
    given_up: str | None = None
    """Why it was not measured to the end; its numbers are no ground to choose it."""

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.recipe.name

    @property
    def ran(self) -> bool:
        """Whether there are numbers."""
        return bool(self.points) and self.accuracy is not None

    @property
    def first_point(self) -> BatchPoint:
        """The smallest batch that was measured."""
        return self.points[min(self.points)]


@dataclass(frozen=True)
class SessionView:
    """A session's inputs and the evidence so far."""

    spec: TuningSpec
    workload: WorkloadInfo
    hardware: Hardware
    availability: dict[str, Availability]
    evidence: Sequence[Evidence]
    elapsed_s: float = 0.0
    stopped: bool = False
    proposed: tuple[Recipe, ...] = ()
    """What plugins propose to try."""
    builders: int = 1
    """How many things can be built at the same time."""
    advises: bool = False
    """Whether an advisor may be asked."""

    @property
    def low_batch(self) -> int:
        """The smallest batch the model accepts: 1, unless it was exported with another."""
        return self.workload.source.fixed_batch or 1

    @cached_property
    def tried(self) -> dict[str, Tried]:
        """Recipes that were tried, by digest, in the order of their first trial."""
        gathered: dict[str, list[Evidence]] = {}
        for evidence in self.evidence:
            if evidence.kind in (EvidenceKind.TRIAL, EvidenceKind.SWEEP):
                gathered.setdefault(evidence.recipe.digest, []).append(evidence)
        return {digest: _gather(items) for digest, items in gathered.items()}

    @cached_property
    def ran(self) -> tuple[Tried, ...]:
        """Recipes with numbers."""
        return tuple(t for t in self.tried.values() if t.ran)

    @property
    def baseline(self) -> Tried | None:
        """The model as given: the first recipe that was tried."""
        return next(iter(self.tried.values()), None)

    @cached_property
    def unaided(self) -> frozenset[tuple[str, int]]:
        """Recipes, by digest, and batch sizes that were measured before a language model was asked anything."""
        asked = next((n for n, evidence in enumerate(self.evidence) if evidence.kind is EvidenceKind.ADVICE), None)
        before = self if asked is None else replace(self, evidence=self.evidence[:asked])
        return frozenset((t.recipe.digest, size) for t in before.ran for size in t.points)

    @cached_property
    def profile(self) -> ProfileResult | None:
        """Where the baseline's time goes."""
        for evidence in self.evidence:
            match evidence.outcome:
                case Measured(result=ProfileResult() as result):
                    return result
        return None

    def comparisons(self, recipe: Recipe, batch_size: int) -> list[Evidence]:
        """Return every comparison of this recipe at this batch size as the candidate, whatever became of it."""
        return [
            e
            for e in self.of_kind(EvidenceKind.COMPARISON)
            if e.recipe == recipe and e.parameters["candidate_batch"] == batch_size
        ]

    def against_baseline(self, recipe: Recipe, batch_size: int) -> tuple[Evidence, ComparisonResult] | None:
        """Return the comparison of this recipe at this batch size with the model as given at its smallest batch."""
        assert self.baseline is not None
        for evidence in self.comparisons(recipe, batch_size):
            match evidence.outcome:
                case Measured(result=ComparisonResult() as result) if (
                    evidence.parameters["baseline"] == self.baseline.recipe.digest
                    and evidence.parameters["baseline_batch"] == self.low_batch
                ):
                    return evidence, result
        return None

    def edge_cases(self, recipe: Recipe) -> tuple[Evidence, EdgeCaseResult | None] | None:
        """What unusual inputs did to this recipe; the result is None when the whole run came to grief."""
        for evidence in reversed(self.evidence):
            if evidence.kind is EvidenceKind.EDGE_CASES and evidence.recipe == recipe:
                match evidence.outcome:
                    case Measured(result=EdgeCaseResult() as result):
                        return evidence, result
                    case _:
                        return evidence, None
        return None

    def builds(self, recipe: Recipe) -> list[BuildResult]:
        """Return what is known of a recipe's steps, in their order; of those that ran more than once, the last."""
        known = {e.recipe.digest: e for e in self.of_kind(EvidenceKind.BUILD)}
        wanted = (Recipe(steps=recipe.steps[: index + 1], runtime="build") for index in range(len(recipe.steps)))
        outcomes = (known[w.digest].outcome for w in wanted if w.digest in known)
        return [o.result for o in outcomes if isinstance(o, Measured) and isinstance(o.result, BuildResult)]

    def of_kind(self, kind: EvidenceKind) -> list[Evidence]:
        """All evidence of one kind."""
        return [e for e in self.evidence if e.kind is kind]


def _weight(point: BatchPoint) -> tuple[bool, int]:
    """Of two measurements of one batch size the settled one counts, then the one with more samples."""
    return point.stable, point.latency_ms.p50.n


def _gather(items: Sequence[Evidence]) -> Tried:
    """Merge the trials and the sweeps of one recipe."""
    first = items[0]
    points: dict[int, BatchPoint] = {}
    artifact, accuracy, difference, given_up = None, None, None, None
    for evidence in items:
        result = trial_result(evidence)
        if result is None:
            continue
        artifact, given_up = result.artifact, result.given_up
        accuracy = result.accuracy or accuracy
        difference = result.output_difference if result.output_difference is not None else difference
        for point in result.points:
            known = points.get(point.batch_size)
            if known is None or _weight(point) > _weight(known):
                points[point.batch_size] = point
    told = next((e for e in items if isinstance(e.outcome, Measured)), first)
    return Tried(
        recipe=first.recipe,
        evidence=tuple(e.id for e in items),
        outcome=told.outcome.outcome,
        reason=reason(told.outcome) or None,
        points=dict(sorted(points.items())),
        artifact=artifact,
        accuracy=accuracy,
        output_difference=difference,
        seconds=sum(e.seconds for e in items),
        given_up=given_up,
    )
