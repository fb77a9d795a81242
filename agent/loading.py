"""Reading what a person asks for, and loading the workload in a worker."""

from __future__ import annotations

import time
from pathlib import Path

from agent.inputs import gather, with_own_hpa
from agent.running import run_and_tell, run_or_raise
from agent.wishes import with_wishes
from tools.artifacts import is_intact
from tools.contracts import ArtifactRef, DatasetRef, WorkloadInfo
from tools.errors import SpecError, WorkloadError
from tools.limits import BenchLimits
from tools.machine import TaskRunner
from tools.observer import Observer
from tools.record import Loaded, SessionRecord
from tools.spec import TuningSpec, load_spec
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
    spec = gather(spec, record.folder, worker, observer)
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
    value, seconds = run_and_tell(
        worker,
        "tools.workloads.bundled:prepare",
        {"name": target, "home": str(home)},
        what=f"prepare {target}",
        detail="training it, unless that was done before",
        headline=lambda _: "weights are there",
        label="prepare",
        limit_s=TRAINING_LIMIT_S,
        observer=observer,
    )
    return with_own_hpa(bundled_spec(target, Path(value)), session_dir), seconds


def _materialize(spec: TuningSpec, home: Path, worker: TaskRunner, observer: Observer) -> WorkloadInfo:
    value, _ = run_and_tell(
        worker,
        "tools.workloads.loading:materialize",
        {
            "spec": spec.workload.model_dump(mode="json"),
            "home": str(home),
            "students": None if spec.search.students is None else list(spec.search.students),
        },
        what=f"load {spec.workload.name}",
        headline=lambda v: f"{v['parameters'] / 1e6:.1f} M parameters, {v['evaluation']['n']} held-out items",
        label="load",
        limit_s=spec.budget.trial_s,
        observer=observer,
    )
    return WorkloadInfo.model_validate(value)


def _named(workload: WorkloadInfo) -> tuple[str, str | None]:
    return workload.digest, None if workload.training is None else workload.training.digest


def _is_there(workload: WorkloadInfo) -> bool:
    """Whether the model and the items are on disk as they were written."""
    parts: list[ArtifactRef | DatasetRef] = [workload.source, workload.evaluation, workload.calibration]
    if workload.training is not None:
        parts.append(workload.training)
    return all(Path(part.directory).is_dir() and is_intact(Path(part.directory), part.digest) for part in parts)
