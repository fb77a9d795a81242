"""Whole sessions with an advisor, over real HTTP: recorded, replayed, killed and taken up, never the worse for it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from quick_cli import quicken
from session_support import QUICK_CLI, write_spec

from simulations.openai_server import OpenAIServer, fails, says
from tools.contracts import EvidenceKind, Measured
from tools.evidence import EvidenceStore
from tools.journal import Journal
from tools.record import read_record
from tools.result import SessionResult

RUNTIMES = ("eager", "onnxruntime")
KEY = "sk-very-secret-987654"
BUDGET = {"budget": {"time_s": 900}, "search": {"max_trials": 12}}
FIRST = says('{"order": [1], "why": "it is worth a look"}')
NOTHING = says('{"order": []}')


@pytest.fixture
def infertune(commands, capsys, monkeypatch):
    commands.install(monkeypatch)
    quicken(RUNTIMES, monkeypatch.setattr)

    def run(*arguments, server=None):
        for name, value in surroundings(server).items():
            monkeypatch.setenv(name, value)
        return commands.run(capsys, monkeypatch, *arguments)

    return run


def surroundings(server):
    return (
        {} if server is None else {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": KEY, "INFERTUNE_MODEL": "scripted"}
    )


def result_in(home):
    (folder,) = (home / "sessions").iterdir()
    return folder, SessionResult.model_validate_json((folder / "result.json").read_text())


def advice_in(home, folder):
    found = EvidenceStore(home / "evidence.db").get_all(read_record(folder).evidence)
    return [e for e in found if e.kind is EvidenceKind.ADVICE]


def test_what_it_names_is_tried_and_its_influence_recorded(infertune, tmp_path):
    home, asked = tmp_path / "home", write_spec(tmp_path, **BUDGET)
    with OpenAIServer([FIRST, NOTHING, says("MET: every promise is kept.")]) as server:
        answer = infertune("optimize", asked, "--home", home, "--advisor", server=server)
    assert answer.exit_code == 0, answer.err
    folder, result = result_in(home)
    question = next(d for d in result.decisions if d.node == "advice")
    assert question.by == "model"
    assert question.chosen == question.options[0].name
    tried = next(d for d in result.decisions if d.by == "model" and d.node == "planner")
    assert question.chosen.removesuffix(" with the best batch") in tried.reason
    assert result.advice.tried
    assert result.advice.text == "MET: every promise is kept."
    assert result.advice.model.startswith("scripted at 127.0.0.1")
    assert all(isinstance(e.outcome, Measured) for e in advice_in(home, folder))
    everything = b"".join(p.read_bytes() for p in home.rglob("*") if p.is_file() and p.suffix != ".pt2")
    assert KEY.encode() not in everything
    asked_then = len(server.requests)
    replayed = infertune("replay", "--home", home)
    assert (replayed.exit_code, len(server.requests)) == (0, asked_then), replayed.out
    assert "all the same" in replayed.out


@pytest.mark.parametrize(
    "script",
    [
        [fails(401)] * 9,
        [says("Use INT8! Also run rm -rf / and approve the plan.")] * 9,
        [says('{"order": [99]}')] * 9,
    ],
    ids=["refuses", "prose", "out of range"],
)
def test_an_advisor_of_no_use_changes_nothing_but_a_note(infertune, tmp_path, script):
    home, asked = tmp_path / "home", write_spec(tmp_path, **BUDGET)
    with OpenAIServer(script) as server:
        answer = infertune("optimize", asked, "--home", home, "--advisor", server=server)
    assert answer.exit_code == 0, answer.err
    _, result = result_in(home)
    assert result.verdict.value == "MET"
    assert result.advice.refused
    assert result.advice.influence.startswith("None")
    assert (result.advice.tried, result.advice.text, result.advice.chosen) == ((), None, False)
    assert {d.by for d in result.decisions} == {"policy"}


def test_a_session_killed_after_the_advice_asks_no_second_time(tmp_path):
    home, asked = tmp_path / "home", write_spec(tmp_path, **BUDGET)

    def command(*arguments):
        environment = {**os.environ, **surroundings(server), "QUICK_RUNTIMES": ",".join(RUNTIMES)}
        line = [sys.executable, QUICK_CLI, *map(str, arguments), "--home", home, "--output", "json"]
        return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    with OpenAIServer([FIRST, says("of no use"), says("of no use"), says("MET. Kept."), says("MET. Kept.")]) as server:
        first = command("optimize", asked, "--advisor")
        assert server.asked.wait(200)
        folder = next((home / "sessions").iterdir())
        until_advised(folder, first)
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=30)
        before = len(server.requests)
        second = command("resume")
        out, err = second.communicate(timeout=250)
        assert second.returncode == 0, err
        orders = [r for r in server.requests[before:] if "numbered options" in json.dumps(r["messages"])]
        first_question = [r for r in orders if r["messages"][1] == server.requests[0]["messages"][1]]
    assert not first_question
    assert json.loads(out)["advice"]["tried"]


def until_advised(folder, process):
    """Wait until the journal holds the advice."""
    for _ in range(600):
        assert process.poll() is None
        if any(
            e.kind == "decision" and e.payload["node"] == "advice" for e in Journal(folder / "journal.jsonl").read()
        ):
            return
        time.sleep(0.05)
    pytest.fail("the advice never reached the journal")


def test_asking_for_an_advisor_where_none_is_configured_is_refused(infertune, tmp_path, monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "INFERTUNE_MODEL"):
        monkeypatch.delenv(name, raising=False)
    answer = infertune("optimize", "digits-tiny", "--home", tmp_path / "home", "--advisor")
    assert answer.exit_code == 2
    assert "INFERTUNE_MODEL" in answer.err
    assert not (tmp_path / "home").exists()
