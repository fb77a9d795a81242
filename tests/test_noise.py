"""Noise: what disturbs a window is seen, whoever does it, and a quiet machine is left alone."""

import os
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.measure import noise
from tools.measure.noise import Counters, NoiseMeter, Window, kernel_ms, lower_quartile, read_counters, why_disturbed

STAT = "cpu  900 0 0 0 0 0 0 0 0 0\ncpu0 100 10 20 5000 30 4 5 6 0 0\ncpu1 700 0 0 0 0 0 0 0 0 0\nintr 1 2 3\n"


class Machine:
    """A scripted machine: each window says how it was used, in CPU seconds."""

    def __init__(self, *, cpus=2, threads=2):
        self.clock_s, self.own_s, self.busy_s, self.throttled_s = 0.0, 0.0, 0.0, 0.0
        self.waiting_s = {1: 0.0, 2: 0.0}
        self.kernel_ms = 0.3
        self.slept_s = []
        self.foreign_while_asleep = []
        self.meter = NoiseMeter(
            threads, probe=lambda: self.kernel_ms, counters=self.counters, cpus=cpus, sleep=self.sleep
        )

    def counters(self):
        return Counters(
            clock_s=self.clock_s,
            own_cpu_s=self.own_s,
            busy_s=self.busy_s,
            waiting_s=dict(self.waiting_s),
            throttled_s=self.throttled_s,
        )

    def sleep(self, seconds):
        self.slept_s.append(seconds)
        self.clock_s += seconds
        self.busy_s += self.foreign_while_asleep.pop(0) if self.foreign_while_asleep else 0.0

    def window(self, seconds=0.25, *, own_s=0.4, foreign_s=0.0, waiting_s=0.0, throttled_s=0.0, kernel_ms=0.3):
        self.meter.begin()
        self.clock_s += seconds
        self.own_s += own_s
        self.busy_s += own_s + foreign_s
        self.waiting_s[2] += waiting_s
        self.throttled_s += throttled_s
        self.kernel_ms = kernel_ms
        self.meter.end()
        self.kernel_ms = 0.3
        return self.meter.reasons()[-1]


def test_a_window_with_nothing_else_running_is_not_disturbed():
    machine = Machine()
    assert [machine.window() for _ in range(5)] == [None] * 5


def test_ticks_of_the_kernel_alone_do_not_disturb_a_window():
    assert Machine().window(foreign_s=0.02) is None
    assert Machine().window(foreign_s=-0.02, waiting_s=0.006) is None


def test_another_process_that_takes_cpu_time_disturbs():
    assert Machine().window(foreign_s=0.1) == "other processes took 20% of the CPU time"


def test_a_process_too_small_for_the_kernels_ticks_is_seen_by_the_waiting():
    reason = Machine().window(foreign_s=0.02, waiting_s=0.025)
    assert reason == "its threads waited 5% of the time for a CPU that others used"


def test_a_runtime_that_waits_for_its_own_threads_is_not_disturbed():
    assert Machine().window(own_s=0.5, waiting_s=0.2) is None


def test_a_disturbance_from_the_first_to_the_last_window_is_seen_in_each():
    machine = Machine()
    for _ in range(4):
        machine.window(foreign_s=0.2, kernel_ms=0.6)
    assert all(machine.meter.reasons())


def test_processes_on_cpus_that_the_model_leaves_free_do_not_disturb():
    assert Machine(cpus=8, threads=2).window(foreign_s=6 * 0.25) is None
    assert Machine(cpus=8, threads=2).window(foreign_s=7 * 0.25) is not None


def test_a_process_on_the_models_own_cpu_is_seen_though_others_are_free():
    reason = Machine(cpus=8, threads=2).window(foreign_s=0.25, waiting_s=0.1)
    assert reason == "its threads waited 20% of the time for a CPU that others used"


def test_being_throttled_by_a_quota_disturbs():
    assert "quota kept it from running for 20%" in str(Machine().window(throttled_s=0.1))


def test_a_slow_kernel_disturbs_only_against_the_others_of_its_measurement():
    machine = Machine()
    machine.window()
    assert machine.window(kernel_ms=0.45) == "a fixed kernel beside it took 1.5 times as long as usual"
    slower_clock = Machine()
    slower_clock.kernel_ms = 0.45
    slower_clock.meter = NoiseMeter(2, probe=lambda: 0.45, counters=slower_clock.counters, cpus=2)
    assert [slower_clock.window() for _ in range(3)] == [None] * 3


def test_what_a_quiet_kernel_takes_is_learnt_from_later_windows_too():
    readings = iter([0.6, 0.6, 0.6, 0.6, *[0.3] * 8])
    machine = Machine()
    machine.meter = NoiseMeter(2, probe=lambda: next(readings), counters=machine.counters, cpus=2)
    assert machine.window() is None
    for _ in range(5):
        machine.window()
    assert [bool(reason) for reason in machine.meter.reasons()] == [True, True, False, False, False, False]


def test_a_thread_that_ended_or_began_within_a_window_is_no_disturbance():
    machine = Machine()
    machine.waiting_s = {1: 5.0, 7: 30.0}
    machine.meter.begin()
    machine.clock_s += 0.25
    machine.waiting_s = {1: 5.0, 8: 0.001}
    machine.meter.end()
    assert machine.meter.reasons() == [None]


def test_where_the_kernel_counts_nothing_the_fixed_kernel_still_judges():
    readings = iter([0.3, 0.3, 0.3, 0.5])
    clock = iter(range(100))
    meter = NoiseMeter(
        2, probe=lambda: next(readings), counters=lambda: Counters(clock_s=next(clock), own_cpu_s=0.0), cpus=2
    )
    for _ in range(2):
        meter.begin()
        meter.end()
    assert [bool(reason) for reason in meter.reasons()] == [False, True]


def test_waiting_counts_where_nobody_can_say_who_else_ran():
    window = Window(seconds=0.25, foreign=None, crowding=None, waiting=0.1, throttled=None, probe_ms=0.3)
    assert why_disturbed(window, 0.3) is not None


def test_a_quiet_machine_is_looked_at_once():
    machine = Machine()
    assert machine.meter.wait_until_quiet(5.0) is None
    assert len(machine.slept_s) == 1


def test_waiting_for_quiet_ends_when_the_other_process_does():
    machine = Machine()
    machine.foreign_while_asleep = [0.2, 0.2, 0.2]
    assert machine.meter.wait_until_quiet(5.0) is None
    assert len(machine.slept_s) == 4


def test_waiting_for_quiet_has_an_end_and_says_what_is_still_running():
    machine = Machine()
    machine.foreign_while_asleep = [0.25] * 100
    assert machine.meter.wait_until_quiet(2.0) == "other processes took 50% of the CPU time"
    assert sum(machine.slept_s) == pytest.approx(2.0)


def test_a_tolerant_meter_calls_nothing_disturbed_and_waits_for_nothing():
    machine = Machine()
    machine.meter = NoiseMeter(
        2, probe=lambda: 0.3, counters=machine.counters, cpus=2, sleep=machine.sleep, tolerant=True
    )
    assert machine.window(foreign_s=0.3) is None
    assert machine.meter.wait_until_quiet() is None
    assert machine.slept_s == []


@given(
    st.builds(
        Window,
        seconds=st.floats(0.05, 10),
        foreign=st.floats(0, 1),
        crowding=st.floats(0, 1),
        waiting=st.floats(0, 1),
        throttled=st.floats(0, 1),
        probe_ms=st.floats(0.1, 3),
    ),
    st.floats(0, 0.5),
)
def test_more_of_a_disturbance_is_never_less_disturbed(window, more):
    worse = replace(
        window, foreign=window.foreign + more, crowding=window.crowding + more, waiting=window.waiting + more
    )
    assert why_disturbed(window, 0.3) is None or why_disturbed(worse, 0.3) is not None


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=50))
def test_at_least_a_quarter_of_the_kernels_is_as_fast_as_the_usual_one(values):
    usual = lower_quartile(values)
    assert usual in values
    assert sum(value <= usual for value in values) >= len(values) / 4


def test_counters_come_from_the_cpus_that_this_process_may_use(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text(STAT)
    found = read_counters(tmp_path)
    assert found.busy_s == pytest.approx((100 + 10 + 20 + 4 + 5 + 6) / os.sysconf("SC_CLK_TCK"))
    assert found.waiting_s is None
    assert found.throttled_s is None


def test_a_sandbox_whose_counters_are_all_zero_counts_nothing(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0\n")
    assert read_counters(tmp_path).busy_s is None


def test_each_threads_waiting_is_read_in_nanoseconds(tmp_path):
    for thread, text in {"11": "500 2000000 3\n", "12": "1 1000000000 1\n", "13": ""}.items():
        folder = tmp_path / "proc/self/task" / thread
        folder.mkdir(parents=True)
        (folder / "schedstat").write_text(text)
    assert read_counters(tmp_path).waiting_s == {11: 0.002, 12: 1.0}


@pytest.mark.parametrize(
    ("cgroup", "file", "text"),
    [
        ("0::/pods/a\n", "sys/fs/cgroup/pods/a/cpu.stat", "usage_usec 9\nnr_throttled 4\nthrottled_usec 2500000\n"),
        ("3:cpu,cpuacct:/box\n", "sys/fs/cgroup/cpu/box/cpu.stat", "nr_throttled 4\nthrottled_time 2500000000\n"),
    ],
)
def test_throttled_time_of_both_versions_of_control_groups_is_read(tmp_path, cgroup, file, text):
    for name, content in {"proc/self/cgroup": cgroup, file: text}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert read_counters(tmp_path).throttled_s == pytest.approx(2.5)


def test_this_machines_counters_grow_with_the_work_of_this_process():
    before = read_counters()
    ends = time.process_time() + 0.05
    while time.process_time() < ends:
        pass
    after = read_counters()
    assert after.own_cpu_s - before.own_cpu_s >= 0.05
    if before.busy_s is not None:
        assert after.busy_s >= before.busy_s
    if before.waiting_s is not None:
        assert threading.get_native_id() in before.waiting_s


def test_the_kernel_runs_on_several_threads_and_leaves_none_behind():
    before = threading.active_count()
    assert kernel_ms(3) > 0
    assert threading.active_count() == before


def test_the_kernel_holds_no_lock_that_would_keep_its_threads_from_running_together():
    assert noise.PROBE_BYTES > 2047  # hashlib releases the interpreter's lock for larger inputs only
