"""Intervals: they hold what they promise, on distributions where the truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.measure.statistics import (
    P99_MIN_SAMPLES,
    latency,
    mean_interval,
    paired_drop,
    quantile_interval,
    ratio_interval,
    score_interval,
    throughput,
)

times = st.lists(st.floats(0.01, 1e4), min_size=1, max_size=400).map(np.array)


@given(times, st.floats(0.01, 0.99))
def test_a_quantile_lies_in_its_interval_and_both_in_the_sample(samples, q):
    interval = quantile_interval(samples, q)
    assert samples.min() <= interval.low <= interval.value * (1 + 1e-9)
    assert interval.value * (1 - 1e-9) <= interval.high <= samples.max()
    assert interval.n == len(samples)


@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
def test_quantile_intervals_cover_the_truth_about_as_often_as_they_say(q):
    generator = np.random.default_rng(1)
    truth = float(np.exp(np.sqrt(2) * _erfinv(2 * q - 1) * 0.3))
    covered = 0
    for _ in range(600):
        interval = quantile_interval(generator.lognormal(0, 0.3, 400), q)
        covered += interval.low <= truth <= interval.high
    assert covered / 600 >= 0.93


def _erfinv(x):
    from scipy.special import erfinv

    return erfinv(x)


def test_299_samples_are_the_fewest_that_bound_a_p99():
    assert 0.99**P99_MIN_SAMPLES < 0.05 <= 0.99 ** (P99_MIN_SAMPLES - 1)


@given(times)
def test_latency_quantiles_rise(samples):
    found = latency(samples)
    assert found.p50.value <= found.p95.value <= found.p99.value


@given(st.lists(st.floats(0.1, 100), min_size=2, max_size=200).map(np.array), st.integers(1, 64))
def test_throughput_is_batch_size_over_mean_time(samples, batch_size):
    found = throughput(samples, batch_size)
    assert found.value == pytest.approx(batch_size * 1e3 / samples.mean())
    assert 0 < found.low <= found.value <= found.high


def test_a_drift_widens_the_interval_of_the_mean():
    generator = np.random.default_rng(0)
    steady = generator.normal(10, 1, 400)
    drifting = np.sort(steady)
    assert _width(mean_interval(drifting)) > 2 * _width(mean_interval(steady))


def _width(interval):
    return interval.high - interval.low


def test_a_disturbance_of_whole_rounds_cancels_in_the_ratio():
    generator = np.random.default_rng(3)
    disturbance = generator.uniform(1, 3, 16)
    baseline = [generator.normal(10, 0.1, 20) * d for d in disturbance]
    candidate = [generator.normal(2, 0.02, 20) * d for d in disturbance]
    ratio = ratio_interval(baseline, candidate, statistic="mean")
    assert ratio.low < 5 < ratio.high
    assert _width(ratio) < 0.2


def test_one_disturbed_round_hardly_moves_the_ratio():
    generator = np.random.default_rng(3)
    baseline = [generator.normal(10, 0.1, 20) for _ in range(15)]
    candidate = [generator.normal(2, 0.02, 20) for _ in range(15)]
    calm = ratio_interval(baseline, candidate, statistic="mean")
    baseline[4] = baseline[4] * 30
    disturbed = ratio_interval(baseline, candidate, statistic="mean")
    assert disturbed.value == pytest.approx(calm.value, rel=0.01)
    assert disturbed.high < 1.05 * calm.high


def test_ratio_intervals_cover_the_truth():
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(300):
        shared = generator.lognormal(0, 0.3, 15)
        baseline = [generator.lognormal(1, 0.2, 20) * s for s in shared]
        candidate = [generator.lognormal(0, 0.2, 20) * s for s in shared]
        ratio = ratio_interval(baseline, candidate, statistic="median")
        covered += ratio.low <= np.e <= ratio.high
    assert covered / 300 >= 0.93


def test_the_ratio_needs_as_many_rounds_on_both_sides():
    with pytest.raises(ValueError, match="rounds differ: 1 and 2"):
        ratio_interval([np.ones(3)], [np.ones(3)] * 2, statistic="mean")


scores = st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=300).map(np.array)


@given(scores)
def test_no_changed_item_is_no_drop_but_not_certainty(baseline):
    drop = paired_drop(baseline, baseline, higher_is_better=True)
    assert drop.value == 0
    assert drop.low < 0 < drop.high


@given(st.integers(1, 200), st.data())
def test_a_drop_counts_lost_items_minus_won_items(n, data):
    before = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n)))
    after = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n)))
    drop = paired_drop(before, after, higher_is_better=True)
    assert drop.value == pytest.approx((before.sum() - after.sum()) / n)
    assert drop.low <= drop.value <= drop.high
    gain = paired_drop(before, after, higher_is_better=False)
    assert gain.value == pytest.approx(-drop.value)


def test_for_an_error_metric_a_larger_score_is_a_drop():
    before, after = np.array([0.1, 0.2, 0.3]), np.array([0.2, 0.3, 0.4])
    assert paired_drop(before, after, higher_is_better=False).value == pytest.approx(0.1)


def test_paired_drops_cover_the_truth():
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        before = (generator.random(600) < 0.97).astype(float)
        flips = generator.random(600)
        after = np.where(before == 1, flips >= 0.02, flips < 0.3).astype(float)
        truth = 0.97 * 0.02 - 0.03 * 0.3
        drop = paired_drop(before, after, higher_is_better=True)
        covered += drop.low <= truth <= drop.high
    assert covered / 400 >= 0.93


def test_a_perfect_score_is_not_certain():
    interval = score_interval(np.ones(100))
    assert interval.value == interval.high == 1
    assert 0.95 < interval.low < 1
