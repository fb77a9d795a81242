"""The search: what was measured is believed, neighbours learn from it, and it stops when nothing could win."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.priors import Facts, feasible_prior, prior
from agent.search import (
    LEAST_CHANCE,
    Candidate,
    Seen,
    covariance,
    expected_improvement,
    feasibility,
    next_candidate,
    posterior,
    prospects_of,
)
from tools.report.format import significant

FACTS = Facts(precisions=frozenset({"fp32", "int8-static"}), threads=2, flops={"small": 0.25})
SPREAD = {"runtime": 0.5, "precision": 0.4, "batch": 0.2}


def candidate(runtime="a", precision="fp32", batch=1, gain=0.0, **changes):
    levels = {"runtime": runtime, "precision": precision, "batch": str(batch)}
    return Candidate(f"{runtime} {precision} {batch}", levels, gain, SPREAD, **changes)


ALL = [candidate(r, p, b) for r in "abc" for p in ("fp32", "int8") for b in (1, 2, 4, 8)]
subsets = st.lists(st.sampled_from(ALL), min_size=1, max_size=8, unique_by=lambda c: c.key)


@given(subsets)
def test_the_covariance_is_symmetric_and_positive(chosen):
    matrix = covariance(chosen, chosen)
    assert np.allclose(matrix, matrix.T)
    assert np.linalg.eigvalsh(matrix).min() > 0


@given(subsets, st.floats(-2, 2))
def test_what_was_measured_exactly_is_believed_and_leaves_no_doubt(chosen, gain):
    seen = [Seen(c.key, gain, 1e-4, feasible=True) for c in chosen]
    mean, sd = posterior(chosen, chosen, seen)
    assert np.allclose(mean, gain, atol=2e-3)
    assert (sd < 1e-2).all()


@given(subsets)
def test_measuring_never_makes_less_certain(chosen):
    before = posterior(ALL, [], [])[1]
    after = posterior(ALL, chosen, [Seen(c.key, 1.0, 0.05, feasible=True) for c in chosen])[1]
    assert (after <= before + 1e-9).all()


def test_a_neighbour_learns_more_than_a_stranger():
    known = candidate("a", "int8", 8)
    near, far = candidate("a", "int8", 4), candidate("b", "fp32", 1)
    mean, _ = posterior([near, far], [known], [Seen(known.key, 2.0, 0.02, feasible=True)])
    assert mean[0] > 1.5
    assert mean[1] < 0.5


@given(st.floats(-3, 3), st.floats(0.01, 2), st.floats(-3, 3))
def test_expected_improvement_is_the_integral_that_it_claims_to_be(mean, sd, best):
    x = np.linspace(mean - 9 * sd, mean + 9 * sd, 20_001)
    density = np.exp(-(((x - mean) / sd) ** 2) / 2) / (sd * math.sqrt(2 * math.pi))
    assert expected_improvement(mean, sd, best) == pytest.approx(
        float(np.trapezoid(np.maximum(x - best, 0) * density, x)), abs=1e-4
    )


def test_of_equal_promises_the_cheaper_is_tried_and_what_is_built_costs_nothing():
    slow = candidate("a", gain=1.0, parts={"train": 60.0})
    fast = candidate("b", gain=1.0, parts={"export": 5.0})
    assert next_candidate([slow, fast], [], set()).candidate == fast
    assert next_candidate([slow, fast], [], {"train"}).candidate == slow


def test_it_stops_when_nothing_could_be_better_and_says_so():
    best = candidate("a", gain=3.0)
    poor = candidate("b", gain=-3.0)
    choice = next_candidate([best, poor], [Seen(best.key, 3.0, 0.01, feasible=True)], set())
    assert choice.candidate is None
    assert "no candidate is left that could well be better by 3%" in choice.reason
    assert choice.prospects[0].chance < LEAST_CHANCE


def test_it_stops_when_everything_was_tried():
    only = candidate()
    choice = next_candidate([only], [Seen(only.key, 0.0, 0.1, feasible=True)], set())
    assert (choice.candidate, choice.reason) == (None, "everything that could be tried was tried")


def test_what_does_not_fit_into_the_time_is_not_chosen():
    dear, cheap = candidate("a", gain=2.0, measure_s=100.0), candidate("b", gain=0.5, measure_s=5.0)
    assert next_candidate([dear, cheap], [], set(), left_s=50.0).candidate == cheap
    choice = next_candidate([dear], [], set(), left_s=50.0)
    assert choice.candidate is None
    assert "none is expected to fit into the 50 s left" in choice.reason


def test_a_recipe_that_lost_its_accuracy_loses_it_at_every_batch_size():
    broken = candidate("a", "int8", 1)
    wanted = [candidate("a", "int8", 8), candidate("a", "fp32", 8)]
    chances = feasibility(wanted, [broken], [Seen(broken.key, 2.0, 0.01, feasible=False, accurate=False)])
    assert chances[0] == 0
    assert chances[1] > 0.5


def test_while_nothing_is_feasible_the_likeliest_to_be_is_worth_a_trial():
    failed = candidate("a", gain=5.0)
    other = candidate("b", gain=-1.0)
    choice = next_candidate([failed, other], [Seen(failed.key, 5.0, 0.01, feasible=False, accurate=False)], set())
    assert choice.candidate == other


@given(subsets, subsets)
def test_the_same_evidence_gives_the_same_choice_in_any_order(chosen, known):
    seen = [Seen(c.key, 0.3, 0.02, feasible=True) for c in known]
    first = next_candidate(chosen + known, seen, set())
    second = next_candidate((chosen + known)[::-1], seen[::-1], set())
    assert first.candidate == second.candidate


def test_prospects_come_the_most_rewarding_a_second_first():
    rates = [
        p.improvement / p.seconds for p in prospects_of(ALL, [Seen(ALL[0].key, 0.0, 0.1, feasible=True)], set(), 0.03)
    ]
    assert rates == sorted(rates, reverse=True)


# --- priors ----------------------------------------------------------------------------------------------------


def levels(**changes):
    return {"student": "", "runtime": "openvino", "precision": "fp32", "batch": "1", "threads": "2", **changes}


def test_priors_expect_more_of_integers_with_kernels_of_larger_batches_and_of_smaller_students():
    plain, _ = prior(levels(), FACTS)
    for better in ({"precision": "int8-static"}, {"batch": "16"}, {"student": "small"}):
        assert prior(levels(**better), FACTS)[0] > plain + 0.3
    assert prior(levels(threads="1"), FACTS)[0] < plain
    emulated = Facts(precisions=frozenset({"fp32"}), threads=2)
    assert prior(levels(precision="int8-static"), emulated)[0] < prior(levels(precision="int8-static"), FACTS)[0]


def test_the_model_as_given_is_known_to_gain_nothing():
    gain, spread = prior(levels(runtime="eager"), FACTS)
    assert gain == 0
    assert sum(spread.values()) < 0.1


def test_a_student_may_lose_its_accuracy_more_easily():
    assert feasible_prior(levels(student="small")) < feasible_prior(levels()) <= 1


@pytest.mark.parametrize(
    ("value", "shown"), [(163.2, "160"), (1632.0, "1,600"), (8.14, "8.1"), (0.0416, "0.042"), (1.0, "1")]
)
def test_expectations_are_told_without_an_exponent(value, shown):
    assert significant(value, 2) == shown


def test_where_trials_are_scarcer_than_seconds_the_largest_improvement_comes_first():
    slow, quick, base = candidate("b", gain=2.0, measure_s=50.0), candidate("c", gain=1.0), candidate("a")
    seen = [Seen(base.key, 0.0, 0.02, feasible=True)]
    assert next_candidate([base, slow, quick], seen, set(), left_s=400.0).candidate is quick
    assert next_candidate([base, slow, quick], seen, set(), left_s=400.0, trial_share_s=400.0).candidate is slow
    assert next_candidate([base, slow, quick], seen, set(), trial_share_s=1e9).candidate is slow
    assert next_candidate([base, slow, quick], seen, set(), left_s=400.0, trial_share_s=0.4).candidate is quick


def test_a_student_that_is_not_accurate_in_full_precision_is_not_tried_in_other_formats():
    def student(name, precision, runtime="openvino"):
        levels = {"student": name, "precision": precision, "runtime": runtime}
        return Candidate(f"{name} {precision} {runtime}", levels, 1.0, SPREAD)

    bad, others = student("small", "bf16"), [student("small", "int8-static"), student("small", "fp32", "onnxruntime")]
    fine, teacher = student("large", "int8-static"), student("", "int8-static")
    inaccurate = [Seen(bad.key, 1.0, 0.02, feasible=False, accurate=False)]
    found = feasibility([*others, fine, teacher], [bad], inaccurate)
    assert list(found[:2] <= 0.03) == [True, True]
    assert min(found[2:]) > 0.1
    in_int8 = student("small", "int8-static", "onnxruntime")
    quantized = [Seen(in_int8.key, 1.0, 0.02, feasible=False, accurate=False)]
    assert min(feasibility([student("small", "fp32", "onnxruntime")], [in_int8], quantized)) > 0.1
