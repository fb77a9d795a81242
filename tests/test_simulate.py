"""Traffic through the twin from the command line, scenarios, and what is expected of them."""

import itertools
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_support import ID, write_session
from sample_result import sample_result, scaling
from session_support import HPA
from tests_support import spec as tuning_spec
from twin_support import play, queue, rate

import agent.cli_simulate
from agent.simulate import Answer, find_scenarios
from agent.simulate_session import SessionInputs
from agent.simulate_wishes import curve_of
from tools.contracts import ScalingResult
from tools.errors import InfertuneError, SpecError
from tools.scaling.manifest import read_hpa
from tools.scaling.replica import Replica
from tools.scaling.scenario import judge_scenario, judged, load_scenario
from tools.scaling.stepping import steps, told
from tools.scaling.task import recommend_scaling
from tools.spec import TuningSpec
from tools.tracking.session import read_result
from tools.traffic import BUNDLED_DAY, load_trace
from tools.traffic.observed import Observed, Series, Signal, Window, write_observed

SCENARIOS = sorted((Path(__file__).parents[1] / "simulations" / "scenarios").glob("*.yaml"))
REPLICA = ("--rps-per-replica", 900, "--p99-ms", 12, "--slo-ms", 50)
RATE = ("--metric", "rate", "--target", 500, "--min", 2, "--max", 14)


@pytest.fixture
def simulate(capsys, monkeypatch, tmp_path):
    """Run `infertune simulate ...` as it is mounted; returns exit code and what it said."""
    monkeypatch.setenv("COLUMNS", "200")
    app = typer.Typer()
    app.add_typer(agent.cli_simulate.app, name="simulate")

    def run(*arguments):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["infertune", "simulate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            app()
        return int(ended.value.code or 0), capsys.readouterr().out

    monkeypatch.setenv("INFERTUNE_HOME", str(tmp_path / "home"))
    return run


def write_trace(folder):
    """Write forty minutes of traffic that rises from 300 to 3,000 requests per second at a quarter past midnight."""
    path = folder / "short.csv"
    rates = [300] * 15 + [3000] * 25
    path.write_text("second,rps\n" + "".join(f"{60 * minute},{rate}\n" for minute, rate in enumerate(rates)))
    return path


@pytest.fixture
def short(tmp_path):
    return write_trace(tmp_path)


# Scenarios


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_bundled_scenario_comes_to_what_is_expected(path):
    scenario = load_scenario(path)
    assert scenario.name == path.stem
    assert scenario.lesson.endswith(".")
    assert [verdict.disagreements for verdict in judge_scenario(scenario)] == [()] * len(scenario.settings)


def test_the_bundled_scenarios_are_the_promised_ones():
    assert [path.stem for path in SCENARIOS] == [
        "diurnal",
        "launch-spike",
        "lost-node",
        "metrics-outage",
        "noisy-neighbour",
        "slow-leak",
    ]
    assert find_scenarios("all") == SCENARIOS
    assert find_scenarios("lost-node") == [SCENARIOS[2]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"missed_minutes": 30, "reversals": 0}, ["the SLO is missed, not kept", "30 minutes missed, not 0 to 0"]),
        ({"missed_minutes": 0, "reversals": 40}, ["40 reversals, which is flapping"]),
        ({"missed_minutes": 1, "reversals": 0}, ["1 minute missed, not 0 to 0"]),
        ({"missed_minutes": 0, "reversals": 0}, []),
    ],
)
def test_a_disagreement_says_how(changes, words):
    scenario = load_scenario(SCENARIOS[0])
    outcome = play(np.full(86_400, 5.0), queue(30, 1, 1)).outcome.model_copy(update=changes)
    assert list(judged(scenario, scenario.settings[0], outcome).disagreements) == words


def changed(tmp_path, **changes):
    """Write the shortest bundled scenario with other fields."""
    raw = yaml.safe_load(SCENARIOS[1].read_text())
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({**raw, **changes}))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"traffic": {"shape": "square", "base_rps": 1}}, "traffic"),
        ({"slo": 50}, "slo: unknown field. Did you mean `slo_ms`?"),
        ({"faults": [{"kind": "lost_node", "at_s": 99_999}]}, "outside of its"),
        ({"faults": [{"kind": "slow_pods", "at_s": 5}]}, "slow_pods need at least a second"),
        ({"faults": [{"kind": "lost_node", "at_s": 5, "slowdwn": 2}]}, "faults.0.slowdwn"),
        ({"replica": {"fixed_ms": 1, "per_request_ms": 0, "max_batch": 8}}, "replica.per_request_ms"),
        ({"settings": []}, "settings"),
    ],
)
def test_a_scenario_that_cannot_be_played_says_which_field(tmp_path, changes, message):
    with pytest.raises(SpecError, match=re.escape(message)) as caught:
        load_scenario(changed(tmp_path, **changes))
    assert "own.yaml" in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [("a: [", "YAML"), ("- 1", "mapping"), ("", "mapping")])
def test_a_file_that_is_no_scenario_is_refused(tmp_path, text, message):
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        load_scenario(path)


def test_a_setting_that_the_twin_cannot_play_is_a_mistake_and_named(tmp_path):
    raw = yaml.safe_load(SCENARIOS[1].read_text())
    raw["settings"][0]["hpa"]["metrics"][0]["pods"]["metric"]["name"] = "moon_phase"
    with pytest.raises(SpecError, match=r"rate 700 per pod.*moon_phase"):
        judge_scenario(load_scenario(changed(tmp_path, settings=raw["settings"])))


def test_the_command_prints_what_was_expected_and_what_came_and_exits_by_it(simulate, tmp_path):
    code, out = simulate("scenario", "launch-spike")
    assert code == 0
    assert re.search(r"launch-spike +rate 700 per pod +missed, 2 to 10 min +missed, \d+ min +yes", out)
    assert "No autoscaler sees a spike" in out
    raw = yaml.safe_load(SCENARIOS[1].read_text())
    raw["settings"][0]["expected"] = {"kept": True, "missed_minutes": [0, 0]}
    code, out = simulate("scenario", changed(tmp_path, settings=raw["settings"]))
    assert code == 3
    assert "the SLO is missed, not kept" in out
    code, out = simulate("scenario", tmp_path / "own.yaml", "--output", "json")
    assert code == 3
    assert [bool(verdict["disagreements"]) for verdict in json.loads(out)] == [True, False]


def test_an_unknown_scenario_is_a_mistake_that_lists_the_known_ones():
    with pytest.raises(SpecError, match=r"no scenario 'moon'.*lost-node"):
        find_scenarios("moon")


# Traffic


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 400), min_size=1, max_size=900), st.integers(1, 8))
def test_steps_add_up_to_the_run(rps, minutes):
    run = play(rps, rate(50, 1, 6))
    rows = list(steps(run, 60 * minutes))
    assert sum(row.minutes for row in rows) == run.outcome.minutes
    assert sum(row.missed_minutes for row in rows) == run.outcome.missed_minutes
    assert max(row.p99_ms for row in rows) == run.outcome.worst_p99_ms
    assert tuple(itertools.chain.from_iterable(row.scalings for row in rows)) == run.scalings


def test_a_step_is_whole_minutes():
    with pytest.raises(ValueError, match="whole number of minutes"):
        list(steps(play([1.0] * 60, queue(30, 1, 1)), 90))


def test_an_outcome_in_words_says_what_was_missed_refused_and_paid():
    run = play(np.full(600, 300.0), queue(30, 1, 1), limit=10, initial=1)
    words = told(run.outcome, slo_ms=100, kept_share=0.9)
    assert words.startswith("Misses the SLO of 100 ms in 10 minutes of these 10 minutes (1 allowed), p99 up to")
    assert re.search(r"119,\d{3} requests refused\. 1 replica on average, 1 at most; 0\.2 replica-hours cost", words)


@settings(deadline=None)
@given(st.floats(1, 5000), st.floats(0.5, 500))
def test_two_numbers_make_a_replica_that_serves_that_much_and_takes_that_long(rps, p99_ms):
    if rps * p99_ms < 1000:
        with pytest.raises(SpecError, match="is shorter"):
            curve_of(rps, p99_ms)
        return
    point = curve_of(rps, p99_ms).points[-1]
    assert point.throughput_rps.value == rps
    assert point.p99_ms == p99_ms
    assert point.batch_size == pytest.approx(rps * point.mean_ms / 1000)
    assert point.mean_ms <= p99_ms * (1 + 1e-9)


def test_a_trace_is_played_step_by_step_and_told_in_words(simulate, short):
    code, out = simulate("traffic", short, *RATE, *REPLICA, "--step", 300, "--kept-share", 0.5, "--speed", 1e9)
    lines = out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.lstrip().startswith("00:00"))
    assert [line.split()[0] for line in lines[first : first + 8]] == [f"00:{m:02d}" for m in range(0, 40, 5)]
    assert code == 0
    assert "2 > 3 > 4 > 6" in lines[first + 3]
    assert "min missed" in lines[first + 3]
    assert "Misses the SLO of 50 ms in" in out
    assert "What the twin leaves out:" in out
    assert max(len(line) for line in lines[: first + 8]) <= 80
    assert simulate("traffic", short, *RATE, *REPLICA)[0] == 3


def test_two_settings_stand_side_by_side_and_the_second_decides(simulate, short, tmp_path):
    (tmp_path / "hpa.yaml").write_text(HPA.replace("minReplicas: 2", "minReplicas: 8"))
    arguments = ("--setting", tmp_path / "hpa.yaml", *REPLICA, "--output", "json")
    code, out = simulate("traffic", short, *RATE, *arguments)
    answer = json.loads(out)
    assert code == 3
    assert [s["name"] for s in answer["settings"]] == [
        "hpa.yaml: cpu 80 %, 8 to 40",
        "request_rate 500 per pod, 2 to 14",
    ]
    assert [s["kept"] for s in answer["settings"]] == [True, False]
    assert answer["settings"][0]["outcome"]["cost_usd"] == 0
    assert simulate("traffic", short, *arguments)[0] == 0
    code, out = simulate("traffic", short, *RATE, *arguments[:-2])
    assert out.startswith("A  hpa.yaml: cpu 80 %, 8 to 40\nB  request_rate 500 per pod, 2 to 14\n")


def test_the_bundled_day_and_what_prometheus_answered_are_traffic_too(simulate, tmp_path):
    code, out = simulate("traffic", "day", *RATE, *REPLICA, "--output", "json")
    assert code == 0
    requests = json.loads(out)["settings"][0]["outcome"]["requests"]
    assert requests == pytest.approx(60 * sum(load_trace(BUNDLED_DAY).rps))
    points = tuple((1_700_000_000.0 + 60 * minute, 400.0 + minute) for minute in range(30))
    signal = Signal(name="request_rate", query="q", series=(Series(points=points),))
    window = Window(start_s=points[0][0], end_s=points[-1][0], step_s=60)
    observed = Observed(url="http://p:9090", window=window, read_at="2023-11-14T22:43:00+00:00", signals=(signal,))
    write_observed(observed, tmp_path / "recorded.json.gz")
    code, out = simulate("traffic", tmp_path / "recorded.json.gz", *RATE, *REPLICA)
    assert code == 0
    assert re.search(r"22:12 +400/s", out)


@pytest.mark.parametrize("suffix", [".svg", ".html"])
def test_a_plot_is_a_file_that_stands_alone_and_can_be_read_aloud(simulate, short, tmp_path, suffix):
    path = tmp_path / f"plot{suffix}"
    (tmp_path / "hpa.yaml").write_text(HPA)
    simulate("traffic", short, "--setting", tmp_path / "hpa.yaml", *RATE, *REPLICA, "--plot", path)
    text = path.read_text()
    assert "hpa.yaml: cpu 80 %, 2 to 40" in text
    assert "--best: #0b6b6a" in text
    assert "Misses the SLO of 50 ms" in text
    svg = ET.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    assert svg.get("role") == "img"
    assert re.search(r"https?://(?!www\.w3\.org)", text) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.csv",), "nowhere.csv: no such file"),
        (("nowhere.json.gz",), "nowhere.json.gz: no such file"),
        (("unknown-session",), "there are no sessions"),
        (("day",), "which setting"),
        (("day", "--metric", "rate"), "has no target"),
        (("day", "--min", 3), "--min: is there, and no metric"),
        (("day", *RATE), "which p99"),
        (("day", *RATE, "--slo-ms", 50), "how one replica serves"),
        (("day", *RATE, "--slo-ms", 50, "--p99-ms", 12), "not how much it serves"),
        (("day", *RATE, "--slo-ms", 50, "--rps-per-replica", 900), "not how fast"),
        (("day", *RATE, "--slo-ms", 50, "--rps-per-replica", 900, "--p99-ms", 1), "is shorter"),
        (("day", *RATE, *REPLICA, "--step", 90), "whole number of minutes"),
        (("day", *RATE, *REPLICA, "--plot", "day.png"), "day.png"),
        (("day", *RATE, *REPLICA, "--min", 20), "less than minReplicas"),
        (("day", *RATE, *REPLICA, "--setting", "no.yaml"), "no.yaml"),
        (("day", "--metric", "cpu", "--target", 70.5, *REPLICA), "whole number"),
    ],
)
def test_a_mistake_is_a_sentence_that_says_what_to_add(capsys, monkeypatch, tmp_path, arguments, message):
    app = typer.Typer()
    app.add_typer(agent.cli_simulate.app, name="simulate")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["infertune", "simulate", "traffic", *map(str, arguments)])
    with pytest.raises(InfertuneError, match=re.escape(message)):
        app()
    assert list(tmp_path.iterdir()) == []


# Sessions


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A finished session with traffic, an HPA in use and a recommendation for what it measured."""
    tmp_path = tmp_path_factory.mktemp("session")
    home, short = tmp_path / "home", write_trace(tmp_path)
    (tmp_path / "hpa.yaml").write_text(HPA.replace("maxReplicas: 40", "maxReplicas: 3"))
    asked = tuning_spec().model_dump(mode="json")
    asked |= {"traffic": {"trace": str(short)}, "hpa": {"file": str(tmp_path / "hpa.yaml")}, "seed": 3}
    asked["scaling"] = {"kept_share": 0.9, "metrics": ["rate"], "delays": {"start_s": 12}}
    folder = write_session(home, asked=TuningSpec.model_validate(asked))
    inputs = SessionInputs.of(home, ID)
    found = recommend_scaling(
        curve=inputs.curve().model_dump(mode="json"),
        trace=inputs.trace().model_dump(mode="json"),
        slo_ms=50,
        price_per_hour_usd=0.1,
        kept_share=0.9,
        metrics=["rate"],
        delays=inputs.spec.scaling.delays.model_dump(mode="json"),
        bounds={"max_replicas": 12},
        today=read_hpa(tmp_path / "hpa.yaml").manifest["spec"],
        service="w",
        seed=3,
        processes=1,
    )
    recommendation = ScalingResult.model_validate(found).recommendation
    result = sample_result(scaling=scaling().model_copy(update={"recommendation": recommendation}))
    (folder / "result.json").write_text(result.model_dump_json())
    return folder


def test_a_session_is_played_as_it_was_searched(simulate, session):
    code, out = simulate("traffic", ID, "--home", session.parents[1], "--output", "json")
    answer = Answer.model_validate_json(out)
    recommendation = read_result(session / "result.json").scaling.recommendation
    today, recommended = answer.settings
    assert code == 0
    assert (answer.slo_ms, answer.kept_share) == (50, 0.9)
    assert today.name == "today's HPA: cpu 80 %, 2 to 3"
    assert recommended.name.startswith("recommended: request_rate")
    assert today.outcome == recommendation.today.outcomes[0]
    assert recommended.outcome == recommendation.chosen.outcomes[0]
    assert (today.kept, recommended.kept) == (False, True)


def test_what_is_said_goes_before_what_the_session_has(simulate, session, short):
    rest = ("--home", session.parents[1], "--output", "json")
    answer = Answer.model_validate_json(simulate("traffic", ID[:6], *RATE, "--slo-ms", 70, *rest)[1])
    assert answer.slo_ms == 70
    assert [setting.name for setting in answer.settings] == ["request_rate 500 per pod, 2 to 14"]
    answer = Answer.model_validate_json(simulate("traffic", short, "--session", ID, *rest)[1])
    assert answer.traffic == str(short)
    assert len(answer.settings) == 2
    answer = Answer.model_validate_json(simulate("traffic", short, *RATE, "--curve", ID, *rest)[1])
    assert answer.slo_ms == 50
    assert len(answer.settings) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*RATE, "--session", ID), "3 settings do not fit side by side"),
        ((*RATE, "--curve", ID, "--rps-per-replica", 900, "--p99-ms", 12), "and so does --rps-per-replica"),
    ],
)
def test_too_much_is_a_mistake_too(monkeypatch, session, arguments, message):
    app = typer.Typer()
    app.add_typer(agent.cli_simulate.app, name="simulate")
    monkeypatch.setattr(
        sys,
        "argv",
        ["infertune", "simulate", "traffic", "day", "--home", str(session.parents[1]), *map(str, arguments)],
    )
    with pytest.raises(SpecError, match=message):
        app()


# Help


def test_simulate_alone_prints_help_with_examples_that_work(simulate):
    _, out = simulate()
    text = " ".join(re.sub(r"[│╭╮╰╯─\\]", " ", out).split())  # a long command goes on behind a backslash
    ends = "infertune|Options|Commands|Exit codes"
    examples = re.findall(rf"infertune simulate ((?:traffic|scenario) .+?) (?={ends})", text)
    assert [example.split()[0] for example in examples] == ["traffic", "scenario"]
    for example in examples:
        assert simulate(*example.split(), "--output", "json")[0] == 0


def test_the_commands_import_nothing_heavy():
    code = "import sys, agent.cli_simulate; print({'numpy', 'matplotlib', 'torch', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_replica_is_simulated_once_for_all_scenarios_that_have_it(monkeypatch):
    made = []
    monkeypatch.setattr(Replica, "of", lambda curve, **_: made.append(curve))
    from tools.scaling.scenario import LinearReplica, _replica

    twice = [LinearReplica(fixed_ms=4.5, per_request_ms=0.25, max_batch=4) for _ in range(2)]
    for replica in twice:
        _replica(replica)
    _replica.cache_clear()
    assert len(made) == 1
