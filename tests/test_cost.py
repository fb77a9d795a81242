"""What serving costs."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.contracts import Interval
from tools.cost import cost_per_1000_usd, daily_cost_usd

positive = st.floats(1e-3, 1e6)


@st.composite
def intervals(draw):
    low, value, high = sorted(draw(st.tuples(positive, positive, positive)))
    return Interval(value=value, low=low, high=high, n=draw(st.integers(0, 1000)))


def test_a_thousand_requests_at_one_request_per_second_cost_a_thousand_seconds():
    throughput = Interval(value=1.0, low=0.5, high=2.0, n=9)
    cost = cost_per_1000_usd(3.6, throughput)
    assert cost == Interval(value=1.0, low=0.5, high=2.0, n=9)


@given(price=positive, throughput=intervals())
def test_an_hour_at_full_throughput_costs_the_hourly_price(price, throughput):
    cost = cost_per_1000_usd(price, throughput)
    assert cost.value * throughput.value * 3.6 == pytest.approx(price)
    assert cost.low <= cost.value <= cost.high
    assert cost.low * throughput.high * 3.6 == pytest.approx(price)
    assert cost.n == throughput.n


@given(price=positive, throughput=intervals(), factor=st.floats(1.1, 100))
def test_twice_the_throughput_is_half_the_cost(price, throughput, factor):
    faster = cost_per_1000_usd(price, throughput.scaled(factor))
    assert faster.value * factor == pytest.approx(cost_per_1000_usd(price, throughput).value)


@pytest.mark.parametrize("price", [0.0, -1.0, math.nan, math.inf])
def test_a_price_that_is_none_is_refused(price):
    with pytest.raises(ValueError, match="price_per_hour_usd"):
        cost_per_1000_usd(price, Interval(value=1, low=1, high=1, n=1))
    with pytest.raises(ValueError, match="price_per_hour_usd"):
        daily_cost_usd(price, [1], [1.0])


def test_a_throughput_that_may_be_zero_has_no_cost():
    with pytest.raises(ValueError, match=r"throughput\.low"):
        cost_per_1000_usd(1.0, Interval(value=1, low=0, high=2, n=3))


def test_a_replica_that_runs_all_day_costs_24_hours():
    assert daily_cost_usd(0.5, [1], [86_400.0]) == pytest.approx(12.0)


def test_replicas_are_weighted_by_the_time_they_run():
    assert daily_cost_usd(1.0, [1, 3], [64_800.0, 21_600.0]) == pytest.approx(18.0 + 18.0)


@given(replicas=st.lists(st.integers(1, 1000), min_size=1, max_size=50), price=positive, scale=st.floats(0.01, 100))
def test_the_daily_cost_does_not_depend_on_how_long_the_trace_is(replicas, price, scale):
    usual = daily_cost_usd(price, replicas, [60.0] * len(replicas))
    assert daily_cost_usd(price, replicas, [60.0 * scale] * len(replicas)) == pytest.approx(usual)
    assert 24 * price * min(replicas) <= usual * (1 + 1e-9)
    assert usual <= 24 * price * max(replicas) * (1 + 1e-9)


def test_time_that_does_not_pass_has_no_cost():
    with pytest.raises(ValueError, match="durations_s"):
        daily_cost_usd(1.0, [], [])


def test_replicas_without_a_duration_are_refused():
    with pytest.raises(ValueError, match="zip"):
        daily_cost_usd(1.0, [1, 2], [60.0])
