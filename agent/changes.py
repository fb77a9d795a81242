"""Plans of a home directory: listed, shown, answered, carried out and taken back.

An answer is only written into the store of plans. What waits for it is the session's graph, at its interrupt: carrying
out goes on there, so that the change ends up in the same record as the reasons for it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contexts import make_context
from agent.recorded import evidence_of, loaded_of
from agent.session import RECURSION_LIMIT, alone, checkpointer, read_result
from tools.errors import InfertuneError
from tools.journal import Journal
from tools.ledger import Ledger
from tools.machine import Machine
from tools.observer import Observer
from tools.record import JOURNAL, SessionRecord, read_record
from tools.result import SessionResult
from tools.worker import LIGHT_MODULES, Worker

if TYPE_CHECKING:
    from nodes.context import Context
    from tools.cluster.context import ChangeOutcome
    from tools.contracts import ScalingPlan

LIMIT_S = 300.0
"""For what the report and the record take."""


def find_plan(home: Path, digest: str | None) -> ScalingPlan:
    """Return a plan by its digest, or the beginning of it; without one, the only one that is not settled.

    Raises:
        InfertuneError: there is none, or more than one.
    """
    from tools.cluster.events import IN_FLIGHT
    from tools.cluster.store import PlanStore

    store = PlanStore(home)
    if digest is not None:
        return store.get(digest)
    open_ = [p for p in store.plans() if store.state(p.digest) in {"proposed", "approved", *IN_FLIGHT}]
    if len(open_) != 1:
        names = ", ".join(plan.digest for plan in open_)
        raise InfertuneError(
            "no plan waits for anything." if not open_ else f"{len(open_)} plans are open ({names}).",
            where=str(home),
            fix="`infertune plan list` shows all of them." if not open_ else "Name one of them.",
        )
    return open_[0]


def carry_out(home: Path, digest: str, observer: Observer) -> SessionResult:
    """Let the session that made a plan go on: apply, verify, roll back if need be, record.

    Raises:
        InfertuneError: the plan is not approved, or a rule forbids it; the cluster cannot be asked; the session is
            gone or somebody works on it.
    """
    from tools.cluster.plans import expire, has_expired
    from tools.cluster.store import PlanStore

    store = PlanStore(home)
    plan = store.get(digest)
    now = dt.datetime.now(dt.UTC)
    if store.state(plan.digest) == "proposed":
        if has_expired(plan, now):
            expire(store, plan, now=now)
        else:
            raise InfertuneError(
                "waits for approval.",
                where=f"plan {plan.digest}",
                fix=f"infertune plan approve {plan.digest} --by NAME",
            )
    folder = home / "sessions" / plan.session
    with alone(home, folder):
        record = read_record(folder)
        with _light_context(record, home, observer) as context:
            _go_on(context, plan.digest)
    return read_result(folder)


def take_back(home: Path, digest: str, *, by: str, why: str) -> ChangeOutcome:
    """Put back what was before a plan, because a person says so, and note it in its session's journal.

    Raises:
        InfertuneError: there is nothing to take back, or it cannot be done now.
    """
    from tools.cluster.connection import open_reader, open_writer
    from tools.cluster.context import ChangeContext
    from tools.cluster.rollback import rollback
    from tools.cluster.store import PlanStore

    store = PlanStore(home)
    plan = store.get(digest)
    folder = home / "sessions" / plan.session
    spec = loaded_of(read_record(folder)).spec
    assert spec.cluster is not None, "a plan is made for a cluster that the spec names"
    with open_reader(spec.cluster) as reader, open_writer(spec.cluster) as writer:
        context = ChangeContext(
            store=store,
            reader=reader,
            writer=writer,
            cluster=spec.cluster,
            price_per_hour_usd=spec.hardware.price_per_hour_usd,
        )
        outcome = rollback(plan.digest, context, by=by, why=why)
    Journal(folder / JOURNAL).append("rolled_back", {"plan": plan.digest, "by": by, "state": outcome.state})
    return outcome


@contextlib.contextmanager
def _light_context(record: SessionRecord, home: Path, observer: Observer) -> Iterator[Context]:
    """Yield what the nodes after the report work with: nothing is measured any more, so no worker has torch."""
    began = time.monotonic()
    before_s = read_result(record.folder).seconds.total
    journal = Journal(record.folder / JOURNAL)
    ledger = Ledger(journal, evidence=record.evidence, decisions=record.decisions)
    recorded = evidence_of(record, home)
    for evidence in recorded:
        ledger.use(evidence)
    with Worker(LIGHT_MODULES, record.folder / "logs") as worker:
        yield make_context(
            record,
            loaded_of(record),
            home,
            ledger,
            recorded=recorded,
            observer=observer,
            machine=Machine(worker, worker, observer, LIMIT_S),
            wall_s=lambda: before_s + time.monotonic() - began,
        )


def _go_on(context: Context, digest: str) -> None:
    """Wake the graph at its interrupt, or let it go on where it was killed.

    Raises:
        InfertuneError: its checkpoints are gone.
    """
    from langgraph.types import Command

    from agent.graph import build_graph

    config: Any = {"configurable": {"thread_id": context.session}, "recursion_limit": RECURSION_LIMIT}
    with checkpointer(context.bench.home) as saver:
        graph = build_graph().compile(checkpointer=saver)
        waiting = graph.get_state(config)
        if not waiting.next:
            from tools.cluster.store import PlanStore

            if PlanStore(context.bench.home).state(digest) in ("approved", "applying", "applied", "verifying"):
                raise InfertuneError(
                    "its checkpoints are gone, so its graph cannot go on.",
                    where=context.session,
                    fix=f"Take the change back with `infertune plan rollback {digest} --by NAME`, or start anew.",
                )
            return
        wake: Any = Command(resume={i.id: {"plan": digest} for i in waiting.interrupts}) if waiting.interrupts else None
        graph.invoke(wake, config, context=context, durability="sync")
