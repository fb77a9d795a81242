"""What endpoints do that take less than OpenAI's, answer without end, or answer in JSON piece by piece."""

import json
import re
import time

import pytest
from chat_support import KEY, home_with_sessions, returned, talk
from hypothesis import given
from hypothesis import strategies as st
from openai_server import Answer, OpenAIServer, calls, fails, says
from recorded_support import ID

from agent.chat.guard import Known, unverified
from agent.chat.model import Endpoint, EndpointError, Settings
from agent.chat.said import Said

ASKED = [{"role": "user", "content": "hi"}]


@pytest.fixture
def home(tmp_path):
    return home_with_sessions(tmp_path)


def endpoint(server, **settings):
    return Endpoint(Settings("scripted", server.url, KEY, **{"timeout_s": 5.0, "retries": 0, **settings}))


# --- what an endpoint takes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refuses", "sent", "not_sent"),
    [
        ({"stream_options"}, {"max_completion_tokens", "temperature"}, {"max_tokens"}),
        ({"max_completion_tokens"}, {"max_tokens", "stream_options", "temperature"}, set()),
        ({"max_completion_tokens", "max_tokens"}, {"stream_options", "temperature"}, set()),
        ({"temperature"}, {"max_completion_tokens", "stream_options"}, {"max_tokens"}),
        ({"stream_options", "max_completion_tokens", "max_tokens", "temperature"}, {"messages"}, set()),
    ],
)
def test_a_parameter_that_an_endpoint_refuses_is_left_out_and_not_tried_again(refuses, sent, not_sent):
    with OpenAIServer([says("One."), says("Two.")], refuses=refuses) as server, endpoint(server) as asked:
        replies = [asked.ask(ASKED) for _ in range(2)]
        assert [reply.text for reply in replies] == ["One.", "Two."]
        assert all(reply.usage.estimated == ("stream_options" in refuses) for reply in replies)
        assert len(server.refused) == len(refuses)
        for request in server.requests:
            assert sent <= request.keys()
            assert not (refuses | not_sent) & request.keys()


def test_what_an_endpoint_takes_is_learnt_while_it_is_tried_out_and_the_chat_still_calls_tools(home):
    script = [calls(("explain", {"decision": "d02"})), says("12.0 ms, see d02.")]
    with OpenAIServer(script, refuses={"stream_options", "temperature"}) as server:
        seen = talk(home, server, "why?")
        assert len(server.refused) == 2
    assert "12.0 ms, see d02." in seen
    assert "partly estimated" in seen


def test_json_mode_and_the_older_name_of_a_parameter_go_together(home):
    with OpenAIServer([says('{"say": "Hello."}')], native=False, refuses={"max_completion_tokens"}) as server:
        assert "Hello." in talk(home, server, "hi")
        (request,) = server.requests
    assert request["response_format"] == {"type": "json_object"}
    assert request["max_tokens"] > 0


def test_a_refusal_that_names_nothing_that_can_be_left_out_is_told(home):
    with OpenAIServer([fails(400, "model is overloaded with wishes"), says("Now.")]) as server:
        seen = talk(home, server, "hi", "and now?")
        assert len(server.requests) == 2
    assert "it answers with 400: " in seen
    assert "Now." in seen


# --- slow, and without end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [says("o" * 10_000, piece=1, pause_s=0.02), Answer(comments=True, pause_s=0.02)],
    ids=["a character at a time", "comments only"],
)
def test_an_answer_that_dribbles_without_end_is_given_up(home, answer):
    with OpenAIServer([answer, says("Back.")]) as server:
        seen = talk(home, server, "hi", "and now?", longest_s=0.4, retries=0)
    assert "its answer took longer than 0.4 s" in seen
    assert "Back." in seen


def test_silence_in_the_middle_of_an_answer_is_given_up(home):
    with OpenAIServer([says("It is about to", piece=6, pause_s=0.8), says("Back.")]) as server:
        seen = talk(home, server, "hi", "and now?", timeout_s=0.3, retries=0)
    assert "did not answer within 0.3 s" in seen
    assert "Back." in seen


def test_arguments_without_end_are_cut(home):
    with OpenAIServer([calls(("explain", "9" * 200_000)), says("Back.")]) as server:
        seen = talk(home, server, "hi", "and now?")
    assert "Back." in seen


@pytest.mark.parametrize("wait", ["100000", "-1", "soon", "1e9", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_an_absurd_wait_is_not_kept(home, wait):
    with OpenAIServer([fails(429, retry_after=wait), fails(429, retry_after=wait), says("Now.")]) as server:
        begun = time.monotonic()
        seen = talk(home, server, "hi", "and now?", "still?", retries=0)
        assert time.monotonic() - begun < 60
    assert "takes no more requests for now" in seen
    assert "Now." in seen


def test_a_server_that_is_busy_without_saying_for_how_long_is_asked_again(home):
    with OpenAIServer([fails(429), says("Now.")]) as server:
        seen = talk(home, server, "hi", retries=1)
    assert "Now." in seen


def test_an_error_of_an_endpoint_holds_no_key():
    with (
        OpenAIServer([fails(400, f"{KEY} temperature"), fails(400, KEY)]) as server,
        endpoint(server) as asked,
        pytest.raises(EndpointError) as caught,
    ):
        asked.ask(ASKED)
    assert KEY not in f"{caught.value} {caught.value!r} {vars(caught.value)}"


# --- JSON as it comes ---------------------------------------------------------------------------------------------


@given(
    st.text(max_size=30),
    st.sampled_from(["", "Sure:\n```json\n", "\n"]),
    st.sampled_from(["}", ', "x": 1}', "}\n```", ""]),
    st.booleans(),
    st.lists(st.integers(1, 5), min_size=1, max_size=9),
)
def test_what_is_said_is_read_out_of_json_whatever_pieces_it_comes_in(text, before, after, escaped, lengths):
    said, shown, at, turn = Said(), "", 0, 0
    whole = f'{before}{{"say": {json.dumps(text, ensure_ascii=escaped)}{after}'
    while at < len(whole):
        step = lengths[turn % len(lengths)]
        shown += said.feed(whole[at : at + step])
        at, turn = at + step, turn + 1
    assert shown == said.text == text
    assert said.ended


@pytest.mark.parametrize(
    ("whole", "text", "ended"),
    [
        ('{"say": "cut of', "cut of", False),
        ('{"say": "a\\', "a", False),
        ('{"say": "50\\% less"}', "50% less", True),
        ('{"say": "two\nlines"}', "two\nlines", True),
        ('{"say": "\\ud83d\\ude00"}', "\U0001f600", True),
        ('{"say": "half \\ud83d of it"}', "half ? of it", True),
        ('{"tool": "explain", "arguments": {"say": "no"}}', "", False),
        ('{"x": {"say": "no"}}', "", False),
        ('{"say": {"a": 1}}', "", False),
        ("prose", "", False),
    ],
)
def test_what_is_no_plain_answer_is_read_as_far_as_it_is_one(whole, text, ended):
    said = Said()
    for character in whole:
        said.feed(character)
    assert (said.text, said.ended) == (text, ended)


def test_an_answer_in_json_is_shown_as_it_comes_and_figures_are_held_back(home):
    script = [
        says('{"tool": "explain", "arguments": {"decision": "d02"}}'),
        says('{"say": "' + "It takes 12.0 ms, as d02 tells, and that is all there is to say. " + '"}', piece=3),
        says('{"say": "It is a great deal better than it ever was before, by far: 99x, they say."}', piece=3),
        says('{"say": "It is better."}', piece=3),
    ]
    with OpenAIServer(script, native=False) as server:
        seen = talk(home, server, "why?", "how much?")
    assert seen.count("It takes 12.0 ms, as d02 tells") == 1
    assert "ever was before" in seen
    assert "(99x), and is asked again" in seen
    assert "they say" not in seen
    assert "It is better." in seen


def test_json_that_breaks_off_while_it_is_shown_is_asked_again_on_a_new_line(home):
    with OpenAIServer([says('{"say": "It is'), says('{"say": "It is so."}')], native=False) as server:
        seen = talk(home, server, "hi")
    assert re.search(r"It is\n\[That broke off, and is asked again.\]\nIt is so\.\n", seen)


def test_an_endpoint_that_streams_in_json_shows_text_before_the_answer_is_complete():
    pieces = []
    with OpenAIServer([says('{"say": "one two three"}', piece=5)]) as server, endpoint(server) as asked:
        said = Said()
        asked.ask(ASKED, as_json=True, show=lambda text: pieces.append(said.feed(text)))
    assert len([piece for piece in pieces if piece]) >= 3
    assert "".join(pieces) == "one two three"


# --- another language ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "right", "wrong", "struck"),
    [
        ("Warum?", "Es dauert 12,0 ms und kostet 10,3 ms im p99.", "Es dauert 1,23 ms.", "~~1,23 ms~~"),
        ("为什么?", "批大小为 8 时需要 12.0 ms,p99 为 10.3 ms。", "需要 1.23 ms。", "~~1.23 ms~~"),
    ],
)
def test_an_answer_in_the_persons_language_passes_and_its_wrong_figures_are_struck(
    home, question, right, wrong, struck
):
    script = [calls(("explain", {"session": ID, "decision": "d02"})), says(right), says(wrong), says(wrong)]
    with OpenAIServer(script) as server:
        seen = talk(home, server, question, question)
        assert server.requests[0]["messages"][-1]["content"] == question
        assert len(returned(server)) == 1
    assert right in seen
    assert f"{struck} (not from a tool)" in seen


TOLD = Known([json.dumps({"p50": "1.23 ms [1.20, 1.26]", "rate": "2,540/s", "ratio": "12.4x"})])


@pytest.mark.parametrize(
    "text",
    [
        "Im Mittel 1,23 ms, zwischen 1,20 ms und 1,26 ms, bei 2.540/s",
        "1,23 Millisekunden, 12,4-fach, 12,4-mal so schnell",
        "p50是1.23毫秒,快12.4倍",
        "平均1.23 ms,每秒2,540/s",
        "1,23 мс, в 12,4 раза",
        "12,4 fois plus vite, 1,23 millisecondes",
        "p99和int8",
    ],
)
def test_figures_of_tools_pass_in_other_languages(text):
    assert unverified(text, TOLD) == []


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("Nein, 1,32 ms und 2.450/s", ["1,32 ms", "2.450/s"]),
        ("Es dauert 2 Sekunden und ist 5-fach", ["2 Sekunden", "5-fach"]),
        ("需要2秒,快5倍", ["2秒", "5倍"]),
        ("平均9.99ms", ["9.99ms"]),
        ("5\u00d713", ["13"]),
        ("в 3 раза", ["3 раза"]),
        ("3 fois plus vite", ["3 fois"]),
    ],
)
def test_figures_of_nobody_are_found_in_other_languages(text, bad):
    assert [figure.text for figure in unverified(text, TOLD)] == bad
