"""What-if: the session's own choice where nothing changes, no surprises where something does, and doubts by name."""

import io
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_support import EAGER, FLOAT, ID, INT8, settled_evidence, view, write_session
from rich.console import Console
from tests_support import compared, measured_trial, spec
from typer.testing import CliRunner

from agent.answers import print_what_if
from agent.cli_questions import app
from agent.questions import experiment_wanted
from agent.questions import what_if as ask
from tools.contracts import Precision, Recipe, Step, Unstable, Verdict
from tools.errors import InfertuneError, SpecError
from tools.report.format import NOTHING
from tools.selection import final_choice
from tools.traffic import constant
from tools.whatif import changed_spec, figure_of, what_if

TRACE = constant(400.0)


def wonder(seen, policy=lambda _: None, **changes):
    asked = changed_spec(seen.spec, {name: str(value) for name, value in changes.items()})
    return what_if(seen, asked, session=ID, traces=(TRACE, TRACE), policy=policy)


def recipe(index, *, integer=False):
    steps = tuple(Step(transform="cast", settings={"n": i}) for i in range(index))
    return Recipe(runtime="openvino", steps=steps, precision=Precision.INT8_STATIC if integer else Precision.FP32)


@st.composite
def grids(draw):
    """A session with a baseline and up to five others, each at two batch sizes, some timed in turn with it."""
    evidence = [measured_trial(EAGER, 12.0)]
    for index in range(draw(st.integers(0, 5))):
        made = recipe(index, integer=draw(st.booleans()))
        p50, drop = draw(st.floats(0.5, 30)), draw(st.sampled_from([0.0, 0.004, 0.008, 0.02]))
        evidence += [measured_trial(made, p50, drop=drop), measured_trial(made, p50, batches=(1, 8))]
        ratio = draw(st.sampled_from([None, 0.9, 1.0, 3.0]))
        if ratio is not None:
            evidence.append(compared(made, EAGER, ratio, batch=draw(st.sampled_from([1, 8]))))
    return evidence


objectives = st.fixed_dictionaries(
    {
        "minimize": st.sampled_from(["cost", "latency", "size"]),
        "p99_ms": st.floats(1, 100),
        "max_accuracy_drop": st.sampled_from([0.0, 0.005, 0.01, 0.05]),
    }
)


@given(grids(), objectives)
def test_unchanged_values_give_the_sessions_own_choice(evidence, objective):
    seen = view(evidence, asked=spec(**objective))
    found = wonder(seen)
    chosen, _ = final_choice(seen)
    assert found.same
    assert found.now == found.then
    assert (found.now.verdict is Verdict.MET) == (chosen is not None)
    assert found.changed == {}
    if chosen is not None:
        assert (found.now.best.definition, found.now.best.batch_size) == (chosen.tried.recipe, chosen.point.batch_size)


@given(grids(), objectives, st.floats(1, 10), st.sampled_from(["p99_ms", "max_accuracy_drop"]))
def test_loosening_never_makes_the_figure_worse_beyond_the_noise_and_tightening_never_better(
    evidence, objective, factor, name
):
    tight, loose = objective, {**objective, name: objective[name] * factor}
    loosened = wonder(view(evidence, asked=spec(**tight)), **{name: loose[name]})
    tightened = wonder(view(evidence, asked=spec(**loose)), **{name: tight[name]})
    assert loosened.now == tightened.then
    for narrow, wide in ((loosened.then, loosened.now), (tightened.now, tightened.then)):
        if narrow.scaling is not None:  # something keeps every promise
            assert wide.scaling is not None
            assert figure_of(wide)[1].low <= figure_of(narrow)[1].high


@given(grids(), objectives, st.floats(0.01, 100))
def test_the_price_scales_the_cost_and_changes_no_choice(evidence, objective, factor):
    seen = view(evidence, asked=spec(**objective))
    found = wonder(seen, price_per_hour_usd=seen.spec.hardware.price_per_hour_usd * factor)
    assert found.same
    assert found.now.best.cost_per_1000_usd == pytest.approx(found.then.best.cost_per_1000_usd * factor)
    if found.now.scaling is not None:
        assert found.now.scaling.daily_cost_usd == pytest.approx(found.then.scaling.daily_cost_usd * factor)
        assert found.now.scaling.replicas_peak == found.then.scaling.replicas_peak


def test_nothing_is_in_doubt_where_everything_was_measured():
    found = wonder(view(settled_evidence()), max_accuracy_drop=0.05)
    assert found.now.verdict is Verdict.MET
    assert found.now.best.definition == INT8
    assert found.checks == ()
    assert found.notes == ("No batch size of openvino int8-static above 8 was measured.",)


def test_another_batch_size_was_never_timed_in_turn_and_that_is_said():
    found = wonder(view(settled_evidence()), p99_ms=15)
    assert not found.same
    assert found.now.best.batch_size == 4
    assert [c.measure for c in found.checks] == [
        "openvino int8-static at batch 4 in turn with eager fp32 at batch 1",
        "openvino int8-static at batch 4 in turn with openvino fp32 at batch 1",
    ]
    assert {c.seconds for c in found.checks} == {1.0}


def test_what_the_policy_would_still_try_is_listed_with_what_the_like_took():
    found = wonder(
        view([measured_trial(EAGER, 12.0), measured_trial(FLOAT, 20.0)]), policy=experiment_wanted, p99_ms=30
    )
    assert found.checks[0].measure.startswith("openvino int8-static at batch 1")
    assert found.checks[0].how == "optimize"
    assert found.checks[0].seconds is None  # nothing was built in this session, so nobody knows what that takes
    assert found.checks[1].measure.startswith("whichever leads then")


def test_nothing_fits_and_the_closest_is_named_with_its_margins():
    found = wonder(view(settled_evidence()), p99_ms=0.5)
    assert found.now.verdict is Verdict.INFEASIBLE
    assert found.now.scaling is None
    assert (found.now.best.definition, found.now.best.batch_size) == (INT8, 1)
    assert found.now.margins[0].margin == pytest.approx(0.5 - 2 * 1.2 * 1.01)
    assert found.checks == ()


def test_a_p99_whose_interval_straddles_the_slo_could_change_the_answer():
    found = wonder(view(settled_evidence()), p99_ms=2.4)  # 2.4 ms, up to 2.424 ms
    assert found.now.scaling is None
    [check] = found.checks
    assert check.measure.startswith("openvino int8-static at batch 1 over many more calls")
    assert "should all of the interval turn out at most 2.40 ms, it would be chosen" in check.why
    assert check.how == "fresh"


def test_the_calls_that_tell_a_p99_from_the_slo_follow_from_its_interval():
    [check] = wonder(view(settled_evidence()), p99_ms=2.412).checks  # half as far as the interval reaches: four times
    assert "about 1,600 calls, in place of 400" in check.measure
    assert check.seconds == pytest.approx(1600 * 2.0 / 1e3, rel=0.01)


def test_an_accuracy_drop_that_straddles_the_budget_could_change_the_answer_either_way():
    evidence = [measured_trial(EAGER, 12.0), measured_trial(FLOAT, 6.0), measured_trial(INT8, 2.0, drop=0.012)]
    too_much = wonder(view(evidence), max_accuracy_drop=0.01)
    assert too_much.now.best.definition == FLOAT
    check = too_much.checks[-1]
    assert check.measure == "the accuracy of openvino int8-static on about 3,730 items (597 now)"
    assert "at most 1.00 points, it would be chosen" in check.why
    assert (check.how, check.seconds) == ("more data", None)
    within = wonder(view(evidence), max_accuracy_drop=0.014)
    assert within.now.best.definition == INT8
    assert any("above 1.40 points, openvino fp32 at batch 1 would be chosen" in c.why for c in within.checks)


def test_a_leader_whose_comparison_was_disturbed_leaves_the_answer_open():
    evidence = settled_evidence()
    noisy = evidence[5]
    outcome = Unstable(result=noisy.outcome.result, reason="the machine was disturbed")
    evidence[5] = noisy.model_copy(update={"outcome": outcome})
    found = wonder(view(evidence), price_per_hour_usd=1.2)
    assert (found.now.verdict, found.now.best.batch_size) == ("UNSTABLE", 8)
    assert "no telling whether" in found.now.summary
    assert "the machine was disturbed" in found.now.summary
    (check,) = [c for c in found.checks if c.measure.startswith("openvino int8-static at batch 8 in turn with eager")]
    assert check.how == "optimize"


def test_a_leader_that_lost_clearly_is_not_in_doubt():
    evidence = settled_evidence()
    evidence[5] = compared(INT8, EAGER, 0.5, batch=8)
    assert not any("at batch 8" in c.measure for c in wonder(view(evidence), price_per_hour_usd=1.2).checks)


def test_a_choice_that_never_settled_is_in_doubt():
    evidence = settled_evidence()
    result = evidence[3].outcome.result
    points = tuple(p.model_copy(update={"stable": False, "unstable_because": "noise"}) for p in result.points)
    shaken = result.model_copy(update={"points": points})
    evidence[3] = evidence[3].model_copy(update={"outcome": Unstable(result=shaken, reason="noise")})
    check = wonder(view(evidence), price_per_hour_usd=1.2).checks[0]
    assert (check.measure, check.why) == ("openvino int8-static at batch 8 again, on a quieter machine", "noise")
    assert check.how == "optimize"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"p99_ms": "-1"}, "p99_ms: Input should be greater than 0"),
        ({"p99_ms": "soon"}, "p99_ms: Input should be a valid number"),
        ({"p99_ms": "nan"}, "p99_ms: Input should be a finite number"),
        ({"max_accuracy_drop": "none"}, "max_accuracy_drop: Input should be a valid number"),
        ({"minimize": "joy"}, "minimize: Input should be 'cost', 'latency' or 'size'"),
        ({"price_per_hour_usd": "0"}, "price_per_hour_usd: Input should be greater than 0"),
        ({"rate_rps": "inf"}, "rate_rps: Input should be a finite number"),
    ],
)
def test_values_are_held_to_the_bounds_of_the_spec(changes, said):
    with pytest.raises(SpecError, match=said):
        changed_spec(spec(), changes)


def test_none_removes_a_limit_and_a_rate_takes_the_place_of_a_trace():
    changed = changed_spec(spec(), {"p99_ms": "none", "rate_rps": "250"})
    assert changed.objective.p99_ms is None
    assert (changed.traffic.trace, changed.traffic.rate_rps) == (None, 250)


# --- the command -----------------------------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_the_answer_begins_with_sentences_and_ends_with_what_to_do(tmp_path):
    write_session(tmp_path)
    answer = run("what-if", "--home", tmp_path, "--p99-ms", "15", "--price-per-hour", "1.20", "--rate", "900")
    assert answer.exit_code == 0, answer
    lines = answer.stdout.splitlines()
    assert lines[0] == (
        "For the lowest cost, p99 at most 15.0 ms, accuracy drop at most 1.00 points, at $1.20 an hour: "
        "openvino int8-static at batch 4, $0.000440 per 1,000 requests."
    )
    assert lines[1] == "The session chose openvino int8-static at batch 8: $0.0000298 per 1,000 requests."
    assert "  batch: 4 (session: 8)" in lines
    assert "  requests for the money: not measured (session: 11.0x [10.9, 11.1])" in lines
    assert f"  replicas, 95 % / peak: 3 / 3 (session: {NOTHING})" in lines
    assert any(line.startswith("To be sure, measure (about ") for line in lines)
    assert (
        "  In /specs/tuning.yaml: objective.p99_ms: 15, hardware.price_per_hour_usd: 1.2, traffic.rate_rps: 900"
        in lines
    )
    assert "  infertune optimize /specs/tuning.yaml" in lines


def test_on_a_terminal_the_answer_fits_80_columns(tmp_path):
    found = ask(write_session(tmp_path), {"p99_ms": "2.412"})
    out = io.StringIO()
    print_what_if(found, "/specs/tuning.yaml", Console(width=80, force_terminal=True, color_system=None, file=out))
    assert max(len(line.rstrip()) for line in out.getvalue().splitlines()) <= 80


def test_json_is_the_whole_answer(tmp_path):
    write_session(tmp_path)
    answer = json.loads(run("what-if", "--home", tmp_path, "--minimize", "size", "--output", "json").stdout)
    assert answer["changed"] == {"objective.minimize": "size"}
    assert answer["now"]["verdict"] == "MET"
    assert answer["then"]["best"]["batch_size"] == 8


def test_without_a_change_or_a_measurement_it_is_refused(tmp_path):
    folder = write_session(tmp_path)
    with pytest.raises(InfertuneError, match=r"nothing is changed\. Give at least one of --p99-ms"):
        ask(folder, {})
    empty = write_session(tmp_path / "other", [])
    with pytest.raises(InfertuneError, match="nothing was measured"):
        ask(empty, {"p99_ms": "3"})
    failed = write_session(tmp_path / "third", [], loaded=False, ends=("failed",))
    with pytest.raises(InfertuneError, match="ended before its workload was loaded"):
        ask(failed, {"p99_ms": "3"})


def test_evidence_that_is_gone_is_named(tmp_path):
    evidence = settled_evidence()
    folder = write_session(tmp_path, evidence, kept=evidence[1:])
    with pytest.raises(InfertuneError, match=rf"1 of 8 pieces of evidence .*\({evidence[0].id}\)"):
        ask(folder, {"p99_ms": "3"})


def test_neither_question_imports_anything_heavy(tmp_path):
    write_session(tmp_path)
    program = (
        "import sys\nfrom agent.cli_questions import app\n"
        f"for line in (['what-if', '--p99-ms', '15'], ['explain', {ID!r}, 'd02']):\n"
        f"    app([*line, '--home', {str(tmp_path)!r}], standalone_mode=False)\n"
        "print([m for m in ('torch', 'mlflow', 'langgraph', 'langchain_core', 'onnx') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
