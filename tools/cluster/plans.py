"""Making a plan, showing it to a person, and noting what the person said.

A plan is approved by its digest: an approval for one content is worth nothing for any other. Approvals are kept in
the store, sealed, with name and time, and expire with the plan.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tools.cluster.bounds import within
from tools.cluster.comparison import same, scaled
from tools.cluster.diff import spec_diff
from tools.cluster.events import IN_FLIGHT, Event, state_of
from tools.cluster.hpa_object import HpaObject
from tools.cluster.store import PlanStore
from tools.cluster.text import MESSAGE_LIMIT, NAME_LIMIT, shown
from tools.contracts import OWNED_FIELDS, Bounds, HpaRef, HpaSpec, ScalingPlan
from tools.errors import FenceError

POLICY = "policy"
"""Who approves a plan that lies within the limits of automatic approval. No person can be called so."""
INFERTUNE = "infertune"
"""Who does what follows from an approval."""


def make_plan(
    obj: HpaObject,
    ref: HpaRef,
    after: HpaSpec,
    *,
    session: str,
    why: str,
    bounds: Bounds,
    price_per_hour_usd: float | None,
    now: datetime,
    approval_s: float,
    verify_s: float,
    evidence: tuple[str, ...] = (),
    slo_ms: float | None = None,
    daily_cost_usd: float | None = None,
) -> ScalingPlan:
    """Return the plan that changes an HPA from what it is to `after`. Nothing is written or sent.

    Args:
        obj: the HPA as it was read.
        ref: names it (`HpaClient.ref`).
        after: `minReplicas`, `maxReplicas` and `metrics`, and `behavior` if there is to be one. What it does not name
            is removed.
        session: which session proposes it.
        why: the sentence that goes with it.
        bounds: what it may not leave.
        price_per_hour_usd: of one replica; None if unknown, and then a bound on the cost cannot be kept.
        now: when it is made.
        approval_s: how long it, and an approval of it, are good for.
        verify_s: how long to watch once it is applied.
        evidence: ids of what it rests on.
        slo_ms: p99 that verification holds against; None if there is none.
        daily_cost_usd: what a day is expected to cost.

    Raises:
        FenceError: it changes nothing, leaves the bounds, is not complete, or names fields that are not ours.
    """
    _check_complete(after)
    broken = within(bounds, after, price_per_hour_usd)
    if broken:
        raise FenceError(" ".join(broken), where="scaling plan", fix="Change the bounds, or what is asked for.")
    if same(obj.owned, after):
        raise FenceError("the HPA is as recommended: there is nothing to change.", where=f"HPA {ref.name}")
    return ScalingPlan(
        session=session,
        target=ref,
        scales=scaled(obj),
        before=obj.owned,
        after=after,
        why=why,
        evidence=evidence,
        bounds=bounds,
        slo_ms=slo_ms,
        verify_s=verify_s,
        daily_cost_usd=daily_cost_usd,
        created=_iso(now),
        expires=_iso(now + timedelta(seconds=approval_s)),
    )


def approve(store: PlanStore, digest: str, *, by: str, now: datetime) -> ScalingPlan:
    """Note that a person approves exactly this plan, and return it.

    Args:
        store: where it was proposed.
        digest: its digest, or at least 8 hex digits that name no other.
        by: the person's name.
        now: when.

    Raises:
        FenceError: there is no such plan, it has expired, or was approved, rejected or carried out already; or `by`
            is no name.
        StorageError: the store cannot be written, or was tampered with.
    """
    return _approve(store, digest, by=person(by), now=now)


def auto_approve(
    store: PlanStore, plan: ScalingPlan, limits: Bounds, *, price_per_hour_usd: float | None, now: datetime
) -> bool:
    """Approve a plan that lies wholly within limits that a person set beforehand; return whether it does.

    Args:
        store: where it was proposed.
        plan: the plan.
        limits: of automatic approval.
        price_per_hour_usd: of one replica; None if unknown, and then a limit on the cost cannot be kept.
        now: when.

    Raises:
        FenceError: as for `approve`.
        StorageError: the store cannot be written, or was tampered with.
    """
    if within(limits, plan.after, price_per_hour_usd):
        return False
    _approve(store, plan.digest, by=POLICY, now=now)
    return True


def reject(store: PlanStore, digest: str, *, by: str, now: datetime, why: str = "") -> ScalingPlan:
    """Note that a person refuses a plan, or takes an approval back that was not acted on yet, and return the plan.

    Raises:
        FenceError: there is no such plan, it is too late, or `by` is no name.
        StorageError: the store cannot be written, or was tampered with.
    """
    plan = store.get(digest)
    detail = {"why": shown(why, MESSAGE_LIMIT)}
    guard = _refusal_guard(plan, {"proposed", "approved"})
    store.append(plan.digest, "rejected", by=person(by), at=now, detail=detail, guard=guard)
    return plan


def pending(store: PlanStore, *, now: datetime) -> tuple[ScalingPlan, ...]:
    """Return the plans that wait for a person, the oldest first.

    Raises:
        StorageError: the store cannot be read.
    """
    return tuple(
        plan for plan in store.plans() if store.state(plan.digest) == "proposed" and not has_expired(plan, now)
    )


def open_plans(store: PlanStore, *, now: datetime) -> tuple[ScalingPlan, ...]:
    """Return the plans that wait for an answer or to be carried out, or are on their way, the oldest first.

    What can no longer be approved or applied in time waits for nothing, whether that was noted or not.

    Raises:
        StorageError: the store cannot be read.
    """
    standing = [(plan, store.state(plan.digest)) for plan in store.plans()]
    return tuple(
        plan
        for plan, state in standing
        if state in IN_FLIGHT or (state in {"proposed", "approved"} and not has_expired(plan, now))
    )


def has_expired(plan: ScalingPlan, now: datetime) -> bool:
    """Return whether it is too late to approve or apply a plan."""
    return now >= datetime.fromisoformat(plan.expires)


def expire(store: PlanStore, plan: ScalingPlan, *, now: datetime) -> None:
    """Note that a plan was not carried out in time.

    Raises:
        FenceError: something else happened to it meanwhile.
        StorageError: the store cannot be written, or was tampered with.
    """
    store.append(plan.digest, "expired", by=INFERTUNE, at=now, detail={"why": f"It was good until {plan.expires}."})


def describe(plan: ScalingPlan) -> str:
    """Return a plan as a person reads it before saying yes or no: what, where, why, and the diff."""
    target = plan.target
    lines = [
        f"Plan {plan.digest}: HPA {target.namespace}/{target.name} at {target.server} (context {target.context}),",
        f"which scales {plan.scales}.",
        f"Why: {plan.why}",
        f"Evidence: {', '.join(plan.evidence) or 'none'}",
        f"Within: {_bounds_text(plan.bounds)}",
        f"Expected cost of a day: {_or_unknown(plan.daily_cost_usd, 'USD')}",
        f"Watched for {plan.verify_s:g} s afterwards; p99 to keep: {_or_unknown(plan.slo_ms, 'ms')}",
        f"Made {plan.created}, good until {plan.expires}.",
        "",
        *spec_diff(plan.before, plan.after, name=plan.target.name).splitlines(),
    ]
    return "\n".join(shown(line, MESSAGE_LIMIT) for line in lines) + "\n"


def _approve(store: PlanStore, digest: str, *, by: str, now: datetime) -> ScalingPlan:
    plan = store.get(digest)
    if store.state(plan.digest) == "proposed" and has_expired(plan, now):
        expire(store, plan, now=now)
    guard = _refusal_guard(plan, {"proposed"})
    store.append(plan.digest, "approved", by=by, at=now, detail={"digest": plan.digest}, guard=guard)
    return plan


def _refusal_guard(plan: ScalingPlan, allowed: set[str]) -> Callable[[tuple[Event, ...]], None]:
    """Return a check that says who was faster, with what and when."""

    def guard(events: tuple[Event, ...]) -> None:
        if state_of(events) not in allowed:
            last = events[-1]
            raise FenceError(
                f"is {last.kind} already, by {shown(last.by)} at {last.at}.",
                where=f"plan {plan.digest}",
                fix="Make the plan anew if it is still wanted."
                if last.kind in {"expired", "rejected", "failed"}
                else None,
            )

    return guard


def _check_complete(after: HpaSpec) -> None:
    foreign = sorted(set(after) - set(OWNED_FIELDS))
    missing = [field for field in ("minReplicas", "maxReplicas", "metrics") if not after.get(field)]
    if foreign or missing:
        what = f"lacks {', '.join(missing)}" if missing else f"names {', '.join(map(shown, foreign))}"
        raise FenceError(
            f"{what}; it must hold minReplicas, maxReplicas and metrics, may hold behavior, and nothing else.",
            where="scaling plan",
        )
    try:
        json.dumps(after, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise FenceError(f"holds what JSON cannot ({error}).", where="scaling plan") from None


def person(name: str) -> str:
    """Return a person's name without the space around it.

    Raises:
        FenceError: it is empty, too long, not printable, or one that infertune calls itself by.
    """
    cleaned = name.strip()
    if not cleaned or len(cleaned) > NAME_LIMIT or not cleaned.isprintable():
        raise FenceError(
            f"is no person's name: give one of 1 to {NAME_LIMIT} printable characters.",
            where=f"approver {shown(name)!r}",
        )
    if cleaned.lower() in {POLICY, INFERTUNE}:
        raise FenceError("is what infertune calls itself: give a person's name.", where=f"approver {shown(name)!r}")
    return cleaned


def _bounds_text(bounds: Bounds) -> str:
    parts = [f"{bounds.min_replicas} to {bounds.max_replicas} replicas"]
    if bounds.metrics is not None:
        parts.append(f"metrics {', '.join(bounds.metrics) or 'none'}")
    if bounds.target is not None:
        parts.append(f"targets {bounds.target[0]:g} to {bounds.target[1]:g}")
    if bounds.daily_cost_usd is not None:
        parts.append(f"{bounds.daily_cost_usd:g} USD a day")
    return "; ".join(parts)


def _or_unknown(value: float | None, unit: str) -> str:
    return "not known" if value is None else f"{value:.4g} {unit}"


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
