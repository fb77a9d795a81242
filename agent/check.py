"""`infertune check`: is this spec usable, as far as can be said without measuring?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from agent.session import check_files, run_or_raise
from tools.observer import Silent
from tools.spec import load_spec
from tools.worker import TORCH_MODULES, Worker
from tools.workloads.bundled import BUNDLED

LIMIT_S = 300.0


def check_spec(target: str, home: Path) -> Iterator[str]:
    """Yield what was found to be in order, line by line.

    Raises:
        InfertuneError: at the first thing that is not.
    """
    path = BUNDLED.get(target, Path(target))
    spec = load_spec(path)
    yield f"{path}: valid"
    check_files(spec)
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
    for name, value in facts.items():
        yield f"{name}: {value}"
    yield "The model ran on one batch. Next: infertune optimize " + target
