"""One optimization, from spec to result: loads the workload, runs the graph, keeps the best so far on Ctrl-C."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import secrets
import signal
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tools.artifacts import write_file
from tools.bench import Bench, BenchLimits
from tools.contracts import Evidence, WorkloadInfo
from tools.errors import InfertuneError, SpecError, StorageError, WorkloadError
from tools.evidence import EvidenceStore
from tools.hardware import detect, library_versions
from tools.journal import Journal
from tools.observer import Observer
from tools.outcomes import reason
from tools.report.format import objective as format_objective
from tools.result import SessionResult
from tools.runtimes import availabilities
from tools.spec import TuningSpec, load_spec
from tools.worker import LIGHT_MODULES, TORCH_MODULES, Returned, Worker
from tools.workloads.bundled import BUNDLED, bundled_spec

RECURSION_LIMIT = 100
"""Steps of the graph: an optimization takes about a dozen."""
TRAINING_LIMIT_S = 1800.0


class InterruptedSessionError(InfertuneError):
    """Ctrl-C came before anything was measured."""


@dataclass(frozen=True)
class Options:
    """What a person may ask for beside the spec."""

    home: Path
    tracking_uri: str | None = None
    fresh: bool = False
    time_budget_s: float | None = None


def home_directory(given: Path | None = None) -> Path:
    """Return where things are kept: the argument, `$INFERTUNE_HOME`, or `.infertune` in the working directory."""
    return (given or Path(os.environ.get("INFERTUNE_HOME", ".infertune"))).expanduser().resolve()


def optimize(target: str, options: Options, observer: Observer, started: float | None = None) -> SessionResult:
    """Optimize a workload.

    Args:
        target: a `tuning.yaml`, or the name of a bundled workload.
        options: see there.
        observer: is told what happens, as it happens.
        started: `time.monotonic()` when the command began, so that imports count as overhead.

    Raises:
        InfertuneError: the spec or the workload cannot be used, or the home directory cannot be written.
        InterruptedSessionError: Ctrl-C before there was anything to report.
    """
    from tools.tracking.store import default_tracking_uri

    started = time.monotonic() if started is None else started
    spec = read_spec(target)  # before anything is written: a typo leaves no trace in the home directory
    hardware = detect()
    created = dt.datetime.now(dt.UTC)
    session = f"{created:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    session_dir = options.home / "sessions" / session
    logs = session_dir / "logs"
    store = EvidenceStore(options.home / "evidence.db")
    journal = Journal(session_dir / "journal.jsonl")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(options.home / "cache" / "inductor"))
    with Worker(TORCH_MODULES, logs) as torch_worker, Worker(LIGHT_MODULES, logs) as light_worker:
        training_s = 0.0
        if target in BUNDLED:
            spec, training_s = _prepare(target, options, torch_worker, observer, session_dir)
        if options.time_budget_s is not None:
            budget = spec.budget.model_copy(update={"time_s": options.time_budget_s})
            spec = spec.model_copy(update={"budget": budget})
        observer.about(objective=format_objective(spec.objective, spec.workload.metric), budget_s=spec.budget.time_s)
        versions = library_versions()
        journal.append(
            "started",
            {
                "session": session,
                "spec": spec.model_dump(mode="json"),
                "hardware": hardware.model_dump(mode="json"),
                "versions": versions,
            },
        )
        before = time.monotonic()
        workload = _workload(spec, options.home, torch_worker, observer)
        bench = Bench(
            home=options.home,
            workload=workload,
            hardware=hardware,
            versions=versions,
            threads=spec.hardware.threads or hardware.cores,
            torch_worker=torch_worker,
            light_worker=light_worker,
            store=store,
            observer=observer,
            limits=BenchLimits(trial_s=spec.budget.trial_s),
            fresh=options.fresh,
            spent_s=time.monotonic() - before,
        )
        context_arguments = {
            "spec": spec,
            "bench": bench,
            "journal": journal,
            "observer": observer,
            "session": session,
            "session_dir": session_dir,
            "created": created.isoformat(timespec="seconds"),
            "tracking_uri": options.tracking_uri or default_tracking_uri(options.home),
            "availability": availabilities(hardware),
            "training_s": training_s,
            "started": started,
        }
        with _ctrl_c(bench, observer):
            result_path = _run_graph(context_arguments, options.home, session)
    journal.append("finished", {"result": result_path})
    return SessionResult.model_validate_json(Path(result_path).read_text(encoding="utf-8"))


def _run_graph(context_arguments: dict[str, Any], home: Path, session: str) -> str:
    """Run the graph to its end and return the path of the result."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    from agent.graph import build_graph
    from agent.policy import DefaultPolicy
    from nodes.context import STATE_VERSION, Context

    context = Context(policy=DefaultPolicy(), **context_arguments)
    bench = context.bench

    def keep(evidence: Evidence) -> None:
        context.evidence.append(evidence)
        context.journal.append("evidence", {"id": evidence.id, "kind": evidence.kind, "recipe": evidence.recipe.name})

    bench.on_evidence = keep
    path = home / "checkpoints.db"
    try:
        with contextlib.closing(sqlite3.connect(path, check_same_thread=False, timeout=30)) as connection:
            graph = build_graph().compile(checkpointer=SqliteSaver(connection))
            state = graph.invoke(
                {"schema_version": STATE_VERSION, "session": session},
                {"configurable": {"thread_id": session}, "recursion_limit": RECURSION_LIMIT},
                context=context,
                durability="sync",
            )
    except sqlite3.Error as error:  # nodes turn their own database errors into StorageError: this is the checkpointer's
        raise StorageError(
            f"the checkpoints cannot be used ({error}).",
            where=str(path),
            fix="Free some space, move the file away, or point INFERTUNE_HOME to a folder that you can write.",
        ) from error
    return str(state["result"])


def read_spec(target: str) -> TuningSpec:
    """Load the spec of a file or of a bundled workload, and the traffic and HPA files that it names.

    Raises:
        SpecError: there is no such thing, or one of the files cannot be used.
    """
    path = BUNDLED.get(target, Path(target))
    if not path.exists() and path.suffix not in (".yaml", ".yml"):
        raise SpecError(f"there is no file and no bundled workload {target!r}.", fix=f"Bundled: {', '.join(BUNDLED)}.")
    spec = load_spec(path)
    check_files(spec)
    return spec


def check_files(spec: TuningSpec) -> None:
    """Read the traffic and the HPA now: a typo there should not cost an hour of trials first.

    Raises:
        SpecError: one of them cannot be used.
    """
    from tools.scaling.manifest import read_hpa
    from tools.traffic import load_trace

    if spec.traffic is not None and spec.traffic.trace is not None:
        load_trace(Path(spec.traffic.trace))
    if spec.hpa is not None:
        read_hpa(Path(spec.hpa.file))


def _prepare(
    target: str, options: Options, worker: Worker, observer: Observer, session_dir: Path
) -> tuple[TuningSpec, float]:
    """Return the spec of a bundled workload with its weights in it, and the seconds that their training took."""
    started = time.monotonic()
    what = f"prepare {target}"
    observer.started(what, detail="training it, unless that was done before")
    value = run_or_raise(
        worker,
        "tools.workloads.bundled:prepare",
        {"name": target, "home": str(options.home)},
        label="prepare",
        limit_s=TRAINING_LIMIT_S,
        observer=observer,
    )
    seconds = time.monotonic() - started
    observer.finished(what, outcome="finished", headline="weights are there", seconds=seconds)
    return _with_own_hpa(bundled_spec(target, Path(value)), session_dir), seconds


def _with_own_hpa(spec: TuningSpec, session_dir: Path) -> TuningSpec:
    """Copy a bundled workload's HPA into the session: recommendations go beside it, and not into the installation."""
    if spec.hpa is None:
        return spec
    copy = session_dir / "hpa.yaml"
    write_file(copy, Path(spec.hpa.file).read_text(encoding="utf-8"))
    return spec.model_copy(update={"hpa": spec.hpa.model_copy(update={"file": str(copy)})})


def _workload(spec: TuningSpec, home: Path, worker: Worker, observer: Observer) -> WorkloadInfo:
    what = f"load {spec.workload.name}"
    started = time.monotonic()
    observer.started(what)
    value = run_or_raise(
        worker,
        "tools.workloads.loading:materialize",
        {"spec": spec.workload.model_dump(mode="json"), "home": str(home)},
        label="load",
        limit_s=spec.budget.trial_s,
        observer=observer,
    )
    info = WorkloadInfo.model_validate(value)
    observer.finished(
        what,
        outcome="finished",
        headline=f"{info.parameters / 1e6:.1f} M parameters, {info.evaluation.n} held-out items",
        seconds=time.monotonic() - started,
    )
    for note in info.notes:
        observer.finding(note)
    return info


def run_or_raise(
    worker: Worker, task: str, arguments: dict[str, Any], *, label: str, limit_s: float, observer: Observer
) -> Any:
    """Run a task that the session cannot do without.

    Raises:
        WorkloadError: it did not come back; the message is that of the task's own error.
        InterruptedSessionError: Ctrl-C.
    """
    with _leave_on_ctrl_c(worker):
        outcome = worker.run(task, arguments, label=label, limit_s=limit_s, on_event=observer.event)
    if isinstance(outcome, Returned):
        return outcome.value
    text = getattr(outcome, "reason", None) or reason(outcome)
    raise WorkloadError(str(text))


@contextlib.contextmanager
def _leave_on_ctrl_c(worker: Worker) -> Iterator[None]:
    """Ctrl-C ends everything at once, even while the worker still imports its libraries: there is nothing to keep."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        worker.cancel()
        raise InterruptedSessionError("interrupted before anything was measured.")

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextlib.contextmanager
def _ctrl_c(bench: Bench, observer: Observer) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) ends the trials and keeps the best so far; the second ends everything."""

    def handle(number: int, frame: FrameType | None) -> None:
        if bench.stopped:
            signal.default_int_handler(number, frame)
        bench.stop()
        observer.finding("Stopping: the best so far is kept. Once more ends at once.")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
