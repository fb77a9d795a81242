"""Watching a change for its window: it is verified, or what was before is put back."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta

from tools.cluster.api_errors import ApiError
from tools.cluster.context import ChangeContext, ChangeOutcome
from tools.cluster.events import EventKind
from tools.cluster.rollback import holders_of, not_as_left, roll_back_patiently
from tools.cluster.standing import changes_since_applied, require_same_place
from tools.cluster.watching import PERIOD_S, Check, breach, check_of, shortfall
from tools.contracts import ScalingPlan
from tools.errors import FenceError, InfertuneError
from tools.scaling.story import counted


def verify(
    digest: str,
    context: ChangeContext,
    *,
    watch_slo: Callable[[], float | None] | None,
    period_s: float = PERIOD_S,
) -> ChangeOutcome:
    """Watch an applied plan until its window is over, and take it back if it breaks a promise.

    The limits are in `tools.cluster.watching`. An interrupted watch goes on where the window stands; if the window is
    over, there is one check, and it decides. A window is at least one period long.

    Args:
        digest: of the plan, or at least 8 hex digits of it.
        context: where it is recorded and carried out.
        watch_slo: returns the latest p99 in milliseconds, None if it cannot be told; what it raises of our errors
            counts as None. Without it, or without an SLO in the plan, the HPA's own conditions alone decide, and the
            outcome says so.
        period_s: between two checks; at least `PERIOD_S`.

    Returns:
        `verified`, `rolled_back`, or `abandoned` (somebody else changed the object: it was left alone). If somebody
        else took the plan back meanwhile, what came of that.

    Raises:
        FenceError: the plan was not applied; or it has to be taken back, and the kill switch forbids it.
        ClusterError: it has to be taken back, and for a long time could not be. It stays as it is: resume it.
        StorageError: the store cannot be written, or was tampered with.
        ValueError: the period is too short.
    """
    if period_s < PERIOD_S:
        msg = f"a check every {period_s} s is too often; the controller itself looks every {PERIOD_S} s"
        raise ValueError(msg)
    plan = context.store.get(digest)
    context.store.require_intact()
    require_same_place(plan, context)
    state = context.store.state(plan.digest)
    if state == "applied":
        context.note(plan, "verifying", f"Watched for {plan.verify_s:g} s.")
    elif state == "breached":
        why = context.outcome(plan).why
        return roll_back_patiently(plan, context, why=why, period_s=period_s)
    elif state != "verifying":
        if state in {"verified", "rolled_back", "abandoned"}:
            return context.outcome(plan)
        raise FenceError(f"is {state}: there is nothing to verify.", where=f"plan {plan.digest}")
    return _Watch(plan, context, watch_slo, period_s).run()


class _Watch:
    """One process's watch over one plan."""

    def __init__(
        self,
        plan: ScalingPlan,
        context: ChangeContext,
        watch_slo: Callable[[], float | None] | None,
        period_s: float,
    ) -> None:
        self._plan = plan
        self._context = context
        self._slo_ms = plan.slo_ms if watch_slo is not None else None
        self._watch_slo = watch_slo
        self._period_s = period_s
        self._holders = holders_of(plan, context)
        self._checks: list[Check] = []
        self._since = context.clock()
        begun = next(e.at for e in context.store.events(plan.digest) if e.kind == "verifying")
        self._end = datetime.fromisoformat(begun) + timedelta(seconds=plan.verify_s)
        left_s = (self._end - self._since).total_seconds()
        self._planned = max(1, math.ceil(left_s / period_s))

    def run(self) -> ChangeOutcome:
        """Look until something is decided."""
        while True:
            # After an interruption that was longer than the window there is nothing to wait for.
            if self._checks or self._since < self._end:
                self._context.sleep(self._period_s)
            if self._context.store.state(self._plan.digest) != "verifying":
                return self._context.outcome(self._plan)
            outcome = self._look()
            if outcome is not None:
                return outcome

    def _look(self) -> ChangeOutcome | None:
        """Check once; return the outcome if that decides it."""
        at = self._context.clock()
        try:
            obj = self._context.reader.read()
        except ApiError as error:
            if error.kind == "not_found":
                return self._left_alone(("It was deleted.",))
            self._checks.append(Check(at=at, reachable=False, p99_ms=self._p99_ms()))
        else:
            changes = changes_since_applied(self._plan, obj, self._holders)
            if changes:
                return self._left_alone(changes)
            self._checks.append(check_of(obj, at=at, p99_ms=self._p99_ms()))
        return self._judge(at)

    def _judge(self, at: datetime) -> ChangeOutcome | None:
        broken = breach(self._checks, since=self._since, slo_ms=self._slo_ms, planned=self._planned)
        over = at >= self._end and self._checks[-1].reachable
        if broken is None and over:
            broken = shortfall(self._checks, slo_ms=self._slo_ms)
        if broken is not None:
            return self._take_back(broken)
        return self._verified() if over else None

    def _verified(self) -> ChangeOutcome:
        slo = (
            "latency was not watched: the HPA's own conditions alone decided"
            if self._slo_ms is None
            else f"p99 kept {self._slo_ms:g} ms"
        )
        return self._note("verified", f"In {counted(len(self._checks), 'check')} nothing spoke against it; {slo}.")

    def _take_back(self, why: str) -> ChangeOutcome:
        outcome = self._note("breached", why)
        if outcome.state != "breached":
            return outcome
        return roll_back_patiently(self._plan, self._context, why=why, period_s=self._period_s)

    def _left_alone(self, changes: tuple[str, ...]) -> ChangeOutcome:
        return self._note("abandoned", not_as_left(changes))

    def _note(self, kind: EventKind, why: str) -> ChangeOutcome:
        """Write the end down, unless somebody else did, such as a person who takes the change back."""
        try:
            return self._context.note(self._plan, kind, why)
        except FenceError:
            return self._context.outcome(self._plan)

    def _p99_ms(self) -> float | None:
        if self._watch_slo is None or self._slo_ms is None:
            return None
        try:
            return self._watch_slo()
        except InfertuneError:  # no traffic, no Prometheus: it cannot be told, which the judging counts
            return None
