"""One replica's table over its load, its capacity under an SLO, and the curve that it is made from."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tools.contracts import BatchPoint, Interval, Latency, ServiceCurve, ServicePoint
from tools.scaling.batching import Greedy
from tools.scaling.queueing import md1_mean_wait_s
from tools.scaling.replica import Replica, n_minus_one, service_curve
from tools.scaling.requests import poisson_arrivals_s, simulate_requests
from tools.scaling.service_times import fixed

COLUMNS = ("p99_ms", "p99_low_ms", "p99_high_ms", "mean_wait_ms", "mean_queue", "busy", "mean_batch")


def around(value, share=0.02):
    return Interval(value=value, low=value * (1 - share), high=value * (1 + share), n=30)


def measured(size, time_ms, *, p99_ms=None, n=30, share=0.02):
    throughput = around(1000 * size / time_ms, share)
    return BatchPoint(
        batch_size=size,
        latency_ms=Latency(p50=around(time_ms), p95=around(time_ms), p99=around(p99_ms or time_ms)),
        throughput_rps=throughput.model_copy(update={"n": n}),
        peak_memory_mb=100.0,
        mean_ms=time_ms,
        stable=True,
    )


def curve(times_ms, *, max_batch, tail=1.5, share=0.02):
    points = tuple(
        ServicePoint(
            batch_size=size,
            p50_ms=time_ms,
            p99_ms=time_ms * tail,
            mean_ms=time_ms * (1 + (tail - 1) / 10),
            throughput_rps=around(1000 * size / time_ms / (1 + (tail - 1) / 10), share),
        )
        for size, time_ms in times_ms.items()
    )
    return ServiceCurve(name="int8", points=points, max_batch=max_batch)


BATCHING = curve({1: 5.0, 4: 9.0, 16: 24.0}, max_batch=16)


@pytest.fixture(scope="module")
def replica():
    return Replica.of(BATCHING)


@pytest.fixture(scope="module")
def steady():
    """One request at a time, each taking exactly 10 ms: M/D/1."""
    return Replica.of(curve({1: 10.0}, max_batch=1, tail=1.0, share=0.0))


# --- the table ---


def test_the_capacity_is_the_low_end_of_the_measured_throughput(replica):
    assert replica.capacity_rps == BATCHING.points[-1].throughput_rps.low
    assert replica.loads_rps[0] == pytest.approx(0.02 * replica.capacity_rps)
    assert replica.loads_rps[-1] == pytest.approx(0.98 * replica.capacity_rps)


def test_a_full_batch_takes_the_measured_p99_at_the_slow_end(replica):
    assert replica.full_batch_p99_ms == pytest.approx(24 * 1.5 / 0.98)


@pytest.mark.parametrize("column", COLUMNS)
def test_nothing_falls_as_the_load_rises(replica, column):
    values = getattr(replica, column)
    assert len(values) == len(replica.loads_rps)
    assert (np.diff(values) >= 0).all()
    assert np.isfinite(values).all()


def test_loads_ascend_and_the_p99_lies_within_its_interval(replica):
    assert (np.diff(replica.loads_rps) > 0).all()
    for low, value, high in zip(replica.p99_low_ms, replica.p99_ms, replica.p99_high_ms, strict=True):
        assert low <= value <= high


def test_an_idle_replica_serves_single_requests_without_a_queue(replica):
    assert replica.mean_batch[0] == pytest.approx(1, abs=0.02)
    assert replica.mean_queue[0] < 0.01
    # Six in a hundred find it busy, so the 99th percentile is a service and part of another.
    assert 5 / 0.98 < replica.p99_ms[0] < 2 * 5 * 1.5 / 0.98


def test_a_crowded_replica_is_always_busy_with_large_batches(replica):
    assert replica.busy[-1] > 0.99
    assert 12 < replica.mean_batch[-1] <= 16


def test_the_rate_is_what_the_busy_time_and_the_batches_make(replica):
    # Batches per second is both rate / mean batch and busy / mean time of a batch; the latter lies between the sizes'.
    for rate_rps, busy, batch in zip(replica.loads_rps, replica.busy, replica.mean_batch, strict=True):
        batch_ms = 1000 * busy * batch / rate_rps
        assert 5.1 < batch_ms < 26.0


def test_the_mean_queue_follows_from_the_mean_wait(replica):
    for rate_rps, wait_ms, queue in zip(replica.loads_rps, replica.mean_wait_ms, replica.mean_queue, strict=True):
        assert queue == pytest.approx(rate_rps * wait_ms / 1000, rel=0.03, abs=1e-4)


def test_one_fixed_request_at_a_time_waits_as_in_md1(steady):
    for rate_rps, wait_ms, busy in zip(steady.loads_rps, steady.mean_wait_ms, steady.busy, strict=True):
        rho = rate_rps / steady.capacity_rps
        assert busy == pytest.approx(rho, rel=0.03)
        if rho <= 0.9:
            assert wait_ms == pytest.approx(1000 * md1_mean_wait_s(rate_rps, 0.01), rel=0.06, abs=0.02)


def test_the_interval_of_the_p99_holds_what_a_far_longer_run_finds(steady):
    for index in (0, 10, 18):
        arrivals_s = poisson_arrivals_s(steady.loads_rps[index], 600_000, np.random.default_rng(1))
        run = simulate_requests(arrivals_s, fixed([0.01]), Greedy(1))
        p99_ms = 1000 * float(np.quantile(run.latency_s[60_000:], 0.99))
        assert steady.p99_low_ms[index] * 0.999 <= p99_ms <= steady.p99_high_ms[index] * 1.001


def test_the_same_curve_and_seed_give_the_same_bytes_and_another_seed_others(steady):
    single = curve({1: 10.0}, max_batch=1, tail=1.0, share=0.0)
    assert Replica.of(single).model_dump_json() == steady.model_dump_json()
    assert Replica.of(single, seed=1).p99_ms != steady.p99_ms


def test_a_table_survives_json(replica):
    assert Replica.model_validate_json(replica.model_dump_json()) == replica


def test_a_table_cannot_be_changed(replica):
    with pytest.raises(ValidationError):
        replica.capacity_rps = 1.0


def test_sizes_beyond_the_largest_batch_play_no_part(steady):
    assert Replica.of(curve({1: 10.0, 8: 20.0}, max_batch=1, tail=1.0, share=0.0)) == steady


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: curve({1: 5.0, 4: 9.0}, max_batch=2), "max_batch 2"),
        (lambda: curve({1: 5.0}, max_batch=1, share=1.0), "may be nothing"),
    ],
)
def test_a_curve_that_no_plan_can_rest_on_is_refused(made, said):
    with pytest.raises(ValueError, match=said):
        Replica.of(made())


# --- capacity under an SLO ---


def test_the_slo_capacity_keeps_the_slo(replica):
    for slo_ms in (15.0, 40.0, 80.0, 200.0):
        hold_rps = replica.slo_capacity_rps(slo_ms)
        assert np.interp(hold_rps, replica.loads_rps, replica.p99_high_ms) <= slo_ms * (1 + 1e-9)


@given(first=st.floats(1, 2000), second=st.floats(1, 2000))
def test_a_looser_slo_never_holds_less(replica, first, second):
    tight, loose = (replica.slo_capacity_rps(slo_ms) for slo_ms in sorted((first, second)))
    assert (tight or 0) <= (loose or 0) <= 0.98 * replica.capacity_rps


@given(slo_ms=st.floats(1, 2000))
def test_the_low_end_of_the_capacity_interval_is_the_slo_capacity(replica, slo_ms):
    interval = replica.capacity_interval(slo_ms)
    if interval is None:
        assert replica.slo_capacity_rps(slo_ms) is None
    else:
        assert interval.low == replica.slo_capacity_rps(slo_ms)
        assert interval.low <= interval.value <= interval.high <= replica.throughput_rps.high


def test_an_slo_below_the_time_of_one_request_is_never_kept(replica):
    assert replica.slo_capacity_rps(4.0) is None
    assert replica.capacity_interval(4.0) is None
    assert not n_minus_one(10, 0.0, replica, 4.0)


@pytest.mark.parametrize("slo_ms", [0.0, -1.0, math.nan])
def test_an_slo_that_is_none_is_refused(replica, slo_ms):
    with pytest.raises(ValueError, match="slo_ms"):
        replica.slo_capacity_rps(slo_ms)


# --- one replica lost ---


def test_the_survivors_must_hold_the_rate(replica):
    hold_rps = replica.slo_capacity_rps(60.0)
    assert n_minus_one(4, 3 * hold_rps, replica, 60.0)
    assert not n_minus_one(4, 3.001 * hold_rps, replica, 60.0)
    assert not n_minus_one(1, 0.0, replica, 60.0)


@given(replicas=st.integers(1, 200), rate_rps=st.floats(0, 1e5), slo_ms=st.floats(1, 500))
def test_another_replica_never_makes_it_worse(replica, replicas, rate_rps, slo_ms):
    assert n_minus_one(replicas + 1, rate_rps, replica, slo_ms) >= n_minus_one(replicas, rate_rps, replica, slo_ms)


@pytest.mark.parametrize(("replicas", "rate_rps"), [(0, 1.0), (2, -1.0), (2, math.nan), (2, math.inf)])
def test_arguments_out_of_range_are_named(replica, replicas, rate_rps):
    with pytest.raises(ValueError, match=r"replicas|rate_rps"):
        n_minus_one(replicas, rate_rps, replica, 60.0)


# --- from measured batches ---


def test_a_curve_is_the_measured_points_in_order():
    made = service_curve(
        [measured(4, 9.0, p99_ms=12.0), measured(1, 5.0)], name="int8", max_batch=4, cores=2.0, evidence=("a", "b")
    )
    assert [point.batch_size for point in made.points] == [1, 4]
    assert made.points[1].p99_ms == 12.0
    assert made.points[1].throughput_rps == measured(4, 9.0).throughput_rps
    assert (made.name, made.max_batch, made.cores, made.evidence, made.confirmed) == ("int8", 4, 2.0, ("a", "b"), False)


def test_a_larger_batch_never_takes_less_time_than_a_smaller_one():
    made = service_curve([measured(1, 5.0), measured(2, 10.0, p99_ms=30.0), measured(4, 8.0)], name="x", max_batch=4)
    last = made.points[-1]
    assert (last.p50_ms, last.p99_ms, last.mean_ms) == (10.0, 30.0, 10.0)
    assert last.throughput_rps.value == pytest.approx(400)


@given(st.dictionaries(st.integers(1, 64), st.tuples(st.floats(0.1, 100), st.floats(1, 3)), min_size=1, max_size=8))
def test_times_ascend_and_no_batch_is_faster_than_measured(times):
    points = [measured(size, time_ms, p99_ms=time_ms * tail) for size, (time_ms, tail) in times.items()]
    made = service_curve(points, name="x", max_batch=max(times))
    for name in ("p50_ms", "p99_ms", "mean_ms"):
        assert (np.diff([getattr(point, name) for point in made.points]) >= 0).all()
    for point in made.points:
        time_ms, tail = times[point.batch_size]
        assert point.p50_ms >= time_ms
        assert point.p99_ms >= time_ms * tail
        assert point.throughput_rps.value == pytest.approx(1000 * point.batch_size / point.mean_ms)


def test_of_two_points_of_one_size_the_one_with_more_samples_counts():
    made = service_curve([measured(1, 5.0, n=900), measured(1, 6.0, n=30)], name="x", max_batch=1)
    assert made.points[0].mean_ms == 5.0


def test_a_largest_batch_that_was_not_measured_is_refused():
    with pytest.raises(ValueError, match=r"max_batch 8 was not measured, only \[1, 4\]"):
        service_curve([measured(1, 5.0), measured(4, 9.0)], name="x", max_batch=8)
