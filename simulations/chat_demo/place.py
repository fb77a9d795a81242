"""Where the demonstration takes place: a workload's spec, a real Prometheus, and a stand-in for the API server."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from simulations.api_server import ApiServer
from simulations.prometheus_server import prometheus
from simulations.prometheus_week import service_life
from simulations.scaling_demo.__main__ import (
    HEALTHY,
    HPA,
    NAMESPACE,
    P99_MS,
    PEAK_REPLICAS,
    TODAY,
    spec_without_traffic,
)
from simulations.scaling_demo.live import DEPLOYMENT, LiveService
from tools.result import SessionResult
from tools.traffic import bundled_day


@dataclass(frozen=True)
class Size:
    """How large the demonstration is."""

    time_budget_s: float = 40.0
    max_trials: int = 6
    days: int = 3
    """Of traffic."""
    verify_s: float = 20.0
    """How long the changed autoscaler is watched."""
    p99_ms: float = P99_MS
    """The promise."""


def write_spec(path: Path, home: Path, size: Size) -> None:
    """Write the spec of digits-tiny without traffic; trains the model where there are no weights yet."""
    spec = spec_without_traffic(home, size.p99_ms)
    spec["search"] = {"only": ["onnxruntime", "openvino"]}
    spec["budget"] = {"tolerate_noise": True}  # it shows a chat: other processes may run beside it
    _write(path, spec)


@contextlib.contextmanager
def surroundings(spec: Path, measured: SessionResult, size: Size) -> Iterator[None]:
    """Run Prometheus with the traffic of the last days and an API server with today's autoscaler, and tell the spec.

    Args:
        spec: what is told of them.
        measured: what one replica can do: the traffic is made to need a few.
        size: of the demonstration.

    Raises:
        UnavailableError: Prometheus is not installed, or does not start.
    """
    assert measured.best is not None, "it was looked at before"
    rps, folder = measured.best.throughput_rps, spec.parent
    rates = np.tile(np.asarray(bundled_day().rps), size.days)
    rates *= PEAK_REPLICAS * rps / rates.max()
    start_s = int(time.time()) // 60 * 60 - 60 * len(rates)
    text = service_life(rates, start_s=start_s, rps_per_replica=rps, deployment=DEPLOYMENT)
    with (
        LiveService(0.5 * rps) as live,
        ApiServer(namespace=NAMESPACE, hpa=HPA) as server,
        prometheus(text, folder / "prometheus", scrape=(live.address,)) as url,
    ):
        server.put_hpa(TODAY)
        server.set_status(NAMESPACE, HPA, current=3, desired=3, conditions=HEALTHY)
        _connect(spec, url, server.kubeconfig(folder / "kubeconfig"), size)
        yield


def _connect(path: Path, url: str, kubeconfig: Path, size: Size) -> None:
    """Put Prometheus and the cluster into a spec."""
    spec = yaml.safe_load(path.read_text())
    source = {"url": url, "preset": "ray-serve", "labels": {"deployment": DEPLOYMENT}}
    spec["traffic"] = {"prometheus": {**source, "window_s": 86_400 * size.days}}
    spec["cluster"] = {
        "context": "reader",
        "writer_context": "writer",
        "kubeconfig": str(kubeconfig),
        "namespace": NAMESPACE,
        "hpa": HPA,
        "allow_namespaces": [NAMESPACE],
        "apply": True,
        "bounds": {"min_replicas": 2, "max_replicas": 20},
        "verify_s": size.verify_s,
        "cooldown_s": 0,
    }
    _write(path, spec)


def _write(path: Path, spec: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
