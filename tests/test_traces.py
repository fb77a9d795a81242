"""The trace of a session, in a real MLflow store on SQLite."""

# ruff: noqa: F811  # a fixture that is imported, and then asked for by name

from __future__ import annotations

import datetime as dt
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests_support import measured_trial
from tracking_support import (  # noqa: F401
    BATCH,
    WARNINGS,
    active_runs,
    empty_store,
    no_tracking_uri_from_outside,
    session_result,
)

from tools.contracts import (
    AdviceResult,
    Decision,
    Evidence,
    EvidenceKind,
    Exchange,
    Finding,
    Measured,
    Option,
    OutOfMemory,
    Recipe,
    Verdict,
    WordingResult,
)
from tools.evidence import EVIDENCE, EvidenceStore
from tools.result import SessionResult
from tools.tracking import default_tracking_uri, facts, record
from tools.tracking.spans import nanoseconds

SESSION = "20260102-030405-ab12"
BEGAN = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
SECRET = "hunter2-never-to-be-seen"
EAGER, INT8 = Recipe(runtime="eager"), Recipe(runtime="openvino", settings={"streams": 2})

pytestmark = WARNINGS


def at(second: float) -> str:
    return (BEGAN + dt.timedelta(seconds=second)).isoformat()


def decision(identity: str, node: str, chosen: str, *options: Option) -> Decision:
    return Decision(
        id=identity,
        node=node,
        question=f"What of {node}?",
        options=options or (Option(name=chosen), Option(name="other")),
        chosen=chosen,
        rule="the first",
        reason="it is the first",
    )


def finding(kind: EvidenceKind, recipe: Recipe, outcome: object, seconds: float, ended: float, **changes) -> Evidence:
    values = {
        "question": f"{kind} {recipe.name} {ended}",
        "kind": kind,
        "workload": "w",
        "recipe": recipe,
        "parameters": {"threads": 2},
        "hardware": "h",
        "versions": {},
        "session": SESSION,
        "outcome": outcome,
        "seconds": seconds,
        "created": (BEGAN + dt.timedelta(seconds=int(ended))).isoformat(timespec="seconds"),
    }
    return Evidence.of(Finding(**(values | changes)))


def measured(recipe: Recipe, seconds: float, ended: float, **changes) -> Evidence:
    return finding(EvidenceKind.TRIAL, recipe, measured_trial(recipe, 3.0).outcome, seconds, ended, **changes)


EXCHANGE = Exchange(model="tiny at 127.0.0.1", prompt="Which?\n1. a\n2. b", answer="2", tokens_in=120, tokens_out=7)
FOUND = {
    "eager": measured(EAGER, 3.0, 9.4),
    "cached": measured(INT8, 7.0, -500.0, session="an-earlier-one"),
    "advice": finding(
        EvidenceKind.ADVICE,
        Recipe(runtime="none"),
        Measured(
            result=AdviceResult(options=("a", "b"), order=(1,), why="cheaper", asked_at_s=12.0, exchange=EXCHANGE)
        ),
        1.5,
        12.0,
    ),
    "oom": finding(EvidenceKind.BUILD, INT8, OutOfMemory(stage="building", limit_mb=100.0), 2.0, 15.0),
    "wording": finding(
        EvidenceKind.ADVICE,
        Recipe(runtime="none"),
        Measured(
            result=WordingResult(
                text="Four times.",
                exchange=EXCHANGE.model_copy(update={"tokens_in": 300, "tokens_out": 30, "estimated": True}),
            )
        ),
        2.0,
        21.0,
    ),
}
DECISIONS = (
    decision("d01", "profiler", "eager fp32", Option(name="eager fp32", evidence=(FOUND["eager"].id,))),
    decision("d02", "planner", "runtime_evaluation"),
    decision("d03", "runtime_evaluation", "openvino fp32", Option(name="openvino fp32")),
)


def used(name: str) -> dict[str, str]:
    found = FOUND[name]
    return {"id": found.id, "question": found.question, "kind": found.kind, "recipe": found.recipe.name}


def decided(number: int) -> dict:
    return DECISIONS[number].model_dump(mode="json")


STORY: list[tuple[float, str, dict]] = [
    (0.2, "started", {"session": SESSION, "tracking_uri": f"postgresql://me:{SECRET}@127.0.0.1/mlflow"}),
    (5.0, "loaded", {"workload": {"digest": "0123456789abcdef"}, "loading_s": 4.0, "training_s": 0.0}),
    (9.4, "evidence", used("eager")),
    (9.5, "decision", decided(0)),
    (12.4, "evidence", used("advice")),
    (12.5, "decision", decided(1)),
    (12.6, "evidence", used("cached")),
    (15.5, "evidence", used("oom")),
    (15.6, "decision", decided(2)),
    (21.4, "evidence", used("wording")),
    (21.5, "result", {"verdict": "MET", "summary": "4 times cheaper."}),
]


def write_journal(folder: Path, story: list[tuple[float, str, dict]]) -> None:
    entries = (
        {"seq": number, "at": at(second), "kind": kind, "payload": payload}
        for number, (second, kind, payload) in enumerate(story, start=1)
    )
    (folder / "journal.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


@pytest.fixture(autouse=True)
def a_key_in_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


@pytest.fixture
def session_dir(tmp_path, empty_store) -> Path:
    folder = tmp_path / "home" / "sessions" / SESSION
    folder.mkdir(parents=True)
    home = folder.parents[1]
    shutil.copyfile(empty_store, home / "mlflow.db")
    EvidenceStore(home / EVIDENCE).put_all([found.body for found in FOUND.values()])
    write_journal(folder, STORY)
    return folder


@pytest.fixture
def uri(session_dir) -> str:
    return default_tracking_uri(session_dir.parents[1])


@pytest.fixture
def client(uri):
    import mlflow

    return mlflow.MlflowClient(uri, uri)


def result(**changes) -> SessionResult:
    return session_result(None, **({"decisions": DECISIONS, "trials": ()} | changes))


def recorded_trace(client, session_dir: Path, uri: str, told: SessionResult | None = None):
    reference = record(told or result(), session_dir=session_dir, tracking_uri=uri, example={"x": BATCH})
    return client.get_trace(client.get_run(reference.run_id).data.tags[facts.TRACE_TAG])


def all_traces(client) -> list:
    return list(client.search_traces(locations=[e.experiment_id for e in client.search_experiments()]))


def outline(trace) -> list[str]:
    """Return the tree, a line for each span."""
    depth: dict[str, int] = {}
    lines = []
    for span in trace.data.spans:
        depth[span.span_id] = depth.get(span.parent_id, -1) + 1
        lines.append(f"{'  ' * depth[span.span_id]}{span.name} {span.span_type}")
    return lines


def seconds(span) -> tuple[float, float]:
    began = nanoseconds(at(0))
    return (round((span.start_time_ns - began) / 1e9, 3), round((span.end_time_ns - began) / 1e9, 3))


# --- what it tells ---------------------------------------------------------------------------------------------


def test_a_session_is_a_tree_of_nodes_and_of_what_each_of_them_asked(client, session_dir, uri):
    trace = recorded_trace(client, session_dir, uri)
    assert outline(trace) == [
        "digits MET 4.00x 20260102-0304 AGENT",
        "  load the workload TASK",
        "  profiler CHAIN",
        "    trial: eager fp32 TOOL",
        "  planner CHAIN",
        "    advice CHAT_MODEL",
        "  runtime_evaluation CHAIN",
        "    trial: openvino fp32 streams=2 TOOL",
        "    build: openvino fp32 streams=2 TOOL",
        "  report CHAIN",
        "    advice CHAT_MODEL",
    ]
    spans = trace.data.spans
    assert spans[0].inputs["objective"] == {"minimize": "cost", "p99_ms": 20.0, "max_accuracy_drop": 0.01}
    assert spans[0].inputs["workload"] == "digits"
    assert spans[0].outputs == {"verdict": "MET", "summary": "4 times cheaper."}
    assert spans[6].inputs == {"question": "What of runtime_evaluation?", "options": 1}
    assert spans[6].outputs == {
        "chosen": "openvino fp32",
        "reason": "it is the first",
        "rule": "the first",
        "by": "policy",
    }
    assert spans[2].get_attribute("infertune.decision") == "d01"
    assert spans[2].get_attribute("infertune.evidence") == [FOUND["eager"].id]


def test_times_are_those_of_the_journal_and_of_the_evidence(client, session_dir, uri):
    trace = recorded_trace(client, session_dir, uri)
    assert [seconds(span) for span in trace.data.spans] == [
        (0.0, 21.5),
        (0.0, 5.0),
        (5.0, 9.5),
        (6.4, 9.4),
        (9.5, 12.5),
        (10.9, 12.4),
        (12.5, 15.6),
        (12.6, 12.6),  # found, and not measured
        (13.5, 15.5),
        (15.6, 21.5),
        (19.4, 21.4),
    ]
    assert (trace.info.request_time, trace.info.execution_duration) == (nanoseconds(at(0)) // 10**6, 21_500)


def test_no_span_reaches_out_of_the_one_above(client, session_dir, uri):
    long = measured(EAGER, 3600.0, 9.4)  # longer than its node: it was begun before the session was killed
    EvidenceStore(session_dir.parents[1] / EVIDENCE).put(long)
    entry = {"id": long.id, "question": long.question, "kind": "trial", "recipe": "eager fp32"}
    write_journal(session_dir, [*STORY[:3], (9.45, "evidence", entry), *STORY[3:]])
    trace = recorded_trace(client, session_dir, uri)
    by_id = {span.span_id: span for span in trace.data.spans}
    for span in trace.data.spans:
        above = by_id.get(span.parent_id, span)
        assert above.start_time_ns <= span.start_time_ns <= span.end_time_ns <= above.end_time_ns


def test_a_measurement_says_what_it_found_and_whether_it_was_measured_now(client, session_dir, uri):
    spans = recorded_trace(client, session_dir, uri).data.spans
    eager, cached, out_of_memory = spans[3], spans[7], spans[8]
    assert eager.inputs == {"kind": "trial", "recipe": "eager fp32", "steps": [], "parameters": {"threads": 2}}
    assert eager.outputs["outcome"] == "measured"
    assert "p50 3.00 ms" in eager.outputs["found"]
    assert eager.get_attribute("infertune.evidence") == FOUND["eager"].id
    assert (eager.get_attribute("infertune.cached"), eager.get_attribute("infertune.seconds")) == (False, 3.0)
    assert (cached.get_attribute("infertune.cached"), cached.get_attribute("infertune.seconds")) == (True, 7.0)
    assert cached.get_attribute("infertune.measured_by") == "an-earlier-one"
    assert (eager.status.status_code.value, out_of_memory.status.status_code.value) == ("OK", "ERROR")
    assert "ran out of memory (it may take 100 MB)" in out_of_memory.status.description


def test_what_a_model_was_asked_is_a_conversation_with_its_tokens(client, session_dir, uri):
    trace = recorded_trace(client, session_dir, uri)
    advice, wording = (span for span in trace.data.spans if span.span_type == "CHAT_MODEL")
    assert advice.inputs["messages"] == [{"role": "user", "content": "Which?\n1. a\n2. b"}]
    assert advice.outputs["choices"][0]["message"] == {"role": "assistant", "content": "2"}
    assert advice.model_name == "tiny at 127.0.0.1"
    assert advice.get_attribute("mlflow.chat.tokenUsage") == {
        "input_tokens": 120,
        "output_tokens": 7,
        "total_tokens": 127,
    }
    assert (
        advice.get_attribute("infertune.tokens_estimated"),
        wording.get_attribute("infertune.tokens_estimated"),
    ) == (
        False,
        True,
    )
    assert trace.info.token_usage == {"input_tokens": 420, "output_tokens": 37, "total_tokens": 457}


def test_it_is_found_by_its_run_and_by_its_tags(client, session_dir, uri):
    trace = recorded_trace(client, session_dir, uri)
    (run,) = active_runs(client)
    place = [run.info.experiment_id]
    for found in (
        client.search_traces(locations=place, run_id=run.info.run_id),
        client.search_traces(locations=place, filter_string="tags.`infertune.verdict` = 'MET'"),
        client.search_traces(locations=place, filter_string=f"tags.`infertune.session` = '{SESSION}'"),
    ):
        assert [t.info.trace_id for t in found] == [trace.info.trace_id]
    assert trace.info.request_preview.startswith("digits: lowest cost, p99 at most 20.0 ms")
    assert trace.info.response_preview == "MET: 4 times cheaper."


def test_it_holds_no_secret(client, session_dir, uri):
    assert SECRET not in recorded_trace(client, session_dir, uri).to_json()


# --- what is missing -------------------------------------------------------------------------------------------


def test_evidence_that_is_gone_leaves_a_span_without_details(client, session_dir, uri):
    (session_dir.parents[1] / EVIDENCE).unlink()
    whole = recorded_trace(client, session_dir, uri)
    assert len(whole.data.spans) == 11
    eager = whole.data.spans[3]
    assert (eager.name, eager.inputs, eager.outputs) == (
        "trial: eager fp32",
        {"kind": "trial", "recipe": "eager fp32"},
        None,
    )
    assert seconds(eager) == (9.4, 9.4)
    assert not (session_dir.parents[1] / EVIDENCE).exists()


@pytest.mark.parametrize("content", [None, "no journal\n"])
def test_without_a_journal_the_nodes_are_there_without_their_times(client, session_dir, uri, content):
    journal = session_dir / "journal.jsonl"
    journal.unlink()
    if content is not None:
        journal.write_text(content)
    assert outline(recorded_trace(client, session_dir, uri))[1:] == [
        "  profiler CHAIN",
        "  planner CHAIN",
        "  runtime_evaluation CHAIN",
    ]


def test_what_was_measured_after_the_last_node_is_told_too(client, session_dir, uri):
    write_journal(session_dir, [entry for entry in STORY if entry[1] not in ("result", "decision")])
    whole = outline(recorded_trace(client, session_dir, uri, result(decisions=())))
    assert whole[1:] == [
        "  load the workload TASK",
        "  trial: eager fp32 TOOL",
        "  advice CHAT_MODEL",
        "  trial: openvino fp32 streams=2 TOOL",
        "  build: openvino fp32 streams=2 TOOL",
        "  advice CHAT_MODEL",
    ]


def test_a_store_of_evidence_that_is_none_costs_details_only(client, session_dir, uri):
    (session_dir.parents[1] / EVIDENCE).write_bytes(b"this is no database, and long enough to be taken for one" * 50)
    assert len(recorded_trace(client, session_dir, uri).data.spans) == 11


def test_what_was_decided_while_it_was_stopped_is_not_told(client, session_dir, uri):
    provisional = DECISIONS[2].model_copy(update={"chosen": "none", "reason": "it was stopped"})
    story = [
        *STORY[:6],
        (12.7, "interrupted", {"decisions": 2}),
        (12.8, "decision", provisional.model_dump(mode="json")),
        (3600.0, "resumed", {"evidence": 2, "decisions": 2}),
        *((second + 3600, kind, payload) for second, kind, payload in STORY[6:]),
    ]
    write_journal(session_dir, story)
    spans = recorded_trace(client, session_dir, uri).data.spans
    told = [(span.name, seconds(span)) for span in spans if span.span_type == "CHAIN"]
    assert told[1:3] == [("planner", (9.5, 12.5)), ("runtime_evaluation", (3600.0, 3615.6))]
    assert [span.outputs["chosen"] for span in spans if span.name == "runtime_evaluation"] == ["openvino fp32"]


# --- exactly once ----------------------------------------------------------------------------------------------


def test_recording_twice_leaves_one_trace(client, session_dir, uri):
    first, second = (recorded_trace(client, session_dir, uri) for _ in range(2))
    assert first.to_dict() == second.to_dict()
    assert len(all_traces(client)) == 1


def test_a_session_that_ended_anew_has_the_new_trace_only(client, session_dir, uri):
    recorded_trace(client, session_dir, uri, result(verdict=Verdict.INTERRUPTED))
    trace = recorded_trace(client, session_dir, uri)
    assert [t.info.trace_id for t in all_traces(client)] == [trace.info.trace_id]
    assert trace.info.tags["infertune.verdict"] == "MET"


def test_a_run_that_has_no_trace_yet_gets_one(client, session_dir, uri):
    trace = recorded_trace(client, session_dir, uri)
    (run,) = active_runs(client)
    client.delete_tag(run.info.run_id, facts.TRACE_TAG)  # as an earlier version left it
    client.delete_traces(run.info.experiment_id, trace_ids=[trace.info.trace_id])
    again = recorded_trace(client, session_dir, uri)
    assert again.to_dict() == trace.to_dict()
    assert [r.info.run_id for r in active_runs(client)] == [run.info.run_id]


_KILLED = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine
from tools.tracking import record, read_result
def kill(_connection, _cursor, statement, *_):
    if sys.argv[3] in statement:
        os.kill(os.getpid(), signal.SIGKILL)
event.listen(Engine, "before_cursor_execute", kill)
folder = Path(sys.argv[1])
record(read_result(folder / "result.json"), session_dir=folder, tracking_uri=sys.argv[2], example={"x": [[1.0]]})
"""


@pytest.mark.parametrize("statement", ["INSERT INTO spans", "INSERT INTO trace_request_metadata"])
def test_a_recording_that_was_killed_within_its_trace_is_completed_by_the_next(client, session_dir, uri, statement):
    (session_dir / "result.json").write_text(result().model_dump_json())
    command = [sys.executable, "-c", _KILLED, str(session_dir), uri, statement]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    trace = recorded_trace(client, session_dir, uri)
    assert len(trace.data.spans) == 11
    assert [t.info.trace_id for t in all_traces(client)] == [trace.info.trace_id]
    assert len(active_runs(client)) == 1


def test_a_store_that_takes_no_traces_has_the_run_and_a_note(session_dir, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (session_dir.parents[1] / "mlruns").as_uri()
    reference = record(result(), session_dir=session_dir, tracking_uri=uri, example={"x": BATCH})
    tags = mlflow.MlflowClient(uri, uri).get_run(reference.run_id).data.tags
    assert tags[facts.COMPLETE_TAG] == "true"
    assert facts.TRACE_TAG not in tags
    assert tags[facts.TRACE_NOTE_TAG].startswith("NotImplementedError")
