"""What holds in the twin whatever is played: no request is lost track of, bounds hold, and plain models agree."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twin_support import BEHAVIOR, DELAYS, REPLICA, SLO_MS, PlainPods, cpu, latency, play, queue, rate, step

from tools.contracts import Delays
from tools.scaling.days import Day, Fault
from tools.scaling.twin import Run, prepare


@st.composite
def worlds(draw):
    pieces = draw(st.lists(st.tuples(st.integers(1, 200), st.floats(0, 900)), min_size=1, max_size=8))
    rps = np.concatenate([np.full(seconds, level) for seconds, level in pieces])
    kinds = draw(st.lists(st.sampled_from(["lost_node", "metrics_lag", "metrics_missing"]), max_size=4))
    faults = [
        Fault(kind, draw(st.integers(0, rps.size - 1)), draw(st.integers(0, 400)), draw(st.floats(0.01, 1)))
        for kind in kinds
    ]
    low = draw(st.integers(1, 4))
    high = draw(st.integers(low, 12))
    behavior = draw(st.sampled_from([None, BEHAVIOR, {}, {"scaleDown": {"stabilizationWindowSeconds": 0}}]))
    metric, target = draw(st.sampled_from([(queue, 5), (queue, 30), (rate, 60), (latency, 60), (cpu, 60)]))
    seconds = st.floats(0, 60)
    delays = Delays(
        scrape_s=draw(st.floats(1, 60)),
        adapter_s=draw(st.floats(1, 60)),
        sync_s=draw(st.floats(5, 60)),
        scheduling_s=draw(seconds),
        start_s=draw(seconds),
        readiness_s=draw(seconds),
        termination_s=draw(seconds),
    )
    initial = draw(st.one_of(st.none(), st.integers(0, 14)))
    limit = draw(st.one_of(st.none(), st.integers(0, 500)))
    return rps, metric(target, low, high, behavior), faults, initial, limit, delays


def _play(world) -> Run:
    rps, spec, faults, initial, limit, delays = world
    return play(rps, spec, faults=faults, initial=initial, limit=limit, delays=delays)


@settings(deadline=None, max_examples=1000)
@given(worlds())
def test_no_request_is_lost_track_of(world):
    outcome = _play(world).outcome
    accounted = outcome.served + outcome.refused + outcome.waiting_at_end
    assert accounted == pytest.approx(outcome.requests, rel=1e-9, abs=1e-6)
    assert min(outcome.served, outcome.refused, outcome.waiting_at_end) >= 0
    assert outcome.requests == pytest.approx(float(np.sum(world[0])))


@settings(deadline=None, max_examples=150)
@given(worlds())
def test_bounds_hold_from_the_first_sync_on(world):
    run = _play(world)
    low, high = world[1]["minReplicas"], world[1]["maxReplicas"]
    assert all(low <= scaling.after <= high for scaling in run.scalings)
    assert all(a.after == b.before for a, b in itertools.pairwise(run.scalings))
    assert run.ready.max() <= max(high, world[3] or 0)


@settings(deadline=None, max_examples=100)
@given(worlds())
def test_minutes_and_outcome_agree_and_the_same_world_gives_the_same_bytes(world):
    run, again = _play(world), _play(world)
    outcome = run.outcome
    assert outcome == again.outcome
    assert run.scalings == again.scalings
    for field in ("ready", "paid", "rps", "queue", "wait_ms", "p99_ms", "refused", "missed"):
        values = getattr(run, field)
        assert values.shape == (outcome.minutes,)
        assert values.tobytes() == getattr(again, field).tobytes()
        assert np.isfinite(values).all()
    assert outcome.worst_p99_ms == run.p99_ms.max()
    assert outcome.missed_minutes == run.missed.sum()
    assert outcome.refused == pytest.approx(run.refused.sum())
    assert outcome.kept_share == pytest.approx(1 - run.missed.mean())


@settings(deadline=None, max_examples=150)
@given(worlds())
def test_pods_are_those_of_a_plain_model_pod_by_pod(world):
    rps, _, faults, initial, limit, delays = world
    run = _play(world)
    assume(initial is not None)
    plain = PlainPods(rps, run.scalings, faults, delays, initial, math.inf if limit is None else limit)
    minutes = np.arange(0, len(rps), 60)
    lengths = np.diff(np.append(minutes, len(rps)))
    assert run.ready == pytest.approx(np.add.reduceat(plain.ready, minutes) / lengths)
    assert run.paid == pytest.approx(np.add.reduceat(plain.paid, minutes) / lengths)
    assert run.refused == pytest.approx(np.add.reduceat(plain.refused, minutes), abs=1e-6)
    assert run.outcome.served == pytest.approx(plain.served, abs=1e-6)
    assert run.outcome.waiting_at_end == pytest.approx(plain.waiting, abs=1e-6)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.floats(0, 500), min_size=60, max_size=300),
    st.integers(1, 4),
    st.one_of(st.none(), st.integers(0, 300)),
)
def test_fixed_replicas_are_the_plain_recursion_of_a_queue(rps, replicas, limit):
    """Lindley's recursion, one second after the other, in the most obvious way."""
    run = play(rps, queue(30, replicas, replicas), limit=limit)
    most = math.inf if limit is None else limit
    waiting = served = refused = 0.0
    for came in rps:
        there = waiting + came / replicas
        done = min(there, 100.0)
        waiting = min(there - done, most)
        served += done * replicas
        refused += (there - done - waiting) * replicas
    assert run.outcome.served == pytest.approx(served, abs=1e-6)
    assert run.outcome.refused == pytest.approx(refused, abs=1e-6)
    assert run.outcome.waiting_at_end == pytest.approx(waiting * replicas, abs=1e-6)


def test_a_prepared_stage_is_not_changed_by_what_is_played_on_it():
    day = Day("made up", step(50, 300, 100, 900), (Fault("lost_node", 400),))
    stage = prepare(day, REPLICA, delays=DELAYS, slo_ms=SLO_MS, price_per_hour_usd=0.5)
    first = stage.play(queue(30, 1, 5)).outcome
    stage.play(cpu(50, 2, 9))
    assert stage.play(queue(30, 1, 5)).outcome == first
