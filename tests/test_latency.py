"""Sampling and taking turns: they end when enough is known, and say whether that was so. On a scripted clock."""

import itertools

import numpy as np
import pytest

from tools.contracts import (
    ArtifactRef,
    BatchPoint,
    ComparisonResult,
    Interval,
    Latency,
    Measured,
    ModelFormat,
    Precision,
    TrialResult,
    Unstable,
)
from tools.measure.comparison import take_turns, time_block
from tools.measure.energy import EnergyCounter
from tools.measure.latency import FEWEST_SAMPLES, HOPELESS_SAMPLES, WINDOW_S, SamplingLimits, sample, warm_up
from tools.measure.noise import Counters, NoiseMeter
from tools.outcomes import from_task
from tools.worker import Returned


class Machine:
    """A clock that only calls and sleep move, and another process that runs whenever `noisy` says so."""

    def __init__(self, times_ms, *, noisy=lambda _: False, threads=2):
        self.now_ns = 0
        self.own_s = self.busy_s = 0.0
        self.calls = 0
        self._times = itertools.cycle(times_ms) if isinstance(times_ms, list) else itertools.repeat(times_ms)
        self._noisy = noisy
        self.meter = self.new_meter(threads)

    def new_meter(self, threads=2):
        return NoiseMeter(threads, probe=lambda: 0.3, counters=self.counters, cpus=2, sleep=self.sleep)

    @property
    def now_s(self):
        return self.now_ns / 1e9

    def clock(self):
        return self.now_ns

    def counters(self):
        return Counters(clock_s=self.now_s, own_cpu_s=self.own_s, busy_s=self.busy_s)

    def pass_time(self, seconds):
        self.busy_s += 0.5 * seconds if self._noisy(self.now_s) else 0.0
        self.now_ns += round(seconds * 1e9)

    def sleep(self, seconds):
        self.pass_time(seconds)

    def call(self):
        self.calls += 1
        milliseconds = next(self._times)
        self.own_s += milliseconds / 1e3
        self.busy_s += milliseconds / 1e3
        self.pass_time(milliseconds / 1e3)

    def sample(self, energy=None, **limits):
        return sample(self.call, SamplingLimits(**limits), self.meter, energy=energy, clock_ns=self.clock)


def test_sampling_goes_on_until_there_are_enough_for_a_p99():
    taken = Machine(2.0).sample(min_samples=300)
    assert 300 <= len(taken.samples_ms) <= 300 + WINDOW_S * 1e3 / 2
    assert taken.stable
    assert taken.disturbed == 0
    assert len(taken.discarded_ms) == 0


def test_at_least_ten_samples_are_taken_however_little_time_there_is():
    taken = Machine(3000.0).sample(max_s=0.0, warmup_max_s=0.0)
    assert FEWEST_SAMPLES <= len(taken.samples_ms) <= FEWEST_SAMPLES + 4


def test_times_that_jump_do_not_count_as_settled():
    taken = Machine([0.1, 2.0, 2.0, 0.1]).sample(max_s=0.5)
    assert not taken.stable
    assert "did not settle" in taken.unstable_because


def test_a_candidate_that_is_clearly_too_slow_is_not_sampled_to_the_end():
    taken = Machine(20.0).sample(max_s=60, hopeless_above_ms=10)
    assert HOPELESS_SAMPLES <= len(taken.samples_ms) < HOPELESS_SAMPLES + WINDOW_S * 1e3 / 20


def test_a_call_that_is_not_too_slow_is_sampled_to_the_end():
    assert len(Machine(20.0).sample(max_s=60, hopeless_above_ms=21).samples_ms) >= 300


def test_the_call_that_finds_cool_caches_does_not_count():
    machine = Machine(1.0)
    taken = machine.sample()
    assert machine.calls == taken.warmup_calls + len(taken.samples_ms) + len(machine.meter.windows)


def test_a_long_call_counts_even_as_a_windows_first():
    machine = Machine(200.0)
    taken = machine.sample(max_s=4)
    assert machine.calls == taken.warmup_calls + len(taken.samples_ms)


def test_samples_of_disturbed_windows_are_set_aside():
    machine = Machine(2.0, noisy=lambda now_s: 0.5 < now_s < 0.9)
    taken = machine.sample(min_samples=600)
    assert taken.stable
    assert 0 < taken.disturbed <= 0.5
    assert len(taken.samples_ms) >= 600
    assert len(taken.discarded_ms) >= 100


def test_a_noisy_start_is_waited_for():
    machine = Machine(2.0, noisy=lambda now_s: now_s < 3.0)
    taken = machine.sample(min_samples=300, max_s=2)
    assert taken.stable
    assert machine.now_s > 3.0
    assert len(taken.discarded_ms) > 0


def test_no_more_time_is_added_than_disturbed_windows_cost():
    machine = Machine(2.0, noisy=lambda _: True)
    taken = machine.sample(max_s=2, quiet_max_s=0)
    assert not taken.stable
    assert machine.now_s < 2 * 2 + 3 * WINDOW_S
    quiet = Machine([0.1, 2.0, 2.0, 0.1])
    quiet.sample(max_s=2)
    assert quiet.now_s < 2 + 2 * WINDOW_S


def test_a_machine_that_is_never_quiet_gives_unstable_and_says_what_ran():
    taken = Machine(2.0, noisy=lambda _: True).sample(max_s=1, quiet_max_s=0.5)
    assert not taken.stable
    assert taken.disturbed == 1
    assert "in 100% of the time windows" in taken.unstable_because
    assert "other processes took 25%" in taken.unstable_because
    assert len(taken.samples_ms) >= FEWEST_SAMPLES
    assert len(taken.discarded_ms) == 0


def test_a_machine_that_is_mostly_noisy_gives_unstable_however_well_the_rest_agrees():
    machine = Machine(0.5, noisy=lambda now_s: now_s % 2 < 1.4)
    taken = machine.sample(max_s=4, quiet_max_s=0)
    assert taken.disturbed > 0.5
    assert len(taken.samples_ms) >= 300
    assert "of the time windows" in taken.unstable_because


def test_energy_is_that_of_the_windows_that_count(tmp_path):
    file = tmp_path / "energy_uj"
    machine = Machine(2.0)

    class Counter(EnergyCounter):
        def read_uj(self):
            file.write_text(str(machine.now_ns // 1000 * 50))  # 50 W
            return super().read_uj()

    taken = machine.sample(energy=Counter((file,), (2**40,)))
    assert taken.joules_per_call == pytest.approx(50 * 0.002)
    assert Machine(2.0).sample().joules_per_call is None


def test_warming_up_ends_when_the_times_stop_falling():
    machine = Machine([*[2.0] * 8, *[1.0] * 8, *[0.5] * 80])
    calls = warm_up(machine.call, 10, machine.clock)
    assert calls >= 24
    assert calls % 8 == 0


def test_warming_up_has_an_end():
    machine = Machine(400.0)
    assert warm_up(machine.call, 1.0, machine.clock) == 3


# --- taking turns ----------------------------------------------------------------------------------------------


def turns(noisy, rounds=6):
    machine = Machine(10.0, noisy=noisy)
    order = []

    def time_one(call):
        began = machine.now_s
        for _ in range(10):
            call()
        return np.array([began])

    def side(name):
        def call():
            if not order or order[-1] != name:
                order.append(name)
            machine.call()

        return call

    calls = {"A": side("A"), "B": side("B")}
    meters = {"A": machine.new_meter(), "B": machine.new_meter()}
    return take_turns(calls, meters, rounds, time_one), "".join(order)


def test_sides_take_turns_forth_and_back():
    taken, order = turns(lambda _: False)
    assert order == "ABABABA"  # ends that meet: A BB AA BB A ...
    assert (taken.kept, taken.disturbed, taken.stable) == (6, 0, True)
    assert [len(blocks) for blocks in taken.blocks.values()] == [6, 6]


def test_a_round_with_a_disturbed_block_is_done_again_as_a_whole():
    taken, _ = turns(lambda now_s: 0.195 < now_s < 0.295)
    assert (taken.kept, taken.disturbed, taken.stable) == (6, 1, True)
    begins = [round(block[0], 1) for blocks in taken.blocks.values() for block in blocks]
    assert sorted(begins) == [0.0, 0.1, *(tenth / 10 for tenth in range(4, 14))]


def test_a_comparison_on_a_noisy_machine_ends_and_is_not_stable():
    taken, _ = turns(lambda now_s: now_s > 0.65)
    assert (taken.kept, taken.disturbed, taken.stable) == (3, 9, False)
    assert len(taken.blocks["A"]) == 3


def test_where_no_round_is_quiet_the_disturbed_ones_are_reported_as_unstable():
    taken, _ = turns(lambda _: True)
    assert (taken.kept, taken.disturbed, taken.stable) == (0, 12, False)
    assert len(taken.blocks["A"]) == 12


def test_a_block_has_at_least_five_calls():
    assert len(time_block(lambda: None, 0.0)) >= 5


# --- what becomes of it ----------------------------------------------------------------------------------------


def one(value=1.0):
    return Interval(value=value, low=value, high=value, n=10)


def trial(**changes):
    point = BatchPoint(
        batch_size=4,
        latency_ms=Latency(p50=one(), p95=one(), p99=one()),
        throughput_rps=one(),
        peak_memory_mb=1,
        mean_ms=1,
        **changes,
    )
    artifact = ArtifactRef(digest="a", directory="/a", format=ModelFormat.ONNX, precision=Precision.FP32, size_mb=1)
    return TrialResult(artifact=artifact, points=(point,), load_ms=1, build_s=0)


def comparison(**changes):
    return ComparisonResult(baseline_batch=1, candidate_batch=1, p50=one(), throughput=one(), **changes)


def outcome(result):
    return from_task(Returned(value=result.model_dump(mode="json")))


def test_a_point_that_is_not_stable_makes_the_trial_unstable_for_its_reason():
    found = outcome(trial(stable=False, unstable_because="the machine was disturbed in 80% of the time windows"))
    assert isinstance(found, Unstable)
    assert found.reason == "at batch 4, the machine was disturbed in 80% of the time windows"
    assert isinstance(outcome(trial(stable=True)), Measured)


def test_a_comparison_that_is_not_stable_says_how_many_rounds_were_lost():
    found = outcome(comparison(rounds=5, disturbed_rounds=7, stable=False))
    assert isinstance(found, Unstable)
    assert found.reason == "the machine was disturbed in 7 of 12 rounds"
    assert isinstance(outcome(comparison(rounds=12, disturbed_rounds=3)), Measured)
