"""Climbing the steps of the challenge: measure what a step wants, judge it, and stand on what is taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from langgraph.runtime import Runtime

from agent.policy import BATCH_SIZES
from agent.rungs import RUNGS, Rung
from agent.signals import InterruptedSessionError
from nodes.context import Context
from nodes.evaluation import HOPELESS_TIMES
from nodes.scaling_recommendation import scaling_recommendation
from tools.challenge import ChallengeStep, StepOutcome, fastest, judge, measured_step, replicas_step
from tools.contracts import ComparisonResult, Evidence, EvidenceKind, Measured, Recipe, Unstable
from tools.errors import WorkloadError
from tools.result import ScalingSummary
from tools.selection import ATTEMPTS, Configured, attempts, configurations, final_choice, is_baseline
from tools.view import SessionView, Tried

STEPS_S = 400.0
"""After which no further step is begun: with a session of the bundled workload, a quarter of an hour in all."""
SWEPT = 2
"""So many of a step's candidates are measured at larger batches: those that are fastest alone."""

LOOSE, CALLS = 1.2, 2000
"""A p99 whose interval spans a larger factor is measured with so many calls before a step is judged."""
_NOTHING_ELSE = "there was nothing to measure but what stands already"


class Climb:
    """The steps of one session, measured and judged one after the other.

    Args:
        context: of the finished session, on a machine that measures.
        known: all that the session used, in that order.
        limit_s: after which no further step is begun.
        clock_s: counts the seconds.
    """

    def __init__(
        self,
        context: Context,
        known: Sequence[Evidence],
        *,
        limit_s: float = STEPS_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        for evidence in known:
            context.bench.recall(evidence.kind, evidence.recipe, evidence.parameters)
        self._until_s = clock_s() + limit_s
        self._clock_s = clock_s
        self._standing = self._given()
        self._first = self._standing
        self.scaling: ScalingSummary | None = None
        """How many replicas of the last step the session's traffic needs, once that was asked."""

    @property
    def view(self) -> SessionView:
        """All that the session and its steps know."""
        return self._context.view()

    @property
    def price_per_hour_usd(self) -> float:
        """Of one replica."""
        return self._context.spec.hardware.price_per_hour_usd

    def steps(self) -> tuple[ChallengeStep, ...]:
        """Measure and judge every step.

        Raises:
            InterruptedSessionError: Ctrl-C.
        """
        self._standing = self._first = self._firm(self._first)
        why = "The model as it was given, one request at a time on one replica."
        done = [measured_step("baseline", self._first, StepOutcome.BASELINE, why, self.price_per_hour_usd)]
        for rung in RUNGS:
            done.append(self._climb(rung))
            told = done[-1]
            self._context.observer.finding(f"{told.name}: {told.outcome.value}. {told.why}")
        return (*done, self._replicas())

    def compared(self) -> tuple[str, ComparisonResult] | None:
        """Time the last step in turn with the model as given; None where they are the same, or it came to nothing."""
        first, last = self._first, self._standing
        if is_baseline(self.view, last):
            return None
        settled = self.view.against_baseline(last.tried.recipe, last.point.batch_size)
        if settled is not None:
            return settled[0].id, settled[1]
        before = len(attempts(self.view, last, first))
        if before < ATTEMPTS:
            self._context.bench.compare(
                self._trial_of(first.tried),
                first.point.batch_size,
                self._trial_of(last.tried),
                last.point.batch_size,
                attempt=before + 1,
            )
            self._check()
        evidence = attempts(self.view, last, first)[-1]
        match evidence.outcome:
            case Measured(result=ComparisonResult() as result) | Unstable(result=ComparisonResult() as result):
                return evidence.id, result
        return None

    # --- one step ----------------------------------------------------------------------------------------------

    def _climb(self, rung: Rung) -> ChallengeStep:
        wanted, why_not = self._measure(rung)
        view, objective = self.view, self._context.spec.objective
        tried = [view.tried[r.digest] for r in wanted if r.digest in view.tried]
        chosen = final_choice(view)[0] if rung is RUNGS[-1] else None
        as_session = chosen is not None and not self._stands(chosen)
        best = chosen if as_session else fastest(self._options(tried, rung), self._standing, objective)
        if best is None:
            return self._nothing(rung, tried, why_not)
        best = self._firm(best)
        rivals = [
            view.tried[r.digest]
            for r in rung.wanted(view, self._standing.tried.recipe).rivals
            if r.digest in view.tried
        ]
        beside = self._options(rivals, rung)
        outcome, why = judge(best, self._standing, objective, rivals=beside, as_good_will_do=as_session)
        step = measured_step(rung.name, best, outcome, why, self.price_per_hour_usd)
        if outcome is StepOutcome.TAKEN:
            self._standing = best
        return step

    def _measure(self, rung: Rung) -> tuple[tuple[Recipe, ...], str]:
        """Measure what a step wants, which may be more once something of it is known.

        Returns:
            What it wanted in the end, and why there is nothing, where there is nothing.
        """
        standing, done = self._standing.tried.recipe, set[str]()
        wanted = rung.wanted(self.view, standing)
        why_not = "" if wanted.recipes else wanted.why_not
        while open_ones := [r for r in (*wanted.recipes, *wanted.rivals) if r.digest not in done]:
            recipe = open_ones[0]
            done.add(recipe.digest)
            if self._clock_s() > self._until_s and not self._is_measured(recipe):
                why_not = "the time was used up before it"
                continue
            self._alone(recipe)
            wanted = rung.wanted(self.view, standing)
        if rung.swept:
            self._sweep(wanted.recipes)
        return wanted.recipes, why_not

    def _alone(self, recipe: Recipe) -> None:
        """Measure a recipe at the smallest batch, to the end even where a session gave it up."""
        for attempt in range(len(self._trials(recipe)) + 1, ATTEMPTS + 1):
            tried = self.view.tried.get(recipe.digest)
            if tried is not None and tried.given_up is None:
                break
            # what another session of this home gave up is found as the answer to the first attempt
            self._context.bench.trial(
                recipe,
                reference=self._reference(),
                batch_size=self.view.low_batch,
                attempt=attempt,
                to_the_end=True,
            )
            self._check()

    def _sweep(self, recipes: Sequence[Recipe]) -> None:
        """Measure those that are fastest alone at larger batches, unless they are hopelessly behind what stands."""
        view = self.view
        if view.workload.source.fixed_batch is not None:
            return
        hopeless_ms = HOPELESS_TIMES * self._standing.tried.first_point.latency_ms.p50.value
        known = [view.tried[r.digest] for r in recipes if r.digest in view.tried]
        ran = [tried for tried in known if tried.ran and tried.given_up is None]
        ran = [tried for tried in ran if tried.first_point.latency_ms.p50.value <= hopeless_ms]
        ran.sort(key=lambda tried: tried.first_point.latency_ms.p50.value)
        for tried in ran[:SWEPT]:
            if self._clock_s() <= self._until_s and len(tried.points) == 1:
                self._context.bench.sweep(tried.recipe, BATCH_SIZES)
                self._check()

    def _firm(self, configured: Configured) -> Configured:
        """Measure a configuration with many calls, once, where too few bound its p99."""
        p99 = configured.point.latency_ms.p99
        if p99.high <= LOOSE * p99.low or self._clock_s() > self._until_s:
            return configured
        recipe, batch_size = configured.tried.recipe, configured.point.batch_size
        self._context.bench.tail(recipe, batch_size, CALLS)
        self._check()
        tried = self.view.tried[recipe.digest]
        return Configured(tried, tried.points[batch_size])

    def _replicas(self) -> ChallengeStep:
        """Have the twin say how many replicas of the last step the session's traffic needs."""
        skipped = StepOutcome.SKIPPED
        if self._context.spec.traffic is None:
            return ChallengeStep(name="replicas", outcome=skipped, why="The spec names no traffic.")
        chosen, why = final_choice(self.view)
        if chosen is None or not self._stands(chosen):
            other = why if chosen is None else f"{chosen.name} keeps every promise at the lowest cost, and is not this"
            return ChallengeStep(name="replicas", outcome=skipped, why=_sentence(other))
        update = scaling_recommendation({}, Runtime(context=self._context))
        self._check()
        self.scaling = ScalingSummary.model_validate(update["scaling"])
        return replicas_step(self._standing, self.scaling, self.price_per_hour_usd)

    # --- what is known -----------------------------------------------------------------------------------------

    def _given(self) -> Configured:
        baseline = self.view.baseline
        if baseline is None or not baseline.ran:
            reason = "it was never tried" if baseline is None else baseline.reason or baseline.outcome
            raise WorkloadError(f"the model as given could not be measured ({reason}): there is nothing to start from.")
        return Configured(baseline, baseline.first_point)

    def _options(self, tried: Sequence[Tried], rung: Rung) -> list[Configured]:
        """Return what was measured to the end, at the batch sizes that a step looks at, but for what stands."""
        whole = configurations(t for t in tried if t.given_up is None)
        return [c for c in whole if (rung.swept or c.point.batch_size == self.view.low_batch) and not self._stands(c)]

    def _stands(self, configured: Configured) -> bool:
        standing = self._standing
        return (configured.tried.recipe, configured.point.batch_size) == (
            standing.tried.recipe,
            standing.point.batch_size,
        )

    def _nothing(self, rung: Rung, tried: Sequence[Tried], why_not: str) -> ChallengeStep:
        """Return a step of which nothing ran, or nothing but what stands already."""
        failed = [t for t in tried if not t.ran or t.given_up is not None]
        if not failed:
            return ChallengeStep(name=rung.name, outcome=StepOutcome.SKIPPED, why=_sentence(why_not or _NOTHING_ELSE))
        reasons = "; ".join(
            f"{t.name} was given up: {t.given_up}" if t.given_up else f"{t.name} failed: {t.reason}" for t in failed
        )
        evidence = tuple(e for t in failed for e in t.evidence)
        return ChallengeStep(
            name=rung.name,
            outcome=StepOutcome.NOT_TAKEN,
            why=f"There are no figures of it. {_sentence(reasons)}",
            evidence=evidence,
        )

    def _trials(self, recipe: Recipe) -> list[Evidence]:
        return [e for e in self.view.of_kind(EvidenceKind.TRIAL) if e.recipe == recipe]

    def _reference(self) -> Evidence:
        """Return the trial that accuracy is paired with."""
        return self._trials(self._first.tried.recipe)[0]

    def _trial_of(self, tried: Tried) -> Evidence:
        return self._trials(tried.recipe)[-1]

    def _is_measured(self, recipe: Recipe) -> bool:
        tried = self.view.tried.get(recipe.digest)
        return tried is not None and tried.given_up is None

    def _check(self) -> None:
        if self._context.bench.stopped:
            raise InterruptedSessionError("interrupted: what was measured is kept, and the next challenge uses it.")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
