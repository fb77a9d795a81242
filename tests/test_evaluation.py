"""The evaluation: situations whose best decision is known, and an adversary that can make nothing worse."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.advice import MOST_PICKS, MOST_ROUNDS, SHARE
from agent.policy import BUDGET_SHARE
from simulations.evaluation import __main__ as command
from simulations.evaluation import adversary, scaling_truth, search_truth
from simulations.evaluation.adversary import Trap, advised, against, begun, scripted, sprung, table, worse
from simulations.evaluation.asking import served
from simulations.evaluation.models import MODELS, Model, Question, ordered
from simulations.evaluation.planting import HARDER_STUDENTS, Planted, varied
from simulations.evaluation.scoring import ADVISED, ALONE, Scored, reasons, score_table, scored, situation_table
from simulations.evaluation.session import GridSession, Policy
from simulations.evaluation.situation import Answer, Score, SituationError, load_situation, load_situations
from simulations.search.grid import load_grid
from simulations.search.policy import Infertune
from simulations.search.race import search
from simulations.search.space import BASELINE
from simulations.search.strategies import Briefing
from tools.contracts import EvidenceKind, Verdict

SITUATIONS = {one.name: one for one in load_situations()}
SEARCHES = [one for one in SITUATIONS.values() if one.kind in ("configuration", "stop", "verdict")]
QUIET = Trap(p99_ms=10.0, max_accuracy_drop=0.01, time_s=150.0, seed=None)


GRID = load_grid()
CELLS = {cell.key: cell for cell in GRID.cells}


def grid_cost(situation, name):
    """Cost and promises of a cell, from the recording alone: None where it breaks one."""
    recording, cell = GRID.recording, CELLS[name]
    slower = math.prod(one.slower for one in situation.planted if one.hits(cell))
    timing = recording.cells[name]
    drop = recording.accuracy[cell.judgement].drop + sum(one.drop for one in situation.planted if one.hits(cell))
    p99_ms = slower * timing.p99_ms * (1 if cell.batch == 1 else 2)
    if p99_ms > situation.p99_ms or drop > situation.max_accuracy_drop + 1e-12:
        return None
    rps = cell.batch * 1e6 / (slower * np.median(timing.samples_us))
    return recording.provenance.price_per_hour_usd / 3600 / rps * 1000


def seconds_of(names):
    """What trying these cells takes, one after the other: each part is made once."""
    recording = GRID.recording
    parts = {part for name in names for part in CELLS[name].parts}
    measuring = (recording.cells[name] for name in names)
    return sum(recording.parts_s[p] for p in parts) + sum(t.load_s + t.measure_s for t in measuring)


def reachable(situation):
    known = [BASELINE.key, *situation.known]
    limit_s = BUDGET_SHARE * situation.time_s
    within = (name for name in CELLS if seconds_of({*known, name}) <= limit_s)
    return known, {*known, *within}


def test_there_are_twenty_situations_and_each_says_why_its_best_decision_is_known():
    assert Counter(one.topic for one in SITUATIONS.values()) == {"trying": 11, "scaling": 6, "refusing": 3}
    assert all(len(one.why) > 20 and one.asks.endswith("?") for one in SITUATIONS.values())


@pytest.mark.parametrize("situation", [s for s in SEARCHES if s.kind == "configuration"], ids=lambda s: s.name)
def test_the_best_configuration_is_the_cheapest_of_all_that_can_be_had(situation):
    _, names = reachable(situation)
    costs = {name: cost for name in names if (cost := grid_cost(situation, name)) is not None}
    best = search_truth.best_of_all(situation)
    assert best.says == min(costs, key=costs.get)
    assert best.figure == pytest.approx(costs[best.says])


def test_stopping_is_best_where_no_other_cell_is_better_by_the_threshold():
    situation = SITUATIONS["10-enough-is-known"]
    known, names = reachable(situation)
    costs = [cost for name in names if (cost := grid_cost(situation, name)) is not None]
    now = min(cost for name in known if (cost := grid_cost(situation, name)) is not None)
    assert now < min(costs) * math.exp(0.03)
    assert search_truth.best_of_all(situation).says == search_truth.STOP
    unknown = situation.model_copy(update={"known": ()})
    assert search_truth.best_of_all(unknown).says == search_truth.GO_ON


def test_the_true_verdict_follows_from_every_cell():
    cannot, noisy = SITUATIONS["11-cannot-be-kept"], SITUATIONS["18-too-noisy"]
    assert all(grid_cost(cannot, name) is None for name in CELLS)
    assert search_truth.best_of_all(cannot).says == Verdict.INFEASIBLE
    assert any(grid_cost(noisy, name) is not None for name in CELLS)
    surely = noisy.model_copy(update={"p99_ms": noisy.p99_ms / noisy.p99_spread})
    assert all(grid_cost(surely, name) is None for name in CELLS)
    assert search_truth.best_of_all(noisy).says == Verdict.UNSTABLE
    assert search_truth.best_of_all(noisy.model_copy(update={"p99_spread": 1.0})).says == Verdict.MET


def test_the_policy_on_a_budget_that_never_binds_tries_what_the_race_tries():
    *_, (_, history) = search(GRID, Infertune(Briefing.of(GRID), 0), None)
    session = GridSession(GRID, Policy(GRID, None), 10_000.0)
    session.search()
    assert [one.cell for one in session.history] == [one.cell for one in history]


def test_a_finer_grid_finds_no_setting_that_is_dearer_than_what_the_search_recommends():
    situation = SITUATIONS["14-flat-with-a-lost-node"]
    decided, best = scaling_truth.search_settings(situation), scaling_truth.best_setting(situation)
    assert best.trials > decided.trials
    assert best.figure <= decided.figure * 1.0001


def test_where_the_bound_on_the_money_leaves_too_few_replicas_neither_finds_a_setting():
    situation = SITUATIONS["16-too-dear"]
    assert scaling_truth.best_setting(situation).says == scaling_truth.NOTHING
    cheap = situation.model_copy(update={"price_per_hour_usd": 0.05})
    assert scaling_truth.best_setting(cheap).says != scaling_truth.NOTHING


@pytest.mark.parametrize("name", ["17-real-controller", "19-out-of-bounds", "20-traffic-with-a-gap"])
def test_what_is_known_by_recording_or_counting_is_decided_right(name):
    result = scored(SITUATIONS[name])
    assert all(score.is_best for score in result.scores.values())


def test_what_must_not_be_refused_is_allowed_by_both():
    change = SITUATIONS["19-out-of-bounds"]
    small = change.model_copy(update={"after": {**change.after, "maxReplicas": 30}})
    assert scaling_truth.judge_change(small) == scaling_truth.may_change(small) == Answer("allow")
    gap = SITUATIONS["20-traffic-with-a-gap"].model_copy(update={"missing_hours": ((2.0, 3.0),)})
    assert scaling_truth.judge_traffic(gap) == scaling_truth.traffic_is_enough(gap) == Answer("recommend")


@pytest.mark.parametrize("time_s", [20.0, 60.0, 600.0])
def test_no_model_makes_a_verdict_or_a_choice_worse(time_s):
    outcomes = list(sprung(replace(QUIET, time_s=time_s)))
    assert [one.model for one in outcomes] == ["off", *MODELS]
    assert worse(outcomes) == []
    assert all(one.advice_share == 0 for one in outcomes if one.model == "off")
    assert len(table(outcomes).rows) == len(outcomes)


def test_a_choice_that_became_dearer_is_called_worse():
    same, _ = list(sprung(QUIET, ["prose"]))
    assert worse([replace(same, ratio=1.01)])
    assert worse([replace(same, verdict_worse=True)])
    assert not worse([replace(same, ratio=1.01, trap=replace(QUIET, seed=0))])


@settings(deadline=None, max_examples=40)
@given(
    data=st.data(),
    trap=st.builds(
        Trap,
        p99_ms=st.sampled_from([2.0, 10.0, 50.0]),
        max_accuracy_drop=st.sampled_from([0.0, 0.02]),
        time_s=st.sampled_from([40.0, 150.0, 600.0]),
        seed=st.sampled_from([None, 0, 1]),
    ),
)
def test_whatever_order_a_model_answers_the_measured_choice_is_never_worse(data, trap):
    def answer(question):
        places = st.lists(st.integers(0, len(question.cells) - 1), unique=True, max_size=5)
        return ordered(data.draw(places))

    alone = begun(trap)
    outcome = advised(Model("any", answer), trap, alone)
    assert not outcome.verdict_worse
    assert outcome.measured_ratio <= 1 + 1e-9


def test_a_good_model_finds_what_the_policy_stopped_short_of():
    trap = replace(QUIET, p99_ms=2.0, max_accuracy_drop=0.01, time_s=600.0)
    _, good = sprung(trap, ["good"])
    assert good.ratio <= 1


def test_only_a_few_of_the_options_are_tried_and_an_answer_that_is_none_costs_its_time_only():
    alone = begun(QUIET)
    session = begun(QUIET)
    session.advise(scripted(MODELS["random"], session.grid, 1))
    assert 0 < len(session.trials) - len(alone.trials) <= MOST_PICKS * MOST_ROUNDS
    for name in ("silent", "prose", "slow prose", "nonsense numbers"):
        useless = begun(QUIET)
        useless.advise(scripted(MODELS[name], useless.grid, 0))
        assert useless.trials == alone.trials
        assert 0 < useless.advice_s <= useless.time_s * SHARE
        assert against(useless, alone, name, QUIET).ratio == 1


def test_a_model_behind_http_is_shown_the_options_and_decides_the_same():
    answers = {}
    for name in ("good", "prose"):
        direct, asked = begun(QUIET), begun(QUIET)
        direct.advise(scripted(MODELS[name], direct.grid, 0))
        with served(MODELS[name], asked.grid) as ask:
            asked.advise(ask)
        assert asked.trials == direct.trials
        assert asked.advice_s == direct.advice_s
        answers[name] = asked.view.of_kind(EvidenceKind.ADVICE)
    assert answers["good"][0].outcome.result.exchange.model.startswith("scripted at 127.0.0.1")
    assert "no answer of use" in answers["prose"][0].outcome.reason


def test_noise_shows_the_same_of_a_cell_in_every_session_with_its_seed():
    noisy = replace(QUIET, seed=3)
    assert begun(noisy).history == begun(noisy).history
    assert begun(noisy).history != begun(QUIET).history


def test_hostile_models_name_what_is_worst():
    question = Question(GRID.cells[:40], GRID)
    dearest = max(range(40), key=lambda place: GRID.truth(GRID.cells[place]).cost_usd)
    assert MODELS["hostile: the dearest to serve"].answer(question).startswith(f'{{"order": [{dearest + 1},')


def test_surprises_hit_what_they_name_and_nothing_else():
    slow = Planted(where={"precision": "int8-static", "threads": "1"}, slower=2.0)
    changed = varied(GRID.recording, p99_ms=50, max_accuracy_drop=0.01, planted=[slow, HARDER_STUDENTS[0]])
    for cell in GRID.cells:
        before, after = GRID.truth(cell), changed.truth(cell)
        hit = cell.precision == "int8-static" and cell.threads == 1
        assert after.median_ms == pytest.approx(before.median_ms * (2 if hit else 1))
        worse_by = 0.020 if cell.student == "resnet18" else 0.0
        assert after.inaccuracy - before.inaccuracy == pytest.approx(worse_by)


def test_a_decision_is_the_best_one_within_three_percent_or_if_it_is_the_same():
    best = Answer("a", 1.0)
    assert Score(Answer("b", 1.02), best).is_best
    assert not Score(Answer("b", 1.04), best).is_best
    assert Score(Answer("nothing"), best).regret == math.inf
    assert Score(Answer("stop"), Answer("stop")).is_best
    assert not Score(Answer("go on"), Answer("stop")).is_best


def test_tables_count_best_decisions_by_topic_and_say_why_the_policy_stopped():
    right, wrong = SITUATIONS["01-usual"], SITUATIONS["14-flat-with-a-lost-node"]
    best, dear = Answer("x", 1.0), Answer("y", 2.0, 7, "all was tried")
    results = [
        Scored(right, {who: Score(best, best) for who in ADVISED}),
        Scored(wrong, {who: Score(dear, best) for who in ADVISED}),
    ]
    row = [next(iter(column.cells)) for column in score_table(results).columns]
    assert row == [ALONE, "1 of 2", "1 of 1", "0 of 1", "0 of 0", "1.50, 2.00"]
    assert [list(column.cells)[1] for column in situation_table(results).columns][1:4] == ["y", "x", "2.00"]
    assert reasons(results) == ["14-flat-with-a-lost-node is not the best, 7 tried: all was tried."]


def test_the_command_prints_all_tables_and_fails_if_a_model_made_something_worse(monkeypatch, capsys):
    monkeypatch.setattr(command, "load_situations", lambda: [SITUATIONS["19-out-of-bounds"]])
    monkeypatch.setattr(adversary, "traps", lambda _: (QUIET,))
    assert command.main([]) == 0
    printed = capsys.readouterr().out
    for said in ("| hostile: the dearest to serve", "| the policy", "1 of 1", "| 19-out-of-bounds", "took"):
        assert said in printed
    monkeypatch.setattr(adversary, "worse", lambda outcomes: outcomes[:1])
    assert command.main([]) == 1
    assert "WORSE without noise" in capsys.readouterr().out


def test_a_situation_that_cannot_be_read_ends_the_command_without_a_traceback(monkeypatch, tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text("kind: guess")
    monkeypatch.setattr(command, "load_situations", lambda: load_situations(tmp_path))
    assert command.main([]) == 2
    assert "error: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: [", "cannot be read"),
        ("kind: guess", "is no situation"),
        ("kind: stop\ntopic: trying\nasks: a\nwhy: b\n", "stop.p99_ms"),
    ],
)
def test_a_file_that_is_no_situation_is_refused_in_a_sentence(tmp_path, text, said):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(SituationError, match=said):
        load_situation(path)


def test_a_situation_that_knows_a_cell_that_there_is_not_is_refused():
    situation = SITUATIONS["01-usual"].model_copy(update={"known": ("no such cell",)})
    with pytest.raises(SituationError, match="no such cell"):
        search_truth.decided(situation)


def test_a_recording_that_is_missing_is_said():
    situation = SITUATIONS["17-real-controller"].model_copy(update={"recording": "none.json.gz"})
    with pytest.raises(SituationError, match="Run from a checkout"):
        scaling_truth.decide_replicas(situation)
