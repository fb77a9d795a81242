"""What was seen while a change is watched is judged by rules, and nothing that was not seen is fine."""

import datetime as dt
import itertools

from change_child import START, Time
from hypothesis import given
from hypothesis import strategies as st

from tools.cluster.watching import Check, breach, reversals, shortfall


def seen(*checks, period_s=15):
    return [
        Check(at=START + dt.timedelta(seconds=period_s * (n + 1)), **{"reachable": True, "active": True, **check})
        for n, check in enumerate(checks)
    ]


@given(st.lists(st.one_of(st.none(), st.integers(1, 5)), max_size=20))
def test_turns_are_counted_as_a_person_would(replicas):
    known = [n for n in replicas if n is not None]
    steps = [b - a for a, b in itertools.pairwise(known) if a != b]
    assert reversals(replicas) == sum((a > 0) != (b > 0) for a, b in itertools.pairwise(steps))


@given(st.lists(st.sampled_from([50.0, 500.0, None]), min_size=40, max_size=40))
def test_a_window_is_fine_only_if_enough_of_what_was_measured_is(values):
    checks = seen(*({"p99_ms": value} for value in values))
    broken = [breach(checks[: n + 1], since=START, slo_ms=100.0, planned=40) for n in range(40)]
    told = [value for value in values if value is not None]
    ends = next((text for text in broken if text), None) or shortfall(checks, slo_ms=100.0)
    if ends is None:
        assert told
        assert sum(value > 100 for value in told) <= 0.25 * len(told)
    if not told:
        assert ends is not None


def test_fine_is_only_what_was_seen_to_be_fine():
    assert shortfall(seen({}), slo_ms=None) is None
    for check in ({"active": None}, {"active": False}, {"able": False}):
        assert shortfall(seen(check), slo_ms=None) is not None
    assert shortfall(seen({"p99_ms": None}), slo_ms=100.0) is not None
    assert shortfall(seen({"p99_ms": float("inf")}), slo_ms=100.0) is not None


def test_the_time_of_a_test_moves_only_by_sleeping():
    moving = Time()
    happened = []
    moving.after(10, lambda: happened.append(moving.now))
    moving.sleep(5)
    assert not happened
    moving.sleep(5)
    assert happened == [START + dt.timedelta(seconds=10)]
