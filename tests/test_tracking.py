"""Recording a session in a real MLflow store on SQLite."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import socket
import sqlite3
import subprocess
import sys
import warnings
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
from tools.errors import StorageError, WorkloadError
from tools.journal import Journal
from tools.result import Configuration, MlflowRef, Ratio, Seconds, SessionResult, TrialSummary
from tools.spec import Objective
from tools.tracking import TrackingError, default_tracking_uri, facts, read_result, record, serve_ui, ui_command
from tools.tracking.decisions import decisions_markdown

BATCHES = (1, 2, 4, 8, 16, 32, 64)

pytestmark = [
    # raised inside mlflow's and its dependencies' own modules
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


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
    """MLflow takes a second to lay out its tables: the tests copy one store that is laid out."""
    from tools.tracking.store import open_store, silence_mlflow

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "")  # MLflow writes the variable itself: put it back
        silence_mlflow()
        open_store(f"sqlite:///{file}").search_experiments()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file


@pytest.fixture
def tracking_uri(session_dir, empty_store) -> str:
    home = session_dir.parents[1]
    shutil.copyfile(empty_store, home / "mlflow.db")
    return default_tracking_uri(home)


@pytest.fixture
def client(tracking_uri):
    import mlflow

    return mlflow.MlflowClient(tracking_uri, tracking_uri)


BATCH = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


def champion_outputs(client_uri: str, x: object) -> dict[str, np.ndarray]:
    import mlflow

    mlflow.set_tracking_uri(client_uri)
    return mlflow.pyfunc.load_model("models:/digits@champion").predict(x)


def champion_version(client, alias: str = "champion") -> str:
    return str(client.get_model_version_by_alias("digits", alias).version)


def onnx_outputs(onnx_artifact: ArtifactRef, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(f"{onnx_artifact.directory}/model.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def active_runs(client) -> list:
    experiments = [e.experiment_id for e in client.search_experiments()]
    return list(client.search_runs(experiments))


# --- the runs --------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(onnx_artifact, session_dir, tracking_uri) -> MlflowRef:
    result = session_result(configuration(onnx_artifact, "onnxruntime"))
    return record(result, session_dir=session_dir, tracking_uri=tracking_uri, example={"x": BATCH})


def test_a_session_becomes_a_run_with_a_nested_run_for_each_trial(recorded, client):
    parent = client.get_run(recorded.run_id)
    assert client.get_experiment(parent.info.experiment_id).name == "infertune/digits"
    assert parent.info.run_name == "digits 20260102-030405-ab12"
    assert parent.info.status == "FINISHED"
    assert parent.info.end_time - parent.info.start_time == 60_000
    assert parent.data.tags["verdict"] == "MET"
    assert parent.data.tags["workload_digest"] == "0123456789abcdef"
    assert parent.data.tags["infertune.session"] == "20260102-030405-ab12"
    assert parent.data.tags["version.onnxruntime"] == "1.31.1"
    assert parent.data.params["objective_p99_ms"] == "20.0"
    assert parent.data.params["hardware_cpu"] == "Test CPU"
    assert parent.data.params["best_recipe"] == "onnxruntime int8-static"
    assert parent.data.params["best_batch_size"] == "8"
    assert parent.data.metrics["ratio_throughput"] == 4.0
    assert parent.data.metrics["best_throughput_req_sec"] == 2000.0
    assert parent.data.metrics["batch_8_throughput_req_sec"] == 1000.0
    assert parent.data.metrics["int8_accuracy_loss"] == 0.002
    assert parent.data.metrics["seconds_overhead"] == 10.0

    children = client.search_runs([parent.info.experiment_id], f"tags.mlflow.parentRunId = '{recorded.run_id}'")
    by_outcome = {(c.data.params["runtime"], c.data.params["outcome"]): c for c in children}
    assert len(children) == len(by_outcome) == 3
    int8 = by_outcome["onnxruntime", "measured"]
    assert int8.info.run_name == "onnxruntime int8-static per_channel=True"
    assert int8.data.params["steps"] == 'export-onnx > quantize-static {"per_channel": true}'
    assert int8.data.metrics["batch_8_latency_p99_ms"] == 12.0
    assert int8.data.metrics["batch_8_latency_p99_ms_low"] == pytest.approx(11.76)
    assert int8.data.metrics["batch_8_cost_usd"] == 0.0005
    assert int8.data.metrics["batch_8_peak_memory_mb"] == 128.0
    assert int8.data.metrics["accuracy"] == 0.98
    assert "per 1,000 requests" in int8.data.tags["mlflow.note.content"]
    late = by_outcome["onnxruntime", "timed_out"]
    assert late.info.status == "FAILED"
    assert late.data.params["reason"] == "took longer than 300 s"
    assert late.data.metrics == {"seconds": 7.5}


def test_decisions_and_files_are_artifacts(onnx_artifact, session_dir, tracking_uri, client, tmp_path):
    result = session_result(configuration(onnx_artifact, "onnxruntime"))
    ref = record(result, session_dir=session_dir, tracking_uri=tracking_uri, example={"x": BATCH})
    folder = tmp_path / "downloaded"
    folder.mkdir()
    client.download_artifacts(ref.run_id, "", str(folder))
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert names == {"decisions.md", "decisions/01-precision.json", "journal.jsonl", "report.html", "result.json"}
    decision = json.loads((folder / "decisions/01-precision.json").read_text())
    assert decision["chosen"] == "int8-static"
    assert decision["evidence"] == ["abc123", "def456"]
    assert (decision["rule"], decision["by"]) == ("fastest within the accuracy budget", "policy")
    stored = SessionResult.model_validate_json((folder / "result.json").read_text())
    assert stored == result.model_copy(update={"mlflow": ref})


def test_the_hpa_files_are_artifacts(session_dir, tracking_uri, client, onnx_artifact):
    from tools.result import ScalingSummary, TrafficSummary

    (session_dir / "hpa.yaml").write_text("kind: HorizontalPodAutoscaler")
    traffic = TrafficSummary(source="trace.csv", p50_rps=1, p95_rps=2, peak_rps=3, mean_rps=1, seconds=86400)
    scaling = ScalingSummary(
        traffic=traffic,
        capacity_rps=interval(100.0),
        usable_rps=70.0,
        utilization=0.7,
        replicas_p95=2,
        replicas_peak=3,
        min_replicas=1,
        max_replicas=4,
        daily_cost_usd=8.0,
        queue_target=4,
        sentence="Three replicas hold the peak.",
        hpa_yaml=str(session_dir / "hpa.yaml"),
        hpa_diff_path=str(session_dir / "never-written.diff"),
    )
    result = session_result(None, scaling=scaling, baseline=None)
    ref = record(result, session_dir=session_dir, tracking_uri=tracking_uri, example={"x": BATCH})
    assert "hpa.yaml" in {f.path for f in client.list_artifacts(ref.run_id)}
    assert client.get_run(ref.run_id).data.metrics["replicas_peak"] == 3


def test_artifacts_of_the_local_store_live_in_the_home_directory(recorded, client, session_dir):
    uri = client.get_run(recorded.run_id).info.artifact_uri
    assert uri.startswith((session_dir.parents[1] / "mlartifacts").as_uri())


# --- exactly once ----------------------------------------------------------------------------------------------


def test_recording_twice_writes_once(onnx_artifact, session_dir, tracking_uri, client, recorded):
    before = [(r.info.run_id, r.data.metrics, r.data.tags) for r in active_runs(client)]
    result = session_result(configuration(onnx_artifact, "onnxruntime"))
    again = record(result, session_dir=session_dir, tracking_uri=tracking_uri, example={"x": BATCH})
    assert again == recorded
    assert [(r.info.run_id, r.data.metrics, r.data.tags) for r in active_runs(client)] == before
    assert len(client.search_model_versions("name = 'digits'")) == 1


def test_an_interrupted_recording_is_deleted_and_done_anew(onnx_artifact, session_dir, tracking_uri, client, recorded):
    client.delete_tag(recorded.run_id, facts.COMPLETE_TAG)  # as if it had been killed just before the end
    result = session_result(configuration(onnx_artifact, "onnxruntime"))
    again = record(result, session_dir=session_dir, tracking_uri=tracking_uri, example={"x": BATCH})
    assert again.run_id != recorded.run_id
    runs = active_runs(client)
    assert len(runs) == 4
    assert all(again.run_id in (r.info.run_id, r.data.tags.get("mlflow.parentRunId")) for r in runs)
    versions = client.search_model_versions("name = 'digits'")
    assert [v.run_id for v in versions] == [again.run_id]
    models = client.search_logged_models([runs[0].info.experiment_id])
    assert [m.source_run_id for m in models] == [again.run_id]
    assert champion_version(client) == again.model_version


def test_a_session_that_ended_anew_replaces_its_record(onnx_artifact, session_dir, tracking_uri, client):
    best = configuration(onnx_artifact, "onnxruntime")
    for verdict in (Verdict.INTERRUPTED, Verdict.MET):
        result = session_result(best, verdict=verdict, trials=())
        ref = record(result, session_dir=session_dir, tracking_uri=tracking_uri, example={"x": BATCH})
    runs = active_runs(client)
    assert [(r.info.run_id, r.data.tags["verdict"]) for r in runs] == [(ref.run_id, "MET")]


def test_where_the_record_is_does_not_make_it_another_result():
    result = session_result(None)
    known = result.model_copy(update={"mlflow": MlflowRef(tracking_uri="sqlite:///x", run_id="1")})
    assert facts.result_digest(known) == facts.result_digest(result)


# --- the model -------------------------------------------------------------------------------------------------


def test_the_champion_is_the_onnx_file_that_was_measured(recorded, tracking_uri, onnx_artifact, client):
    outputs = champion_outputs(tracking_uri, BATCH)
    np.testing.assert_array_equal(outputs["y"], onnx_outputs(onnx_artifact, BATCH))
    version = client.get_model_version_by_alias("digits", "champion")
    assert (recorded.model_name, recorded.model_version, recorded.note) == ("digits", str(version.version), None)
    assert version.run_id == recorded.run_id
    assert version.tags["recipe"] == "onnxruntime int8-static"


def test_the_signature_has_the_example_s_types_and_any_batch(recorded, tracking_uri):
    import mlflow

    mlflow.set_tracking_uri(tracking_uri)
    (spec,) = mlflow.models.get_model_info("models:/digits@champion").signature.inputs.inputs
    assert (spec.type, spec.shape) == (np.dtype("float32"), (-1, 4))


def test_the_requirements_name_what_is_installed(recorded, tracking_uri):
    import mlflow
    import onnx

    mlflow.set_tracking_uri(tracking_uri)
    file = mlflow.artifacts.download_artifacts("models:/digits@champion/requirements.txt")
    lines = Path(file).read_text().split()
    assert f"onnx=={onnx.__version__}" in lines
    assert any(line.startswith("onnxruntime") for line in lines)


def test_the_metrics_of_the_session_belong_to_the_model(recorded, client):
    experiment = client.get_run(recorded.run_id).info.experiment_id
    (model,) = client.search_logged_models([experiment])
    assert model.source_run_id == recorded.run_id
    assert "/home/mlartifacts/infertune-digits/models/" in model.artifact_location
    assert {"best_p99_ms", "ratio_cost"} <= {m.key for m in model.metrics}


def test_a_session_that_missed_its_objective_leaves_the_champion_alone(
    onnx_artifact, session_dir, tracking_uri, client, recorded
):
    best = configuration(onnx_artifact, "onnxruntime")
    later = session_result(best, session="later", verdict=Verdict.INFEASIBLE, trials=())
    ref = record(later, session_dir=session_dir, tracking_uri=tracking_uri, example={"x": BATCH})
    assert champion_version(client) == recorded.model_version
    assert champion_version(client, "best-so-far") == ref.model_version


def test_an_openvino_model_runs_at_the_precision_that_was_measured(tmp_path, onnx_artifact, session_dir, tracking_uri):
    import openvino as ov

    model = ov.convert_model(f"{onnx_artifact.directory}/model.onnx")
    ov.save_model(model, str(tmp_path / "model.xml"), compress_to_fp16=False)
    best = configuration(artifact(tmp_path, ModelFormat.OPENVINO), "openvino", {"inference_precision": "fp32"})
    record(session_result(best, trials=()), session_dir=session_dir, tracking_uri=tracking_uri, example={"x": BATCH})
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_array_equal(champion_outputs(tracking_uri, BATCH)["y"], compiled({"x": BATCH})[0])


FACTORY = """
import torch

class Scores(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x).relu()

def build():
    return Scores()
"""


@pytest.mark.parametrize("model_format", [ModelFormat.TORCH, ModelFormat.PT2, ModelFormat.TORCHSCRIPT])
def test_a_torch_model_runs_without_the_files_that_it_came_from(tmp_path, session_dir, tracking_uri, model_format):
    import torch
    from safetensors.torch import save_file

    source, folder = tmp_path / "source", tmp_path / "artifact"
    source.mkdir()
    folder.mkdir()
    (source / "scores.py").write_text(FACTORY)
    scope: dict = {}
    exec(FACTORY, scope)
    module = scope["build"]().eval()
    x = torch.from_numpy(BATCH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript
        if model_format is ModelFormat.TORCH:
            save_file(module.state_dict(), folder / "weights.safetensors")
        elif model_format is ModelFormat.PT2:
            shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
            torch.export.save(torch.export.export(module, (x,), dynamic_shapes=shapes), folder / "model.pt2")
        else:
            torch.jit.trace(module, x).save(str(folder / "model.ts"))
    factory = f"{source}/scores.py:build" if model_format is ModelFormat.TORCH else None
    best = configuration(artifact(folder, model_format, factory=factory), "eager")
    ref = record(
        session_result(best, trials=()), session_dir=session_dir, tracking_uri=tracking_uri, example={"x": BATCH}
    )
    assert ref.note is None
    for file in [*source.iterdir(), *folder.iterdir()]:
        file.unlink()
    with torch.inference_mode():
        expected = module(x).numpy()
    np.testing.assert_allclose(champion_outputs(tracking_uri, BATCH)["output_0"], expected, rtol=1e-6)


def test_several_inputs_are_passed_by_name(tmp_path, session_dir, tracking_uri):
    import torch

    class Sum(torch.nn.Module):
        def forward(self, left, right):
            return left - right

    arguments = (torch.zeros(2, 4), torch.zeros(2, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript
        torch.jit.trace(Sum(), arguments).save(str(tmp_path / "model.ts"))
    best = configuration(artifact(tmp_path, ModelFormat.TORCHSCRIPT), "torchscript")
    example = {"left": BATCH, "right": BATCH}
    record(session_result(best, trials=()), session_dir=session_dir, tracking_uri=tracking_uri, example=example)
    outputs = champion_outputs(tracking_uri, {"right": BATCH, "left": 3 * BATCH})
    np.testing.assert_array_equal(outputs["output_0"], 3 * BATCH - BATCH)


def test_a_model_that_cannot_be_logged_leaves_a_note_and_a_complete_record(tmp_path, session_dir, tracking_uri, client):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    best = configuration(artifact(tmp_path, ModelFormat.ONNX), "onnxruntime")
    ref = record(session_result(best), session_dir=session_dir, tracking_uri=tracking_uri, example={"x": BATCH})
    assert ref.model_version is None
    assert "could not be logged" in ref.note
    assert len(active_runs(client)) == 4


# --- what goes wrong -------------------------------------------------------------------------------------------


def test_an_absent_server_is_said_in_a_sentence(session_dir, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(TrackingError, match="could not be recorded in MLflow"):
        record(
            session_result(None),
            session_dir=session_dir,
            tracking_uri=f"http://127.0.0.1:{port}",
            example={"x": BATCH},
        )


def test_a_deleted_experiment_is_not_revived_silently(recorded, client, session_dir, tracking_uri):
    client.delete_experiment(client.get_run(recorded.run_id).info.experiment_id)
    with pytest.raises(TrackingError, match="mlflow experiments restore"):
        record(session_result(None), session_dir=session_dir, tracking_uri=tracking_uri, example={"x": BATCH})


def test_an_example_that_is_none_is_refused(tmp_path, session_dir):
    (tmp_path / "example.npz").write_text("text")
    for example in (tmp_path / "example.npz", tmp_path / "missing.npz", {}):
        with pytest.raises(WorkloadError):
            record(session_result(None), session_dir=session_dir, tracking_uri="sqlite:///never", example=example)


def test_a_damaged_result_is_refused(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(StorageError, match="no result of a session"):
        read_result(tmp_path / "result.json")
    with pytest.raises(StorageError, match="cannot be read"):
        read_result(tmp_path / "missing.json")


# --- processes -------------------------------------------------------------------------------------------------


@pytest.fixture
def written_session(session_dir, onnx_artifact) -> Path:
    result = session_result(configuration(onnx_artifact, "onnxruntime"))
    (session_dir / "result.json").write_text(result.model_dump_json())
    np.savez(session_dir / "example.npz", x=BATCH)
    return session_dir


def test_recording_has_a_process_of_its_own(written_session, tracking_uri, client):
    command = [sys.executable, "-m", "tools.tracking", str(written_session), str(written_session / "example.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    reference = MlflowRef.model_validate_json(done.stdout)
    assert reference.tracking_uri == tracking_uri
    assert client.get_run(reference.run_id).data.tags[facts.COMPLETE_TAG] == "true"


def test_the_command_prints_a_sentence_for_a_person_s_mistake(tmp_path):
    command = [sys.executable, "-m", "tools.tracking", str(tmp_path), "example.npz"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "result.json: cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_main_process_does_not_import_mlflow():
    code = "import sys, tools.tracking; sys.exit('mlflow' in sys.modules or 'sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- facts -----------------------------------------------------------------------------------------------------


def test_each_precision_has_its_own_accuracy_loss():
    names = [
        name
        for precision in Precision
        for name in facts.trial_metrics(trial(precision=precision))
        if name.endswith("_accuracy_loss")
    ]
    assert names == [
        "fp32_accuracy_loss",
        "bf16_accuracy_loss",
        "fp16_accuracy_loss",
        "fp8_accuracy_loss",
        "int8_dynamic_accuracy_loss",
        "int8_accuracy_loss",
        "int8_mixed_accuracy_loss",
        "int4_weights_accuracy_loss",
    ]


def test_a_number_that_is_not_finite_has_no_metric():
    unbounded = trial().model_copy(update={"accuracy_drop": Interval(value=0.1, low=0.0, high=math.inf, n=3)})
    metrics = facts.trial_metrics(unbounded)
    assert "accuracy_drop" in metrics
    assert "accuracy_drop_high" not in metrics


def test_the_page_of_decisions_says_what_was_rejected_and_why():
    page = decisions_markdown(session_result(None).decisions)
    assert "## 1. Which precision?" in page
    assert "Chosen: **int8-static**. It is 3 times faster and loses 0.2 points." in page
    assert "| **int8-static** | p99_ms 1.235 | `abc123` |  |" in page
    assert "slower \\| costs more" in page
    assert decisions_markdown(()) == "# Decisions\n\nNone was taken.\n"


# --- where, and the pages --------------------------------------------------------------------------------------


def test_the_environment_wins_over_the_home_directory(tmp_path, monkeypatch):
    assert default_tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert default_tracking_uri(tmp_path) == "http://mlflow:5000"


def test_the_pages_are_served_from_the_home_directory(tmp_path):
    command = ui_command(tmp_path, "127.0.0.1", 5050)
    assert command[:4] == [sys.executable, "-m", "mlflow", "server"]
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert options["--backend-store-uri"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert options["--artifacts-destination"] == (tmp_path / "mlartifacts").as_uri()
    assert (options["--host"], options["--port"]) == ("127.0.0.1", "5050")


def test_there_are_no_pages_before_there_is_a_store(tmp_path):
    with pytest.raises(TrackingError, match="infertune optimize"):
        serve_ui(tmp_path)


def test_where_sessions_are_recorded_elsewhere_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    with pytest.raises(TrackingError, match="recorded at http://mlflow:5000"):
        serve_ui(tmp_path)


def test_a_taken_port_is_found_beforehand_and_another_suggested(tmp_path):
    (tmp_path / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(TrackingError, match=r"infertune ui --port \d+"):
            serve_ui(tmp_path, port=port)


_KILLED_WHILE_MAKING = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from tools.tracking.store import open_store, silence_mlflow
silence_mlflow()
left = int(sys.argv[2])
def count(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
event.listen(Engine, "before_cursor_execute", count)
open_store(sys.argv[1])
"""


@pytest.mark.parametrize("statement", [5, 60, 200])
def test_a_store_whose_making_was_killed_is_made_anew(tmp_path, statement):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    command = [sys.executable, "-c", _KILLED_WHILE_MAKING, uri, str(statement)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, check=False)
    assert done.returncode == -9
    assert not (tmp_path / "mlflow.db").exists()
    from tools.tracking.store import open_store, silence_mlflow

    silence_mlflow()
    client = open_store(uri)
    assert client.get_experiment_by_name("Default") is not None
    assert (tmp_path / "mlflow.db").exists()


def test_the_log_of_a_deleted_store_does_not_damage_the_new_one(tmp_path):
    """Somebody who deletes `mlflow.db` may leave `mlflow.db-wal` behind, which SQLite would apply to the new file."""
    from tools.tracking.store import open_store, silence_mlflow

    silence_mlflow()
    path = tmp_path / "mlflow.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE was (n); INSERT INTO was VALUES (1);")
        log = path.with_name("mlflow.db-wal").read_bytes()
    path.unlink()
    path.with_name("mlflow.db-wal").write_bytes(log)
    open_store(f"sqlite:///{path}").create_experiment("new", artifact_location=tmp_path.as_uri())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'was'").fetchall() == []
