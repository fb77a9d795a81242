"""Chats as traces in a real MLflow store on SQLite, from conversations with a scripted model."""

# ruff: noqa: F811  # a fixture that is imported, and then asked for by name

from __future__ import annotations

import contextlib
import itertools
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from chat_support import KEY, RICH, home_with_sessions, talk
from openai_server import OpenAIServer, calls, fails, says
from tracking_support import (  # noqa: F401
    WARNINGS,
    empty_store,
    no_tracking_uri_from_outside,
)

from agent.chat import traces
from agent.chat.history import opened
from agent.chat.traces import start_tracing, trace_thread
from tools.errors import StorageError
from tools.lock import BusyError, held
from tools.tracking import TrackingError, default_tracking_uri

pytestmark = WARNINGS

SCRIPT = [
    calls(("show_result", {"session": RICH})),
    says("It is 29.9x cheaper."),
    calls(("explain", {"decision": "d02"}), ("show_plans", {})),
    says("It is 77.7x better."),
    says("There are no plans."),
]


@pytest.fixture(autouse=True)
def a_key_in_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def home(tmp_path, empty_store) -> Path:
    home = home_with_sessions(tmp_path)
    shutil.copyfile(empty_store, home / "mlflow.db")
    return home


@pytest.fixture
def talked(home) -> Path:
    """A home with a thread of two turns."""
    with OpenAIServer(SCRIPT) as server:
        talk(home, server, "How did it end?", "Why?", "quit")
    return home


def client_of(home: Path):
    import mlflow

    uri = default_tracking_uri(home)
    return mlflow.MlflowClient(uri, uri)


def experiment(home: Path):
    return client_of(home).get_experiment_by_name("infertune/chat")


def written(home: Path) -> list:
    """Return the traces of all chats, the first turn first."""
    there = experiment(home)
    if there is None:
        return []
    order = ["attributes.timestamp_ms ASC"]
    return list(client_of(home).search_traces(locations=[there.experiment_id], order_by=order))


def outline(trace) -> list[str]:
    return [f"{span.name} {span.span_type}" for span in trace.data.spans]


def test_each_turn_is_a_trace_of_what_the_model_and_the_tools_did(talked):
    assert trace_thread(talked, "t") == 2
    first, second = written(talked)
    assert outline(first) == ["chat t AGENT", "model CHAT_MODEL", "show_result TOOL", "model CHAT_MODEL"]
    assert outline(second) == [
        "chat t AGENT",
        "model CHAT_MODEL",
        "explain TOOL",
        "show_plans TOOL",
        "model CHAT_MODEL",
        "check CHAIN",
        "model CHAT_MODEL",
    ]
    assert (second.info.request_preview, second.info.response_preview) == ("Why?", "There are no plans.")
    tool = second.data.spans[2]
    assert tool.inputs == {"decision": "d02"}
    assert tool.outputs["answer"]["decisions"][0]["decision"] == "d02"
    assert "77.7x" in second.data.spans[5].outputs["told the model"]


def test_the_model_s_part_is_a_conversation_with_its_tokens(talked):
    trace_thread(talked, "t")
    first, second = written(talked)
    asked, _, answered = first.data.spans[1:]
    assert asked.inputs == {"messages": [{"role": "user", "content": "How did it end?"}]}
    (call,) = asked.outputs["choices"][0]["message"]["tool_calls"]
    assert call["function"] == {"name": "show_result", "arguments": f'{{"session": "{RICH}"}}'}
    assert [m["role"] for m in answered.inputs["messages"]] == ["user", "assistant", "tool"]
    assert answered.outputs["choices"][0]["message"] == {"role": "assistant", "content": "It is 29.9x cheaper."}
    assert asked.get_attribute("mlflow.chat.tokenUsage")["input_tokens"] == 100  # as the endpoint counts them
    assert first.info.token_usage["input_tokens"] == 200
    assert first.data.spans[0].get_attribute("infertune.probing_tokens") == 101
    assert second.data.spans[0].get_attribute("infertune.earlier_messages") == 4


def test_times_are_those_of_the_steps_and_nest(talked):
    trace_thread(talked, "t")
    for trace in written(talked):
        root, *parts = trace.data.spans
        assert all(part.parent_id == root.span_id for part in parts)
        assert all(root.start_time_ns < part.start_time_ns < part.end_time_ns <= root.end_time_ns for part in parts)
        models = [part for part in parts if part.span_type == "CHAT_MODEL"]
        assert all(a.end_time_ns <= b.start_time_ns for a, b in itertools.pairwise(models))


def test_the_turns_of_a_thread_are_one_conversation(talked):
    trace_thread(talked, "t")
    sessions = {trace.info.trace_metadata["mlflow.trace.session"] for trace in written(talked)}
    assert len(sessions) == 1
    assert sessions.pop().startswith("t-")
    assert {trace.info.tags["infertune.thread"] for trace in written(talked)} == {"t"}


def test_no_key_is_in_a_trace(talked):
    trace_thread(talked, "t")
    assert not any(KEY in trace.to_json() for trace in written(talked))


def test_only_turns_that_are_not_there_yet_are_written(talked):
    assert (trace_thread(talked, "t"), trace_thread(talked, "t")) == (2, 0)
    with OpenAIServer([says("Nothing else.")]) as server:
        talk(talked, server, "And else?", "quit")
    assert trace_thread(talked, "t") == 1
    assert [trace.info.request_preview for trace in written(talked)] == ["How did it end?", "Why?", "And else?"]


def test_a_turn_that_went_on_is_written_anew(talked):
    whole = (talked / "chat.db").read_bytes()
    with contextlib.closing(sqlite3.connect(talked / "chat.db")) as connection, connection:
        ids = [row[0] for row in connection.execute("SELECT checkpoint_id FROM checkpoints ORDER BY checkpoint_id")]
        connection.execute("DELETE FROM checkpoints WHERE checkpoint_id > ?", (ids[-4],))  # as if it was killed there
    assert trace_thread(talked, "t") == 2
    assert len(written(talked)[1].data.spans) < 7
    (talked / "chat.db").write_bytes(whole)
    assert trace_thread(talked, "t") == 1
    assert [len(trace.data.spans) for trace in written(talked)] == [4, 7]


def test_a_model_that_fails_is_a_turn_with_an_error(home):
    with OpenAIServer([fails(401)]) as server:
        talk(home, server, "How did it end?", "quit")
    assert trace_thread(home, "t") == 1
    (trace,) = written(home)
    assert [span.status.status_code.value for span in trace.data.spans] == ["ERROR", "ERROR"]
    assert "refuses the key" in trace.data.spans[1].status.description
    assert trace.info.state.value == "ERROR"


def test_a_chat_that_is_open_does_not_mind(talked):
    with opened(talked, "t"):
        assert trace_thread(talked, "t") == 2


def test_two_processes_do_not_write_the_same_turns(talked):
    with held(talked / "chat" / "t.traces.lock", busy="taken."), pytest.raises(BusyError, match="right now"):
        trace_thread(talked, "t")


def test_there_is_nothing_to_write_of_a_thread_in_which_nobody_spoke(talked):
    assert trace_thread(talked, "other") == 0
    assert written(talked) == []


@pytest.mark.parametrize("content", [None, b"this is no database, and long enough to be taken for one" * 50])
def test_a_history_that_cannot_be_read_is_said_in_a_sentence(talked, content):
    for file in talked.glob("chat.db*"):
        file.unlink()
    if content is not None:
        (talked / "chat.db").write_bytes(content)
    with pytest.raises(StorageError, match="history of chats cannot be read"):
        trace_thread(talked, "t")


def test_a_server_that_is_away_is_said_in_a_sentence(talked, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match="the chat could not be recorded in MLflow"):
        trace_thread(talked, "t", "http://127.0.0.1:9")


def test_it_is_written_in_the_background_when_the_person_has_left(talked):
    start_tracing(talked, "t")
    assert traces._STARTED[-1].wait(60) == 0
    assert len(written(talked)) == 2
    log = (talked / "chat" / "t.traces.log").read_text()
    assert "2 turns of t were written" in log
    assert KEY not in log


def test_in_the_background_nothing_goes_wrong_for_the_person(tmp_path):
    start_tracing(tmp_path / "no home", "t")  # there is not even a place for its log
    (tmp_path / "chat").mkdir()
    start_tracing(tmp_path, "t")
    assert traces._STARTED[-1].wait(60) == 2
    log = (tmp_path / "chat" / "t.traces.log").read_text()
    assert "the history of chats cannot be read" in log
    assert "Traceback" not in log


def test_asking_for_it_does_not_import_mlflow():
    code = "import sys, agent.chat.traces; sys.exit('mlflow' in sys.modules or 'langgraph' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=Path(__file__).parents[1], check=False).returncode == 0
