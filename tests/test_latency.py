"""Sampling: it ends when enough is known, and says whether that was so."""

import itertools
import time

from tools.measure.latency import HOPELESS_SAMPLES, SamplingLimits, sample, warm_up


def busy(ms):
    def call():
        ends = time.perf_counter() + ms / 1e3
        while time.perf_counter() < ends:
            pass

    return call


def in_turn(times_ms):
    def call():
        busy(next(times_ms))()

    return call


def test_sampling_goes_on_until_there_are_enough_for_a_p99():
    taken = sample(busy(0.2), SamplingLimits(min_samples=300, max_s=20))
    assert len(taken.samples_ms) >= 300
    assert taken.samples_ms.min() >= 0.2


def test_at_least_ten_samples_are_taken_however_little_time_there_is():
    assert len(sample(busy(1), SamplingLimits(max_s=0.0, warmup_max_s=0.0)).samples_ms) == 10


def test_times_that_jump_do_not_count_as_settled():
    taken = sample(in_turn(itertools.cycle([0.1, 2.0])), SamplingLimits(max_s=0.5, warmup_max_s=0.1))
    assert not taken.stable


def test_a_candidate_that_is_clearly_too_slow_is_not_sampled_to_the_end():
    limits = SamplingLimits(max_s=20, hopeless_above_ms=0.1)
    assert len(sample(busy(0.5), limits).samples_ms) == HOPELESS_SAMPLES


def test_warming_up_ends_when_the_times_stop_falling():
    calls = warm_up(in_turn(itertools.chain([2] * 8, [1] * 8, itertools.repeat(0.5))), max_s=10)
    assert calls >= 24
    assert calls % 8 == 0
