"""The formulas of queueing theory, and the simulation of requests held against them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.scaling.batching import Greedy, OneByOne
from tools.scaling.queueing import (
    bulk_mean_wait_s,
    erlang_b,
    erlang_c,
    md1_mean_wait_s,
    mg1_mean_wait_s,
    mgc_mean_wait_s,
    mmc_mean_wait_s,
    mmc_wait_quantile_s,
)
from tools.scaling.requests import poisson_arrivals_s, simulate_requests
from tools.scaling.service_times import exponential, fixed, spread

counts = st.integers(1, 1000)
utilizations = st.floats(0.001, 0.999)
times = st.floats(1e-4, 10)
variabilities = st.floats(0, 50)


# --- the formulas ---


@pytest.mark.parametrize(
    ("servers", "offered", "blocked"),
    # By hand: 1 / (1 + 1), (4.5) / (1 + 3 + 4.5); the last two from printed tables of Erlang's loss formula.
    [(1, 1.0, 0.5), (2, 3.0, 4.5 / 8.5), (10, 5.0, 0.018385), (20, 15.0, 0.045593)],
)
def test_erlang_b_gives_the_printed_tables(servers, offered, blocked):
    assert erlang_b(servers, offered) == pytest.approx(blocked, rel=1e-4)


@given(counts, utilizations)
def test_erlang_c_is_the_sum_of_the_states_in_which_all_servers_are_busy(servers, rho):
    offered = rho * servers
    logs = [count * math.log(offered) - math.lgamma(count + 1) for count in range(servers)]
    busy = servers * math.log(offered) - math.lgamma(servers + 1) - math.log1p(-rho)
    top = max(*logs, busy)
    total = sum(math.exp(log - top) for log in logs) + math.exp(busy - top)
    assert erlang_c(servers, offered) == pytest.approx(math.exp(busy - top) / total, rel=1e-8, abs=1e-300)


@given(counts, utilizations)
def test_more_servers_for_the_same_load_make_fewer_wait(servers, rho):
    offered = rho * servers
    assert erlang_c(servers + 1, offered) <= erlang_c(servers, offered) <= 1
    assert erlang_b(servers + 1, offered) <= erlang_b(servers, offered) <= erlang_c(servers, offered)


@given(st.integers(1, 200), utilizations, utilizations, times)
def test_a_higher_load_means_a_longer_wait(servers, first, second, service_s):
    low, high = (mmc_mean_wait_s(rho * servers / service_s, service_s, servers) for rho in sorted((first, second)))
    assert low <= high * (1 + 1e-9)


@given(utilizations, times)
def test_one_exponential_server_is_mm1_in_every_formula(rho, service_s):
    rate_rps = rho / service_s
    expected_s = pytest.approx(rho / (1 - rho) * service_s, rel=1e-6)
    assert mmc_mean_wait_s(rate_rps, service_s) == expected_s
    assert mg1_mean_wait_s(rate_rps, service_s, 1.0) == expected_s
    assert mgc_mean_wait_s(rate_rps, service_s, 1, 1.0) == expected_s
    assert bulk_mean_wait_s(rate_rps, service_s, 1) == expected_s
    assert 2 * md1_mean_wait_s(rate_rps, service_s) == expected_s


@given(utilizations, times, variabilities, variabilities)
def test_more_variable_service_means_a_longer_wait(rho, service_s, first, second):
    steady, wild = sorted((first, second))
    assert mg1_mean_wait_s(rho / service_s, service_s, steady) <= mg1_mean_wait_s(rho / service_s, service_s, wild)


@given(st.integers(1, 200), utilizations, times, st.floats(0, 0.9999))
def test_the_wait_quantile_is_where_the_tail_formula_says(servers, rho, service_s, quantile):
    offered = rho * servers
    wait_s = mmc_wait_quantile_s(offered / service_s, service_s, servers, quantile)
    tail = erlang_c(servers, offered) * math.exp(-(servers - offered) * wait_s / service_s)
    assert wait_s >= 0
    assert tail == pytest.approx(1 - quantile, rel=1e-6) if wait_s > 0 else tail <= (1 - quantile) * (1 + 1e-9)


@given(st.integers(1, 500), utilizations, times)
def test_larger_batches_at_the_same_rate_never_wait_longer(max_batch, rho, service_s):
    rate_rps = rho * max_batch / service_s
    assert bulk_mean_wait_s(rate_rps, service_s, max_batch + 1) <= bulk_mean_wait_s(rate_rps, service_s, max_batch)


def test_a_thousand_servers_are_no_trouble():
    assert 0.99 < erlang_c(1000, 999.9) < 1
    assert erlang_c(1000, 100.0) == pytest.approx(0, abs=1e-300)
    assert math.isfinite(mmc_mean_wait_s(999.9, 1.0, 1000))


@pytest.mark.parametrize(
    ("formula", "arguments", "named"),
    [
        (erlang_b, (0, 1.0), "servers"),
        (erlang_b, (2, -1.0), "offered load"),
        (erlang_b, (2, math.nan), "offered load"),
        (erlang_c, (2, 2.0), "queue grows"),
        (mmc_mean_wait_s, (0.0, 1.0, 1), "rate_rps"),
        (mmc_mean_wait_s, (1.0, math.inf, 1), "service_s"),
        (mmc_mean_wait_s, (3.0, 1.0, 3), "queue grows"),
        (mmc_wait_quantile_s, (1.0, 1.0, 2, 1.0), "quantile"),
        (mg1_mean_wait_s, (0.5, 1.0, -0.1), "service_scv"),
        (md1_mean_wait_s, (1.0, 1.0), "queue grows"),
        (mgc_mean_wait_s, (1.0, 1.0, 2, math.nan), "service_scv"),
        (bulk_mean_wait_s, (1.0, 1.0, 0), "max_batch"),
        (bulk_mean_wait_s, (4.0, 1.0, 4), "offered load"),
    ],
)
def test_outside_of_its_domain_a_formula_says_so(formula, arguments, named):
    with pytest.raises(ValueError, match=named):
        formula(*arguments)


# --- the simulation against the formulas ---

UTILIZATIONS = (0.5, 0.7, 0.9)


def simulated(rho, servers, service):
    """Simulate so many requests that the standard error of the mean wait is 1 to 2 %."""
    rng = np.random.default_rng(7)
    count = 1_500_000 if rho == 0.9 or servers == 20 else 600_000
    arrivals_s = poisson_arrivals_s(rho * servers, count, rng)
    return simulate_requests(arrivals_s, service(rng), OneByOne(), servers=servers)


def is_near(run, mean_wait_s, rho):
    assert run.utilization == pytest.approx(rho, rel=0.03)
    # Of 20 servers at half load all are busy for 4 requests in 1,000, and the mean wait is 0.0004 of a service: to know
    # it within 3 % takes ten times as many requests. `simulations.queue_theory` has the time.
    assert run.wait_s.mean() == pytest.approx(mean_wait_s, rel=0.03, abs=1e-4)
    # Little's law, to rounding: here the number waiting is integrated over time, there the waits are added up.
    moments_s = np.concatenate([run.arrivals_s, run.start_s])
    order = np.argsort(moments_s, kind="stable")
    waiting = np.cumsum(np.repeat([1.0, -1.0], run.arrived)[order])[:-1]
    assert waiting @ np.diff(moments_s[order]) == pytest.approx(run.waited_s, rel=1e-6)
    assert run.mean_queue == pytest.approx(run.arrived / run.horizon_s * run.wait_s.mean(), rel=1e-9)


@pytest.mark.parametrize("rho", UTILIZATIONS)
@pytest.mark.parametrize("servers", [1, 2, 5, 20])
def test_exponential_service_waits_as_in_mmc(rho, servers):
    run = simulated(rho, servers, lambda rng: exponential(1.0, rng))
    is_near(run, mmc_mean_wait_s(rho * servers, 1.0, servers), rho)


@pytest.mark.parametrize("rho", UTILIZATIONS)
def test_a_fixed_service_time_waits_as_in_md1(rho):
    is_near(simulated(rho, 1, lambda _: fixed([1.0])), md1_mean_wait_s(rho, 1.0), rho)


def test_the_quantiles_of_the_wait_are_those_of_mmc():
    run = simulated(0.7, 5, lambda rng: exponential(1.0, rng))
    for quantile in (0.5, 0.9, 0.99):
        expected_s = mmc_wait_quantile_s(3.5, 1.0, 5, quantile)
        assert np.quantile(run.wait_s, quantile) == pytest.approx(expected_s, rel=0.03)


@pytest.mark.parametrize("rho", [0.5, 0.7])
def test_a_measured_spread_waits_as_in_mg1(rho):
    p50_s, p99_s, mean_s = np.array([1.0]), np.array([4.0]), np.array([1.3])
    draw = spread(p50_s, p99_s, mean_s, np.random.default_rng(1))
    scv = np.var([draw(1) for _ in range(200_000)]) / 1.3**2
    run = simulate_requests(
        poisson_arrivals_s(rho / 1.3, 400_000, np.random.default_rng(2)),
        spread(p50_s, p99_s, mean_s, np.random.default_rng(3)),
        OneByOne(),
    )
    is_near(run, mg1_mean_wait_s(rho / 1.3, 1.3, scv), rho)


@pytest.mark.parametrize(("max_batch", "rho"), [(4, 0.5), (4, 0.7), (32, 0.5), (32, 0.7)])
def test_greedy_batches_wait_as_in_the_bulk_queue(max_batch, rho):
    rng = np.random.default_rng(11)
    arrivals_s = poisson_arrivals_s(rho * max_batch, 1_000_000, rng)
    run = simulate_requests(arrivals_s, exponential(1.0, rng), Greedy(max_batch))
    assert run.wait_s.mean() == pytest.approx(bulk_mean_wait_s(rho * max_batch, 1.0, max_batch), rel=0.03)


@pytest.mark.parametrize("servers", [1, 5])
def test_without_a_queue_the_refused_are_those_of_erlang_b(servers):
    rng = np.random.default_rng(3)
    arrivals_s = poisson_arrivals_s(0.8 * servers, 100_000, rng)
    run = simulate_requests(arrivals_s, exponential(1.0, rng), OneByOne(), servers=servers, queue_limit=0)
    assert run.refused / run.arrived == pytest.approx(erlang_b(servers, 0.8 * servers), rel=0.03)
    assert run.mean_queue == 0


def test_a_shared_queue_beats_the_shortest_and_that_a_random_one():
    waits_s = []
    for routing in ("shared", "shortest", "random"):
        rng = np.random.default_rng(5)
        arrivals_s = poisson_arrivals_s(3.5, 60_000, rng)
        run = simulate_requests(arrivals_s, exponential(1.0, rng), OneByOne(), servers=5, routing=routing)
        waits_s.append(run.wait_s.mean())
    assert waits_s == sorted(waits_s)
    # At random, each of the five is an M/M/1 queue of its own.
    assert waits_s[-1] == pytest.approx(mmc_mean_wait_s(0.7, 1.0), rel=0.1)
