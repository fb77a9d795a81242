"""A challenge in a real MLflow store on SQLite, in a run nested in that of its session."""

# ruff: noqa: F811  # a fixture that is imported, and then asked for by name

from __future__ import annotations

import pytest
from challenge_support import sample_challenge
from tracking_support import (  # noqa: F401
    WARNINGS,
    active_runs,
    client,
    empty_store,
    no_tracking_uri_from_outside,
    onnx_artifact,
    recorded,
    session_dir,
    session_result,
    tracking_uri,
)

from tools.challenge import StepOutcome
from tools.errors import StorageError
from tools.tracking import TrackingError
from tools.tracking.challenge import challenge_params, record_challenge, stands
from tools.tracking.store import delete_stale_runs

pytestmark = WARNINGS


@pytest.fixture
def told(session_dir):
    challenge = sample_challenge()
    (session_dir / "challenge.json").write_text(challenge.model_dump_json())
    (session_dir / "challenge.html").write_text("<!doctype html><title>challenge</title>")
    return challenge


@pytest.fixture
def run(told, recorded, client, session_dir, tracking_uri):
    return client.get_run(record_challenge(session_dir, tracking_uri=tracking_uri, parent=recorded.run_id))


def test_it_is_a_run_under_its_session_named_by_what_came_of_it(run, recorded, told):
    assert run.data.tags["mlflow.parentRunId"] == recorded.run_id
    assert run.info.run_name == "challenge 24.0x, 3 of 4 targets met"
    assert run.info.end_time - run.info.start_time == 1000 * told.seconds
    assert run.data.metrics["ratio_throughput"] == told.targets[0].got.value
    assert run.data.metrics["ratio_p99_low"] == told.targets[2].got.low
    assert run.data.metrics["accuracy_drop"] == told.targets[3].got.value


def test_the_steps_that_were_taken_are_the_points_of_its_charts(run, told, client):
    history = client.get_metric_history(run.info.run_id, "throughput_req_sec")
    shown = [step for step in told.steps if step.outcome in ("as given", "taken", "computed")]
    assert [(m.step, m.value) for m in history] == [
        (place, step.figures.throughput_rps.value) for place, step in enumerate(shown)
    ]
    assert len(history) == 5
    assert stands(told) == shown
    assert all(step.outcome is not StepOutcome.STEP_BACK for step in stands(told))


def test_every_step_says_what_became_of_it(run, told):
    assert run.data.params == challenge_params(told)
    assert run.data.params["step_3_int8"] == "step back: INT8, in a sentence."
    description = run.data.tags["mlflow.note.content"]
    assert all(f"| {step.name} |" in description for step in told.steps)
    assert all(f"| {target.name} |" in description for target in told.targets)


def test_its_numbers_and_its_page_are_artifacts(run, client):
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"challenge.json", "challenge.html"}


def test_the_same_challenge_is_recorded_once_and_another_replaces_it(
    run, told, recorded, client, session_dir, tracking_uri
):
    before = {r.info.run_id for r in active_runs(client)}
    assert record_challenge(session_dir, tracking_uri=tracking_uri, parent=recorded.run_id) == run.info.run_id
    assert {r.info.run_id for r in active_runs(client)} == before
    again = told.model_copy(update={"seconds": 1.0})
    (session_dir / "challenge.json").write_text(again.model_dump_json())
    new = record_challenge(session_dir, tracking_uri=tracking_uri, parent=recorded.run_id)
    assert {r.info.run_id for r in active_runs(client)} == before - {run.info.run_id} | {new}


def test_a_recording_that_was_interrupted_is_done_anew(run, told, recorded, client, session_dir, tracking_uri):
    client.delete_tag(run.info.run_id, "infertune.complete")
    new = record_challenge(session_dir, tracking_uri=tracking_uri, parent=recorded.run_id)
    assert run.info.run_id not in {r.info.run_id for r in active_runs(client)}
    assert client.get_run(new).data.tags["infertune.complete"] == "true"


def test_it_goes_with_its_session(run, recorded, client):
    session = client.get_run(recorded.run_id)
    delete_stale_runs(client, session.info.experiment_id, session=session.data.tags["infertune.session"])
    assert not active_runs(client)


def test_a_session_that_is_not_there_and_a_file_that_is_none_are_refused(told, session_dir, tracking_uri, recorded):
    with pytest.raises(TrackingError, match="the challenge could not be recorded"):
        record_challenge(session_dir, tracking_uri=tracking_uri, parent="0" * 32)
    (session_dir / "challenge.json").write_text("{}")
    with pytest.raises(StorageError, match="no challenge of this version"):
        record_challenge(session_dir, tracking_uri=tracking_uri, parent=recorded.run_id)


def test_a_long_reason_is_cut_to_what_a_server_stores(told, recorded, client, session_dir, tracking_uri):
    first, *others = told.steps
    long = told.model_copy(update={"steps": (first.model_copy(update={"why": "w" * 9_000}), *others)})
    (session_dir / "challenge.json").write_text(long.model_dump_json())
    run = client.get_run(record_challenge(session_dir, tracking_uri=tracking_uri, parent=recorded.run_id))
    assert len(run.data.params["step_1_baseline"]) == 500
