"""What a process does that finds a plan somewhere on its way: finish it, or take it back."""

from __future__ import annotations

from collections.abc import Callable

from tools.cluster.change import apply
from tools.cluster.context import ChangeContext, ChangeOutcome
from tools.cluster.plans import expire, has_expired
from tools.cluster.rollback import roll_back_patiently
from tools.cluster.verify import verify
from tools.cluster.watching import PERIOD_S


def resume_change(
    digest: str,
    context: ChangeContext,
    *,
    watch_slo: Callable[[], float | None] | None,
    period_s: float = PERIOD_S,
) -> ChangeOutcome:
    """Bring a plan, in whatever state it is, to an end: verified, rolled back, or why neither.

    It is also how a plan that was just approved is carried out: applied and verified. What was done is not done twice.

    Args:
        digest: of the plan, or at least 8 hex digits of it.
        context: where it is recorded and carried out.
        watch_slo: as for `verify`.
        period_s: as for `verify`.

    Returns:
        Where the plan stands. `proposed`: it waits for a person.

    Raises:
        FenceError: there is no such plan, or a rule forbids the next step.
        ClusterError: the cluster could not be asked, or does not allow it. The plan stays where it stands.
        StorageError: the store cannot be written, or was tampered with; or another process is at it (BusyError).
    """
    plan = context.store.get(digest)
    context.store.require_intact()
    state = context.store.state(plan.digest)
    if state == "proposed" and has_expired(plan, context.clock()):
        expire(context.store, plan, now=context.clock())
    if state in {"approved", "applying"}:
        state = apply(plan.digest, context).state
    if state in {"applied", "verifying", "breached"}:
        return verify(plan.digest, context, watch_slo=watch_slo, period_s=period_s)
    if state == "rolling_back":
        return roll_back_patiently(plan, context, why=context.outcome(plan).why, period_s=period_s)
    return context.outcome(plan)
