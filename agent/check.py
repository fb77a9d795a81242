"""`infertune check`: is this spec usable, as far as can be said without measuring?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from agent.loading import read_spec
from agent.running import run_or_raise
from tools.contracts import TensorSpec
from tools.observer import Silent
from tools.worker import TORCH_MODULES, Worker

LIMIT_S = 300.0


def check_spec(target: str, home: Path) -> Iterator[str]:
    """Yield what was found to be in order, line by line.

    Raises:
        InfertuneError: at the first thing that is not.
    """
    spec = read_spec(target)
    yield f"{target}: valid"
    if spec.traffic is not None and spec.traffic.trace is not None:
        yield f"traffic: {spec.traffic.trace}"
    if spec.hpa is not None:
        yield f"hpa: {spec.hpa.file}"
    with tempfile.TemporaryDirectory() as logs, Worker(TORCH_MODULES, Path(logs)) as worker:
        facts = run_or_raise(
            worker,
            "tools.workloads.loading:dry_load",
            {"spec": spec.workload.model_dump(mode="json"), "home": str(home)},
            label="check",
            limit_s=LIMIT_S,
            observer=Silent(),
        )
    yield f"model: {facts['format']} {facts['precision']}, {facts['parameters']:,} parameters"
    for kind in ("inputs", "outputs"):
        yield f"{kind}: {', '.join(_tensor(TensorSpec.model_validate(tensor)) for tensor in facts[kind])}"
    yield f"{spec.workload.metric}: {facts['metric']:.4g} on the first {facts['items_seen']} items"
    yield from facts["notes"]
    yield "The model ran on one batch. Next: infertune optimize " + target


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype} {('batch', *spec.shape)}".replace("'", "")
