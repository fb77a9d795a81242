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
from nodes.report import update_plan
from tools.contracts import Decision, Option
from tools.errors import InfertuneError
from tools.journal import Journal
from tools.ledger import Ledger
from tools.machine import Machine
from tools.observer import Observer
from tools.record import JOURNAL, SessionRecord, read_record
from tools.result import SessionResult
from tools.sqlite import Database, path_of_uri
from tools.worker import LIGHT_MODULES, Worker

if TYPE_CHECKING:
    from nodes.context import Context
    from tools.cluster.context import ChangeOutcome
    from tools.contracts import ScalingPlan

LIMIT_S = 300.0
"""For what the report and the record take."""


def find_plan(home: Path, digest: str | None) -> ScalingPlan:
    """Return a plan by its digest, or the beginning of it; without one, the only one that is open.

    Raises:
        InfertuneError: there is none, or more than one.
    """
    from tools.cluster.plans import open_plans
    from tools.cluster.store import PlanStore

    store = PlanStore(home)
    if digest is not None:
        return store.get(digest)
    open_ = open_plans(store, now=dt.datetime.now(dt.UTC))
    if len(open_) != 1:
        names = ", ".join(plan.digest for plan in open_)
        raise InfertuneError(
            "no plan waits for anything." if not open_ else f"{len(open_)} plans are open ({names}).",
            where=str(home),
            fix="Name one of them."
            if open_
            else "`infertune plan list` shows all of them, and until when each of them was good.",
        )
    return open_[0]


def carry_out(home: Path, digest: str, observer: Observer) -> SessionResult:
    """Let the session that made a plan go on: apply, verify, roll back if need be, record.

    Raises:
        InfertuneError: the plan is not approved, or a rule forbids it; the cluster cannot be asked; the session's
            record cannot be written, or is gone; or somebody works on it.
    """
    from tools.cluster.plans import expire, has_expired
    from tools.cluster.store import PlanStore

    store = PlanStore(home)
    plan = store.get(digest)
    now = dt.datetime.now(dt.UTC)
    state = store.state(plan.digest)
    if state == "proposed":
        if has_expired(plan, now):
            expire(store, plan, now=now)
        else:
            raise InfertuneError(
                "waits for approval.",
                where=f"plan {plan.digest}",
                fix=f"infertune plan approve {plan.digest} --by NAME",
            )
    elif state == "approved":
        _require_record(read_record(home / "sessions" / plan.session))
    return bring_up_to_date(home, plan.digest, observer)


def _require_record(record: SessionRecord) -> None:
    """Refuse at once where the change could not be recorded, since MLflow's own database is damaged.

    MLflow would say so too, but only after it has tried to open the file ten times, for 101 s in all
    (`create_sqlalchemy_engine_with_retry`). A change that has begun is not held up here: it has to be watched, or taken
    back.

    Raises:
        StorageError: the file is damaged, or cannot be read.
    """
    path = path_of_uri(record.started.tracking_uri)
    if path is not None:
        fix = "Nothing is applied without a record. Move the file away, and a new one is made; the approval stays good."
        Database(path, "MLflow's database", fix).require_readable()


def bring_up_to_date(home: Path, digest: str, observer: Observer, *, taken_back_by: str | None = None) -> SessionResult:
    """Let the session that made a plan go on from where the plan stands, and tell in its record what became of it.

    Args:
        home: the home directory.
        digest: of a plan that somebody answered.
        observer: is told what happens.
        taken_back_by: name of the person who took a change back just now.

    Raises:
        InfertuneError: the session is gone, did not come to its end, or somebody works on it; or as for `carry_out`.
    """
    from tools.cluster.store import PlanStore

    plan = PlanStore(home).get(digest)
    folder = home / "sessions" / plan.session
    with alone(home, folder):
        record = read_record(folder)
        if not record.finished:
            raise InfertuneError(
                "has not come to its end yet: it goes on with its plan by itself.",
                where=f"session {record.session}",
                fix=f"Take it up: infertune resume {record.session}",
            )
        with _light_context(record, home, observer) as context:
            _go_on(context, plan.digest)
            _tell(context, plan.digest, taken_back_by)
    return read_result(folder)


def take_back(home: Path, digest: str, *, by: str, why: str) -> ChangeOutcome:
    """Put back what was before a plan, because a person says so, and note it in its session's journal.

    The rest of the session's record follows by `bring_up_to_date`: a record that cannot be written must not keep
    anybody from taking a change back.

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


def _tell(context: Context, digest: str, taken_back_by: str | None) -> None:
    """Have the session's result say where its plan stands now, if it says anything else."""
    from tools.cluster.store import PlanStore

    told = read_result(context.session_dir).plan
    if told is None or told.state == PlanStore(context.bench.home).state(digest):
        return
    update_plan(context, digest, None if taken_back_by is None else _taken_back(context, digest, by=taken_back_by))


def _taken_back(context: Context, digest: str, *, by: str) -> Decision:
    """Record the decision of a person to take a change back."""
    from tools.cluster.store import PlanStore

    events = PlanStore(context.bench.home).events(digest)
    last = events[-1]
    why = next((e.detail.get("why") for e in reversed(events) if e.kind == "rolling_back"), last.detail.get("why"))
    decision = Decision(
        id=f"d{len(read_result(context.session_dir).decisions) + 1:02d}",
        node="verify",
        question=f"Is the change of plan {digest} taken back?",
        options=(Option(name=last.kind, facts={"plan": digest}),),
        chosen=last.kind,
        rule="a named person's word; only while the object is as the plan left it",
        reason=f"asked for by {by}: {why}",
        by="person",
    )
    context.record(decision)
    return decision


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
            from tools.cluster.events import IN_FLIGHT
            from tools.cluster.store import PlanStore

            if PlanStore(context.bench.home).state(digest) in ("approved", *IN_FLIGHT):
                raise InfertuneError(
                    "its checkpoints are gone, so its graph cannot go on.",
                    where=context.session,
                    fix=f"Take the change back with `infertune plan rollback {digest} --by NAME`, or start anew.",
                )
            return
        wake: Any = Command(resume={i.id: {"plan": digest} for i in waiting.interrupts}) if waiting.interrupts else None
        graph.invoke(wake, config, context=context, durability="sync")
