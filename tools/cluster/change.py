"""Applying an approved plan: tried on the server first, written down before it is sent, stored once.

It can be called again after a crash at any point: what the store says and what the object is tell where it stands.
"""

from __future__ import annotations

from tools.cluster.admission import refusals
from tools.cluster.api_errors import ApiError
from tools.cluster.comparison import differences, filled_in, ownership, same
from tools.cluster.context import ChangeContext, ChangeOutcome
from tools.cluster.events import EventKind
from tools.cluster.hpa_object import HpaObject, patch_body
from tools.cluster.plans import INFERTUNE, expire, has_expired
from tools.cluster.sending import NotStoredError, OvertakenError, await_stragglers, rehearse, send
from tools.cluster.standing import changes_since_plan, is_our_change, require_same_place
from tools.contracts import ScalingPlan
from tools.errors import FenceError, StorageError

_DONE: frozenset[EventKind | None] = frozenset(
    {"applied", "verifying", "verified", "breached", "rolling_back", "rolled_back"}
)


def apply(digest: str, context: ChangeContext) -> ChangeOutcome:
    """Apply an approved plan. Applied twice is applied once.

    In this order: the store is intact; the plan is approved and has not expired; it was made for this cluster; the
    object is as it was when the plan was made; no rule forbids it; the server, asked without storing anything, makes
    of it what was approved; the record can be written; the intent is written; the patch is sent.

    Args:
        digest: of the plan, or at least 8 hex digits of it.
        context: where it is recorded and carried out.

    Returns:
        `applied`, or where the plan stood if that was done before; or that it has come to nothing: `expired`,
        `failed` (the object is as it was, and no patch is on its way any more: see
        `tools.cluster.sending.await_stragglers`, which may take a minute), `abandoned` (it is neither as it was nor as
        planned).

    Raises:
        FenceError: it is not approved, or a rule forbids it now. Nothing was sent; it stays approved.
        ApiError: the server could not be asked. Before the intent is written, the plan stays approved. After it, it
            stays `applying`: nobody knows whether the patch was stored, and calling again finds out.
        StorageError: the store or the record cannot be written, or the store was tampered with; or another process
            changes a cluster (BusyError). Nothing is sent without an intent on disk.
    """
    plan = context.store.get(digest)
    with context.locked():
        state = context.store.state(plan.digest)
        if state == "applying":
            return settle(plan, context, resend=True)
        if state in _DONE:
            return context.outcome(plan)
        if state != "approved":
            raise FenceError(f"is {state}, not approved.", where=f"plan {plan.digest}")
        if has_expired(plan, context.clock()):
            expire(context.store, plan, now=context.clock())
            return context.outcome(plan)
        require_same_place(plan, context)
        obj = context.writer.read()
        changes = changes_since_plan(plan, obj)
        if changes:
            return _overtaken(plan, context, " ".join(changes), sent=False)
        reasons = refusals(plan, obj, context)
        if reasons:
            raise FenceError(" ".join(reasons), where=f"plan {plan.digest}")
        return _carry_out(plan, obj, context, resumed=False)


def settle(plan: ScalingPlan, context: ChangeContext, *, resend: bool) -> ChangeOutcome:
    """Find out what became of an intent that was written, and finish it. The caller holds the lock.

    Args:
        plan: one that is `applying`.
        context: where it is recorded and carried out.
        resend: whether to send the patch if it was not stored; else the plan has failed, once it cannot be stored.

    Returns:
        `applied`, `failed` or `abandoned`, as for `apply`.

    Raises:
        ApiError: the server could not be asked; the plan stays `applying`.
        FenceError: the plan is for another cluster.
        StorageError: the store cannot be written.
    """
    require_same_place(plan, context)
    try:
        obj = context.writer.read()
    except ApiError as error:
        if error.kind != "not_found":
            raise
        return _deleted(plan, context)
    if is_our_change(plan, obj):
        return _applied(plan, obj, context)
    changes = changes_since_plan(plan, obj)
    if changes:
        return _neither(plan, context, " ".join(changes))
    if not resend:
        return _give_up(plan, context, "The patch was not stored, and is not sent any more.", sent=True)
    reasons = list(refusals(plan, obj, context))
    if has_expired(plan, context.clock()):
        reasons.append(f"The plan was good until {plan.expires}.")
    if reasons:
        why = f"The patch was not stored before the interruption, and may not be sent now. {' '.join(reasons)}"
        return _give_up(plan, context, why, sent=True)
    return _carry_out(plan, obj, context, resumed=True)


def _carry_out(plan: ScalingPlan, obj: HpaObject, context: ChangeContext, *, resumed: bool) -> ChangeOutcome:
    """Try the patch, write the intent, send it."""

    def objections(again: HpaObject) -> tuple[str, ...]:
        return changes_since_plan(plan, again) or refusals(plan, again, context)

    try:
        obj, answer = rehearse(context.writer, obj, plan.after, objections=objections, sleep=context.sleep)
    except OvertakenError as error:
        return _overtaken(plan, context, str(error), sent=resumed)
    except ApiError as error:
        if error.kind in {"conflict", "invalid", "rejected"}:
            why = f"Nothing was applied: the server would not have it. {error}"
            return _give_up(plan, context, why, sent=resumed)
        raise
    surprises = differences(plan.after, answer.owned)
    if surprises:
        why = f"Nothing was applied: the server would make something else of it: {'; '.join(surprises)}."
        return _give_up(plan, context, why, sent=resumed)
    if not context.recordable():
        raise StorageError(
            "the session's record cannot be written, so nothing is applied.",
            where=f"plan {plan.digest}",
            fix="Mend that first; the approval stays good.",
        )
    if not resumed:
        patch = patch_body(obj.owned, plan.after, obj.resource_version)
        context.note(plan, "applying", "The patch is about to be sent.", patch=patch)
    return _send(plan, obj, context, resumed=resumed)


def _send(plan: ScalingPlan, obj: HpaObject, context: ChangeContext, *, resumed: bool) -> ChangeOutcome:
    try:
        stored = send(
            context.writer,
            obj,
            plan.after,
            landed=lambda again: is_our_change(plan, again),
            objections=lambda again: changes_since_plan(plan, again) or refusals(plan, again, context),
            sleep=context.sleep,
        )
    except NotStoredError as error:
        return _give_up(plan, context, f"Nothing was applied. {error}", sent=resumed or error.maybe_stored)
    except OvertakenError as error:
        return _overtaken(plan, context, str(error), sent=resumed or error.maybe_stored)
    return _applied(plan, stored, context)


def _applied(plan: ScalingPlan, obj: HpaObject, context: ChangeContext) -> ChangeOutcome:
    if not same(plan.after, obj.owned):
        return _neither(plan, context, "; ".join(differences(plan.after, obj.owned)) + ".")
    return context.note(
        plan,
        "applied",
        f"The HPA has the plan's spec, as of resourceVersion {obj.resource_version}.",
        resource_version=obj.resource_version,
        generation=obj.generation,
        holders=ownership(obj),
        defaults=filled_in(plan.after, obj.owned),
    )


def _overtaken(plan: ScalingPlan, context: ChangeContext, changes: str, *, sent: bool) -> ChangeOutcome:
    why = f"Nothing was applied: the HPA changed between plan and apply. {changes} Plan anew."
    return _give_up(plan, context, why, sent=sent)


def _give_up(plan: ScalingPlan, context: ChangeContext, why: str, *, sent: bool) -> ChangeOutcome:
    """Note that a plan has failed; if a patch of it was ever sent, once none can be stored any more, and none was."""
    if not sent:
        return context.note(plan, "failed", why)
    try:
        obj = await_stragglers(
            context.writer, unchanged=lambda again: not changes_since_plan(plan, again), sleep=context.sleep
        )
    except OvertakenError:
        return _deleted(plan, context)
    if is_our_change(plan, obj):
        return _applied(plan, obj, context)
    changes = changes_since_plan(plan, obj)
    return _neither(plan, context, " ".join(changes)) if changes else context.note(plan, "failed", why)


def _deleted(plan: ScalingPlan, context: ChangeContext) -> ChangeOutcome:
    return context.note(plan, "abandoned", "The HPA was deleted while the plan was being applied.")


def _neither(plan: ScalingPlan, context: ChangeContext, changes: str) -> ChangeOutcome:
    why = (
        f"The HPA is neither as it was nor as planned, so it was left alone. {changes} Look at it, and make a new plan "
        "or put back what is `before` in this one."
    )
    return context.note(plan, "abandoned", why, by=INFERTUNE)
