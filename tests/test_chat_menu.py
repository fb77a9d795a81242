"""The chat without a model: the whole job by the menu, and what is kept of it."""

import json

import pytest
from chat_support import RICH, Typist, home_with_sessions, offer_plan, talk
from openai_server import Answer, OpenAIServer, says
from recorded_support import ID, write_session
from sample_result import sample_result
from typer.testing import CliRunner

from agent.chat.answers import Surroundings
from agent.chat.follow import describe
from agent.chat.loop import converse
from agent.chat.menu import Menu, number_of
from agent.chat.tools import TOOLS
from agent.cli_chat import app
from tools.cluster.store import PlanStore
from tools.errors import InfertuneError
from tools.journal import Journal
from tools.record import JOURNAL


@pytest.fixture
def infertune(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "INFERTUNE_MODEL"):
        monkeypatch.delenv(name, raising=False)
    return lambda *arguments, **settings: CliRunner().invoke(app, [str(a) for a in arguments], **settings)


def steps(*lines):
    """The lines, with the names of tools as their numbers."""
    return [str(number_of(line)) if line in TOOLS else line for line in lines]


def by_menu(home, *lines, session=None):
    typist = Typist(*steps(*lines))
    kept = []
    more = Menu(
        Surroundings(home, session=session), typist.read, typist.terminal.say, lambda *asked: kept.append(asked)
    ).run()
    return typist.seen, kept, more


def test_every_tool_is_in_the_menu_but_the_list_that_starting_shows():
    found = {number_of(name) for name in TOOLS if name != "list_workloads"}
    assert found == set(range(1, len(TOOLS)))


def test_from_a_pipe_the_menu_tells_what_a_model_would(infertune, tmp_path):
    home = home_with_sessions(tmp_path)
    plan = offer_plan(home)
    lines = steps(
        *("list_sessions", RICH, "show_result", "list_sessions", "1", "explain", "2", ""),
        *("what_if", "10", "", "", "yes", "", "", "latency", ""),
        *("show_plans", "request_approval", "q"),
    )
    answer = infertune("--home", home, input="\n".join([*lines, ""]))
    assert answer.exit_code == 0, answer.output
    assert answer.output.startswith("No model is configured (set OPENAI_API_KEY or OPENAI_BASE_URL, and ")
    for told in (
        "requests for the money: 29.9x [29.3, 30.5]",
        "2. Which batch size? openvino int8-static at batch 8",
        "decided by: policy",
        "asked: lowest latency, p99 at most 10.0 ms",
        f"plan: {plan.digest}",
        f"infertune plan approve --by YOUR-NAME {plan.digest}",
    ):
        assert told in answer.output
    assert "<data>" not in answer.output
    assert PlanStore(home).state(plan.digest) == "proposed"


def test_the_session_is_chosen_once_and_all_questions_are_about_it(tmp_path):
    home = home_with_sessions(tmp_path)
    seen, kept, _ = by_menu(home, "list_sessions", "1", "watch_session", "list_sessions", "2", "show_result", "menu")
    assert [arguments for _, arguments, _ in kept] == [{"session": ID}, {"session": RICH}]
    assert f"About session {RICH}." in seen


def test_without_sessions_the_menu_says_how_to_start_one(tmp_path):
    seen, kept, _ = by_menu(tmp_path / "home", "show_result", "explain", "watch_session")
    assert seen.count("There are no sessions yet: 1 starts one.") == 4
    assert kept == []


def test_what_is_typed_wrong_is_asked_again_and_the_end_of_the_input_leaves(tmp_path):
    home = home_with_sessions(tmp_path)
    lines = ("0", "99", "-1", "eins", "", "what_if", "fast", "nan", "-3", "5", "", "", "y", "", "", "beauty", "size")
    seen, _, more = by_menu(home, *lines, session=ID)
    assert not more
    assert seen.count("no number from 1 to") == 4
    assert seen.count("valid number") + seen.count("greater than 0") >= 2
    assert "(cost, latency, size)" in seen
    assert "Input should be 'cost', 'latency' or 'size'" in seen


def test_a_person_says_no_to_a_start_and_nothing_starts(tmp_path):
    home = tmp_path / "home"
    seen, kept, _ = by_menu(home, "start_session", "digits-tiny", "60", "1", "no")
    assert "Start optimizing digits-tiny on this machine, for 60 s, of at most 1 trials? [yes]: no" in seen
    assert "Nothing was done" in seen
    assert [tool for tool, _, _ in kept] == ["start_session"]
    assert not (home / "chat" / "starts").exists()


def test_of_several_plans_and_sessions_two_are_chosen_by_number(tmp_path):
    home = home_with_sessions(tmp_path)
    for name in ("20261123-000000-beef", "20261124-000000-cafe"):
        folder = home / "sessions" / name
        folder.mkdir()
        (folder / "result.json").write_text(sample_result(session=name).model_dump_json())
    first, second = offer_plan(home), offer_plan(home, most=9)
    lines = ("compare_sessions", "1", "9", "3", "show_plans", "1", "show_plans", "", "request_approval", "1")
    seen, kept, _ = by_menu(home, *lines)
    assert "Choose a number from 1 to 3." in seen
    assert kept[0][1] == {"first": RICH, "second": "20261124-000000-cafe"}
    listed = sorted((first.digest, second.digest), key=lambda digest: seen.index(f"{digest}  proposed"))
    assert [asked["plan"] for _, asked, _ in kept[1:]] == [listed[0], listed[1], listed[0]]


def test_ctrl_c_within_a_step_leads_back_to_the_menu(tmp_path):
    home = home_with_sessions(tmp_path)

    def interrupt():
        raise KeyboardInterrupt

    typist = Typist(*steps("what_if", interrupt, "show_result", "q"))
    assert Menu(Surroundings(home), typist.read, typist.terminal.say).run()
    assert "Back in the menu." in typist.seen
    assert f"session: {RICH}" in typist.seen


def test_a_journal_is_told_in_lines_of_what_was_measured_and_decided(tmp_path):
    folder = write_session(tmp_path / "home")
    told = [line for line in map(describe, Journal(folder / JOURNAL).read()) if line]
    assert any(line.endswith("trial of openvino int8-static") for line in told)
    assert any(line.endswith("d02: Which batch size? openvino int8-static at batch 8") for line in told)


# --- what is kept -------------------------------------------------------------------------------------------------


def test_the_menu_keeps_its_history_and_a_model_that_takes_over_knows_it(tmp_path):
    home = home_with_sessions(tmp_path)
    for greeting in ("", "Thread t goes on; questions so far: 1."):
        typist = Typist(*steps("show_result", "q"))
        converse(Surroundings(home, session=RICH), "t", None, typist.terminal, limit_tokens=1)
        assert greeting in typist.seen
    with OpenAIServer([says("As the menu said: 29.9x the requests for the money.")]) as server:
        seen = talk(home, server, "and?")
        sent = server.requests[0]["messages"]
    assert [message["role"] for message in sent] == ["system", *["user", "assistant", "tool"] * 2, "user"]
    assert json.loads(sent[3]["content"])["answer"]["session"] == RICH
    assert "29.9x the requests for the money." in seen
    assert "not from a tool" not in seen


def test_what_was_asked_by_the_menu_within_a_chat_is_known_to_the_model(tmp_path):
    home = home_with_sessions(tmp_path)
    with OpenAIServer([says("It was 29.9x.")]) as server:
        seen = talk(home, server, *steps("menu", "show_result", "q", "so?"), session=RICH)
    assert "It was 29.9x." in seen
    assert "not from a tool" not in seen


def test_a_model_that_can_do_nothing_leaves_the_menu(tmp_path):
    home = home_with_sessions(tmp_path)
    with OpenAIServer(native=False, json_mode=False, numbers=False) as server:
        seen = talk(home, server, *steps("show_result", "q"), session=RICH)
    assert "no model to talk to" in seen
    assert f"session: {RICH}" in seen


def test_the_menu_ends_a_turn_that_was_cut_off(tmp_path):
    home = home_with_sessions(tmp_path)
    with OpenAIServer([Answer(raw=b"")]) as server:
        talk(home, server, "hi", *steps("menu", "show_result", "q"), session=RICH)
    with OpenAIServer([says("Hello.")]) as server:
        seen = talk(home, server, "hi again")
    assert "cut off" not in seen
    assert "Hello." in seen


def test_a_thread_that_a_chat_has_open_is_refused_to_the_menu_and_another_is_not(tmp_path):
    home = home_with_sessions(tmp_path)
    with OpenAIServer([says("Hello.")]) as server:

        def menu():
            typist = Typist("q")
            with pytest.raises(InfertuneError, match="another chat has the thread t open"):
                converse(Surroundings(home), "t", None, typist.terminal, limit_tokens=1)
            converse(Surroundings(home), "other", None, typist.terminal, limit_tokens=1)
            assert "About session" in typist.seen
            return "hi"

        assert "Hello." in talk(home, server, menu)
