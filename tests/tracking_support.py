"""Results of sessions that nobody ran, and a store to record them in.

Test modules import the fixtures that they need, and those that these need.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from tools.contracts import (
    ArtifactRef,
    BatchPoint,
    Decision,
    Hardware,
    Interval,
    Latency,
    ModelFormat,
    Option,
    Precision,
    Recipe,
    Step,
    Verdict,
)
from tools.journal import Journal
from tools.result import Configuration, MlflowRef, Ratio, Seconds, SessionResult, TrialSummary
from tools.spec import Objective
from tools.tracking import default_tracking_uri, record

WARNINGS = [
    # raised inside mlflow's and its dependencies' own modules
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]
"""For `pytestmark`."""

BATCHES = (1, 2, 4, 8, 16, 32, 64)


def interval(value: float, n: int = 300) -> Interval:
    return Interval(value=value, low=value * 0.98, high=value * 1.02, n=n)


def latency(ms: float) -> Latency:
    return Latency(p50=interval(ms), p95=interval(ms * 1.2), p99=interval(ms * 1.5))


def point(batch: int, ms: float = 1.0) -> BatchPoint:
    return BatchPoint(
        batch_size=batch,
        latency_ms=latency(ms * batch),
        throughput_rps=interval(1000 / ms),
        peak_memory_mb=120.0 + batch,
        mean_ms=ms * batch,
        stable=True,
    )


def trial(
    runtime: str = "onnxruntime",
    precision: Precision = Precision.INT8_STATIC,
    *,
    drop: float = 0.002,
    chosen: bool = False,
    outcome: str = "measured",
    settings: dict | None = None,
) -> TrialSummary:
    recipe = Recipe(
        steps=(Step(transform="export-onnx"), Step(transform="quantize-static", settings={"per_channel": True})),
        runtime=runtime,
        precision=precision,
        settings=settings or {},
    )
    measured = outcome == "measured"
    return TrialSummary(
        recipe=recipe.name,
        definition=recipe,
        outcome=outcome,
        reason=None if measured else "took longer than 300 s",
        evidence=("abc123",),
        points=tuple(point(b) for b in BATCHES) if measured else (),
        cost_per_1000_usd={b: interval(0.0005) for b in BATCHES} if measured else {},
        accuracy=0.98 if measured else None,
        accuracy_drop=interval(drop) if measured else None,
        size_mb=11.0 if measured else None,
        seconds=7.5,
        chosen=chosen,
        feasible=measured,
    )


def configuration(artifact: ArtifactRef, runtime: str, settings: dict | None = None) -> Configuration:
    recipe = Recipe(runtime=runtime, precision=artifact.precision, settings=settings or {})
    return Configuration(
        recipe=recipe.name,
        definition=recipe,
        runtime=runtime,
        batch_size=8,
        latency_ms=latency(4.0),
        throughput_rps=2000.0,
        accuracy=0.98,
        accuracy_drop=interval(0.002),
        size_mb=artifact.size_mb,
        memory_mb=150.0,
        cost_per_1000_usd=0.0005,
        artifact=artifact.directory,
        artifact_ref=artifact,
        intervals={},
    )


def session_result(best: Configuration | None, **changes: object) -> SessionResult:
    values = {
        "session": "20260102-030405-ab12",
        "workload": "digits",
        "workload_digest": "0123456789abcdef",
        "created": "2026-01-02T03:04:05+00:00",
        "verdict": Verdict.MET,
        "summary": "4 times cheaper.",
        "objective": Objective(p99_ms=20.0),
        "metric": "top1",
        "higher_is_better": True,
        "price_per_hour_usd": 0.34,
        "hardware": Hardware(cpu="Test CPU", architecture="x86_64", cores=2, memory_mb=8000.0, flags=("avx2",)),
        "versions": {"onnxruntime": "1.31.1"},
        "seconds": Seconds(total=60.0, trials=50.0, overhead=10.0),
        "baseline": best,
        "best": best,
        "ratio": Ratio(p50=interval(3.0), throughput=interval(4.0), cost=interval(4.0)),
        "trials": (trial(chosen=True), trial("openvino", Precision.FP32, drop=0.0), trial(outcome="timed_out")),
        "decisions": (
            Decision(
                id="precision",
                node="quantization_evaluation",
                question="Which precision?",
                options=(
                    Option(name="int8-static", evidence=("abc123",), facts={"p99_ms": 1.23456}),
                    Option(name="fp32", evidence=("def456",), rejected_because="slower | costs more"),
                ),
                chosen="int8-static",
                rule="fastest within the accuracy budget",
                reason="It is 3 times faster and loses 0.2 points.",
            ),
        ),
    }
    return SessionResult(**(values | changes))


def artifact(folder: Path, model_format: ModelFormat, **changes: object) -> ArtifactRef:
    values = {"digest": "d1", "directory": str(folder), "format": model_format, "precision": Precision.FP32}
    return ArtifactRef(**(values | {"size_mb": 0.1} | changes))


BATCH = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


def lay_out_store(file: Path) -> Path:
    """MLflow takes a second to lay out its tables: the tests copy one store that is laid out."""
    from tools.tracking.store import open_store, silence_mlflow

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "")  # MLflow writes the variable itself: put it back
        silence_mlflow()
        open_store(f"sqlite:///{file}").search_experiments()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file


def active_runs(client) -> list:
    experiments = [e.experiment_id for e in client.search_experiments()]
    return list(client.search_runs(experiments))


def champion_version(client, alias: str = "champion") -> str:
    return str(client.get_model_version_by_alias("digits", alias).version)


@pytest.fixture(autouse=True)
def no_tracking_uri_from_outside(monkeypatch):
    """MLflow also writes the variable itself, so it has to be put back."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")


@pytest.fixture(scope="module")
def onnx_artifact(tmp_path_factory) -> ArtifactRef:
    """y = relu(x @ w), with a dynamic batch."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder = tmp_path_factory.mktemp("onnx")
    weights = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save_model(model, folder / "model.onnx")
    return artifact(folder, ModelFormat.ONNX, precision=Precision.INT8_STATIC)


@pytest.fixture
def session_dir(tmp_path) -> Path:
    folder = tmp_path / "home" / "sessions" / "20260102-030405-ab12"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<h1>report</h1>")
    Journal(folder / "journal.jsonl").append("started", {})
    return folder


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    return lay_out_store(tmp_path_factory.mktemp("store") / "mlflow.db")


@pytest.fixture
def tracking_uri(session_dir, empty_store) -> str:
    home = session_dir.parents[1]
    shutil.copyfile(empty_store, home / "mlflow.db")
    return default_tracking_uri(home)


@pytest.fixture
def client(tracking_uri):
    import mlflow

    return mlflow.MlflowClient(tracking_uri, tracking_uri)


@pytest.fixture
def recorded(onnx_artifact, session_dir, tracking_uri) -> MlflowRef:
    result = session_result(configuration(onnx_artifact, "onnxruntime"))
    return record(result, session_dir=session_dir, tracking_uri=tracking_uri, example={"x": BATCH})
