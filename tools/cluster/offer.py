"""From a recommendation to a plan that a person can approve: read, checked against the fence, tried on the server.

Nothing is changed here. What forbids a plan is an answer, with its reasons, and no error.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from tools.cluster.client import HpaClient
from tools.cluster.comparison import differences, filled_in, same
from tools.cluster.diff import spec_diff
from tools.cluster.events import in_flight, last_change
from tools.cluster.fence import check_fence, kill_switch, notes_on
from tools.cluster.hpa_object import HpaObject, owned_fields, patch_body
from tools.cluster.plans import INFERTUNE, make_plan
from tools.cluster.store import PlanStore
from tools.contracts import Contract, HpaSpec, ScalingPlan
from tools.spec import ClusterSpec


class Offer(Contract):
    """What came of bringing a recommendation before a cluster."""

    plan: ScalingPlan | None = None
    """Waits for a person, in the store; None: recommended only."""
    refusals: tuple[str, ...] = ()
    """Why there is no plan, in sentences."""
    server_diff: str = ""
    """What the server itself would make of the HPA, as a unified diff; empty if it was not asked."""
    notes: tuple[str, ...] = ()


def offer(
    after: HpaSpec,
    *,
    store: PlanStore,
    reader: HpaClient,
    open_writer: Callable[[], HpaClient],
    cluster: ClusterSpec,
    session: str,
    why: str,
    evidence: tuple[str, ...],
    price_per_hour_usd: float,
    daily_cost_usd: float | None,
    slo_ms: float | None,
    now: datetime,
) -> Offer:
    """Make a plan of a recommendation, if every rule allows it and the server would take it, and write it down.

    Asked again for the same session, it returns what it made then, whatever the cluster looks like now.

    Args:
        after: the recommended spec; only the fields that a plan may own count.
        store: where plans are.
        reader: the HPA, as the identity sees it that may only read.
        open_writer: opens it as the identity that may patch it; called for the dry run only, if all else allows a plan.
        cluster: the rules.
        session: which proposes it.
        why: the sentence that goes with it.
        evidence: ids of what it rests on.
        price_per_hour_usd: of one replica.
        daily_cost_usd: what a day is expected to cost.
        slo_ms: p99 that verification holds against.
        now: with a time zone.

    Raises:
        ClusterError: the cluster cannot be asked.
        StorageError: the store cannot be written, or was tampered with.
    """
    made = next((plan for plan in store.plans() if plan.session == session), None)
    if made is not None:
        return offered(store, made)
    obj = reader.read()
    after = owned_fields(after)
    if same(obj.owned, after):
        return Offer(refusals=("The HPA in the cluster is as recommended: there is nothing to change.",))
    reasons = [*_refusals(obj, after, store, reader, cluster, price_per_hour_usd=price_per_hour_usd, now=now)]
    if not cluster.apply:
        reasons.append("Only recommended: `cluster.apply` is not set.")
    if cluster.writer_context is None:
        reasons.append("Nobody is named who may change the HPA (`cluster.writer_context`).")
    notes = tuple(notes_on(obj))
    if reasons:
        return Offer(refusals=tuple(reasons), notes=notes)
    with open_writer() as writer:
        answer = writer.dry_run(patch_body(obj.owned, after, obj.resource_version))
    diff = spec_diff(obj.owned, answer.owned, name=obj.name)
    surprises = differences(after, answer.owned)
    if surprises:
        text = f"The server would make something else of it: {'; '.join(surprises)}."
        return Offer(refusals=(text,), server_diff=diff, notes=notes)
    plan = make_plan(
        obj,
        reader.ref(obj),
        after,
        session=session,
        why=why,
        bounds=cluster.bounds,
        price_per_hour_usd=price_per_hour_usd,
        now=now,
        approval_s=cluster.approval_s,
        verify_s=cluster.verify_s,
        evidence=evidence,
        slo_ms=slo_ms,
        daily_cost_usd=daily_cost_usd,
    )
    filled = filled_in(after, answer.owned)
    if filled:
        notes = (*notes, f"The server fills in: {'; '.join(filled)}.")
    store.propose(plan, by=INFERTUNE, at=now, detail={"server_diff": diff, "notes": notes})
    return Offer(plan=plan, server_diff=diff, notes=notes)


def offered(store: PlanStore, plan: ScalingPlan) -> Offer:
    """Return what a plan was offered with, as it was kept beside it: a person is shown the same, whenever they ask.

    Raises:
        StorageError: the store cannot be read.
    """
    kept = next((event.detail for event in store.events(plan.digest) if event.kind == "proposed"), {})
    notes = tuple(str(note) for note in kept.get("notes") or ())
    return Offer(plan=plan, server_diff=str(kept.get("server_diff") or ""), notes=notes)


def _refusals(
    obj: HpaObject,
    after: HpaSpec,
    store: PlanStore,
    reader: HpaClient,
    cluster: ClusterSpec,
    *,
    price_per_hour_usd: float,
    now: datetime,
) -> tuple[str, ...]:
    earlier = store.history(reader.ref(obj))
    found = check_fence(
        obj,
        after,
        allow_namespaces=cluster.allow_namespaces,
        bounds=cluster.bounds,
        price_per_hour_usd=price_per_hour_usd,
        now=now,
        cooldown_s=cluster.cooldown_s,
        last_change=last_change(earlier),
        in_flight=in_flight(earlier, but=""),
        kill_switch=kill_switch(store.home),
    )
    return tuple(refusal.sentence for refusal in found)
