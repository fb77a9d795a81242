"""Taking what a session is given beside its workload into the session's folder, when it begins."""

from __future__ import annotations

from pathlib import Path

from agent.running import run_and_tell
from tools.artifacts import write_file
from tools.contracts import Delays
from tools.inputs import FOLDER, HPA, OBSERVED, START
from tools.machine import TaskRunner
from tools.observer import Observer
from tools.spec import ClusterSpec, TuningSpec

CLUSTER_LIMIT_S = 120.0


def gather(spec: TuningSpec, session_dir: Path, worker: TaskRunner, observer: Observer) -> TuningSpec:
    """Copy the trace, read Prometheus and the cluster's HPA; returns the spec with its own copies.

    How long the service's pods take to start is looked for too: delays that the spec does not set become the measured
    ones.

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
        spec = _with_measured_start(spec, cluster, session_dir, worker, observer)
    return spec


def _with_measured_start(
    spec: TuningSpec, cluster: ClusterSpec, session_dir: Path, worker: TaskRunner, observer: Observer
) -> TuningSpec:
    """Return the spec with measured delays where it sets none.

    It is decided here, once: a spec that comes back from a journal seems to set all of them.
    """
    answer, _ = run_and_tell(
        worker,
        "tools.inputs:measure_start_task",
        {
            "cluster": cluster.model_dump(mode="json"),
            "hpa": str(session_dir / HPA),
            "delays": spec.scaling.delays.model_dump(mode="json", exclude_unset=True),
            "path": str(session_dir / START),
        },
        what="pods",
        headline=lambda a: "not known" if a["startup"] is None else f"measured on {a['startup']['pods']} pods",
        label="pods",
        limit_s=CLUSTER_LIMIT_S,
        observer=observer,
    )
    observer.finding(answer["note"])
    scaling = spec.scaling.model_copy(update={"delays": Delays.model_validate(answer["delays"])})
    return spec.model_copy(update={"scaling": scaling})


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
