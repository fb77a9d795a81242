"""What every step of a change needs, and what comes out of one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from tools.cluster.client import HpaClient
from tools.cluster.events import EventKind
from tools.cluster.plans import INFERTUNE
from tools.cluster.store import PlanStore
from tools.contracts import Contract, ScalingPlan
from tools.lock import held
from tools.spec import ClusterSpec

LOCK = "change.lock"
"""Name of the lock file in a home directory: one process at a time changes a cluster."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _always() -> bool:
    return True


@dataclass(frozen=True)
class ChangeContext:
    """Where a change is recorded, who carries it out, and by which rules.

    Attributes:
        store: plans, approvals, and what came of them.
        reader: the HPA, as the identity sees it that may only read.
        writer: the HPA, as the identity sees it that may patch it.
        cluster: the rules: allowed namespaces, bounds, cool-down.
        price_per_hour_usd: of one replica; None if unknown, and then a bound on the cost cannot be kept.
        clock: the time, with a time zone.
        sleep: waits; given from outside so that a simulation can pass the time.
        recordable: whether the session's record can be written. Nothing is applied while it cannot.
    """

    store: PlanStore
    reader: HpaClient
    writer: HpaClient
    cluster: ClusterSpec
    price_per_hour_usd: float | None = None
    clock: Callable[[], datetime] = _utc_now
    sleep: Callable[[float], None] = time.sleep
    recordable: Callable[[], bool] = _always

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only process that changes a cluster, with a store that nobody tampered with.

        Raises:
            BusyError: another process is at it.
            StorageError: the lock cannot be made, or the store was tampered with.
        """
        with held(self.store.home / LOCK, busy="another process is changing a cluster from here: wait until it ends."):
            self.store.require_intact()
            yield

    def note(
        self, plan: ScalingPlan, kind: EventKind, why: str, *, by: str = INFERTUNE, **detail: object
    ) -> ChangeOutcome:
        """Write an event, and return the outcome that it is.

        Raises:
            FenceError: something else happened to the plan meanwhile.
            StorageError: the store cannot be written, or was tampered with.
        """
        self.store.append(plan.digest, kind, by=by, at=self.clock(), detail={"why": why, **detail})
        return ChangeOutcome(plan=plan.digest, state=kind, why=why)

    def outcome(self, plan: ScalingPlan) -> ChangeOutcome:
        """Return where a plan stands, in the words of its last event.

        Raises:
            StorageError: the store cannot be read.
        """
        last = self.store.events(plan.digest)[-1]
        state = self.store.state(plan.digest)
        assert state is not None, "a plan with events has a state"
        return ChangeOutcome(
            plan=plan.digest, state=state, why=str(last.detail.get("why") or f"{last.kind} by {last.by}.")
        )


class ChangeOutcome(Contract):
    """Where a plan stands after a step. A step that did nothing raises in place of returning one."""

    plan: str
    """Digest."""
    state: EventKind
    why: str
    """A sentence."""
