"""One optimization, from spec to result: loads the workload, runs the graph, keeps the best so far on Ctrl-C.

A session that was killed or stopped goes on where its journal ends: the graph runs again from its start, finds every
answer that was there, comes to the same decisions, and measures only what is missing.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.loading import load, read_spec
from agent.signals import InterruptedSessionError
from agent.wishes import check_wishes, with_wishes
from tools import plugins
from tools.contracts import PROTOCOL_VERSION, Bounds, Hardware
from tools.errors import InfertuneError, SpecError, StorageError
from tools.evidence import EVIDENCE, EvidenceStore
from tools.hardware import detect, library_versions
from tools.journal import Journal
from tools.ledger import Ledger
from tools.lock import held
from tools.observer import Observer
from tools.record import JOURNAL, LOCK, RESULT, Loaded, SessionRecord, Started, State, fold, read_record
from tools.report.format import objective as format_objective
from tools.result import SessionResult
from tools.runtimes import availabilities

if TYPE_CHECKING:
    from langgraph.checkpoint.sqlite import SqliteSaver

    from agent.chat.model import Settings
    from nodes.context import Context

RECURSION_LIMIT = 2000
"""Steps of the graph: an optimization takes some dozens."""


@dataclass(frozen=True)
class Options:
    """What a person may ask for beside the spec."""

    home: Path
    tracking_uri: str | None = None
    fresh: bool = False
    time_budget_s: float | None = None
    search: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the spec's `search`, in place of what it says."""
    executor: str = "local"
    ray_address: str | None = None
    """Of a running Ray cluster, for the executor `ray`."""
    auto_approve: Bounds | None = None
    """Within these a plan needs no person's word."""
    advisor: Settings | None = None
    """Endpoint of a language model that is asked about what the policy leaves, and for a summary."""


def optimize(target: str, options: Options, observer: Observer, began: float | None = None) -> SessionResult:
    """Optimize a workload.

    Args:
        target: a `tuning.yaml`, or the name of a bundled workload.
        options: see there.
        observer: is told what happens, as it happens.
        began: `time.monotonic()` when the command began, so that imports count as overhead.

    Raises:
        InfertuneError: the spec or the workload cannot be used, or the home directory cannot be written.
        InterruptedSessionError: Ctrl-C before there was anything to report.
    """
    from agent.policy import POLICY_VERSION
    from tools.tracking.errors import public_uri
    from tools.tracking.store import default_tracking_uri, with_account

    began = time.monotonic() if began is None else began
    spec = read_spec(target)  # before anything is written: a typo leaves no trace in the home directory
    plugins.check()
    check_wishes(with_wishes(spec, options.search).search)
    tracking_uri = options.tracking_uri or default_tracking_uri(options.home)
    if with_account(public_uri(tracking_uri)) != tracking_uri:
        raise SpecError(
            "holds a password, which other users of this machine could read.",
            where="--tracking-uri",
            fix="Put the URI into the environment: MLFLOW_TRACKING_URI.",
        )
    hardware = detect()
    created = dt.datetime.now(dt.UTC)
    session = f"{created:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    started = Started(
        session=session,
        target=str(Path(target).resolve()) if Path(target).exists() else target,
        created=created.isoformat(timespec="seconds"),
        tracking_uri=public_uri(tracking_uri),
        fresh=options.fresh,
        time_budget_s=options.time_budget_s,
        search=dict(options.search),
        executor=options.executor,
        ray_address=options.ray_address,
        auto_approve=options.auto_approve,
        advisor=None if options.advisor is None else options.advisor.place,
        hardware=hardware,
        versions=_versions(),
        availability=availabilities(hardware),
        policy=POLICY_VERSION,
        protocol=PROTOCOL_VERSION,
    )
    folder = options.home / "sessions" / session
    with alone(options.home, folder):
        journal = Journal(folder / JOURNAL)
        first = journal.append("started", started.model_dump(mode="json"))
        return _run(options.home, fold(folder, [first]), journal, observer, began)


def resume(folder: Path, observer: Observer, began: float | None = None) -> SessionResult:
    """Take up a session that was killed or stopped, and bring it to its end.

    What it measured stays measured and what it decided stays decided, apart from what it decided while a person was
    stopping it. A session that is finished is only read.

    Args:
        folder: `<home>/sessions/<id>`.
        observer: is told what happens.
        began: as for `optimize`.

    Raises:
        InfertuneError: there is no such session, it runs right now, or machine, libraries, policy or workload are
            no longer what they were: then old and new numbers must not be mixed.
        InterruptedSessionError: as for `optimize`.
    """
    began = time.monotonic() if began is None else began
    home = folder.parents[1]
    with alone(home, folder):
        record = read_record(folder)
        if record.state is State.FINISHED:
            return read_result(folder)
        _check_unchanged(record)
        journal = Journal(folder / JOURNAL)
        journal.append("resumed", {"evidence": len(record.evidence), "decisions": len(record.decisions)})
        return _run(home, read_record(folder), journal, observer, began)


def _versions() -> dict[str, str]:
    """Return the versions of all that numbers depend on: plugins are libraries too."""
    return {**library_versions(), **plugins.versions()}


def read_result(folder: Path) -> SessionResult:
    """Read a session's `result.json`.

    Raises:
        StorageError: it is not there, or is no result of this version.
    """
    from tools.tracking.session import read_result as read

    return read(folder / RESULT)


def _run(home: Path, record: SessionRecord, journal: Journal, observer: Observer, began: float) -> SessionResult:
    """Load the workload, run the graph, and return the result."""
    from agent.contexts import measuring, workers_of

    started = record.started
    folder = record.folder
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home / "cache" / "inductor"))
    store = EvidenceStore(home / EVIDENCE)
    asked = read_spec(started.target) if record.loaded is None else record.loaded.spec
    with workers_of(started, asked, home, observer) as workers:
        before_s = 0.0 if record.loaded is None else record.loaded.loading_s + record.loaded.training_s
        try:
            loaded = load(record, home, workers.torch, observer)
        except InterruptedSessionError:
            journal.append("interrupted", {"decisions": 0})
            raise
        except InfertuneError as error:
            journal.append("failed", {"reason": str(error)})
            raise
        if record.loaded is None:
            proposed = plugins.proposals(loaded.workload, started.hardware, note=observer.finding)
            builders = max(len(workers.builders), 1)
            loaded = loaded.model_copy(update={"proposed": proposed, "builders": builders})
            journal.append("loaded", _with_relative_inputs(loaded, folder))
        spec = loaded.spec
        observer.about(objective=format_objective(spec.objective, spec.workload.metric), budget_s=spec.budget.time_s)
        for note in loaded.workload.notes:
            observer.finding(note)
        ledger = Ledger(journal, evidence=record.evidence, decisions=record.decisions)
        known = store.get_all(record.evidence)
        before_s += sum(e.seconds for e in known if e.session == started.session)
        with measuring(
            record,
            loaded,
            home,
            ledger,
            workers,
            recorded=known,
            store=store,
            observer=observer,
            wall_s=lambda: time.monotonic() - began + before_s,
            advised=True,
        ) as context:
            _run_graph(context)
    result = read_result(folder)
    journal.append("finished", {"result": str(folder / RESULT), "verdict": result.verdict})
    return result


def _run_graph(context: Context) -> None:
    """Run the graph from its start to its end, or to where it waits for a person; either leaves a result."""
    from agent.graph import build_graph
    from nodes.context import STATE_VERSION

    session = context.session
    with checkpointer(context.bench.home) as saver:
        saver.delete_thread(session)  # of a run that was killed: the journal knows more than its checkpoint
        build_graph().compile(checkpointer=saver).invoke(
            {"schema_version": STATE_VERSION, "session": session},
            {"configurable": {"thread_id": session}, "recursion_limit": RECURSION_LIMIT},
            context=context,
            durability="sync",
        )


@contextlib.contextmanager
def checkpointer(home: Path) -> Iterator[SqliteSaver]:
    """Open the checkpoints of a home directory.

    Raises:
        StorageError: they cannot be used.
    """
    from langgraph.checkpoint.sqlite import SqliteSaver

    path = home / "checkpoints.db"
    try:
        with contextlib.closing(sqlite3.connect(path, check_same_thread=False, timeout=30)) as connection:
            saver = SqliteSaver(connection)
            saver.setup()
            yield saver
    except sqlite3.Error as error:  # nodes turn their own database errors into StorageError: this is the checkpointer's
        raise StorageError(
            f"the checkpoints cannot be used ({error}).",
            where=str(path),
            fix="Free some space, move the file away, or point INFERTUNE_HOME to a folder that you can write.",
        ) from error


def _with_relative_inputs(loaded: Loaded, folder: Path) -> dict[str, object]:
    """Return what is journalled: the copies of inputs by their place in the session's folder, which may move."""
    payload = loaded.model_dump(mode="json")
    traffic = payload["spec"]["traffic"]
    if traffic is not None and traffic["trace"] is not None:
        traffic["trace"] = str(Path(traffic["trace"]).relative_to(folder))
    return payload


@contextlib.contextmanager
def alone(home: Path, folder: Path) -> Iterator[None]:
    """Keep other processes from working on this session, and from tidying the home up meanwhile."""
    busy = f"another process is working on session {folder.name}."
    tidying = "its evidence is being tidied up right now: try again in a minute."
    with held(home / LOCK, busy=tidying, shared=True), held(folder / LOCK, busy=busy):
        yield


def _check_unchanged(record: SessionRecord) -> None:
    """Refuse to mix numbers that do not compare.

    Raises:
        InfertuneError: hardware, libraries, policy or protocol are no longer the same.
    """
    from agent.policy import POLICY_VERSION

    started = record.started
    now: dict[str, tuple[str, str]] = {
        "the policy": (started.policy, POLICY_VERSION),
        "the measuring protocol": (started.protocol, PROTOCOL_VERSION),
    }
    hardware = detect()
    for name in Hardware.model_fields:
        now[f"this machine's {name}"] = (str(getattr(started.hardware, name)), str(getattr(hardware, name)))
    versions = _versions()
    for name in sorted(started.versions.keys() | versions.keys()):
        now[name] = (started.versions.get(name, "absent"), versions.get(name, "absent"))
    changed = [f"{name} was {was} and is {is_now}" for name, (was, is_now) in now.items() if was != is_now]
    if changed:
        raise InfertuneError(
            f"cannot go on, since numbers from before and after would not compare: {'; '.join(changed)}.",
            where=record.session,
            fix=f"Start anew: infertune optimize {started.target}",
        )
