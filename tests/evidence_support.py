"""Home directories with sessions that were never run: journals, rows and files as a session leaves them."""

import numpy as np
from tests_support import artifact, hardware, spec, workload

from tools.contracts import (
    BatchPoint,
    Evidence,
    EvidenceKind,
    Failed,
    Finding,
    Interval,
    Latency,
    Measured,
    Recipe,
    TrialResult,
)
from tools.evidence import EVIDENCE, EvidenceStore
from tools.journal import Journal
from tools.limits import BenchLimits
from tools.record import JOURNAL, Loaded, Started
from tools.spec import TrafficSpec


def interval(value):
    return Interval(value=value, low=value * 0.99, high=value * 1.01, n=300)


def trial(question, *, session="s1", raw=None, made="source", kind=EvidenceKind.TRIAL):
    """A trial that was measured, and what lies on disk for it."""
    point = BatchPoint(
        batch_size=1,
        latency_ms=Latency(p50=interval(14.2), p95=interval(15), p99=interval(17)),
        throughput_rps=interval(70),
        peak_memory_mb=200,
        mean_ms=14.3,
        stable=True,
    )
    used = artifact().model_copy(update={"digest": made, "directory": f"/somewhere/artifacts/{made}"})
    return finding(
        question,
        Measured(result=TrialResult(artifact=used, points=(point,), load_ms=1, build_s=1)),
        session=session,
        raw=raw,
        kind=kind,
    )


def finding(question, outcome=None, *, session="s1", raw=None, kind=EvidenceKind.TRIAL):
    return Evidence.of(
        Finding(
            question=question,
            kind=kind,
            workload="w",
            recipe=Recipe(runtime="eager"),
            parameters={"batch_sizes": [1], "reference": None},
            hardware="h",
            versions={"torch": "2"},
            session=session,
            raw=raw,
            outcome=outcome or Failed(stage="exporting", reason="no export"),
            seconds=1.5,
            created="2026-11-22T00:00:00+00:00",
        )
    )


def write_raw(home, name, n=300):
    (home / "raw").mkdir(parents=True, exist_ok=True)
    np.savez_compressed(home / "raw" / name, latency_ms_1=np.full(n, 14.2), output_0=np.zeros((5, 10)))


def write_folder(home, kind, name):
    """An artifact, or a data set."""
    folder = home / kind / name
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(b"x" * 1000)
    return folder


def started(session):
    return Started(
        session=session,
        target="digits-tiny",
        created="2026-11-22T00:00:00+00:00",
        tracking_uri="sqlite:////nowhere/mlflow.db",
        fresh=False,
        time_budget_s=None,
        hardware=hardware(),
        versions={"torch": "2"},
        availability={},
        policy="1",
        protocol="2",
    )


def loaded(**changes):
    asked = spec().model_copy(update={"traffic": TrafficSpec(trace="inputs/traffic.csv"), **changes})
    return Loaded(spec=asked, workload=workload(), limits=BenchLimits(), loading_s=1.0, training_s=0.0)


def write_session(home, session, evidence=(), *, end="finished"):
    """Write a session that used this evidence; `end` is its journal's last entry, None for one that was killed."""
    folder = home / "sessions" / session
    journal = Journal(folder / JOURNAL)
    journal.append("started", started(session).model_dump(mode="json"))
    journal.append("loaded", loaded().model_dump(mode="json"))
    (folder / "inputs").mkdir()
    (folder / "inputs" / "traffic.csv").write_text("second,rps\n0,10\n60,20\n")
    (folder / "report.html").write_text("<html></html>")
    (folder / "logs").mkdir()
    (folder / "logs" / "worker.log").write_text("secrets of this machine")
    for one in evidence:
        EvidenceStore(home / EVIDENCE).put(one)
        journal.append(
            "evidence", {"id": one.id, "question": one.question, "kind": one.kind, "recipe": one.recipe.name}
        )
    if end is not None:
        journal.append(end, {"interrupted": {"decisions": 0}, "failed": {"reason": "r"}}.get(end, {}))
    return folder


def everything_in(home):
    """Return the content of every file below a folder, by its path; the locks and the store's own files apart."""
    return {
        str(f.relative_to(home)): f.read_bytes()
        for f in sorted(home.rglob("*"))
        if f.is_file() and f.name != ".lock" and not f.name.startswith(EVIDENCE)
    }
