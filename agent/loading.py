"""Reading what a person asks for, and loading the workload in a worker."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from agent.signals import leave_on_ctrl_c
from agent.wishes import with_wishes
from tools.artifacts import is_intact, write_file
from tools.contracts import ArtifactRef, DatasetRef, WorkloadInfo
from tools.errors import SpecError, WorkloadError
from tools.limits import BenchLimits
from tools.machine import TaskRunner, run_task
from tools.observer import Observer
from tools.outcomes import reason
from tools.record import Loaded, SessionRecord
from tools.spec import TuningSpec, load_spec
from tools.worker import Returned
from tools.workloads.bundled import BUNDLED, bundled_spec

TRAINING_LIMIT_S = 1800.0


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


def load(record: SessionRecord, home: Path, worker: TaskRunner, observer: Observer) -> Loaded:
    """Return the session's workload: as its journal has it, if that is still what is on disk, else loaded now.

    Raises:
        InfertuneError: it cannot be loaded, or is not what the session began with.
        InterruptedSessionError: Ctrl-C.
    """
    if record.loaded is None:
        return _load_first(record, home, worker, observer)
    loaded = record.loaded
    spec = loaded.spec.workload.model_dump(mode="json")
    limit_s = loaded.spec.budget.trial_s
    arguments = {"spec": spec}
    code = run_or_raise(
        worker,
        "tools.workloads.loading:code_digests",
        arguments,
        label="code",
        limit_s=limit_s,
        observer=observer,
    )
    changed = sorted(
        role for role in code.keys() | loaded.workload.code if code.get(role) != loaded.workload.code.get(role)
    )
    workload = loaded.workload
    if not changed and not _is_there(workload):
        workload = _materialize(loaded.spec, home, worker, observer)
        changed = [] if _named(workload) == _named(loaded.workload) else ["model or data"]
    if changed:
        raise WorkloadError(
            f"the workload changed since the session began ({', '.join(changed)}): what was measured no longer holds.",
            where=record.session,
            fix=f"Start anew: infertune optimize {record.started.target}",
        )
    return loaded.model_copy(update={"workload": workload})


def _load_first(record: SessionRecord, home: Path, worker: TaskRunner, observer: Observer) -> Loaded:
    started = record.started
    spec = read_spec(started.target)
    training_s = 0.0
    if started.target in BUNDLED:
        spec, training_s = _prepare(started.target, home, worker, observer, record.folder)
    if started.time_budget_s is not None:
        budget = spec.budget.model_copy(update={"time_s": started.time_budget_s})
        spec = spec.model_copy(update={"budget": budget})
    spec = with_wishes(spec, started.search)
    spec = _with_own_trace(spec, record.folder)
    before = time.monotonic()
    workload = _materialize(spec, home, worker, observer)
    return Loaded(
        spec=spec,
        workload=workload,
        limits=BenchLimits(trial_s=spec.budget.trial_s, tolerate_noise=spec.budget.tolerate_noise),
        loading_s=time.monotonic() - before,
        training_s=training_s,
    )


def _prepare(
    target: str, home: Path, worker: TaskRunner, observer: Observer, session_dir: Path
) -> tuple[TuningSpec, float]:
    """Return the spec of a bundled workload with its weights in it, and the seconds that their training took."""
    started = time.monotonic()
    what = f"prepare {target}"
    observer.started(what, detail="training it, unless that was done before")
    value = run_or_raise(
        worker,
        "tools.workloads.bundled:prepare",
        {"name": target, "home": str(home)},
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


def _with_own_trace(spec: TuningSpec, session_dir: Path) -> TuningSpec:
    """Copy the traffic into the session: a decision that rests on it can be replayed when the file has changed."""
    if spec.traffic is None or spec.traffic.trace is None:
        return spec
    copy = session_dir / "inputs" / Path(spec.traffic.trace).name
    write_file(copy, Path(spec.traffic.trace).read_bytes())
    return spec.model_copy(update={"traffic": spec.traffic.model_copy(update={"trace": str(copy)})})


def _materialize(spec: TuningSpec, home: Path, worker: TaskRunner, observer: Observer) -> WorkloadInfo:
    what = f"load {spec.workload.name}"
    started = time.monotonic()
    observer.started(what)
    value = run_or_raise(
        worker,
        "tools.workloads.loading:materialize",
        {
            "spec": spec.workload.model_dump(mode="json"),
            "home": str(home),
            "students": None if spec.search.students is None else list(spec.search.students),
        },
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
    return info


def _named(workload: WorkloadInfo) -> tuple[str, str | None]:
    return workload.digest, None if workload.training is None else workload.training.digest


def _is_there(workload: WorkloadInfo) -> bool:
    """Whether the model and the items are on disk as they were written."""
    parts: list[ArtifactRef | DatasetRef] = [workload.source, workload.evaluation, workload.calibration]
    if workload.training is not None:
        parts.append(workload.training)
    return all(Path(part.directory).is_dir() and is_intact(Path(part.directory), part.digest) for part in parts)


def run_or_raise(
    worker: TaskRunner, task: str, arguments: dict[str, Any], *, label: str, limit_s: float, observer: Observer
) -> Any:
    """Run a task that the session cannot do without.

    Raises:
        WorkloadError: it did not come back; the message is that of the task's own error.
        InterruptedSessionError: Ctrl-C.
    """
    with leave_on_ctrl_c(worker):
        outcome = run_task(worker, task, arguments, label=label, limit_s=limit_s, observer=observer)
    if isinstance(outcome, Returned):
        return outcome.value
    text = getattr(outcome, "reason", None) or reason(outcome)
    raise WorkloadError(str(text))
