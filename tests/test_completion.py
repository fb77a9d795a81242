"""Completion of values, by the protocol that shells speak: quick, silent, and right whatever the home looks like."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from chat_support import offer_plan
from recorded_support import ID, write_session
from sample_result import sample_result

from agent.cli_completion import TECHNIQUES
from agent.schedule import Wishes, add
from agent.wishes import check_wishes
from tools.contracts import Decision
from tools.errors import InfertuneError
from tools.journal import Journal
from tools.spec import SearchSpec

ROOT = Path(__file__).parents[1]
HEAVY = ("numpy", "yaml", "torch", "mlflow", "langgraph", "langchain_core", "sqlalchemy", "onnx")
OLD = "20261121-041502-beef"
PROGRAM = f"""
import atexit, sys
atexit.register(lambda: print("heavy:", sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr))
import agent.cli
agent.cli.main()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with two sessions, evidence, a plan and a schedule."""
    home = tmp_path_factory.mktemp("completion") / "home"
    write_session(home)
    folder = home / "sessions" / OLD
    folder.mkdir()
    (folder / "result.json").write_text(sample_result(session=OLD).model_dump_json(indent=1))
    (home / "sessions" / ".deleting-x").mkdir()
    return home


@pytest.fixture
def complete(tmp_path):
    """Return a function that types words, the last one incomplete, and gives what the shell is offered."""

    def typed(*words, home, shell="bash", cwd=tmp_path):
        asked = {"COMP_WORDS": " ".join(("infertune", *words)), "COMP_CWORD": str(len(words))}
        if shell == "zsh":
            asked = {"_TYPER_COMPLETE_ARGS": " ".join(("infertune", *words))}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith(("INFERTUNE", "_TYPER"))},
                **({} if home is None else {"INFERTUNE_HOME": str(home)}),
                "PYTHONPATH": str(ROOT),
                "_INFERTUNE_COMPLETE": f"complete_{shell}",
                **asked,
            },
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0
        assert done.stderr == "heavy: []\n"
        return done.stdout.split("\n")[:-1] if done.stdout != "\n" else []

    return typed


def test_sessions_are_offered_the_newest_first(complete, home):
    assert complete("sessions", "show", "", home=home) == [ID, OLD]
    assert complete("resume", OLD[:8], home=home) == [OLD]
    assert complete("sessions", "delete", OLD, "", home=home) == [ID, OLD]
    assert complete("explain", "--home", str(home), "", home=None) == [ID, OLD]


def test_a_shell_that_shows_help_is_told_the_verdict(complete, home):
    offered = "\n".join(complete("replay", "", home=home, shell="zsh"))
    assert f'"{OLD}":"MET"' in offered
    assert f'"{ID}":"no result yet"' in offered


def test_no_name_on_disk_reaches_a_shell_as_more_than_text(complete, tmp_path):
    home = tmp_path / "home"
    folder = write_session(home)
    for name in ("$(touch owned)", "`touch owned`", "a'b", 'a"b', "two\nlines", "a;b", "two words"):
        (home / "sessions" / name).mkdir()
    question = Decision(
        id="d09", node="n", question="[/b] $(touch owned) `x`", options=(), chosen=None, rule="", reason=""
    )
    Journal(folder / "journal.jsonl").append("decision", question.model_dump(mode="json"))
    for shell in ("bash", "zsh"):
        offered = "\n".join(complete("sessions", "show", "", home=home, shell=shell))
        assert ID in offered
        assert not set(offered) & set("$`;")
    offered = "\n".join(complete("explain", ID, "", home=home, shell="zsh"))
    assert '"d09":"n, /b touch owned x"' in offered


def test_subcommands_are_offered_although_one_is_the_default(complete, home):
    assert complete("sessions", "", home=home) == ["list", "show", "compare", "delete"]


def test_decisions_are_those_of_the_session_that_was_typed(complete, home):
    assert complete("explain", ID, "d", home=home) == ["d01", "d02"]
    assert complete("explain", ID[:12], "batch", home=home) == ["batch_tuning"]
    assert complete("explain", OLD, "d", home=home) == []


def test_plans_schedules_and_evidence_are_offered(complete, tmp_path):
    home = tmp_path / "home"
    write_session(home)
    plan = offer_plan(home)
    (entry,) = add(home, "digits-tiny", Wishes(cron="17 3 * * *"))
    assert complete("plan", "apply", "", home=home) == [plan.digest]
    assert complete("plan", "show", plan.digest[:5], home=home) == [plan.digest]
    assert complete("schedule", "remove", "", home=home) == [entry.id]
    assert len(complete("evidence", "show", "", home=home)) > 3


def test_workloads_are_bundled_ones_specs_and_folders(complete, home, tmp_path):
    (tmp_path / "tuning.yaml").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.yaml").touch()
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "shop.yml").touch()
    bundled = ["digits-resnet50", "digits-tiny"]
    assert complete("optimize", "", home=home) == [*bundled, "specs/", "tuning.yaml"]
    assert complete("optimize", "specs/", home=home) == ["specs/shop.yml"]
    assert complete("optimize", "nowhere/", home=home) == []
    assert set(complete("manifests", "", home=home)) == {*bundled, "specs/", "tuning.yaml", ID, OLD}
    assert complete("sessions", "list", "--workload", "", home=home) == ["resnet50", *bundled]


def test_scenarios_and_traffic_are_offered(complete, home):
    scenarios = [path.stem for path in (ROOT / "simulations" / "scenarios").glob("*.yaml")]
    assert complete("simulate", "scenario", "", home=home) == ["all", *sorted(scenarios)]
    assert complete("simulate", "traffic", "", home=home) == ["day", ID, OLD]


def test_techniques_are_offered_one_after_the_other(complete, home):
    assert complete("optimize", "--only", "openv", home=home) == ["openvino"]
    offered = complete("optimize", "--exclude", "openvino,quantize-n", home=home)
    assert offered == ["openvino,quantize-nncf"]
    assert "openvino,openvino" not in complete("optimize", "--exclude", "openvino,", home=home)


def test_the_techniques_are_all_that_the_search_knows():
    with pytest.raises(InfertuneError) as refused:
        check_wishes(SearchSpec(only=("zzzzzzzz",)))
    known = str(refused.value).partition("There are: ")[2].rstrip(".").split(", ")
    assert sorted(TECHNIQUES) == sorted(known)


@pytest.mark.parametrize("damage", ["none", "a file", "files for folders", "binary"])
def test_a_home_that_is_damaged_offers_nothing_and_says_nothing(complete, tmp_path, damage):
    home = tmp_path / "home"
    if damage == "a file":
        home.touch()
    elif damage != "none":
        (home / "sessions" / ID).mkdir(parents=True)
    if damage == "files for folders":
        (home / "sessions" / ID).rmdir()
        (home / "sessions").rmdir()
        (home / "sessions").touch()
        for name in ("plans.db", "schedule.db", "evidence.db"):
            (home / name).mkdir()
    if damage == "binary":
        for name in ("journal.jsonl", "result.json"):
            (home / "sessions" / ID / name).write_bytes(b'\xff\xfe{"kind":"decision"\n' * 9)
        for name in ("plans.db", "schedule.db", "evidence.db"):
            (home / name).write_bytes(b"SQLite format 3\0 and then nothing of the kind" * 40)
    ours = [ID] if damage == "binary" else []
    assert complete("sessions", "show", "", home=home) == ours
    assert complete("explain", ID, "", home=home) == []
    assert complete("plan", "show", "", home=home) == []
    assert json.dumps(sorted(str(p) for p in tmp_path.rglob("*.db-*"))) == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_that_turns_it_on_is_shown(shell):
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli", "--show-completion", shell],
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_INFERTUNE_COMPLETE" in done.stdout
    assert done.stderr == ""
