"""What a session was given beside its workload, as it was when it began: traffic and the autoscaler in use.

Copies lie in `inputs/` of the session's folder: a decision that rests on them can be replayed when the file, the
Prometheus or the cluster that they came from says something else.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools.artifacts import write_file
from tools.errors import StorageError
from tools.scaling.manifest import Manifest, read_hpa
from tools.spec import ClusterSpec, PrometheusSpec, TrafficSpec, TuningSpec
from tools.traffic import Trace, constant, load_trace

FOLDER = "inputs"
OBSERVED = f"{FOLDER}/traffic.json.gz"
"""What Prometheus answered."""
HPA = f"{FOLDER}/hpa.json"
"""The autoscaler as the cluster had it."""
START = f"{FOLDER}/startup.json"
"""How long the service's pods took to start, and the delays that follow."""


def trace_of(traffic: TrafficSpec, session_dir: Path) -> Trace:
    """Return the traffic that a session's spec names.

    Args:
        traffic: of the spec; a file that it names is the session's own copy.
        session_dir: the session's folder.

    Raises:
        SpecError, TrafficError: the copy cannot be used.
    """
    if traffic.trace is not None:
        return load_trace(Path(traffic.trace))
    if traffic.rate_rps is not None:
        return constant(traffic.rate_rps)
    from tools.traffic.observed import read_observed, to_trace

    return to_trace(read_observed(session_dir / OBSERVED))


def hpa_in_use(spec: TuningSpec, session_dir: Path) -> Manifest | None:
    """Return the autoscaler that the session found in use: that of the cluster, or of the file; None without either.

    Raises:
        SpecError: the file cannot be used.
        StorageError: the copy is not there any more.
    """
    if spec.cluster is not None:
        path = session_dir / HPA
        try:
            manifest: Manifest = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StorageError(f"the copy of the cluster's HPA cannot be read ({error}).", where=str(path)) from None
        return manifest
    return None if spec.hpa is None else read_hpa(Path(spec.hpa.file)).manifest


def start_note(session_dir: Path) -> str | None:
    """Return what the session found of how long a pod takes to start; None where no cluster was asked.

    Raises:
        StorageError: the copy cannot be read.
    """
    path = session_dir / START
    if not path.exists():  # a session without a cluster, or from before it was looked for
        return None
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["note"])
    except (OSError, ValueError, KeyError) as error:
        raise StorageError(f"what was found of the pods cannot be read ({error}).", where=str(path)) from None


def observe_task(source: dict[str, Any], path: str) -> dict[str, Any]:
    """Read the traffic from Prometheus and keep it; a worker task.

    Args:
        source: `PrometheusSpec`, dumped.
        path: where to keep it.

    Returns:
        `digest` of what was read, its `findings`, and `points` of the request rate.

    Raises:
        TrafficError: Prometheus does not answer, or not with traffic that can be relied on.
    """
    from tools.traffic.observed import to_trace, write_observed
    from tools.traffic.prometheus import read_traffic

    observed = read_traffic(PrometheusSpec.model_validate(source))
    points = len(to_trace(observed).rps)
    write_observed(observed, Path(path))
    return {"digest": observed.digest, "findings": list(observed.findings), "points": points}


def read_hpa_task(cluster: dict[str, Any], path: str) -> str:
    """Read the autoscaler from the cluster as the reader and keep it; a worker task. Returns its resourceVersion.

    Raises:
        ClusterError: it cannot be read.
    """
    from tools.cluster.connection import open_reader

    with open_reader(ClusterSpec.model_validate(cluster)) as client:
        found = client.read()
    write_file(Path(path), json.dumps(found.manifest, indent=1))
    return found.resource_version


def measure_start_task(cluster: dict[str, Any], hpa: str, delays: dict[str, Any], path: str) -> dict[str, Any]:
    """Ask the cluster how long a pod takes to start, and keep the answer; a worker task.

    Args:
        cluster: `ClusterSpec`, dumped.
        hpa: where the HPA was kept.
        delays: those of `Delays` that the spec sets: they stay as they are.
        path: where to keep it.

    Returns:
        `startup` as it was measured, or None; the `delays` that follow, all of them; and a `note` on both.

    Raises:
        ClusterError: the kubeconfig or the context cannot be used.
    """
    from tools.cluster.startup import startup_of, with_start
    from tools.contracts import Delays

    spec_delays = Delays.model_validate(delays)
    in_use = json.loads(Path(hpa).read_text(encoding="utf-8"))
    startup, note = startup_of(ClusterSpec.model_validate(cluster), in_use, datetime.now(UTC))
    if startup is None:
        used = spec_delays
    else:
        used, measured = with_start(spec_delays, startup)
        taken = ", ".join(f"{name} {getattr(used, name):g}" for name in measured)
        note += f" Measured, not assumed: {taken}." if measured else " The spec's own delays stay."
    answer = {
        "startup": None if startup is None else startup.model_dump(mode="json"),
        "delays": used.model_dump(mode="json"),
        "note": note,
    }
    write_file(Path(path), json.dumps(answer, indent=1))
    return answer
