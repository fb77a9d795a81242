"""Putting back what was before a plan, but only if the object is still as the plan left it."""

from __future__ import annotations

from datetime import timedelta

from tools.cluster.admission import no_longer_ours
from tools.cluster.api_errors import ApiError
from tools.cluster.change import settle
from tools.cluster.comparison import differences, same
from tools.cluster.context import ChangeContext, ChangeOutcome
from tools.cluster.events import EventKind
from tools.cluster.hpa_object import HpaObject
from tools.cluster.plans import INFERTUNE, person
from tools.cluster.sending import NotStoredError, OvertakenError, rehearse, send
from tools.cluster.standing import changes_since_applied, identity_changes, require_same_place
from tools.cluster.text import MESSAGE_LIMIT, shown
from tools.contracts import ScalingPlan
from tools.errors import FenceError
from tools.lock import BusyError

PATIENCE_S = 600.0
"""How long a rollback is tried for while the server does not answer, or refuses: as long as people are given to notice
by a page. After that it waits until the plan is resumed."""

_TO_TAKE_BACK: frozenset[EventKind | None] = frozenset({"applied", "verifying", "verified", "breached", "rolling_back"})


def rollback(digest: str, context: ChangeContext, *, by: str, why: str) -> ChangeOutcome:
    """Put back what was before a plan. A person may ask for it, also long after the plan was verified.

    Args:
        digest: of the plan, or at least 8 hex digits of it.
        context: where it is recorded and carried out.
        by: the person's name.
        why: their reason, as a sentence.

    Returns:
        `rolled_back`, also if that was done before; `abandoned`, if the object is not as the plan left it: it was not
        touched; `failed`, if the plan turns out never to have been stored.

    Raises:
        FenceError: there is nothing to take back, the kill switch is set, or `by` is no name.
        ApiError: the server could not be asked, or refuses. Calling again finds out what became of it.
        NotStoredError: somebody else's writes were always faster, or the server refused.
        StorageError: the store cannot be written, or was tampered with; or another process changes a cluster
            (BusyError).
    """
    return _rollback(context.store.get(digest), context, by=person(by), why=shown(why, MESSAGE_LIMIT))


def roll_back_patiently(plan: ScalingPlan, context: ChangeContext, *, why: str, period_s: float) -> ChangeOutcome:
    """Put back what was before a plan that broke its promise, trying again for `PATIENCE_S`.

    Raises:
        FenceError: the kill switch is set.
        ClusterError: it could not be done in that time. The plan stays as it is; resuming tries again.
        StorageError: the store cannot be written, or was tampered with.
    """
    give_up = context.clock() + timedelta(seconds=PATIENCE_S)
    while True:
        try:
            return _rollback(plan, context, by=INFERTUNE, why=why)
        except (ApiError, NotStoredError, BusyError):
            if context.clock() >= give_up:
                raise
        context.sleep(period_s)


def _rollback(plan: ScalingPlan, context: ChangeContext, *, by: str, why: str) -> ChangeOutcome:
    with context.locked():
        state = context.store.state(plan.digest)
        if state == "applying":
            outcome = settle(plan, context, resend=False)
            if outcome.state != "applied":
                return outcome
            state = outcome.state
        if state == "rolled_back":
            return context.outcome(plan)
        if state not in _TO_TAKE_BACK:
            raise FenceError(f"is {state}: there is nothing to take back.", where=f"plan {plan.digest}")
        require_same_place(plan, context)
        try:
            obj = context.writer.read()
        except ApiError as error:
            if error.kind != "not_found":
                raise
            return context.note(plan, "abandoned", "The HPA was deleted: there is nothing to take back.")
        if state == "rolling_back" and _is_back(plan, obj):
            return _rolled_back(plan, obj, context)
        return _put_back(plan, obj, context, begun=state == "rolling_back", by=by, why=why)


def _put_back(
    plan: ScalingPlan, obj: HpaObject, context: ChangeContext, *, begun: bool, by: str, why: str
) -> ChangeOutcome:
    holders = holders_of(plan, context)

    def objections(again: HpaObject) -> tuple[str, ...]:
        return changes_since_applied(plan, again, holders) or no_longer_ours(plan, again, context)

    changes = objections(obj)
    if changes:
        return _abandon(plan, context, changes)
    try:
        obj, answer = rehearse(context.writer, obj, plan.before, objections=objections, sleep=context.sleep)
        surprises = differences(plan.before, answer.owned)
        if surprises:
            return _abandon(plan, context, ("The server would make something else of what was before:", *surprises))
        if not begun:
            context.note(plan, "rolling_back", why, by=by)
        stored = send(
            context.writer,
            obj,
            plan.before,
            landed=lambda again: _is_back(plan, again),
            objections=objections,
            sleep=context.sleep,
        )
    except OvertakenError as error:
        if begun and error.obj is not None and _is_back(plan, error.obj):  # by a patch that was on its way already
            return _rolled_back(plan, error.obj, context)
        return _abandon(plan, context, (str(error),))
    return _rolled_back(plan, stored, context)


def not_as_left(changes: tuple[str, ...]) -> str:
    """Return, as a text for a person, that an object is not as the plan left it, what differs, and what to do."""
    return (
        f"The HPA is not as the plan left it, so it was left alone. {' '.join(changes)} Whoever changed it decides; "
        "what was there before the plan is `before` in it."
    )


def _abandon(plan: ScalingPlan, context: ChangeContext, changes: tuple[str, ...]) -> ChangeOutcome:
    return context.note(plan, "abandoned", not_as_left(changes))


def _rolled_back(plan: ScalingPlan, obj: HpaObject, context: ChangeContext) -> ChangeOutcome:
    if not same(plan.before, obj.owned):
        return _abandon(plan, context, tuple(f"{part}." for part in differences(plan.before, obj.owned)))
    return context.note(
        plan,
        "rolled_back",
        f"The HPA has what was before the plan, as of resourceVersion {obj.resource_version}.",
        resource_version=obj.resource_version,
        generation=obj.generation,
    )


def _is_back(plan: ScalingPlan, obj: HpaObject) -> bool:
    return not identity_changes(plan, obj) and same(plan.before, obj.owned)


def holders_of(plan: ScalingPlan, context: ChangeContext) -> dict[str, list[str]]:
    """Return who else held which field when the plan was applied (`tools.cluster.comparison.ownership`).

    Raises:
        StorageError: the store cannot be read.
    """
    holders: dict[str, list[str]] = next(
        e.detail["holders"] for e in context.store.events(plan.digest) if e.kind == "applied"
    )
    return holders
