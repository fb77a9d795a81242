"""The search for autoscaler settings: which are tried, which one is chosen and why, and how that is drawn."""

import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scaling_search_support import day_outcome

from tools.cluster.bounds import quantity
from tools.contracts import Interval
from tools.contracts.recommendation import SERIES_POINTS, Recommendation
from tools.contracts.scaling import Bounds, Delays, ServiceCurve, ServicePoint
from tools.errors import SpecError
from tools.report.scaling_plot import describe as described
from tools.report.scaling_plot import scaling as plot
from tools.scaling import story
from tools.scaling.choose import search
from tools.scaling.days import Day, busiest_day, harder_days
from tools.scaling.hpa import parse_autoscaler
from tools.scaling.judging import BUSIEST, RECORDED, SAME_COST_SHARE
from tools.scaling.playing import Players, World, series_of
from tools.scaling.promises import HARDER_KEPT_SHARE, MOST_REVERSALS_PER_DAY, SURVIVORS_SHARE, Played, Promises
from tools.scaling.replica import Replica
from tools.scaling.settings import LOAD_SHARES, METRIC_NAMES, candidates, nearby
from tools.scaling.twin import prepare, simulate

SLO_MS = 100.0
PRICE = 0.5
HOUR = 3600


def _curve():
    points = []
    for size in (1, 2, 4, 8, 16, 32):
        ms = 4 + 0.6 * size
        rps = 1000 * size / ms
        interval = Interval(value=rps, low=0.97 * rps, high=1.03 * rps, n=100)
        points.append(ServicePoint(batch_size=size, p50_ms=ms, p99_ms=1.2 * ms, mean_ms=ms, throughput_rps=interval))
    return ServiceCurve(name="small", points=tuple(points), max_batch=32)


REPLICA = Replica.of(_curve())
HOLD = REPLICA.slo_capacity_rps(SLO_MS)


def _hpa(least, most, *, target="700", behavior=None, metric="request_rate"):
    metrics = [
        {
            "type": "Pods",
            "pods": {"metric": {"name": metric}, "target": {"type": "AverageValue", "averageValue": target}},
        }
    ]
    spec = {"minReplicas": least, "maxReplicas": most, "metrics": metrics}
    return spec if behavior is None else {**spec, "behavior": behavior}


def _swell(hours, low=0.5, high=3.5, period_h=2.0):
    """A rise and fall, in multiples of what one replica holds."""
    seconds = np.arange(int(hours * HOUR))
    return HOLD * (low + (high - low) * (1 - np.cos(2 * np.pi * seconds / (period_h * HOUR))) / 2)


def _search(rps, **changes):
    arguments = {
        "slo_ms": SLO_MS,
        "price_per_hour_usd": PRICE,
        "metrics": ("rate",),
        "processes": 1,
        **changes,
    }
    return search(Day("recorded", rps), REPLICA, **arguments)


def _candidates(rps, **changes):
    arguments = {
        "slo_ms": SLO_MS,
        "price_per_hour_usd": PRICE,
        "metrics": ("queue", "rate", "cpu"),
        "bounds": Bounds(),
        **changes,
    }
    return candidates(REPLICA, rps, **arguments)


@pytest.fixture(scope="module")
def found():
    """A search with everything in it: an HPA in use that keeps nothing back, and a setting that is better."""
    return _search(_swell(4), today=_hpa(5, 12))


class TestSettings:
    def test_a_usual_service_gets_at_least_150_settings_each_of_them_another(self):
        tried = _candidates(_swell(24, period_h=24))
        assert len(tried) >= 150
        assert len({s.name for s in tried}) == len(tried)
        assert len({str(s.spec) for s in tried}) == len(tried)

    def test_settings_are_the_same_each_time_and_in_the_same_order(self):
        assert _candidates(_swell(3)) == _candidates(_swell(3))

    def test_no_queue_is_asked_for_that_a_gauge_shows_by_chance_only(self):
        alone = Replica.of(_curve().model_copy(update={"max_batch": 1}))
        rps = _swell(3) / HOLD * alone.slo_capacity_rps(SLO_MS)
        settings = candidates(alone, rps, slo_ms=SLO_MS, price_per_hour_usd=PRICE, metrics=("queue",), bounds=Bounds())
        targets = [metric["pods"]["target"]["averageValue"] for s in settings for metric in s.spec["metrics"]]
        queues = [quantity(target) for target in targets]
        assert queues
        assert min(queues) >= 1

    @settings(max_examples=60, deadline=None)
    @given(
        metrics=st.sets(st.sampled_from(sorted(METRIC_NAMES)), min_size=1),
        names=st.none() | st.sets(st.sampled_from(sorted(METRIC_NAMES.values()))),
        low=st.integers(1, 20),
        high=st.integers(1, 200),
        target=st.none() | st.tuples(st.floats(0, 500), st.floats(0, 2000)),
        daily_usd=st.none() | st.floats(0.1, 2000),
        scale=st.floats(0, 40),
        slo_ms=st.floats(1, 1000),
    )
    def test_no_setting_leaves_the_bounds(self, metrics, names, low, high, target, daily_usd, scale, slo_ms):
        bounds = Bounds(
            min_replicas=low,
            max_replicas=high,
            metrics=None if names is None else tuple(sorted(names)),
            target=target,
            daily_cost_usd=daily_usd,
        )
        rps = scale * _swell(0.1, period_h=0.1)
        for setting in _candidates(rps, metrics=tuple(metrics), bounds=bounds, slo_ms=slo_ms):
            hpa = parse_autoscaler(setting.spec)
            assert low <= hpa.min_replicas <= hpa.max_replicas <= high
            assert daily_usd is None or hpa.max_replicas * 24 * PRICE <= daily_usd * (1 + 1e-9)
            for metric in hpa.metrics:
                assert names is None or metric.name in names
                assert metric.name in {METRIC_NAMES[m] for m in metrics}
                value = metric.target_percent or metric.target_milli / 1000
                assert target is None or target[0] <= value <= target[1]

    def test_todays_hpa_comes_first_whatever_the_bounds_say(self):
        today = {**_hpa(1, 500), "scaleTargetRef": {"name": "model"}}
        first = _candidates(_swell(1), today=today, bounds=Bounds(max_replicas=3))[0]
        assert first.is_today
        assert first.spec == _hpa(1, 500)

    def test_a_setting_that_is_todays_is_tried_once(self):
        twin = _candidates(_swell(3))[10].spec
        tried = _candidates(_swell(3), today=twin)
        assert [s.is_today for s in tried if s.spec == twin] == [True]

    def test_an_hpa_that_is_none_says_which_field(self):
        with pytest.raises(SpecError, match="maxReplicas"):
            _candidates(_swell(1), today={"minReplicas": 1})

    def test_an_slo_that_no_load_keeps_leaves_only_todays(self):
        assert _candidates(_swell(1), slo_ms=1.0) == ()
        assert len(_candidates(_swell(1), slo_ms=1.0, today=_hpa(1, 3))) == 1

    def test_no_cpu_target_is_so_high_that_the_controller_would_never_act(self):
        for setting in _candidates(_swell(3), metrics=("cpu",)):
            assert parse_autoscaler(setting.spec).metrics[0].target_percent * 1.1 < 100


class TestNearby:
    """What is tried around the best of the grid."""

    best = next(s for s in _candidates(_swell(3), metrics=("queue", "rate")) if len(s.spec["metrics"]) == 2)

    def nearby(self, best, bounds=None):
        return nearby(best, REPLICA, slo_ms=SLO_MS, bounds=bounds or Bounds())

    def test_the_rate_lies_between_those_of_the_grid_and_all_else_stays_but_the_pace(self):
        found = self.nearby(self.best)
        queue, rate = self.best.spec["metrics"]
        aims = {_rate_target(s.spec) / HOLD for s in found}
        at = quantity(rate["pods"]["target"]["averageValue"]) / HOLD
        assert sorted(aims) == pytest.approx([at - 0.05, at - 0.025, at + 0.025, at + 0.05], abs=0.01)
        assert {(s.min_replicas, s.max_replicas) for s in found} == {(self.best.min_replicas, self.best.max_replicas)}
        assert all(s.spec["metrics"][0] == queue for s in found)
        assert len({s.name for s in found}) == len(found) == 12

    @given(low=st.floats(0, 2000), width=st.floats(0, 500))
    def test_none_leaves_the_bounds(self, low, width):
        alone = next(s for s in _candidates(_swell(3), metrics=("rate",)))
        found = self.nearby(alone, Bounds(target=(low, low + width)))
        assert all(low <= _rate_target(s.spec) <= low + width for s in found)
        assert bool(found) == any(low <= _rate_target(s.spec) <= low + width for s in self.nearby(alone))

    def test_nobody_aims_higher_than_the_grid_does(self):
        moving = [s for s in _candidates(_swell(3), metrics=("rate",)) if s.min_replicas < s.max_replicas]
        highest = max(moving, key=lambda s: _rate_target(s.spec))
        found = self.nearby(highest)
        assert found
        assert max(_rate_target(s.spec) for s in found) <= 1.01 * LOAD_SHARES[-1] * HOLD  # it is rounded

    @pytest.mark.parametrize("metric", ["queue", "cpu", "latency"])
    def test_where_the_rate_is_not_followed_there_is_nothing(self, metric):
        assert self.nearby(_candidates(_swell(3), metrics=(metric,))[0]) == ()

    def test_around_todays_and_a_fixed_number_there_is_nothing(self):
        today, *others = _candidates(_swell(3), today=_hpa(2, 9))
        fixed = next(s for s in others if s.min_replicas == s.max_replicas)
        assert self.nearby(today) == self.nearby(fixed) == ()

    def test_a_cheaper_one_between_is_found_and_chosen(self):
        recommended = _search(_swell(4))
        share = _rate_target(recommended.chosen.spec) / HOLD
        assert min(abs(share - aim) for aim in LOAD_SHARES) > 0.01
        of_the_grid = {str(s.spec) for s in _candidates(_swell(4), metrics=("rate",))}
        kept = [o for o in recommended.options if o.rejected is None]
        best = min(o.outcomes[0].cost_usd for o in kept if str(o.spec) in of_the_grid)
        assert recommended.chosen.outcomes[0].cost_usd < best


def _rate_target(spec):
    return quantity(spec["metrics"][-1]["pods"]["target"]["averageValue"])


class TestPlaying:
    def test_settings_that_share_a_run_do_as_they_would_alone(self):
        world = _world(_swell(2))
        tried = _candidates(_swell(2), metrics=("rate",))
        with Players(world, 1) as players:
            shared, runs = players.play_each(tried, [RECORDED])
            assert [one for (one,) in shared] == players.play([(RECORDED, setting.spec) for setting in tried])
        assert runs < len(tried)

    def test_survivors_are_counted_up_to_the_95_percent_level_only(self):
        rps = np.concatenate([np.full(57 * 60, 0.5 * HOLD), np.full(3 * 60, 1.5 * HOLD)])
        with Players(_world(rps, level_rps=0.5 * HOLD), 1) as players:
            one, two = players.play([(RECORDED, _hpa(count, count)) for count in (1, 2)])
        assert (one.guarded, one.exposed) == (57, 57)
        assert (two.guarded, two.exposed) == (57, 0)

    def test_processes_end_with_the_one_that_started_them_even_if_it_is_killed(self):
        script = Path(__file__).with_name("search_child.py")
        with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as child:
            workers = [int(pid) for pid in child.stdout.readline().split()]
            child.kill()
        assert len(workers) == 2
        until = time.monotonic() + 10
        while any(_runs(pid) for pid in workers) and time.monotonic() < until:
            time.sleep(0.02)
        assert not any(_runs(pid) for pid in workers)


def _runs(pid):
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rsplit(")", maxsplit=1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _world(rps, level_rps=None):
    return World(
        days=(Day("recorded", rps),),
        replica=REPLICA,
        delays=Delays(),
        slo_ms=SLO_MS,
        price_per_hour_usd=PRICE,
        queue_limit=None,
        level_rps=float(np.quantile(rps, 0.95)) if level_rps is None else level_rps,
    )


def _played(*, exposed=0, **outcome):
    return Played(day_outcome(**outcome), guarded=1000, exposed=exposed, highest=3)


class TestPromises:
    week = Promises(kept_share=0.999, minutes=10_080, guarded=9576)

    def test_a_tenth_of_a_percent_of_a_week_is_ten_minutes(self):
        assert not self.week.broken(_played(minutes=10_080, missed=10))
        (broken,) = self.week.broken(_played(minutes=10_080, missed=11))
        assert (broken.promise, broken.asked, broken.got) == ("slo", 10, 11)
        assert broken.sentence == "misses the SLO in 11 minutes of the week (10 allowed)"

    def test_one_in_a_hundred_minutes_may_be_exposed_to_a_lost_replica(self):
        assert not self.week.broken(_played(exposed=95))
        assert [s.promise for s in self.week.broken(_played(exposed=96))] == ["survivors"]

    def test_flapping_is_rejected(self):
        assert not self.week.broken(_played(reversals=42))
        assert [s.promise for s in self.week.broken(_played(reversals=43))] == ["flapping"]

    def test_a_harder_day_may_miss_two_percent_or_what_was_asked_for_if_less(self):
        day = [_played(missed=29, day="a spike")]
        assert [s.promise for s in self.week.broken(_played(), day)] == ["a spike"]
        assert not Promises(kept_share=0.9, minutes=10_080, guarded=1).broken(_played(), day)

    def test_too_much_on_the_busiest_day_is_too_much_for_the_week(self):
        (broken,) = self.week.broken(_played(missed=30))
        assert broken.sentence == "misses the SLO in 30 minutes of its busiest day alone (10 allowed)"


class TestSearch:
    def test_the_chosen_one_is_the_cheapest_that_keeps_everything_as_brute_force_finds(self, found):
        recorded = Day("recorded", _swell(4))
        kept = {}
        for option in found.options:
            runs = [_simulated(day, option.spec) for day in (recorded, *harder_days(recorded, 0))]
            if _keeps_all(runs, recorded):
                kept[option.name] = runs[0].outcome
        costly = {option.name for option in found.options if "not run to the end" in (option.rejected or "")}
        assert {option.name for option in found.options if option.rejected is None} == set(kept) - costly
        assert found.chosen is not None
        cheapest = min(outcome.cost_usd for outcome in kept.values())
        near = {name: o for name, o in kept.items() if o.cost_usd <= cheapest * (1 + SAME_COST_SHARE)}
        assert found.chosen.name in near
        assert near[found.chosen.name].missed_minutes == min(o.missed_minutes for o in near.values())
        assert found.chosen.outcomes[0] == near[found.chosen.name]

    def test_todays_hpa_is_judged_on_everything_even_if_it_is_hopeless(self):
        hopeless = _search(_swell(1), today=_hpa(1, 1))
        assert hopeless.today is not None
        assert hopeless.today.is_today
        assert len(hopeless.today.outcomes) == 6
        assert hopeless.today.rejected is not None
        assert hopeless.today == hopeless.options[0]

    def test_a_setting_is_rejected_with_its_reason_or_keeps_everything(self, found):
        for option in found.options:
            assert (option.rejected is None) <= (len(option.outcomes) == 6)
        assert any(option.rejected is None for option in found.options)

    def test_an_hpa_that_flaps_is_rejected_for_it(self):
        hasty = {"scaleDown": {"stabilizationWindowSeconds": 0}, "scaleUp": {"stabilizationWindowSeconds": 0}}
        rps = _swell(3, low=1.5, high=3.0, period_h=0.2)
        flapping = _search(rps, today=_hpa(2, 20, target="450", behavior=hasty))
        assert flapping.today is not None
        assert "flaps" in flapping.today.rejected
        assert flapping.chosen is not None
        assert not flapping.chosen.is_today

    def test_bounds_that_are_too_tight_are_called_infeasible_with_what_is_missed(self):
        tight = _search(_swell(2), bounds=Bounds(max_replicas=2), today=_hpa(1, 2))
        assert tight.chosen is None
        assert tight.closest is not None
        assert tight.closest.shortfalls
        assert all(s.got > s.asked for s in tight.closest.shortfalls)
        assert "no setting that was tried keeps every promise" in tight.sentence
        assert tight.after is not None or tight.closest.option.is_today

    def test_an_slo_below_what_one_request_takes_is_said_plainly(self):
        hopeless = _search(_swell(1), slo_ms=2.0, today=_hpa(2, 4))
        assert hopeless.chosen is None
        assert hopeless.sentence.startswith("No number of replicas keeps the SLO")

    def test_bounds_that_leave_nothing_are_said_plainly(self):
        nothing = _search(_swell(1), bounds=Bounds(metrics=()))
        assert nothing.options == ()
        assert "the bounds leave no setting to try" in nothing.sentence

    def test_an_hpa_that_cannot_be_played_is_named_and_the_rest_goes_on(self):
        other = _search(_swell(1), today=_hpa(2, 9, metric="gpu_duty_cycle"))
        assert other.today is None
        assert "gpu_duty_cycle" in other.unplayable
        assert "today's HPA cannot be compared" in other.sentence
        assert other.chosen is not None
        assert other.before is None

    def test_the_number_of_processes_changes_nothing(self):
        rps = _swell(0.5, period_h=0.5)
        one, two = (_search(rps, today=_hpa(2, 9), processes=count) for count in (1, 2))
        same = {"processes": 0, "seconds": 0.0}
        assert two.effort.processes == 2
        assert one.model_copy(update={"effort": one.effort.model_copy(update=same)}) == two.model_copy(
            update={"effort": two.effort.model_copy(update=same)}
        )

    def test_beginning_with_the_busiest_day_chooses_the_same(self):
        rps = np.concatenate([_swell(24, high=2.5, period_h=24), _swell(2, high=1.5, period_h=2)])
        bounds = Bounds(target=(700, 800), max_replicas=5)
        coarse = _search(rps, bounds=bounds)
        assert coarse.effort.busiest_day_runs > 0
        assert coarse.effort.failed_early > 0
        recorded = Day("recorded", rps)
        kept = []
        for option in coarse.options:
            runs = [_simulated(recorded, option.spec)]
            if _keeps_all(runs, recorded):
                runs += [_simulated(day, option.spec) for day in harder_days(recorded, 0)]
                kept += [runs[0].outcome.cost_usd] if _keeps_all(runs, recorded) else []
        assert coarse.chosen is not None
        assert coarse.chosen.outcomes[0].cost_usd <= min(kept) * (1 + SAME_COST_SHARE)
        assert coarse.chosen.outcomes[0].minutes == rps.size // 60
        assert BUSIEST != RECORDED
        assert busiest_day(rps).size == 24 * HOUR

    def test_a_recommendation_is_read_back_as_it_was(self, found):
        assert Recommendation.model_validate_json(found.model_dump_json()) == found

    def test_the_static_need_is_that_of_the_recorded_rates(self, found):
        rps = _swell(4)
        assert found.static.peak == np.ceil(rps.max() / HOLD)
        assert (rps <= found.static.p95 * HOLD).mean() >= 0.95
        assert (rps <= (found.static.p95 - 1) * HOLD).mean() < 0.95

    @pytest.mark.parametrize("wrong", [{"slo_ms": 0.0}, {"price_per_hour_usd": -1.0}])
    def test_an_slo_or_a_price_that_is_not_positive_is_an_error(self, wrong):
        with pytest.raises(ValueError, match="must be positive"):
            _search(_swell(1), **wrong)


def _simulated(day, spec):
    return simulate(day, REPLICA, spec, delays=Delays(), slo_ms=SLO_MS, price_per_hour_usd=PRICE)


def _keeps_all(runs, recorded):
    """The promises once more, written another way."""
    first, *harder = runs
    level = np.quantile(recorded.rps, 0.95, method="higher")
    low = first.rps <= level
    safe = (first.ready[low] - 1) * HOLD >= first.rps[low] * (1 - 1e-9)
    return (
        first.missed.mean() <= 1 - 0.999 + 1e-9
        and low.sum() - safe.sum() <= (1 - SURVIVORS_SHARE) * low.sum() + 1e-9
        and first.outcome.reversals <= max(1, MOST_REVERSALS_PER_DAY * recorded.seconds / 86_400)
        and all(run.missed.mean() <= 1 - HARDER_KEPT_SHARE + 1e-9 for run in harder)
    )


class TestSeries:
    def test_a_long_series_is_cut_to_size_and_keeps_its_peaks(self):
        rps = np.full(5000 * 60, HOLD / 2)
        rps[123 * 60 : 124 * 60] *= 1.5
        stage = prepare(Day("long", rps), REPLICA, delays=Delays(), slo_ms=SLO_MS, price_per_hour_usd=PRICE)
        run = stage.play(_hpa(2, 3))
        series = series_of(run)
        assert len(series.minute) == len(series.p99_ms) == len(series.replicas) == len(series.rate_rps)
        assert SERIES_POINTS / 2 < len(series.minute) <= SERIES_POINTS
        assert max(series.rate_rps) == pytest.approx(run.rps.max(), rel=1e-5)
        assert max(series.p99_ms) == pytest.approx(run.p99_ms.max(), rel=1e-5)
        assert series.minute[int(np.argmax(series.rate_rps))] <= 123


class TestPlot:
    def test_the_drawing_is_one_svg_that_says_what_it_shows(self, found):
        svg = plot(found)
        root = ET.fromstring(svg)
        assert root.get("role") == "img"
        assert root.get("aria-label") == described(found)
        texts = {"".join(node.itertext()) for node in root.iter() if node.tag.endswith("text")}
        assert {"requests per second", "replicas", "hour", "before: today's HPA", "after: recommended"} <= texts
        assert any(text.startswith("p99 (ms") for text in texts)
        assert "#0a0b" not in svg

    def test_the_words_hold_both_settings_and_their_missed_minutes(self, found):
        words = described(found)
        assert f"SLO missed in {story.counted(found.today.outcomes[0].missed_minutes, 'minute')}" in words
        assert "Before: " in words
        assert "After: " in words

    def test_the_same_recommendation_is_drawn_the_same(self, found):
        assert plot(found) == plot(found)

    def test_a_p99_far_above_the_slo_is_drawn_on_a_log_scale(self):
        assert "log scale" in plot(_search(_swell(1), today=_hpa(1, 1)))

    def test_nothing_is_drawn_where_nothing_was_played(self):
        assert plot(_search(_swell(1), bounds=Bounds(metrics=()))) is None
