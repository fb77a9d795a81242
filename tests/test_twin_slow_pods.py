"""Pods that become slow in the twin: as a plain model of each pod has it, and as metrics and p99 would show it."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twin_support import CAPACITY_RPS, DELAYS, PlainPods, cpu, latency, play, queue, rate, step, table

from tools.scaling.days import Day, Fault


def slow(at_s, for_s, share=1.0, slowdown=2.0):
    return Fault("slow_pods", at_s, for_s, share=share, slowdown=slowdown)


class PlainSlowPods(PlainPods):
    """The pods one by one, of which the oldest are slow for a while."""

    def __post_init__(self):
        self.begins = {math.floor(f.at_s): f for f in self.faults if f.kind == "slow_pods"}
        self.ends = {math.floor(f.at_s + f.for_s) for f in self.faults if f.kind == "slow_pods"}
        super().__post_init__()

    def _clear(self, second):
        if second in self.ends:
            self._slow_down(self.pods, 1.0)
        if fault := self.begins.pop(second, None):
            # What becomes ready in this very second is as fast as ever.
            ready = self._ready(second - 1)
            self._slow_down(ready[: max(1, round(fault.share * len(ready)))], fault.slowdown)
        super()._clear(second)

    def _slow_down(self, pods, slowdown):
        for pod in pods:
            if not pod.stopped:  # else it is as slow to its end as it was when it was stopped
                pod.slowdown = slowdown

    def _serve(self, second, came):
        ready = self._ready(second)
        self.ready.append(len(ready))
        self.paid.append(sum(pod.bound_at <= second for pod in self.pods))
        if not ready:
            self.refused[-1] += came
        for pod in self.pods:
            if pod.ready_at <= second:
                there = pod.waiting + (0.0 if pod.stopped else came / len(ready))
                done = min(there, CAPACITY_RPS / getattr(pod, "slowdown", 1.0))
                pod.waiting = there - done if pod.stopped else min(there - done, self.limit)
                self.refused[-1] += there - done - pod.waiting
                self.served += done


@st.composite
def slow_worlds(draw):
    pieces = draw(st.lists(st.tuples(st.integers(1, 200), st.floats(0, 900)), min_size=1, max_size=6))
    rps = np.concatenate([np.full(seconds, level) for seconds, level in pieces])
    times = sorted(draw(st.lists(st.integers(0, rps.size - 1), unique=True, max_size=6)))
    pairs = itertools.zip_longest(times[::2], times[1::2], fillvalue=rps.size + 10)
    faults = [slow(at, end - at, draw(st.floats(0.01, 1)), draw(st.floats(1, 4))) for at, end in pairs]
    faults += [Fault("lost_node", at) for at in draw(st.lists(st.integers(0, rps.size - 1), max_size=2))]
    metric, target = draw(st.sampled_from([(queue, 5), (rate, 60), (latency, 60), (cpu, 60)]))
    low = draw(st.integers(1, 4))
    limit = draw(st.one_of(st.none(), st.integers(0, 500)))
    return rps, metric(target, low, draw(st.integers(low, 12))), faults, draw(st.integers(1, 8)), limit


@settings(deadline=None, max_examples=150)
@given(slow_worlds())
def test_slow_pods_are_those_of_a_plain_model_pod_by_pod(world):
    rps, spec, faults, initial, limit = world
    run = play(rps, spec, faults=faults, initial=initial, limit=limit)
    plain = PlainSlowPods(rps, run.scalings, faults, DELAYS, initial, math.inf if limit is None else limit)
    minutes = np.arange(0, len(rps), 60)
    lengths = np.diff(np.append(minutes, len(rps)))
    assert run.ready == pytest.approx(np.add.reduceat(plain.ready, minutes) / lengths)
    assert run.paid == pytest.approx(np.add.reduceat(plain.paid, minutes) / lengths)
    assert run.refused == pytest.approx(np.add.reduceat(plain.refused, minutes), abs=1e-6)
    assert run.outcome.served == pytest.approx(plain.served, abs=1e-6)
    assert run.outcome.waiting_at_end == pytest.approx(plain.waiting, abs=1e-6)
    outcome = run.outcome
    assert outcome.served + outcome.refused + outcome.waiting_at_end == pytest.approx(outcome.requests, abs=1e-6)


@settings(deadline=None, max_examples=50)
@given(slow_worlds())
def test_pods_that_are_no_slower_change_nothing(world):
    rps, spec, faults, initial, limit = world
    lost = [fault for fault in faults if fault.kind == "lost_node"]
    as_fast = [slow(f.at_s, f.for_s, f.share, 1.0) for f in faults if f.kind == "slow_pods"]
    there, without = (play(rps, spec, faults=f, initial=initial, limit=limit) for f in (lost + as_fast, lost))
    assert there.scalings == without.scalings
    for field in ("ready", "paid", "queue", "wait_ms", "p99_ms", "refused"):
        assert getattr(there, field) == pytest.approx(getattr(without, field), rel=1e-9, abs=1e-6)


def test_a_slow_pod_has_the_latency_of_a_measured_one_by_a_slower_clock():
    run = play(np.full(180, 80.0), queue(30, 2, 2), faults=[slow(60, 60, share=0.5, slowdown=2)], initial=2)
    assert run.p99_ms == pytest.approx([table("p99_ms", 40), 2 * table("p99_ms", 80), table("p99_ms", 40)])
    assert run.queue == pytest.approx([table("mean_queue", 40), table("mean_queue", 80), table("mean_queue", 40)])
    mixed_ms = (table("mean_wait_ms", 40) + 2 * table("mean_wait_ms", 80)) / 2
    assert run.wait_ms == pytest.approx([table("mean_wait_ms", 40), mixed_ms, table("mean_wait_ms", 40)])


def test_a_slow_pod_that_gets_more_than_it_serves_falls_behind_and_catches_up():
    run = play(np.full(240, 120.0), queue(1000, 2, 2), faults=[slow(60, 60, share=0.5, slowdown=2)], initial=2)
    # 60 come each second, 50 are served: 600 wait after a minute, 20 s of which each takes, and 40 go a second.
    assert run.queue.tolist() == [table("mean_queue", 60), 600, 600, table("mean_queue", 60)]
    assert run.p99_ms[1] == pytest.approx(600 * 20 + 80)
    assert run.p99_ms[2] == pytest.approx(600 * 10 + 40)
    assert run.outcome.refused == 0


def test_few_slow_pods_do_not_move_the_p99():
    run = play(np.full(120, 5050.0), queue(1000, 101, 101), faults=[slow(0, 120, share=0.001)], initial=101)
    assert run.p99_ms == pytest.approx([table("p99_ms", 50)] * 2)


def test_new_pods_are_as_fast_as_ever():
    run = play(step(80, 120, 60, 600), rate(50, 2, 3), faults=[slow(0, 600)], initial=2)
    assert run.ready[-1] == 3
    # Two slow ones and a new one have a third of the load each; a p99 is that of the slow ones, a mean of all.
    assert run.p99_ms[-1] == pytest.approx(2 * table("p99_ms", 80))
    assert run.wait_ms[-1] == pytest.approx((2 * 2 * table("mean_wait_ms", 80) + table("mean_wait_ms", 40)) / 3)


@pytest.mark.parametrize(
    ("setting", "ready"),
    [
        (rate(60, 2, 9), 2),  # the rate of a pod says nothing of its speed
        (queue(1, 2, 9), 3),
        (cpu(60, 2, 9), 3),
        (latency(50, 2, 9), 3),
    ],
)
def test_metrics_show_slow_pods_as_they_would(setting, ready):
    run = play(np.full(300, 90.0), setting, faults=[slow(0, 300)], initial=2)
    assert run.ready[-1] >= ready
    assert (run.ready[-1] == 2) == (ready == 2)


@pytest.mark.parametrize(
    "faults",
    [
        [slow(0, 0)],
        [slow(0, 10, share=0)],
        [slow(0, 10, share=1.5)],
        [slow(0, 10, slowdown=0.5)],
        [slow(0, 10), slow(9, 10)],
    ],
)
def test_slowness_that_cannot_be_is_refused(faults):
    with pytest.raises(ValueError, match="slow_pods"):
        Day("odd", np.ones(60), tuple(faults))
