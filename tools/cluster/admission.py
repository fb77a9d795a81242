"""What the fence says to a plan, forward and back, with what the store knows of earlier changes."""

from __future__ import annotations

from tools.cluster.context import ChangeContext
from tools.cluster.events import in_flight, last_change
from tools.cluster.fence import Refusal, check_fence, kill_switch, within
from tools.cluster.hpa_object import HpaObject
from tools.contracts import HpaSpec, ScalingPlan
from tools.errors import FenceError

_NOT_OURS_ANY_MORE = {"opt_in", "owner", "deleting"}
_NOT_NOW = {"kill_switch", "namespace"}


def refusals(plan: ScalingPlan, obj: HpaObject, context: ChangeContext) -> tuple[str, ...]:
    """Return every rule that forbids to apply a plan to an object, in sentences.

    The plan's bounds hold, and so do those of the spec, which may have become narrower since.
    """
    found = _fence(plan.after, obj, context, plan=plan)
    own = within(plan.bounds, plan.after, context.price_per_hour_usd)
    return tuple(dict.fromkeys((*(refusal.sentence for refusal in found), *own)))


def no_longer_ours(plan: ScalingPlan, obj: HpaObject, context: ChangeContext) -> tuple[str, ...]:
    """Return why an HPA that we changed is not ours to change back, in sentences.

    What was before is put back as it was: bounds, cool-down and what else limits a new setting do not hold here.

    Raises:
        FenceError: nothing at all may be changed now: the kill switch is on, or the namespace is not allowed any more.
    """
    found = _fence(plan.before, obj, context, plan=None)
    not_now = [refusal.sentence for refusal in found if refusal.rule in _NOT_NOW]
    if not_now:
        raise FenceError(
            " ".join(not_now), where=f"plan {plan.digest}", fix="Until then the HPA stays as the plan left it."
        )
    return tuple(refusal.sentence for refusal in found if refusal.rule in _NOT_OURS_ANY_MORE)


def _fence(spec: HpaSpec, obj: HpaObject, context: ChangeContext, *, plan: ScalingPlan | None) -> tuple[Refusal, ...]:
    earlier = () if plan is None else context.store.history(plan.target)
    return check_fence(
        obj,
        spec,
        allow_namespaces=context.cluster.allow_namespaces,
        bounds=context.cluster.bounds,
        price_per_hour_usd=context.price_per_hour_usd,
        now=context.clock(),
        cooldown_s=context.cluster.cooldown_s,
        last_change=last_change(earlier),
        in_flight=None if plan is None else in_flight(earlier, but=plan.digest),
        kill_switch=kill_switch(context.store.home),
    )
