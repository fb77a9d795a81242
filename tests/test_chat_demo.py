"""The demonstration of a whole chat: both transcripts, with a real session, Prometheus and command line."""

import re
import shutil

import pytest

from agent.chat import background
from agent.sessions import folders
from simulations.chat_demo.__main__ import BY_MENU, BY_SCRIPT, demonstrate
from simulations.chat_demo.person import MARK, Person
from simulations.chat_demo.place import Size
from simulations.prometheus_server import prometheus_missing
from tools.cluster.store import PlanStore
from tools.tracking.session import read_result

pytestmark = pytest.mark.skipif(prometheus_missing() is not None, reason=str(prometheus_missing()))
SMALL = Size(time_budget_s=10, max_trials=2, days=1, verify_s=1, p99_ms=10_000)
"""Its promise is kept on a machine that others keep busy."""


@pytest.fixture(scope="module")
def by_script(tmp_path_factory):
    folder = tmp_path_factory.mktemp("by_script")
    return folder, transcript(folder, by_menu=False)


def transcript(folder, *, by_menu):
    text = []
    demonstrate(folder, text.append, by_menu=by_menu, size=SMALL)
    return "".join(text)


def check(home, told):
    """Both end with a plan that a person approved, whose figures are those of the session, and with nothing running."""
    (plan,) = PlanStore(home).plans()
    assert PlanStore(home).state(plan.digest) == "verified"
    _, second = folders(home)
    result = read_result(second / "result.json")
    assert result.session in told
    assert result.scaling.sentence in told
    assert f"infertune plan approve --by YOUR-NAME {plan.digest}" in told
    assert f"# $ infertune plan approve {plan.digest} --by 'Ada Demo'" in told
    assert f"VERIFIED  plan {plan.digest}" in told
    assert told.index("Ada Demo") < told.rindex("verified")
    before, after = re.search(r"before the question: (\d+), after the answer: (\d+); no session runs", told).groups()
    assert int(before) == int(after) > 0
    assert not background.is_running(home)


@pytest.mark.timeout(600)
def test_a_scripted_model_leads_from_a_workload_to_a_verified_plan_with_figures_that_are_all_of_tools(by_script):
    folder, told = by_script
    assert told.startswith(BY_SCRIPT)
    check(folder / "home", told)
    assert "not from a tool" not in told
    assert "is asked again" not in told
    assert "used up" not in told
    assert f"{MARK} you> Good. Approve it!\n[How to approve a plan]\nI cannot" in told


@pytest.mark.timeout(600)
def test_the_menu_leads_there_too(by_script, tmp_path):
    folder, _ = by_script
    # What was measured before is not measured again.
    ignored = shutil.ignore_patterns("sessions", "chat*", "plans*", "checkpoints*", "mlflow*")
    shutil.copytree(folder / "home", tmp_path / "home", ignore=ignored)
    told = transcript(tmp_path, by_menu=True)
    assert told.startswith(BY_MENU)
    check(tmp_path / "home", told)
    assert "What it finds from now on" in told
    assert "decided by: policy" in told


def test_what_the_person_types_is_marked_and_an_empty_line_is_seen():
    text = []
    person = Person(["hello", lambda: ""], text.append)
    assert [person.terminal.read("you> ") for _ in range(3)] == ["hello", "", None]
    assert "".join(text) == f"\n{MARK} you> hello\n\n{MARK} you> (Enter)\n"
