from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from challenge_support import BATCHES, ORT_INT8, TRIED, Recorded, evidence_of_times, figures, sample_challenge, step
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_support import EAGER, INT8, settled_evidence, view, write_session
from rich.console import Console
from sample_result import interval, sample_result
from tests_support import compared, measured_trial
from typer.testing import CliRunner

from agent import rungs
from agent.challenge import Told, _tell, fitting_session
from agent.challenge_console import print_told
from agent.cli_challenge import app
from agent.signals import InterruptedSessionError
from tools.challenge import Challenge, ChallengeStep, StepOutcome, TargetState, final_step
from tools.challenge_targets import quotient, targets
from tools.contracts import ComparisonResult, Evidence, Finding, Interval, Student, Unstable
from tools.errors import SpecError
from tools.evidence import EvidenceStore
from tools.machine import Machine
from tools.observer import Silent
from tools.report import format as fmt
from tools.report.challenge import render, sentence, step_rows, target_rows
from tools.worker import LIGHT_MODULES, Worker

STEPS = ("baseline", "16-bit floats", "INT8", "batching", "pruning", "distillation", "best runtime", "replicas")
TIMES_MS = {"eager": 12.0, "ort": 6.0, "ort-int8": 3.0, "openvino": 4.0, "openvino-int8": 2.0}
TARGETS = ("throughput", "cost per request", "p99", "accuracy drop")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return Recorded(tmp_path_factory.mktemp("home"))


def story(recorded, drops=None, **times_ms):
    steps = recorded.climb(evidence_of_times({**TIMES_MS, **times_ms}, drops)).steps()
    return {told.name: told for told in steps}


def test_every_step_is_told_in_order_whatever_became_of_it(recorded):
    assert tuple(story(recorded)) == STEPS


def test_a_step_that_serves_more_is_taken_and_built_upon(recorded):
    told = story(recorded)
    assert told["INT8"].outcome is told["batching"].outcome is StepOutcome.TAKEN
    assert told["INT8"].figures.batch_size == 1
    assert told["batching"].recipe == told["INT8"].recipe
    assert told["batching"].figures.batch_size == max(BATCHES)


def test_integers_slower_than_floats_on_their_runtime_are_a_step_back_even_if_faster_than_before(recorded):
    told = story(recorded, **{"ort-int8": 8.0})
    assert told["INT8"].outcome is StepOutcome.STEP_BACK
    assert TRIED["ort"].name in told["INT8"].why
    assert told["batching"].recipe == EAGER.name, "what is not taken is not built upon"


def test_integers_that_lose_accuracy_are_shown_and_not_taken(recorded):
    told = story(recorded, drops={"ort-int8": 0.05})
    assert told["INT8"].outcome is StepOutcome.NOT_TAKEN
    assert "max_accuracy_drop" in told["INT8"].why
    assert told["INT8"].figures is not None


def test_a_step_within_the_noise_is_not_taken(recorded):
    told = story(recorded, eager=3.0, ort=3.2, **{"ort-int8": 2.99})
    assert told["INT8"].outcome is StepOutcome.NOT_TAKEN
    assert "noise" in told["INT8"].why


def test_what_the_machine_or_the_spec_lacks_is_skipped_with_the_reason(recorded):
    told = story(recorded)
    assert told["16-bit floats"].outcome is told["pruning"].outcome is StepOutcome.SKIPPED
    assert "kernels" in told["16-bit floats"].why
    assert "training" in told["pruning"].why
    assert "training" in told["distillation"].why
    assert "traffic" in told["replicas"].why


def test_the_last_step_is_what_the_session_would_choose_of_all_that_was_measured(recorded):
    told = story(recorded)
    assert told["best runtime"].outcome is StepOutcome.TAKEN
    assert told["best runtime"].recipe == INT8.name


def test_a_model_that_nothing_improves_keeps_the_baseline_as_its_last_step(recorded):
    slow = dict.fromkeys(TIMES_MS, 30.0)
    steps = tuple(story(recorded, **{**slow, "eager": 1.0}).values())
    assert final_step(steps).recipe == EAGER.name
    assert {s.outcome for s in steps} & {StepOutcome.STEP_BACK, StepOutcome.SKIPPED}


def disturbed(evidence, attempt):
    """Return an attempt at a comparison that was too noisy to tell."""
    body = evidence.model_dump(exclude={"id", "outcome", "parameters"})
    outcome = Unstable(result=evidence.outcome.result, reason="a neighbour")
    return Evidence.of(Finding(**body, outcome=outcome, parameters={**evidence.parameters, "attempt": attempt}))


@pytest.mark.parametrize("stable", [True, False])
def test_the_last_step_is_compared_as_the_session_compared_it(recorded, stable):
    in_turn = compared(INT8, EAGER, 11.0, batch=max(BATCHES))
    told = [in_turn] if stable else [disturbed(in_turn, attempt) for attempt in (1, 2)]
    evidence = [*evidence_of_times(TIMES_MS), *told]
    climb = recorded.climb(evidence)
    climb.steps()
    identity, result = climb.compared()
    assert identity == evidence[-1].id
    assert result.throughput.value == 11.0


def test_steps_that_the_time_does_not_reach_are_skipped_and_say_so(recorded, monkeypatch):
    evidence = [e for e in evidence_of_times(TIMES_MS) if e.recipe in (EAGER, INT8)]
    climb = recorded.climb(evidence)
    monkeypatch.setattr(climb, "_until_s", 0.0)
    told = {s.name: s for s in climb.steps()}
    assert "time was used up" in told["INT8"].why
    assert told["INT8"].figures is None
    assert told["batching"].outcome is not StepOutcome.SKIPPED, "the session measured that"


def trained_view(*evidence):
    """Return a view of a workload that may be trained on, with two students."""
    seen = view(evidence, available=("eager", "openvino", "onnxruntime"))
    students = tuple(Student(name=f"width={width}", width=width) for width in (0.5, 0.25))
    workload = seen.workload.model_copy(update={"training": seen.workload.evaluation, "students": students})
    return replace(seen, workload=workload)


def test_pruning_tries_fewer_channels_only_where_more_lose_too_much():
    first = rungs.pruning(trained_view(measured_trial(EAGER, 12.0)), EAGER).recipes
    assert [r.steps[0].settings["ratio"] for r in first] == [0.5]
    good, bad = (measured_trial(first[0], 6.0, drop=drop) for drop in (0.0, 0.05))
    assert rungs.pruning(trained_view(good), EAGER).recipes == first
    assert [r.steps[0].settings["ratio"] for r in rungs.pruning(trained_view(bad), EAGER).recipes] == [0.5, 0.3]


def test_a_student_is_pruned_as_the_standing_model_is_once_it_proves_itself():
    standing = rungs.pruning(trained_view(), EAGER).recipes[0]
    (student,) = rungs.distillation(trained_view(), standing).recipes
    assert student.variant == "distill width=0.5"
    grown = rungs.distillation(trained_view(measured_trial(student, 6.0)), standing).recipes
    assert grown[0] == student
    assert rungs.reshaping(grown[1]) == (*rungs.reshaping(student), *rungs.reshaping(standing))
    lossy = rungs.distillation(trained_view(measured_trial(student, 6.0, drop=0.05)), standing).recipes
    assert lossy == (student,)


def test_steps_are_carried_on_the_runtime_and_precision_that_stand():
    for standing in (ORT_INT8, INT8):
        for rung in (rungs.pruning, rungs.distillation):
            (found,) = rung(trained_view(), standing).recipes
            assert (found.runtime, found.precision) == (standing.runtime, standing.precision)
            assert rungs.reshaping(found)


def test_the_last_step_looks_at_the_same_model_on_every_runtime():
    standing = rungs.pruning(trained_view(), ORT_INT8).recipes[0]
    found = rungs.runtimes(trained_view(), standing).recipes
    assert {r.runtime for r in found} == {"onnxruntime", "openvino"}
    assert all(rungs.reshaping(r) == rungs.reshaping(standing) for r in found)
    assert standing not in found


def test_ctrl_c_ends_the_climb_before_anything_is_judged_by_halves(recorded):
    evidence = [e for e in evidence_of_times(TIMES_MS) if e.recipe == EAGER]
    nobody = Worker(LIGHT_MODULES, recorded.home / "logs")
    with nobody:
        climb = recorded.climb(evidence, Machine(nobody, nobody, Silent(), 1.0, stopped=True))
        with pytest.raises(InterruptedSessionError, match="what was measured is kept"):
            climb.steps()


@settings(max_examples=25, deadline=None)
@given(
    times=st.fixed_dictionaries({name: st.floats(0.5, 40.0) for name in TRIED}),
    drops=st.fixed_dictionaries({name: st.sampled_from([0.0, 0.005, 0.05]) for name in TRIED if name != "eager"}),
)
def test_no_figure_is_claimed_that_is_not_in_the_evidence_it_names(recorded, times, drops):
    evidence = evidence_of_times(times, drops)
    known = {e.id: e for e in evidence}
    standing = None
    for told in recorded.climb(evidence).steps():
        if told.figures is None:
            assert told.outcome in (StepOutcome.SKIPPED, StepOutcome.NOT_TAKEN)
            continue
        points = [p for name in told.evidence for p in known[name].outcome.result.points]
        shown = (told.figures.batch_size, told.figures.throughput_rps, told.figures.p99_ms)
        assert shown in [(p.batch_size, p.throughput_rps, p.latency_ms.p99) for p in points]
        assert all(known[name].recipe.name == told.recipe for name in told.evidence)
        if told.outcome is StepOutcome.TAKEN:
            assert told.figures.throughput_rps.high >= standing.throughput_rps.low
            assert told.figures.accuracy_drop.value <= 0.01
        if told.outcome in (StepOutcome.BASELINE, StepOutcome.TAKEN):
            standing = told.figures


def test_figures_without_evidence_cannot_be_written_down():
    with pytest.raises(ValueError, match="rest on no evidence"):
        ChallengeStep(name="INT8", outcome=StepOutcome.TAKEN, figures=figures(10.0, 1.0), why="so they say")
    with pytest.raises(ValueError, match="without figures"):
        ChallengeStep(name="INT8", outcome=StepOutcome.TAKEN, evidence=("e1",), why="so they say")


@given(*[st.floats(1e-3, 1e6)] * 2, *[st.floats(0.0, 0.9)] * 2)
def test_a_quotient_holds_every_ratio_of_what_its_intervals_hold(above, below, spread_above, spread_below):
    numerator, denominator = interval(above, spread_above), interval(below, spread_below)
    found = quotient(numerator, denominator)
    assert found.low <= found.value <= found.high
    for upper in (numerator.low, numerator.high):
        for lower in (denominator.low, denominator.high):
            assert found.low <= upper / lower <= found.high


@pytest.mark.parametrize(
    ("low", "high", "state"),
    [(20.0, 25.0, TargetState.MET), (19.0, 21.0, TargetState.OPEN), (10.0, 19.9, TargetState.MISSED)],
)
def test_a_target_is_met_by_the_whole_of_its_interval(low, high, state):
    steps = (step("baseline", StepOutcome.BASELINE, 10.0), step("batching", StepOutcome.TAKEN, 200.0))
    ratio = Interval(value=(low + high) / 2, low=low, high=high, n=7)
    compared = ComparisonResult(baseline_batch=1, candidate_batch=8, p50=ratio, throughput=ratio, rounds=7)
    found = {target.name: target for target in targets(steps, ("e-compared", compared))}
    assert tuple(found) == TARGETS
    assert found["throughput"].state is state
    assert found["throughput"].evidence == ("e-compared",)
    assert found["throughput"].stretch == 60.0


def test_targets_without_a_comparison_say_that_they_were_not_timed_in_turn():
    steps = (step("baseline", StepOutcome.BASELINE, 10.0), step("batching", StepOutcome.TAKEN, 200.0))
    found = targets(steps, None)[0]
    assert "not in turn" in found.how
    assert found.evidence == ("e-baseline", "e-batching")
    assert found.got.low < 20.0 < found.got.high


def test_the_rows_show_intervals_where_there_are_some_and_no_figure_where_there_is_none():
    rows = {row.name: row for row in step_rows(sample_challenge())}
    assert rows["16-bit floats"].batch == ""
    assert rows["16-bit floats"].throughput.text == fmt.NOTHING
    assert rows["batching"].throughput.interval == "[47.5, 48.5]"
    assert (rows["replicas"].batch, rows["replicas"].replicas) == ("8", "2 replicas")
    assert rows["best runtime"].replicas == ""
    assert "too noisy" in rows["best runtime"].why
    assert [row.state for row in target_rows(sample_challenge())] == ["met", "met", "open", "met"]


def test_the_sentence_names_what_was_taken_and_nothing_else():
    assert sentence(sample_challenge()).endswith("by batching, pruning, best runtime.")


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_every_step_and_target_within_its_width(width):
    out = io.StringIO()
    told = Told(sample_challenge(), Path("/s"), {"page": Path("/s/challenge.html")}, ("No picture was taken.",))
    print_told(told, Console(file=out, width=width, force_terminal=True, color_system=None))
    text = out.getvalue()
    assert all(name in text for name in (*STEPS, *TARGETS, "challenge.html", "No picture"))
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text


def test_hostile_names_stay_text_on_the_page():
    hostile = "<script>alert(1)</script>\"'{{ 7*7 }}\u202e"
    told = sample_challenge()
    steps = tuple(s.model_copy(update={"why": s.why + hostile, "recipe": hostile}) for s in told.steps)
    page = render(told.model_copy(update={"steps": steps}), sample_result())
    assert "<script" not in page
    assert "\u202e" not in page
    assert not re.search(r"<(?:img|link|iframe)", page)


def test_a_session_that_measured_everything_is_told_without_measuring_anything(tmp_path):
    evidence = settled_evidence()
    folder = write_session(tmp_path, evidence)
    (folder / "result.json").write_text(sample_result().model_dump_json())
    before = (folder / "journal.jsonl").read_bytes()
    told = _tell(tmp_path, folder, Silent())
    assert {s.name: s.outcome for s in told.challenge.steps}["INT8"] is StepOutcome.TAKEN
    assert final_step(told.challenge.steps).figures.batch_size == 8
    assert told.challenge.targets[0].evidence == (evidence[5].id,)
    assert Challenge.model_validate_json((folder / "challenge.json").read_text()) == told.challenge
    page = (folder / "challenge.html").read_text()
    assert all(identity in page for s in told.challenge.steps for identity in s.evidence)
    assert (folder / "challenge.png").exists() == (not any("picture" in note for note in told.notes))
    assert any("no record of this challenge" in note and "example.npz" in note for note in told.notes)
    assert (folder / "journal.jsonl").read_bytes() == before, "the session itself is over"
    assert {row.id for row in EvidenceStore(tmp_path / "evidence.db").rows()} == {e.id for e in evidence}


def test_a_session_of_another_machine_is_not_taken_up(tmp_path):
    write_session(tmp_path)
    assert fitting_session(tmp_path, "/specs/tuning.yaml") is None


def test_a_workload_that_does_not_exist_is_a_mistake_in_the_input(tmp_path):
    answer = CliRunner().invoke(app, ["no-such-thing", "--home", str(tmp_path / "home")])
    assert isinstance(answer.exception, SpecError)
    assert not (tmp_path / "home").exists()


def test_the_command_imports_nothing_heavy_until_it_runs():
    assert isinstance(app, typer.Typer)
    source = Path(sys.modules["agent.cli_challenge"].__file__).read_text()
    top = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert {line.split()[1].partition(".")[0] for line in top} <= {"__future__", "typing", "typer", "agent"}
    assert all(
        line.split()[1] in ("agent", "agent.home") or line.split()[1].startswith("agent.cli_")
        for line in top
        if " agent" in line
    )
