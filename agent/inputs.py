"""Taking what a session is given beside its workload into the session's folder, when it begins."""

from __future__ import annotations

from pathlib import Path

from agent.running import run_and_tell
from tools.artifacts import write_file
from tools.inputs import FOLDER, HPA, OBSERVED
from tools.machine import TaskRunner
from tools.observer import Observer
from tools.spec import TuningSpec

CLUSTER_LIMIT_S = 120.0


def gather(spec: TuningSpec, session_dir: Path, worker: TaskRunner, observer: Observer) -> TuningSpec:
    """Copy the trace, read Prometheus and the cluster's HPA; returns the spec with its own copies.

    Raises:
        WorkloadError: Prometheus or the cluster cannot be read, or has nothing to rely on.
        InterruptedSessionError: Ctrl-C.
    """
    spec = _with_own_trace(spec, session_dir)
    if spec.traffic is not None and spec.traffic.prometheus is not None:
        source = spec.traffic.prometheus
        read, _ = run_and_tell(
            worker,
            "tools.inputs:observe_task",
            {"source": source.model_dump(mode="json"), "path": str(session_dir / OBSERVED)},
            what="traffic",
            headline=lambda a: f"{a['points']} points of {source.window_s / 86_400:.3g} days from {source.url}",
            label="traffic",
            limit_s=spec.budget.trial_s,
            observer=observer,
        )
        for finding in read["findings"]:
            observer.finding(finding)
    if spec.cluster is not None:
        cluster = spec.cluster
        run_and_tell(
            worker,
            "tools.inputs:read_hpa_task",
            {"cluster": cluster.model_dump(mode="json"), "path": str(session_dir / HPA)},
            what="hpa",
            headline=lambda version: f"{cluster.namespace}/{cluster.hpa} as of resourceVersion {version}",
            label="hpa",
            limit_s=CLUSTER_LIMIT_S,
            observer=observer,
        )
    return spec


def with_own_hpa(spec: TuningSpec, session_dir: Path) -> TuningSpec:
    """Copy a bundled workload's HPA into the session: recommendations go beside it, and not into the installation."""
    if spec.hpa is None:
        return spec
    copy = session_dir / "hpa.yaml"
    write_file(copy, Path(spec.hpa.file).read_text(encoding="utf-8"))
    return spec.model_copy(update={"hpa": spec.hpa.model_copy(update={"file": str(copy)})})


def _with_own_trace(spec: TuningSpec, session_dir: Path) -> TuningSpec:
    if spec.traffic is None or spec.traffic.trace is None:
        return spec
    copy = session_dir / FOLDER / Path(spec.traffic.trace).name
    write_file(copy, Path(spec.traffic.trace).read_bytes())
    return spec.model_copy(update={"traffic": spec.traffic.model_copy(update={"trace": str(copy)})})
