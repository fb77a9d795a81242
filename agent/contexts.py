"""What the nodes of a session work with: put together alike when it runs, is resumed and is replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from agent.policy import DefaultPolicy
from nodes.context import Advisor, Context
from tools.bench import Bench
from tools.contracts import Evidence
from tools.evidence import EvidenceStore
from tools.ledger import Ledger
from tools.machine import Machine
from tools.observer import Observer
from tools.record import Loaded, SessionRecord
from tools.tracking.store import with_account


def make_context(
    record: SessionRecord,
    loaded: Loaded,
    home: Path,
    ledger: Ledger,
    *,
    recorded: Iterable[Evidence],
    observer: Observer,
    store: EvidenceStore | None = None,
    machine: Machine | None = None,
    advisor: Advisor | None = None,
    wall_s: Callable[[], float] = lambda: 0.0,
) -> Context:
    """Return the context of a session's graph.

    Args:
        record: the session, as its journal tells it.
        loaded: its workload.
        home: the home directory.
        ledger: takes what is used and decided.
        recorded: what the session used before, or all that it used, to replay it.
        observer: is told what happens.
        store: where evidence goes and is looked for; None to replay.
        machine: measures; None to replay.
        advisor: the language model; None to replay, or where the session asked for none.
        wall_s: seconds that a person has waited for the session.
    """
    started = record.started
    bench = Bench(
        home=home,
        session=started.session,
        workload=loaded.workload,
        hardware=started.hardware,
        versions=started.versions,
        threads=loaded.spec.hardware.threads or started.hardware.cores,
        store=store,
        observer=observer,
        machine=machine,
        recorded=recorded,
        protocol=started.protocol,
        limits=loaded.limits,
        on_evidence=ledger.use,
        fresh=started.fresh,
    )
    return Context(
        spec=loaded.spec,
        bench=bench,
        policy=DefaultPolicy(),
        ledger=ledger,
        observer=observer,
        session=started.session,
        session_dir=record.folder,
        created=started.created,
        tracking_uri=with_account(started.tracking_uri),
        availability=started.availability,
        loading_s=loaded.loading_s,
        training_s=loaded.training_s,
        proposed=loaded.proposed,
        builders=loaded.builders,
        advises=started.advisor is not None,
        advisor=advisor,
        auto_approve=started.auto_approve,
        wall_s=wall_s,
    )
