"""Intervals: they hold what they promise, on distributions where the truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.coverage import CASES, RATIO_CASES, coverage_tables
from tools.measure.dependence import effective_samples
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

CASE = {case.name: case for case in CASES}

times = st.lists(st.floats(0.01, 1e4), min_size=1, max_size=400).map(np.array)


@given(times, st.floats(0.01, 0.99))
def test_a_quantile_lies_in_its_interval_and_both_in_the_sample(samples, q):
    interval = quantile_interval(samples, q)
    assert samples.min() <= interval.low <= interval.value * (1 + 1e-9)
    assert interval.value * (1 - 1e-9) <= interval.high <= samples.max()
    assert interval.n == len(samples)


@given(st.lists(st.sampled_from([0.0, 1.0, 1.5, 3e150]), min_size=1, max_size=60).map(np.array), st.floats(0.01, 0.99))
def test_ties_and_huge_values_still_give_an_ordered_interval(samples, q):
    for interval in (quantile_interval(samples, q), mean_interval(samples)):
        assert interval.low <= interval.value <= interval.high
        assert np.isfinite([interval.low, interval.high]).all()
    assert 1 <= effective_samples(samples, q) <= len(samples)


@given(st.integers(1, 400), st.floats(1e-6, 1e6), st.floats(0.01, 0.99))
def test_samples_that_never_vary_have_no_width(n, value, q):
    interval = quantile_interval(np.full(n, value), q)
    assert interval.low == interval.value == interval.high == value
    assert effective_samples(np.full(n, value), q) == n


@given(times, st.floats(0.01, 0.99), st.floats(0.5, 0.999), st.floats(0.5, 0.999))
def test_more_confidence_never_narrows_an_interval(samples, q, one, other):
    narrow, wide = (quantile_interval(samples, q, confidence) for confidence in sorted((one, other)))
    assert wide.low <= narrow.low
    assert narrow.high <= wide.high


@given(times, st.floats(0.01, 0.99), st.integers(-20, 20))
def test_intervals_scale_with_the_samples(samples, q, power):
    factor = 2.0**power  # exact in floating point
    assert quantile_interval(samples * factor, q) == quantile_interval(samples, q).scaled(factor)
    mean, scaled = mean_interval(samples).scaled(factor), mean_interval(samples * factor)
    assert [scaled.low, scaled.value, scaled.high] == pytest.approx([mean.low, mean.value, mean.high])


@given(st.integers(10, 400), st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
def test_without_evidence_of_dependence_the_interval_is_the_exact_binomial_one(n, seed, q):
    samples = np.random.default_rng(seed).lognormal(0, 1, n)
    found, exact = quantile_interval(samples, q), _independent(samples, q)
    assert (found.low, found.high) == exact or effective_samples(samples, q) < n
    assert found.low <= exact[0]
    assert exact[1] <= found.high


def _independent(samples, q):
    """Order statistics as for independent samples: what was right only for those."""
    from scipy.stats import binom

    ordered, n = np.sort(samples), len(samples)
    low, high = int(binom.ppf(0.025, n, q)) - 1, int(binom.isf(0.025, n, q))
    value = np.quantile(ordered, q)
    return min(value, ordered[max(low, 0)]), max(value, ordered[min(high, n - 1)])


def test_the_order_of_the_samples_matters_only_through_their_dependence():
    generator = np.random.default_rng(4)
    samples = CASE["autocorrelation 0.9"].draw(generator, 1, 1000)[0]
    shuffles = [generator.permutation(samples) for _ in range(9)]
    assert effective_samples(samples, 0.5) < 200
    assert np.median([effective_samples(x, 0.5) for x in shuffles]) == 1000
    found, exact = quantile_interval(samples, 0.5), _independent(samples, 0.5)
    assert _width(found) > 2 * (exact[1] - exact[0])
    for shuffled in (quantile_interval(x, 0.5) for x in shuffles):
        assert shuffled.value == found.value
        assert _width(found) > 1.5 * _width(shuffled)
        assert shuffled.low <= exact[0]
        assert exact[1] <= shuffled.high


def test_effective_samples_of_an_autoregressive_process_are_those_of_the_theory():
    phi = 0.8  # of the median's indicator, the autocorrelations are 2 / pi * arcsin(phi^k)
    theory = 1 + 4 / np.pi * np.arcsin(phi ** np.arange(1, 200)).sum()
    drawn = CASE["autocorrelation 0.8"].draw(np.random.default_rng(6), 40, 3000)
    assert np.median([effective_samples(x, 0.5) for x in drawn]) == pytest.approx(3000 / theory, rel=0.15)


@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
def test_quantile_intervals_of_independent_samples_cover_the_truth_about_as_often_as_they_say(q):
    case = CASE["lognormal"]
    drawn = case.draw(np.random.default_rng(1), 600, 400)
    assert 0.93 <= _held([quantile_interval(x, q) for x in drawn], case.quantile(q)) <= 0.99


@pytest.mark.parametrize(
    ("name", "n", "q", "naive_at_most"),
    [
        ("autocorrelation 0.5", 300, 0.5, 0.87),
        ("autocorrelation 0.8", 300, 0.5, 0.65),
        ("autocorrelation 0.9", 300, 0.5, 0.5),
        ("autocorrelation 0.9", 1000, 0.5, 0.5),
        ("runs of 8 slow calls", 1000, 0.5, 0.8),
        ("autocorrelation 0.8", 3000, 0.99, 0.85),
    ],
)
def test_quantile_intervals_of_dependent_samples_cover_the_truth_where_those_for_independent_ones_do_not(
    name, n, q, naive_at_most
):
    case, replications = CASE[name], 400
    truth = case.quantile(q)
    drawn = case.draw(np.random.default_rng(11), replications, n)
    naive = np.mean([low <= truth <= high for low, high in (_independent(x, q) for x in drawn)])
    assert naive < naive_at_most
    assert 0.93 <= _held([quantile_interval(x, q) for x in drawn], truth) <= 0.99


def test_means_and_throughputs_of_dependent_samples_cover_the_truth():
    case = CASE["autocorrelation 0.8"]
    truth = case.mean()
    drawn = case.draw(np.random.default_rng(12), 400, 300)
    naive = np.abs(drawn.mean(axis=1) - truth) <= 1.96 * drawn.std(axis=1) / np.sqrt(300)
    assert naive.mean() < 0.6
    assert 0.93 <= _held([mean_interval(x) for x in drawn], truth) <= 0.99
    assert 0.93 <= _held([throughput(x, 4) for x in drawn], 4000 / truth) <= 0.99


def _held(intervals, truth):
    return np.mean([interval.low <= truth <= interval.high for interval in intervals])


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


def test_one_round_of_three_times_the_time_moves_a_ratio_by_little():
    generator = np.random.default_rng(8)
    for _ in range(50):
        baseline, candidate = list(generator.lognormal(1, 0.1, (12, 20))), list(generator.lognormal(0, 0.1, (12, 20)))
        calm = ratio_interval(baseline, candidate, statistic="median")
        baseline[5] = baseline[5] * 3
        disturbed = ratio_interval(baseline, candidate, statistic="median")
        assert disturbed.value == pytest.approx(calm.value, rel=0.03)


@pytest.mark.parametrize("statistic", ["median", "mean"])
def test_ratio_intervals_cover_the_truth(statistic):
    held = []
    for case in RATIO_CASES:
        baseline, candidate = case.draw(np.random.default_rng(7), 200)
        pairs = zip(baseline, candidate, strict=True)
        found = [ratio_interval(list(a), list(b), statistic=statistic) for a, b in pairs]
        held.append(_held(found, case.truth(statistic)))
    assert 0.93 <= np.mean(held) <= 0.97
    assert min(held) > 0.95 - 3.5 * np.sqrt(0.95 * 0.05 / 200)  # of one case: the scatter of 200 draws


rounds = st.integers(1, 30).flatmap(
    lambda n: st.lists(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=5).map(np.array), min_size=n, max_size=n)
)


@given(rounds, st.integers(0, 2**32 - 1))
def test_a_ratio_lies_in_its_finite_interval_and_repeats_exactly(baseline, seed):
    candidate = [
        x * f for x, f in zip(baseline, np.random.default_rng(seed).lognormal(0, 1, len(baseline)), strict=True)
    ]
    ratio = ratio_interval(baseline, candidate, statistic="mean")
    assert 0 < ratio.low <= ratio.value <= ratio.high < np.inf
    assert ratio.n == len(baseline)
    assert ratio == ratio_interval(baseline, candidate, statistic="mean")
    assert ratio_interval(candidate, baseline, statistic="mean").value == pytest.approx(1 / ratio.value)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 7, 12])
def test_sides_that_never_differ_have_a_certain_ratio(n):
    ratio = ratio_interval([np.full(3, 6.0)] * n, [np.full(3, 2.0)] * n, statistic="median")
    assert [ratio.low, ratio.value, ratio.high] == pytest.approx([3, 3, 3])


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


def test_paired_drops_of_continuous_scores_cover_the_truth_also_where_most_items_do_not_change():
    generator, share = np.random.default_rng(9), 0.1
    found = []
    for _ in range(100):
        before = generator.normal(5, 1, 200)
        after = before - np.where(generator.random(200) < share, generator.exponential(1, 200), 0)
        found.append(paired_drop(before, after, higher_is_better=True))
    assert _held(found, share) >= 0.9


def test_no_changed_continuous_score_is_no_drop_but_not_certainty():
    scores = np.linspace(0, 4, 50)
    drop = paired_drop(scores, scores, higher_is_better=True)
    assert drop.low < 0 == drop.value < drop.high < 0.3


def test_a_perfect_score_is_not_certain():
    interval = score_interval(np.ones(100))
    assert interval.value == interval.high == 1
    assert 0.95 < interval.low < 1


def test_the_coverage_tables_have_a_row_for_every_case_and_repeat():
    first, again = coverage_tables(2), coverage_tables(2)
    assert [table.row_count for table in first] == [4 * len(CASES), len(RATIO_CASES), 4 * len(CASES)]
    for one, other in zip(first, again, strict=True):
        assert [list(c.cells) for c in one.columns] == [list(c.cells) for c in other.columns]
