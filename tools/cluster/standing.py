"""How an object stands to a plan: as it was found, as we left it, or neither; and what forbids to change it."""

from __future__ import annotations

from tools.cluster.comparison import differences, is_written_by_us, same, scaled, took_over
from tools.cluster.context import ChangeContext
from tools.cluster.hpa_object import HpaObject
from tools.cluster.text import shown
from tools.contracts import ScalingPlan
from tools.errors import FenceError


def require_same_place(plan: ScalingPlan, context: ChangeContext) -> None:
    """Refuse a plan that was made for another cluster or another HPA than those at hand.

    Raises:
        FenceError: it was. Nothing has been sent.
    """
    target = plan.target
    planned = (target.server, target.namespace, target.name)
    for client in (context.reader, context.writer):
        found = (client.connection.server, client.namespace, client.name)
        if found != planned:
            raise FenceError(
                f"was made for {_place(*planned)}, not for {_place(*found)}.",
                where=f"plan {plan.digest}",
                fix="Use the spec that it was made with, or make a plan with this one.",
            )


def changes_since_plan(plan: ScalingPlan, obj: HpaObject) -> tuple[str, ...]:
    """Return what is no longer as it was when the plan was made, in sentences.

    The resourceVersion does not count: the controller writes the HPA's status all the time. What counts is which
    object it is, what it scales and how. Labels and owners are the fence's.
    """
    return (*identity_changes(plan, obj), *_sentences(differences(plan.before, obj.owned)))


def is_our_change(plan: ScalingPlan, obj: HpaObject) -> bool:
    """Return whether an object is what came of this plan: its spec is the plan's, and written by us."""
    return (
        not identity_changes(plan, obj)
        and same(plan.after, obj.owned)
        and is_written_by_us(obj, plan.before, plan.after)
    )


def changes_since_applied(plan: ScalingPlan, obj: HpaObject, holders: dict[str, list[str]]) -> tuple[str, ...]:
    """Return what is no longer as the plan left it, in sentences.

    Args:
        plan: what was applied.
        obj: the object as it is now.
        holders: who else held which field then (`tools.cluster.comparison.ownership`). A change that was changed back
            leaves the spec equal, but not its holders.
    """
    return (
        *identity_changes(plan, obj),
        *_sentences(differences(plan.after, obj.owned)),
        *_sentences(took_over(holders, obj)),
    )


def identity_changes(plan: ScalingPlan, obj: HpaObject) -> tuple[str, ...]:
    """Return why an object is not the one that the plan was made for, in sentences."""
    if obj.uid != plan.target.uid:
        return ("It was deleted and made again.",)
    if obj.deleting:
        return ("It is being deleted.",)
    if scaled(obj) != plan.scales:
        return (f"It scales {scaled(obj)}, not {shown(plan.scales)}.",)
    return ()


def _sentences(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{part}." for part in parts)


def _place(server: str, namespace: str, name: str) -> str:
    return f"{shown(namespace)}/{shown(name)} at {shown(server)}"
