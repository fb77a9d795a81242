"""What a trace looks like, and its rate in each second."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from traffic_support import rates

from tools.traffic import Trace, bundled_day, constant
from tools.traffic.shape import describe, per_second

MONDAY = 1704067200.0
"""2024-01-01 00:00 UTC."""


def minutes(rates, *, start_s=0.0, origin_s=MONDAY):
    seconds = tuple(start_s + 60.0 * minute for minute in range(len(rates)))
    return Trace(source="made", seconds=seconds, rps=tuple(map(float, rates)), origin_s=origin_s)


def days(count, factor=lambda day: 1.0):
    day = np.array(bundled_day().rps)
    return np.concatenate([day * factor(number) for number in range(count)])


@st.composite
def traces(draw):
    steps = draw(st.lists(st.one_of(st.integers(1, 300), st.floats(0.3, 300)), min_size=1, max_size=30))
    seconds = np.concatenate([[draw(st.floats(0, 1e5))], np.cumsum(steps)])
    seconds[1:] += seconds[0]
    return Trace(source="made", seconds=tuple(seconds.tolist()), rps=tuple(draw(rates(len(seconds)))))


# --- seconds ---


def test_each_second_has_the_rate_of_the_sample_before_it_through_gaps_too():
    trace = Trace(source="made", seconds=(10, 12, 17, 19), rps=(1, 2, 0, 4))
    assert per_second(trace).tolist() == [1, 1, 2, 2, 2, 2, 2, 0, 0, 4, 4]
    assert per_second(trace).dtype == np.float64


def test_a_second_in_which_the_rate_changes_has_the_mean_of_both():
    trace = Trace(source="made", seconds=(0, 1.5, 3), rps=(10, 20, 30))
    assert per_second(trace).tolist() == pytest.approx([10, 15, 20, 30, 15])


@given(traces())
def test_the_seconds_add_up_to_the_requests_of_the_trace(trace):
    rates = per_second(trace)
    assert len(rates) in {math.ceil(trace.length_s - 1e-6), math.ceil(trace.length_s)}
    assert rates.sum() == pytest.approx(trace.mean_rps * trace.length_s, rel=1e-6, abs=1e-3)
    assert rates.min() >= 0
    assert rates.max() <= trace.peak_rps * (1 + 1e-6) + 1e-3


def test_the_bundled_day_keeps_its_mean_and_its_peak():
    rates = per_second(bundled_day())
    assert len(rates) == 86_400
    assert rates.mean() == pytest.approx(bundled_day().mean_rps)
    assert rates.max() == bundled_day().peak_rps


# --- shape ---


def test_a_week_shows_its_day_and_its_weekend():
    shape = describe(minutes(days(7, lambda day: 0.5 if day >= 5 else 1.0)))
    assert len(shape.hourly_rps) == 24
    assert max(range(24), key=lambda hour: shape.hourly_rps[hour]) == 20
    assert shape.weekday_rps[6] == pytest.approx(shape.weekday_rps[0] / 2)
    assert shape.weekly_rps is None
    assert "the quietest S" in shape.sentences[2]


def test_more_than_a_week_has_an_hourly_profile_of_the_week():
    shape = describe(minutes(days(9, lambda day: 0.5 if day % 7 >= 5 else 1.0)))
    assert len(shape.weekly_rps) == 168
    assert shape.weekly_rps[5 * 24 + 20] == pytest.approx(shape.weekly_rps[20] / 2)


def test_weekdays_follow_the_date_also_in_unix_time_and_from_the_middle_of_a_day():
    quiet_sunday = days(9, lambda day: 0.25 if day == 6 else 1.0)
    unix = minutes(quiet_sunday[600:], start_s=MONDAY + 36_000, origin_s=None)
    since_midnight = minutes(quiet_sunday[600:], start_s=36_000)
    for trace in (unix, since_midnight):
        shape = describe(trace)
        assert min(range(7), key=lambda day: shape.weekday_rps[day]) == 6
    assert describe(unix).busiest[0].when == describe(since_midnight).busiest[0].when


def test_without_a_date_there_are_no_weekdays_and_times_count_days():
    shape = describe(minutes(days(8), origin_s=None))
    assert shape.weekday_rps is None
    assert shape.weekly_rps is None
    assert shape.busiest[0].when == "day 1, 20:24"


@pytest.mark.parametrize("per_week", [0.35, -0.2])
def test_growth_is_found_under_noise_and_lies_in_its_interval(per_week):
    noise = np.random.default_rng(3).normal(1, 0.01, 21)
    shape = describe(minutes(days(21, lambda day: (1 + per_week * (day - 10) / 7) * noise[day])))
    growth = shape.growth_per_week
    assert growth.low <= per_week <= growth.high
    assert growth.n == 21
    assert ("grows" if per_week > 0 else "shrinks") in shape.sentences[-1]


def test_one_odd_day_is_no_growth():
    shape = describe(minutes(days(14, lambda day: 5.0 if day == 12 else 1.0)))
    assert shape.growth_per_week.value == pytest.approx(0, abs=1e-9)
    assert "No growth" in shape.sentences[-1]


def test_less_than_seven_days_tell_no_growth_and_it_says_so():
    shape = describe(minutes(days(6)))
    assert shape.growth_per_week is None
    assert shape.growth_unknown == "Growth cannot be told from 6 days: seven whole days are needed."
    assert shape.growth_unknown in shape.sentences


def test_the_busiest_minutes_are_separate_rushes_in_order():
    shape = describe(bundled_day())
    rates = [busy.rps for busy in shape.busiest]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == bundled_day().peak_rps
    times = sorted(busy.second for busy in shape.busiest)
    assert all(b - a >= 600 for a, b in itertools.pairwise(times))
    assert shape.peak_over_mean == pytest.approx(bundled_day().peak_rps / bundled_day().mean_rps)


def test_how_much_the_time_of_day_explains():
    noise = np.random.default_rng(5).uniform(0, 2000, 5 * 24).repeat(60)
    assert describe(minutes(days(5))).daily_share == pytest.approx(1)
    assert describe(minutes(noise)).daily_share < 0.5
    assert describe(minutes(days(1))).daily_share is None
    assert describe(minutes(np.full(5 * 1440, 100.0))).daily_share is None


def test_a_constant_rate_and_two_samples_have_a_shape():
    shape = describe(constant(400))
    assert shape.peak_over_mean == pytest.approx(1)
    assert shape.p99_over_p50 == pytest.approx(1)
    short = describe(Trace(source="made", seconds=(5, 6), rps=(0, 3)))
    assert short.hourly_rps == (None,) * 24
    assert short.p99_over_p50 is None


@given(traces())
def test_every_trace_has_a_shape_that_survives_json(trace):
    shape = describe(trace)
    assert type(shape).model_validate_json(shape.model_dump_json()) == shape
    assert shape.busiest[0].rps <= trace.peak_rps * (1 + 1e-6) + 1e-3
    assert all(sentence.endswith(".") for sentence in shape.sentences)
