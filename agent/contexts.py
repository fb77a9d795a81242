"""What the nodes of a session work with: put together alike when it runs, is resumed and is replayed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from agent.policy import DefaultPolicy
from agent.signals import stop_on_signals
from nodes.context import Advisor, Context
from tools.bench import Bench
from tools.contracts import Evidence
from tools.evidence import EvidenceStore
from tools.executors import Workers, open_workers
from tools.ledger import Ledger
from tools.machine import Machine
from tools.observer import Observer
from tools.record import Loaded, SessionRecord, Started
from tools.spec import TuningSpec
from tools.tracking.store import with_account

MEMORY_SHARE = 0.8
"""Of the machine's memory that a trial may take when the spec does not say: the rest keeps the session alive."""


def workers_of(
    started: Started, spec: TuningSpec, home: Path, observer: Observer, *, executor: str | None = None
) -> AbstractContextManager[Workers]:
    """Open the workers that a session's tasks run in.

    Args:
        started: the session.
        spec: what it may use of the machine.
        home: the home directory.
        observer: is told what happens.
        executor: where tasks run; None for where the session asked for.
    """
    return open_workers(
        executor or started.executor,
        home / "sessions" / started.session / "logs",
        memory_limit_mb=spec.budget.trial_memory_mb or MEMORY_SHARE * started.hardware.memory_mb,
        home=home,
        hardware=started.hardware,
        versions=started.versions,
        observer=observer,
        ray_address=started.ray_address,
    )


@contextlib.contextmanager
def measuring(
    record: SessionRecord,
    loaded: Loaded,
    home: Path,
    ledger: Ledger,
    workers: Workers,
    *,
    recorded: Iterable[Evidence],
    store: EvidenceStore,
    observer: Observer,
    wall_s: Callable[[], float] = lambda: 0.0,
    advised: bool = False,
) -> Iterator[Context]:
    """Yield a context that measures; the first Ctrl-C or SIGTERM stops its machine.

    Args:
        record: as for `make_context`, like all that is not named here.
        loaded: see there.
        home: see there.
        ledger: see there.
        workers: of the machine.
        recorded: see there.
        store: see there.
        observer: see there.
        wall_s: see there.
        advised: whether the session's advisor, if it asked for one, is there to answer.
    """
    from agent.advisor import LanguageModel, configured

    machine = Machine(workers.torch, workers.light, observer, loaded.limits.trial_s, builders=workers.builders)
    asks = advised and record.started.advisor is not None
    context = make_context(
        record,
        loaded,
        home,
        ledger,
        recorded=recorded,
        observer=observer,
        store=store,
        machine=machine,
        advisor=LanguageModel(configured(), lambda: machine.stopped) if asks else None,
        wall_s=wall_s,
    )
    with stop_on_signals(machine, observer):
        yield context


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
