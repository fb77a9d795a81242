"""Why tune again: what counts as a change, what does not, and what cannot be told."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.reasons import MIN_HOURS, SLO_AGAIN_S, Facts, judge

DAY_S = 86_400.0
MONDAY = 4 * 24
"""Hours since 1970 of the first Monday."""
WEEK = 168


def day(hour):
    """A consumer service: quiet at night, busy in the evening; less at weekends."""
    weekend = 0.6 if (hour - MONDAY) % WEEK >= 5 * 24 else 1.0
    return weekend * (100 + 80 * math.sin(2 * math.pi * (hour % 24 - 9) / 24))


def facts(*, at_s=0.0, begin=MONDAY, hours=0, rate=day, noise=0.05, seed=0, **changes):
    generator = np.random.default_rng(seed)
    hourly = tuple((h, rate(h) * math.exp(noise * generator.standard_normal())) for h in range(begin, begin + hours))
    known = {"spec": "s", "hardware": "h", "files": {"/m.onnx": "1"}, "versions": {"torch": "2.10"}}
    return Facts(at_s=at_s, hourly_rps=hourly, **{**known, **changes})


def kinds(last, now, max_age_s=30 * DAY_S):
    return [reason.kind for reason in judge(last, now, max_age_s=max_age_s).reasons]


def test_without_an_earlier_run_there_is_a_reason():
    assert kinds(None, facts()) == ["first"]


@given(at_s=st.floats(0, 29 * DAY_S))
def test_the_same_facts_are_no_reason_until_they_are_old(at_s):
    assert kinds(facts(), facts(at_s=at_s)) == []
    assert kinds(facts(), facts(at_s=at_s + 31 * DAY_S)) == ["age"]


def test_evidence_from_the_future_has_no_age_and_is_renewed_but_not_for_an_hour():
    assert kinds(facts(at_s=3600.0), facts()) == []
    (reason,) = judge(facts(at_s=3 * DAY_S), facts(), max_age_s=DAY_S).reasons
    assert reason.kind == "age"
    assert "3.0 days ahead" in reason.text


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"spec": "t"}, "spec", "spec"),
        ({"files": {"/m.onnx": "2"}}, "workload", "/m.onnx"),
        ({"files": {"/m.onnx": "1", "/d.npz": "1"}}, "workload", "Model or data changed: /d.npz."),
        ({"files": {"/m.onnx": "1", "/m.py": "1"}}, "workload", "code changed: /m.py."),
        ({"hardware": "i"}, "hardware", "machine"),
        ({"versions": {"torch": "2.11"}}, "versions", "torch 2.10 to 2.11"),
        ({"versions": {}}, "versions", "torch 2.10 to absent"),
    ],
)
def test_each_change_of_what_numbers_depend_on_is_named(changes, kind, says):
    (reason,) = judge(facts(), facts(**changes), max_age_s=DAY_S).reasons
    assert reason.kind == kind
    assert says in reason.text


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("hours", [24, 48, 168])
def test_an_ordinary_day_after_an_ordinary_week_is_no_drift(seed, hours):
    last, now = facts(hours=WEEK, seed=seed), facts(begin=MONDAY + WEEK, hours=hours, seed=seed + 100, noise=0.1)
    assert kinds(last, now) == []


def test_a_weekend_is_compared_with_a_weekend():
    saturday = MONDAY + WEEK + 5 * 24
    assert kinds(facts(hours=WEEK), facts(begin=saturday, hours=48, seed=1)) == []
    busy = facts(begin=saturday, hours=48, seed=1, rate=lambda h: day(h) / 0.6)
    assert kinds(facts(hours=WEEK), busy) == ["traffic_level"]


@given(factor=st.floats(0.05, 20))
def test_the_level_counts_from_a_fifth_on(factor):
    last, now = (
        facts(hours=WEEK, noise=0),
        facts(begin=MONDAY + WEEK, hours=72, noise=0, rate=lambda h: factor * day(h)),
    )
    found = kinds(last, now)
    assert "traffic_shape" not in found
    if abs(math.log(factor)) < math.log(1.2) - 1e-9:
        assert found == []
    elif abs(math.log(factor)) > math.log(2):
        assert found == ["traffic_level"]


def test_the_same_requests_in_a_few_bursts_are_another_shape():
    bursts = facts(begin=MONDAY + WEEK, hours=72, noise=0.01, rate=lambda h: 1200 if h % 12 == 0 else 1)
    assert "traffic_shape" in kinds(facts(hours=WEEK), bursts)


def test_a_steady_service_has_no_shape_that_could_change():
    last, now = (facts(begin=b, hours=WEEK, rate=lambda _, r=r: r, noise=0.001, seed=b) for b, r in
                 ((MONDAY, 100.0), (MONDAY + WEEK, 101.0)))  # fmt: skip
    assert kinds(last, now) == []


def test_a_change_that_was_answered_is_not_found_again_when_other_days_of_the_week_come():
    grown = MONDAY + WEEK + 24

    def rate(hour):
        return day(hour) * (1.7 if hour >= grown else 1.0)

    def seen(until, **changes):
        return facts(begin=until - WEEK, hours=WEEK, rate=rate, noise=0, **changes)

    answered = judge(facts(hours=WEEK, noise=0), seen(grown + 36), max_age_s=DAY_S)
    assert [reason.kind for reason in answered.reasons] == ["traffic_level"]
    later = judge(answered.known, seen(grown + 70, spec="t"), max_age_s=DAY_S)
    assert [reason.kind for reason in later.reasons] == ["spec"]
    for hours in (100, 130, 160, 230):
        assert kinds(answered.known, seen(grown + hours)) == []
        assert kinds(later.known, seen(grown + hours, spec="t")) == []


def test_too_few_hours_claim_nothing_and_say_so():
    now = facts(begin=MONDAY + WEEK, hours=MIN_HOURS - 1, rate=lambda h: 9 * day(h))
    judgement = judge(facts(hours=WEEK), now, max_age_s=DAY_S)
    assert judgement.reasons == ()
    assert f"{MIN_HOURS - 1} hours" in judgement.notes[0]


def test_hours_that_the_last_run_saw_already_do_not_count_again():
    assert kinds(facts(hours=WEEK), facts(hours=WEEK, rate=lambda h: 9 * day(h))) == []


def test_traffic_that_stops_or_begins_is_a_change_of_level():
    silent = facts(begin=MONDAY + WEEK, hours=24, rate=lambda _: 0.0)
    assert kinds(facts(hours=WEEK), silent) == ["traffic_level"]
    assert kinds(facts(hours=WEEK, rate=lambda _: 0.0), silent) == []
    assert kinds(facts(hours=WEEK, rate=lambda _: 0.0), facts(begin=MONDAY + WEEK, hours=24)) == ["traffic_level"]


def test_a_missed_slo_is_news_once_a_day():
    kept, missed = {"p99_ms": 90.0, "slo_ms": 100.0}, {"p99_ms": 120.0, "slo_ms": 100.0}
    assert kinds(facts(**kept), facts(**kept)) == []
    assert kinds(facts(**kept), facts(**missed)) == ["slo"]
    assert kinds(facts(**missed), facts(**missed, at_s=SLO_AGAIN_S - 1)) == []
    assert kinds(facts(**missed), facts(**missed, at_s=SLO_AGAIN_S)) == ["slo"]
    assert kinds(facts(**kept), facts(p99_ms=None, slo_ms=100.0)) == []


def test_what_prometheus_does_not_tell_is_said_and_is_no_reason():
    judgement = judge(facts(hours=WEEK), facts(unknown=("The traffic is not known: refused.",)), max_age_s=DAY_S)
    assert judgement.reasons == ()
    assert judgement.notes == ("The traffic is not known: refused.",)


@given(
    one=st.lists(st.floats(0, 1e6), min_size=0, max_size=60), other=st.lists(st.floats(0, 1e6), min_size=0, max_size=60)
)
def test_any_two_profiles_can_be_compared(one, other):
    last = Facts(at_s=0, spec="s", hardware="h", hourly_rps=tuple(enumerate(one)))
    now = Facts(at_s=1, spec="s", hardware="h", hourly_rps=tuple((WEEK + i, r) for i, r in enumerate(other)))
    assert set(kinds(last, now)) <= {"traffic_level", "traffic_shape"}
