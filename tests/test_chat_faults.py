"""A chat when things go wrong: each fault is a sentence, and the conversation goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from chat_support import KEY, home_with_sessions, returned, talk
from openai_server import Answer, OpenAIServer, calls, fails, says
from recorded_support import ID

from agent.chat import background
from agent.chat.answers import Surroundings
from agent.chat.graph import MOST_CALLS, MOST_ROUNDS
from agent.chat.ladder import CONTEXT, json_in, number_in, recent_part
from agent.chat.tools import call
from agent.sessions import folders
from tools.journal import Journal
from tools.record import JOURNAL

CHILD = Path(__file__).parent / "chat_child.py"
ROOT = Path(__file__).parents[1]
SLEEPING = """\
import time
import torch

def build():
    return torch.nn.Linear(4, 3)

def data():
    time.sleep(600)
"""
SPEC = """\
workload:
  name: sleeping
  model: {factory: "user.py:build"}
  evaluation: {factory: "user.py:data"}
hardware: {price_per_hour_usd: 0.1}
"""


@pytest.fixture
def home(tmp_path):
    return home_with_sessions(tmp_path)


# --- the endpoint -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (fails(429, "slow down", retry_after=1000), "takes no more requests for now, and asks to wait 1000 s"),
        (fails(401, f"Incorrect API key provided: {KEY}"), "refuses the key. Check OPENAI_API_KEY"),
        (fails(404, "no such model"), "knows no such model"),
        (fails(400, f"bad {KEY} \x1b[31m"), "answers with 400"),
        (says("It is about to", cut=True), "cannot be reached, or broke off"),
        (Answer(raw=b"<html>wrong place</html>"), "no answer"),
        (Answer(raw=b'data: {"choices": null}\n\ndata: [DONE]\n\n'), "broke off"),
        (Answer(raw=b"data: {broken\n\n"), "no answer"),
        (Answer(raw=b'data: {"choices": [{"index": 0, "delta": {"tool_calls": 5}}]}\n\n'), "no answer"),
        (Answer(raw=b""), "no answer"),
        (says(""), "answered with nothing"),
    ],
    ids=["429", "401", "404", "400", "cut", "html", "null", "broken", "type", "empty body", "empty"],
)
def test_a_fault_of_the_endpoint_is_a_sentence_and_the_next_question_is_answered(home, fault, told):
    with OpenAIServer([fault, says("Here I am again.")]) as server:
        seen = talk(home, server, "hi", "and now?", retries=0)
    assert told in seen
    assert "Here I am again." in seen
    assert KEY not in seen
    assert "\x1b" not in seen
    assert "Traceback" not in seen


def test_a_short_wait_that_is_asked_for_is_kept_and_nothing_is_told(home):
    with OpenAIServer([fails(429, "slow down", retry_after=0.01), says("Now.")]) as server:
        seen = talk(home, server, "hi")
    assert "Now." in seen
    assert "no more requests" not in seen


def test_an_endpoint_that_says_nothing_is_given_up(home):
    with OpenAIServer([Answer(hang=True), says("Back.")]) as server:
        seen = talk(home, server, "hi", "still there?", timeout_s=0.3, retries=0)
    assert "did not answer within 0.3 s" in seen
    assert "Back." in seen


def test_an_endpoint_that_is_gone_leaves_the_menu(home):
    server = OpenAIServer()
    server._http.server_close()
    seen = talk(home, server, "11", "", "q", retries=0)
    assert "cannot be reached" in seen
    assert f"1. {ID}" in seen


def test_a_server_that_fails_on_tools_and_on_json_is_asked_by_number(home):
    with OpenAIServer([says("7")]) as server:

        def ability(request):
            return (
                fails(500, "tools need --jinja")
                if request.get("tools") or request.get("response_format")
                else says("1")
            )

        server._ability = ability
        seen = talk(home, server, "what is there?", retries=0)
    assert "a numbered menu" in seen
    assert f"session: {ID}" in seen


def test_what_acts_on_a_terminal_does_not_get_through(home):
    with OpenAIServer([says("red \x1b[J alert \u202e\x07 done\nnext")]) as server:
        seen = talk(home, server, "hi")
    assert "\x1b" not in seen
    assert "\u202e" not in seen
    assert "\x07" not in seen
    assert "done\nnext" in seen


def test_half_a_character_is_no_harm(home):
    with OpenAIServer([says("half \ud800 of it"), says("Whole.")]) as server:
        seen = talk(home, server, "and \udcff?", "next")
    assert "half" in seen
    assert "Whole." in seen


def test_an_answer_that_never_ends_is_cut(home):
    with OpenAIServer([says("blah " * 20_000, piece=5_000), says("Sorry.")]) as server:
        seen = talk(home, server, "hi", "again")
    assert len(seen) < 60_000
    assert "Sorry." in seen


# --- the model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (("explain", '{"decision": "d0'), "valid dictionary"),
        (("explain", '["d02"]'), "valid dictionary"),
        (("explain", {"decison": "d02"}), "decison: Extra inputs"),
        (("explain", {"decision": "d99"}), "no decision"),
        (("explain", {"decision": {"$ne": 1}}), "decision: Input should be a valid string"),
        (("rm_rf", {"path": "/"}), "no tool of that name"),
        (("what_if", {"p99_ms": -1}), "p99_ms: Input should be greater than 0"),
        (("what_if", '{"p99_ms": NaN}'), "p99_ms: Input should be"),
        (("what_if", {"p99_ms": 1e300}), "p99_ms: Input should be less than"),
        (("what_if", {"p99_ms": 10**30}), "p99_ms: Input should be less than"),
        (("what_if", {"nothing": 10**400}), "nothing: Extra inputs"),
        (("explain", '{"decision": "\\ud800"}'), "no decision '?'"),
        (("expl\ud800ain", {}), "no tool of that name"),
        (("what_if", {}), "nothing is changed"),
        (("what_if", {"minimize": "beauty"}), "minimize: Input should be"),
        (("start_session", {"workload": "digits-tiny", "time_budget_s": 1e9}), "time_budget_s: Input should be less"),
    ],
)
def test_wrong_arguments_are_answered_with_what_is_wrong(home, wrong, problem):
    with OpenAIServer([calls(wrong), says("I see.")]) as server:
        seen = talk(home, server, "hi")
        (answer,) = returned(server)
    assert problem in answer["problem"]
    assert "I see." in seen


def test_tools_that_are_asked_for_without_end_are_stopped(home):
    with OpenAIServer([calls(("list_sessions", {}))] * 50) as server:
        seen = talk(home, server, "hi")
        assert len(server.requests) == MOST_ROUNDS + 1
        assert "tools" not in server.requests[-1]
    assert "keeps asking for tools" in seen


def test_of_many_calls_at_once_only_some_are_answered_and_the_conversation_stays_valid(home):
    with OpenAIServer([calls(*[("list_sessions", {})] * 12), says("Many.")]) as server:
        seen = talk(home, server, "hi")
        sent = server.requests[-1]["messages"]
    asked = [c["id"] for m in sent for c in m.get("tool_calls", ())]
    answered = {m["tool_call_id"]: m["content"] for m in sent if m["role"] == "tool"}
    assert answered.keys() == set(asked)
    assert sum("cut off" in content for content in answered.values()) == 12 - MOST_CALLS
    assert "Many." in seen


@pytest.mark.parametrize(
    "said", ["prose, no JSON", '{"tool": 5}', '{"say": {"a": 1}}', "[1, 2]", "{" * 5000, '{"say": "cut of']
)
def test_broken_json_is_asked_again_and_then_taken_as_prose(home, said):
    with OpenAIServer(
        [says(said), says('{"say": "Better."}'), says(said), says("Still prose.")], native=False
    ) as server:
        seen = talk(home, server, "hi", "and?")
    assert "Better." in seen
    assert "Still prose." in seen


def test_another_language_is_just_an_answer_and_its_figures_are_checked(home):
    script = [
        calls(("explain", {"decision": "d02"})),
        says("Es dauert 12,0 ms; \u0437\u0430\u0434\u0435\u0440\u0436\u043a\u0430 10,3 ms."),
        says("Es ist 99,5x schneller."),
        says("Es ist 99,5x schneller."),
    ]
    with OpenAIServer(script) as server:
        seen = talk(home, server, "warum?", "und?")
    assert "Es dauert 12,0 ms; \u0437" in seen
    assert "~~99,5x~~ (not from a tool)" in seen


@pytest.mark.parametrize(
    ("text", "found"),
    [("2", 2), ("2.", 2), ("Number 2!", 2), ("1 or 2", None), ("0", None), ("12", None), ("p2", None), ("", None)],
)
def test_a_number_is_found_only_where_there_is_one(text, found):
    assert number_in(text, 9) == found


@pytest.mark.parametrize("text", ["", "{}x", "}{", "{a}", "[" * 100_000 + "{" * 100_000 + "}", '{"a": 1} {"b": 2}'])
def test_looking_for_json_never_fails(text):
    assert json_in(text) in (None, {})


def test_a_long_history_is_sent_in_part_from_a_question_on():
    messages = [
        {"role": role, "content": f"{place} " + "x" * 2000, "calls": []}
        for place in range(100)
        for role in ("user", "assistant")
    ]
    recent = recent_part(messages)
    assert recent[0]["role"] == "user"
    assert recent[-1] == messages[-1]
    assert 10 < len(recent) < 50
    assert len(json.dumps(recent)) <= CONTEXT * 1.1
    huge = [{"role": "user", "content": "x" * 10 * CONTEXT}]
    assert recent_part(huge) == huge


# --- interrupted, killed, resumed ---------------------------------------------------------------------------------


def test_ctrl_c_stops_an_answer_and_the_conversation_goes_on(home):
    with OpenAIServer([Answer(hang=True), says("Next.")]) as server:

        def interrupt():
            server.asked.wait(10)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        seen = talk(home, server, "hi", "and now?", timeout_s=20)
        thread.join()
    assert "You stopped it." in seen
    assert "Next." in seen


def _child(home, server, *lines, target=""):
    path = os.pathsep.join([str(ROOT), str(CHILD.parent)])
    return subprocess.Popen(
        [sys.executable, CHILD, home, server.url, "t", target, *lines],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
    )


def _until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_chat_killed_while_the_model_speaks_goes_on_with_its_question(home):
    with OpenAIServer([calls(("explain", {"session": ID, "decision": "d02"})), Answer(hang=True)]) as server:
        child = _child(home, server, "why?")
        _until(lambda: len(server.requests) == 2)
        child.kill()
        child.wait()
        server.script = [says("12.0 ms, see d02.")]
        seen = talk(home, server)
        roles = [message["role"] for message in server.requests[-1]["messages"]]
    assert "The last turn was cut off; it goes on." in seen
    assert "12.0 ms, see d02." in seen
    assert roles == ["system", "user", "assistant", "tool"]


def test_a_chat_killed_in_the_middle_of_starting_a_session_starts_no_second_one(tmp_path):
    home = tmp_path / "home"
    (tmp_path / "user.py").write_text(SLEEPING)
    spec = tmp_path / "tuning.yaml"
    spec.write_text(SPEC)
    notes = home / background.FOLDER
    with OpenAIServer([calls(("start_session", {"workload": "yours", "time_budget_s": 60}))]) as server:
        child = _child(home, server, "optimize it", "yes", target=str(spec))
        _until(lambda: any('"pid"' in note.read_text() for note in notes.glob("*.json")))
        child.kill()
        child.wait()
        server.script = [
            says("It runs."),
            calls(("start_session", {"workload": "yours"})),
            says("No."),
            calls(("watch_session", {}), ("stop_session", {}), ("stop_session", {})),
            says("Stopped."),
        ]
        (note,) = notes.glob("*.json")
        process = psutil.Process(json.loads(note.read_text())["pid"])
        try:
            seen = talk(home, server, "again!", "stop it", "yes", "yes", session=None, target=str(spec))
            started, again, watched, stopped, twice = returned(server)
            _until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
        finally:
            if process.is_running():
                process.kill()
    (folder,) = folders(home)
    assert "The last turn was cut off; it goes on." in seen
    assert started["answer"] == {"started": True, "session": folder.name}
    assert "still runs" in again["problem"]
    assert watched["answer"]["state"] == "running"
    assert stopped["answer"]["asked to stop"]
    assert twice["answer"]["asked to stop"]
    assert [entry.kind for entry in Journal(folder / JOURNAL).read()] == ["started", "interrupted"]


def test_a_session_that_cannot_start_is_told_with_its_own_words(tmp_path):
    at = Surroundings(tmp_path / "home", target=str(tmp_path / "gone.yaml"), confirm=lambda _: True)
    answer = json.loads(call(at, "start_session", {"workload": "yours"}, "x"))
    assert "did not start" in answer["problem"]
    assert "no such file" in answer["problem"]


def test_a_session_that_no_chat_started_is_not_stopped(home):
    answer = json.loads(call(Surroundings(home), "stop_session", {"session": ID}, "x"))
    assert "does not run" in answer["problem"]


def test_a_note_of_a_process_that_is_gone_stops_nobody_else(home):
    note = home / background.FOLDER / "0.json"
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps({"pid": os.getpid(), "created": 1.0, "session": ID}))  # our number, of another time
    assert not background.stop(home, ID)
    assert not background.is_running(home)


def test_a_history_that_is_no_database_is_named(home):
    (home / "chat.db").write_text("no database, whatever its name says" * 100)
    with OpenAIServer() as server, pytest.raises(Exception, match="history of chats cannot be used"):
        talk(home, server, "hi")
