"""A plan as a session's result tells it."""

from __future__ import annotations

from tools.cluster.diff import spec_diff
from tools.cluster.store import PlanStore
from tools.result import PlanEvent, PlanSummary


def summarize_plan(store: PlanStore, digest: str, *, server_diff: str = "", notes: tuple[str, ...] = ()) -> PlanSummary:
    """Return a plan and all that happened to it so far.

    Raises:
        FenceError: there is no such plan.
        StorageError: the store cannot be read.
    """
    plan = store.get(digest)
    state = store.state(plan.digest)
    assert state is not None, "a plan that is stored was proposed"
    return PlanSummary(
        digest=plan.digest,
        state=state,
        hpa=f"{plan.target.namespace}/{plan.target.name}",
        context=plan.target.context,
        why=plan.why,
        expires=plan.expires,
        diff=spec_diff(plan.before, plan.after, name=plan.target.name),
        server_diff=server_diff,
        events=tuple(
            PlanEvent(kind=e.kind, at=e.at, by=e.by, why=str(e.detail.get("why", "")))
            for e in store.events(plan.digest)
        ),
        notes=notes,
    )
