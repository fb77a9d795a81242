"""Days are traffic that nothing can change, and harder ones are what their names say."""

import math

import numpy as np
import pytest
from twin_support import play, queue

from tools.scaling.days import Day, Fault, busiest_day, harder_days, peak_second, rise_second


@pytest.mark.parametrize("rps", [[], [1.0, -1.0], [math.nan], [math.inf], [[1.0]]])
def test_a_day_is_one_finite_rate_for_each_second(rps):
    with pytest.raises(ValueError, match="rps"):
        Day("broken", np.array(rps))


def test_a_day_keeps_its_own_unchangeable_rates():
    rps = np.ones(10)
    day = Day("mine", rps)
    rps[:] = 5
    assert day.rps.sum() == 10
    with pytest.raises(ValueError, match="read-only"):
        day.rps[0] = 3


def test_a_fault_outside_of_the_day_is_refused():
    with pytest.raises(ValueError, match="outside"):
        Day("short", np.ones(10), (Fault("lost_node", 10),))


def _recorded(days=2):
    seconds = np.arange(days * 86_400)
    rising = 1 + 0.2 * (seconds // 86_400)
    return Day("recorded", rising * (200 + 150 * np.sin((seconds / 86_400 - 0.3) * 2 * np.pi)))


def test_harder_days_are_made_of_the_busiest_day():
    recorded = _recorded()
    busiest = recorded.rps[86_400:]
    spike, more, lost, late, missing = harder_days(recorded, seed=3)
    assert (busiest_day(recorded.rps) == busiest).all()
    assert spike.rps.max() == pytest.approx(2 * busiest.max(), rel=1e-3)
    assert np.count_nonzero(spike.rps > busiest) in range(600 + 2 * 29, 600 + 2 * 30 + 1)
    assert more.rps == pytest.approx(1.3 * busiest)
    assert all((day.rps == busiest).all() for day in (lost, late, missing))
    peak = peak_second(busiest)
    assert abs(peak - int(np.argmax(busiest))) < 10
    assert [fault.kind for day in (lost, late, missing) for fault in day.faults] == [
        "lost_node",
        "metrics_lag",
        "metrics_missing",
    ]
    assert 0 <= lost.faults[0].at_s - peak < 60
    assert 0 <= late.faults[0].at_s - (peak - 1800) < 60
    assert 0 <= missing.faults[0].at_s - rise_second(busiest) < 60
    assert busiest[rise_second(busiest) + 600] > busiest[rise_second(busiest)]
    assert len({day.name for day in (recorded, spike, more, lost, late, missing)}) == 6
    assert all(day.about.endswith(".") for day in (spike, more, lost, late, missing))


def test_the_same_seed_gives_the_same_harder_days():
    first, again, other = (harder_days(_recorded(1), seed) for seed in (1, 1, 2))
    assert [day.faults for day in first] == [day.faults for day in again]
    assert (first[0].rps == again[0].rps).all()
    assert [day.faults for day in first] != [day.faults for day in other]


@pytest.mark.parametrize("seconds", [1, 59, 61, 700, 4000])
def test_short_recordings_have_harder_days_as_long_as_they_are(seconds):
    for day in harder_days(Day("short", 50 + np.arange(seconds) % 100)):
        assert day.seconds == seconds
        play(day.rps, queue(30, 1, 4), faults=day.faults)
