"""What a session was given beside its workload, as it was when it began: traffic and the autoscaler in use.

Copies lie in `inputs/` of the session's folder: a decision that rests on them can be replayed when the file, the
Prometheus or the cluster that they came from says something else.
"""

from __future__ import annotations

import json
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
