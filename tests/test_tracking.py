"""Recording a session in a real MLflow store on SQLite."""

# ruff: noqa: F811  # a fixture that is imported, and then asked for by name

from __future__ import annotations

import datetime as dt
import json
import math
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sample_result import empty_result, sample_result
from tracking_support import (  # noqa: F401
    BATCH,
    WARNINGS,
    active_runs,
    champion_version,
    client,
    configuration,
    empty_store,
    interval,
    no_tracking_uri_from_outside,
    onnx_artifact,
    recorded,
    session_dir,
    session_result,
    tracking_uri,
    trial,
)

from tools.contracts import (
    Interval,
    Precision,
    Verdict,
)
from tools.errors import StorageError, WorkloadError
from tools.result import MlflowRef, Ratio, SessionResult
from tools.spec import Objective
from tools.tracking import TrackingError, facts, read_result, record
from tools.tracking.decisions import decisions_markdown
from tools.tracking.errors import public_uri
from tools.tracking.naming import description, run_name, trial_name

pytestmark = WARNINGS


# --- the runs --------------------------------------------------------------------------------------------------


def test_a_session_becomes_a_run_with_a_nested_run_for_each_trial(recorded, client):
    parent = client.get_run(recorded.run_id)
    assert client.get_experiment(parent.info.experiment_id).name == "infertune/digits"
    assert parent.info.run_name == "digits MET 4.00x 20260102-0304"
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
    assert int8.info.run_name == "onnxruntime int8-static per_channel=True (chosen)"
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


# --- finding and comparing -------------------------------------------------------------------------------------


def test_the_best_session_of_a_workload_that_met_its_objective_this_month_is_one_query(
    onnx_artifact, session_dir, tracking_uri
):
    import mlflow

    best = configuration(onnx_artifact, "onnxruntime")
    of_the_month = dt.datetime(2026, 2, 1, tzinfo=dt.UTC)
    for session, created, verdict, gain in [
        ("earlier", "2026-01-31T23:59:59+00:00", Verdict.MET, 9.0),
        ("good", "2026-02-01T00:00:00+00:00", Verdict.MET, 3.0),
        ("best", "2026-02-02T03:04:05+00:00", Verdict.MET, 12.0),
        ("missed", "2026-02-03T03:04:05+00:00", Verdict.INFEASIBLE, 30.0),
    ]:
        ratio = Ratio(p50=interval(2.0), throughput=interval(gain), cost=interval(gain))
        result = session_result(best, session=session, created=created, verdict=verdict, ratio=ratio, trials=(trial(),))
        record(result, session_dir=session_dir, tracking_uri=tracking_uri, example={"x": BATCH})
    mlflow.set_tracking_uri(tracking_uri)
    found = mlflow.search_runs(
        experiment_names=["infertune/digits"],
        filter_string="tags.`infertune.verdict` = 'MET' AND tags.`infertune.complete` = 'true' "
        f"AND attributes.start_time >= {of_the_month.timestamp() * 1000:.0f}",
        order_by=["metrics.ratio_cost DESC"],
        max_results=1,
    )
    assert found["tags.infertune.session"].tolist() == ["best"]
    assert found["tags.mlflow.runName"].tolist() == ["digits MET 12.0x 20260202-0304"]


def test_sessions_of_different_workloads_and_verdicts_have_the_same_metrics(onnx_artifact):
    best = configuration(onnx_artifact, "onnxruntime")
    met = session_result(best, trials=())
    missed = session_result(
        best,
        workload="text",
        verdict=Verdict.INFEASIBLE,
        metric="perplexity.py:score",
        objective=Objective(minimize="latency"),
        trials=(),
    )
    names = set(facts.session_metrics(met))
    assert names == set(facts.session_metrics(missed))
    assert {"ratio_p50", "ratio_cost", "best_p99_ms", "best_cost_usd", "best_accuracy_drop", "seconds_total"} <= names


@pytest.mark.parametrize(("minimize", "gain"), [("cost", "4.00x"), ("latency", "3.00x"), ("size", "5.00x")])
def test_a_name_tells_the_gain_in_what_was_to_be_minimized(onnx_artifact, minimize, gain):
    best = configuration(onnx_artifact, "onnxruntime")
    baseline = best.model_copy(update={"size_mb": 5 * best.size_mb})
    result = session_result(
        best,
        baseline=baseline,
        objective=Objective(minimize=minimize),
        ratio=Ratio(p50=interval(3.0), throughput=interval(4.0), cost=interval(4.0)),
    )
    assert run_name(result) == f"digits MET {gain} 20260102-0304"


def test_a_session_in_which_nothing_was_compared_is_named_without_a_gain():
    for minimize in ("cost", "size"):
        result = session_result(
            None, ratio=None, verdict=Verdict.INTERRUPTED, objective=Objective(minimize=minimize), trials=()
        )
        assert run_name(result) == "digits INTERRUPTED 20260102-0304"


def test_candidates_are_named_by_what_became_of_them():
    names = [trial_name(t) for t in (trial(chosen=True), trial("openvino"), trial(outcome="out_of_memory"))]
    assert [name.rpartition(" (")[2] for name in names] == ["chosen)", "measured)", "out of memory)"]


def test_the_description_of_a_run_has_the_verdict_the_table_and_the_way_to_the_report():
    page = description(sample_result())
    assert page.startswith("**MET.** openvino int8-static at batch 16 costs 29.9x less")
    assert "| p99 | 15.5 ms [14.9, 16.1] | 8.28 ms [7.95, 8.61] |" in page
    assert "| cost of 1,000 requests | $" in page
    assert "- objective: lowest cost, p99 at most 25.0 ms, accuracy drop at most 1.00 points" in page
    assert "20261122-041502-resnet50/report.html` on the machine that ran it" in page
    assert "| recipe |  |  |" in description(empty_result())


def test_runs_are_filtered_by_verdict_workload_and_machine(recorded, client):
    tags = client.get_run(recorded.run_id).data.tags
    assert {name: tags[f"infertune.{name}"] for name in ("verdict", "workload", "cpu", "minimize", "best_runtime")} == {
        "verdict": "MET",
        "workload": "digits",
        "cpu": "Test CPU",
        "minimize": "cost",
        "best_runtime": "onnxruntime",
    }
    assert tags["infertune.hardware"] == session_result(None).hardware.digest
    assert "infertune.accelerators" not in tags


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


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://me:hunter2@db:5432/mlflow", "postgresql://***@db:5432/mlflow"),
        ("mysql+pymysql://me:hun/ter2@db/mlflow?x=1", "mysql+pymysql://***@db/mlflow?x=1"),
        ("https://token@mlflow:5000/", "https://***@mlflow:5000/"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    ],
)
def test_a_uri_is_shown_without_its_account(uri, shown):
    assert public_uri(uri) == shown


def test_no_password_is_in_an_error(session_dir, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    uri = f"http://me:hunter2@127.0.0.1:{port}"
    with pytest.raises(TrackingError) as caught:
        record(session_result(None), session_dir=session_dir, tracking_uri=uri, example={"x": BATCH})
    assert "hunter2" not in str(caught.value)


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
