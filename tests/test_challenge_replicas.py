"""The step that is computed: what several replicas of the last one serve."""

from __future__ import annotations

import pytest
from challenge_support import TRIED, Recorded, evidence_of_times, played_scaling
from recorded_support import EAGER, INT8, view
from sample_result import PRICE_USD, scaling
from tests_support import measured_trial

from agent.climb import CALLS
from tools.bench import NotMeasuredError
from tools.challenge import StepOutcome, replicas_step
from tools.contracts import Evidence, Finding
from tools.selection import ATTEMPTS, Configured

TIMES_MS = {"eager": 12.0, "ort": 6.0, "ort-int8": 3.0, "openvino": 4.0, "openvino-int8": 2.0}


@pytest.fixture
def final():
    """A replica of which a full batch of 8 takes 8.57 ms."""
    seen = view([measured_trial(EAGER, 12.0), measured_trial(INT8, 2.0), measured_trial(INT8, 2.0, batches=(1, 8))])
    tried = seen.tried[INT8.digest]
    return Configured(tried, tried.points[8])


def test_a_request_that_is_answered_sooner_than_a_full_batch_is_explained(final):
    told = replicas_step(final, played_scaling(worst_p99_ms=0.4), PRICE_USD)
    assert told.figures.p99_ms.value == 0.4
    assert "waiting included" in told.why
    assert "less than a full batch of 8 takes" in told.why
    assert "9 % of the work it could do" in told.why, "6,000 on 2 replicas that serve 35,000 each"


def test_a_request_that_waits_for_longer_than_a_full_batch_needs_no_explanation(final):
    told = replicas_step(final, played_scaling(worst_p99_ms=30.0), PRICE_USD)
    assert "waiting included." in told.why
    assert "full batch" not in told.why


def test_no_p50_of_a_call_stands_beside_the_p99_of_a_request(final):
    assert replicas_step(final, played_scaling(), PRICE_USD).figures.p50_ms is None
    assert replicas_step(final, scaling(), PRICE_USD).figures.p50_ms == final.point.latency_ms.p50


def test_the_same_traffic_without_any_step_is_told_where_it_was_planned(final):
    told = replicas_step(final, played_scaling(baseline_replicas_peak=110, baseline_daily_cost_usd=39.13), PRICE_USD)
    assert "The model as given would need 110 replicas at the peak: $39.13 a day" in told.why
    without = played_scaling(baseline_replicas_peak=None, baseline_daily_cost_usd=None)
    assert "The model as given" not in replicas_step(final, without, PRICE_USD).why


def test_what_the_fleet_serves_and_costs_follows_from_the_twin(final):
    told = replicas_step(final, played_scaling(capacity_rps=35_000.0, replicas=3, days=7), PRICE_USD)
    assert told.outcome is StepOutcome.COMPUTED
    assert told.replicas == 3
    assert told.figures.throughput_rps.value == pytest.approx(105_000)
    # 3 replicas for 3,600 s serve 3,600 times 1,000 requests
    assert told.figures.cost_per_1000_usd.value == pytest.approx(3 * PRICE_USD / 3600)
    assert told.evidence[-1] == "e-scaling"


def answered(asked, trial, given_up=None):
    """Return a trial as the answer to a question that was asked."""
    outcome = trial.outcome.model_copy(
        update={"result": trial.outcome.result.model_copy(update={"given_up": given_up})}
    )
    body = trial.model_dump(exclude={"id", "outcome", "parameters"})
    return Evidence.of(Finding(**body, outcome=outcome, parameters=asked.parameters))


def test_what_another_session_gave_up_is_measured_to_the_end_once_more(tmp_path):
    recorded, recipe = Recorded(tmp_path), TRIED["ort-int8"]
    known = [e for e in evidence_of_times(TIMES_MS) if e.recipe == EAGER]
    elsewhere = []
    for reason in ("its median is clearly above 13.7 ms", None):
        with pytest.raises(NotMeasuredError) as asked:
            recorded.climb(known, elsewhere=elsewhere)._alone(recipe)
        assert asked.value.parameters["attempt"] == len(elsewhere) + 1
        elsewhere.append(answered(asked.value, measured_trial(recipe, 3.0), reason))
    climb = recorded.climb(known, elsewhere=elsewhere)
    climb._alone(recipe)
    assert climb.view.tried[recipe.digest].given_up is None


def test_what_was_given_up_as_often_as_it_may_be_tried_is_told_as_given_up(tmp_path):
    recorded, recipe = Recorded(tmp_path), TRIED["ort-int8"]
    session = evidence_of_times(TIMES_MS)
    known = [e for e in session if e.recipe != recipe]
    elsewhere = []
    for _ in range(ATTEMPTS):
        with pytest.raises(NotMeasuredError) as asked:
            recorded.climb(known, elsewhere=elsewhere)._alone(recipe)
        elsewhere.append(answered(asked.value, measured_trial(recipe, 3.0), "its median is clearly above 13.7 ms"))
    told = {s.name: s for s in recorded.climb(known, elsewhere=elsewhere).steps()}["INT8"]
    assert told.outcome is StepOutcome.NOT_TAKEN
    assert told.why.startswith(
        f"There are no figures of it. {recipe.name[0].upper()}{recipe.name[1:]} was given up: its"
    )
    assert set(told.evidence) == {e.id for e in elsewhere}


def with_p99(trial, high_ms, n=400):
    """Return a trial of so many calls, whose p99 may be as high as that at each batch size."""

    def wider(point):
        p50, p99 = point.latency_ms.p50, point.latency_ms.p99
        seen = {"p50": p50.model_copy(update={"n": n}), "p99": p99.model_copy(update={"high": high_ms, "n": n})}
        return point.model_copy(update={"latency_ms": point.latency_ms.model_copy(update=seen)})

    result = trial.outcome.result
    result = result.model_copy(update={"points": tuple(wider(point) for point in result.points)})
    body = trial.model_dump(exclude={"id", "outcome"})
    return Evidence.of(Finding(**body, outcome=trial.outcome.model_copy(update={"result": result})))


def test_a_p99_that_few_calls_bound_is_measured_with_many_before_its_step_is_judged(tmp_path):
    recorded, recipe = Recorded(tmp_path), TRIED["ort-int8"]
    session = evidence_of_times(TIMES_MS)
    alone, sweep = (e for e in session if e.recipe == recipe)
    known = [*(e for e in session if e.recipe != recipe), with_p99(alone, 30.0)]
    with pytest.raises(NotMeasuredError) as asked:
        recorded.climb(known).steps()
    assert asked.value.recipe == recipe
    assert (asked.value.parameters["batch_sizes"], asked.value.parameters["calls"]) == ([1], CALLS)
    many = answered(asked.value, with_p99(measured_trial(recipe, 3.0, sweep=True), 4.0, n=CALLS))
    told = {s.name: s for s in recorded.climb([*known, sweep], elsewhere=[many]).steps()}["INT8"]
    assert told.figures.p99_ms.high == 4.0, told.why
    assert many.id in told.evidence


def test_no_p99_is_measured_with_many_calls_once_the_time_is_up(tmp_path):
    recorded = Recorded(tmp_path)
    known = [with_p99(e, 1000.0) for e in evidence_of_times(TIMES_MS)]
    climb = recorded.climb(known)
    climb._until_s = 0.0
    assert climb.steps()[0].figures.p99_ms.high == 1000.0
