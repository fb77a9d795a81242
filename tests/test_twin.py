"""The twin holds what one can compute by hand: delays, backlogs, and money."""

import itertools
import pickle

import numpy as np
import pytest
from twin_support import DELAYS, REPLICA, SLO_MS, cpu, hpa, latency, named, play, queue, rate, step, table

from tools.contracts import Delays, Interval, ServiceCurve, ServicePoint
from tools.errors import SpecError
from tools.scaling.batching import Greedy
from tools.scaling.days import Day, Fault
from tools.scaling.recommended_hpa import SCALE_UP
from tools.scaling.replica import Replica
from tools.scaling.requests import simulate_requests
from tools.scaling.service_times import fixed
from tools.scaling.twin import UnplayableError, simulate

# Steady state


def test_constant_load_on_constant_replicas_gives_exactly_the_table():
    run = play(np.full(1800, 140.0), queue(30, 2, 2))
    assert run.p99_ms == pytest.approx(np.full(30, table("p99_ms", 70)), rel=1e-12)
    assert run.wait_ms == pytest.approx(np.full(30, table("mean_wait_ms", 70)), rel=1e-12)
    assert run.queue == pytest.approx(np.full(30, table("mean_queue", 70)), rel=1e-12)
    assert (run.ready == 2).all()
    assert (run.paid == 2).all()
    assert (run.rps == 140).all()
    assert not run.missed.any()
    outcome = run.outcome
    assert (outcome.minutes, outcome.missed_minutes, outcome.scalings, outcome.reversals) == (30, 0, 0, 0)
    assert (outcome.peak_replicas, outcome.mean_replicas) == (2, 2.0)
    assert outcome.replica_hours == pytest.approx(1.0)
    assert outcome.cost_usd == pytest.approx(0.5)
    assert outcome.served == pytest.approx(1800 * 140)
    assert outcome.waiting_at_end == outcome.refused == 0


def test_a_load_beyond_the_table_and_below_capacity_has_its_last_entry():
    assert play(np.full(120, 99.5), queue(30, 1, 1)).p99_ms == pytest.approx([50.0, 50.0])


def test_a_service_without_traffic_costs_its_minimum_and_misses_nothing():
    run = play(np.zeros(3600), queue(30, 2, 9))
    assert run.outcome.missed_minutes == 0
    assert run.outcome.replica_hours == pytest.approx(2.0)
    assert (run.wait_ms == 0).all()


def test_a_last_minute_may_be_shorter():
    run = play(np.full(90, 60.0), queue(30, 2, 2))
    assert run.rps == pytest.approx([60.0, 60.0])
    assert run.ready == pytest.approx([2.0, 2.0])
    assert run.outcome.minutes == 2


def test_a_day_shorter_than_a_sync_is_played_too():
    assert play([50.0] * 5, queue(30, 1, 3)).outcome.served == pytest.approx(250)


def test_the_run_starts_where_the_setting_rests():
    assert play(np.full(600, 300.0), rate(60, 1, 9)).ready[0] == 5
    assert play(np.full(600, 300.0), rate(60, 1, 4)).ready[0] == 4
    assert play(np.full(600, 300.0), rate(60, 7, 9)).ready[0] == 7


# Delays: each timeline was worked out on paper


def test_a_step_meets_every_delay_with_the_queue_as_metric():
    """50 to 300 rps at second 100, one replica, at most five.

    Seen by the scrape at 105, served by the adapter from 120 on, read by the sync at 135 (in the same second, the
    sync comes first). 1 + 4 pods are asked for; four have nodes at 137 and serve at 172. The old pod got 200 more
    than it can serve each second for 72 s: 14,400 wait. It now gets 60, serves 100, and has served all at 532.
    """
    run = play(step(50, 300, 100, 600), queue(30, 1, 5))
    assert run.scalings == ((135, 1, 5),)
    assert run.ready[:4] == pytest.approx([1, 1, (52 * 1 + 8 * 5) / 60, 5])
    assert run.paid[:4] == pytest.approx([1, 1, (17 * 1 + 43 * 5) / 60, 5])
    assert run.queue[1] == pytest.approx(20 * 200)
    assert run.queue[2] == pytest.approx(14_400)
    assert run.queue[3] == pytest.approx(14_400 - 8 * 40)
    assert run.p99_ms[0] == pytest.approx(20.0)
    assert run.p99_ms[2] == pytest.approx(144_000 + 40)
    assert run.p99_ms[8] == pytest.approx((14_400 - (480 - 172) * 40) * 10 + 40)
    assert run.p99_ms[9] == pytest.approx(table("p99_ms", 60))
    assert list(np.flatnonzero(run.missed)) == list(range(1, 9))
    # Four of five requests meet an idle replica, the others a backlog that shrinks by 40 a second.
    shrinking = np.arange(14_400 - 8 * 40, 0, -40.0)[:60] - 20
    expected_ms = (4 * table("mean_wait_ms", 60) + shrinking.mean() * 10) / 5
    assert run.wait_ms[3] == pytest.approx(expected_ms)


def test_a_step_is_seen_late_by_the_window_of_a_rate():
    """80 to 180 rps at second 100 on two replicas, 60 each wanted.

    Of the two minutes before the scrape at 135, read from 165 on, 35 s had it: 54.6 each, within the tolerance. Of
    those before 165, 65 s: 67.1 each; that is 1.118 of the target, and 1.118 * 2 is 3, at the sync at 195.
    """
    assert play(step(80, 180, 100, 225), rate(60, 2, 9)).scalings == ((195, 2, 3),)


def test_a_step_is_seen_by_the_latency_as_soon_as_a_scrape_holds_it():
    """100 to 190 rps at 100 on two replicas: p99 from 20 to 48 ms, 40 wanted: 1.2 * 2 is 3, at the sync at 135."""
    assert play(step(100, 190, 100, 165), latency(40, 2, 9)).scalings == ((135, 2, 3),)


def test_a_step_is_seen_by_the_cpu_through_the_metrics_server_alone():
    """96 to 162 rps at second 100 on two replicas, 50 % wanted.

    At 105 a third of the window was at 81 %: 59 %, 1.18 of the target, so 3 at the sync at 120. At 120 all of it was,
    which would be four; but the third pod is not ready, counts as idle, and makes it 54 %: within the tolerance.
    """
    assert play(step(96, 162, 100, 165), cpu(50, 2, 9)).scalings == ((120, 2, 3),)


def test_the_largest_of_several_metrics_wins():
    both = queue(30, 2, 9)
    both["metrics"] += cpu(50, 2, 9)["metrics"]
    rps = step(80, 180, 100, 150)
    assert play(rps, both).scalings == play(rps, cpu(50, 2, 9)).scalings


def test_scaling_down_waits_for_its_window_and_is_paid_until_the_pods_are_gone():
    """300 to 50 rps at second 100, five replicas, 60 each wanted.

    At scrape 105 two minutes with 5 s of less traffic have 58 each: within the tolerance, five. At scrape 135, read
    from 165 on, 45 each: four. The five of the sync at 150 is 300 s old, and forgotten, at 450: one less a minute.
    """
    run = play(step(300, 50, 100, 900), rate(60, 1, 9), initial=5)
    assert run.scalings == ((450, 5, 4), (510, 4, 3), (570, 3, 2), (630, 2, 1))
    assert run.ready[6:8] == pytest.approx([5, (30 * 5 + 30 * 4) / 60])
    assert run.paid[6:8] == pytest.approx([5, 5])
    assert run.paid[8:10] == pytest.approx([4, 3])


def test_replicas_outside_of_the_bounds_are_brought_back_at_the_first_sync():
    assert play(np.full(60, 100.0), queue(30, 2, 4), initial=9).scalings[0] == (15, 9, 4)
    assert play(np.full(60, 100.0), queue(30, 2, 4), initial=1).scalings[0] == (15, 1, 2)


def test_longer_delays_of_a_pod_delay_its_first_request_by_as_much():
    slow = DELAYS.model_copy(update={"start_s": 90.0})
    run = play(step(50, 300, 100, 600), queue(30, 1, 5), delays=slow)
    assert run.scalings[0] == (135, 1, 5)
    assert run.ready[2] == 1
    assert run.ready[3] == pytest.approx((52 * 1 + 8 * 5) / 60)


# What the controller makes of pods without samples, and of samples without pods


def show(loads, spec, *, initial=2, faults=(), **delays):
    """Return the scalings of replicas whose queue is their load, seen two seconds late."""
    usual = {"scheduling_s": 0, "start_s": 1, "readiness_s": 0, "termination_s": 1}
    own_load = {"loads_rps": (2.0, 500.0, 980.0), "mean_queue": (2.0, 500.0, 980.0), "capacity_rps": 1000.0}
    return simulate(
        Day("made up", np.concatenate([np.full(seconds, float(load)) for seconds, load in loads]), faults),
        REPLICA.model_copy(update=own_load),
        spec,
        delays=Delays(scrape_s=1, adapter_s=1, sync_s=15, **{**usual, **delays}),
        slo_ms=SLO_MS,
        price_per_hour_usd=0.5,
        initial_replicas=initial,
    ).scalings


AT_ONCE = {"scaleDown": {"stabilizationWindowSeconds": 0}}


def test_starting_pods_without_samples_lean_against_scaling_down():
    """Two run, two start, 15 of 30 each: the starting ones count as 30, so 22 of 30 on four, which is three."""
    loads = [(38, 60), (15, 120), (15, 30)]
    assert show(loads, queue(30, 1, 20, AT_ONCE), start_s=40) == ((45, 2, 4), (60, 4, 3))


def test_pending_pods_do_not():
    """Pods without a node are left out on the way down: 15 of 30 on two is one."""
    loads = [(38, 60), (15, 120), (15, 30)]
    assert show(loads, queue(30, 1, 20, AT_ONCE), scheduling_s=40) == ((45, 2, 4), (60, 4, 1))


def test_samples_of_lost_pods_stay_until_the_next_scrape():
    """Four had 60 each, two of them are gone: 240 over four samples and two pods to come is 40, 8 replicas' worth."""
    lost = (Fault("lost_node", 59, share=0.5),)
    assert show([(57, 120), (10, 240)], queue(30, 1, 20), initial=4, faults=lost, scheduling_s=5) == ((60, 4, 8),)


def test_a_latency_is_multiplied_with_all_ready_pods_even_those_that_stop():
    """At 15, 12 of 40 ms on four replicas: two stop for 30 s. At 30, 1.2 of the target on the four: five."""
    soon = DELAYS.model_copy(update={"scrape_s": 1.0, "adapter_s": 1.0})
    run = play(step(40, 190, 20, 45), latency(40, 2, 9, AT_ONCE), initial=4, delays=soon)
    assert run.scalings == ((15, 4, 2), (30, 2, 5))


def test_a_rate_still_holds_what_came_while_there_were_more_replicas():
    """At 15, 30 of 60 each on seven: four. At 30, 107 s of 30 and 13 s of 52.5 make 32: three, which is too few."""
    soon = DELAYS.model_copy(update={"scrape_s": 1.0, "adapter_s": 1.0})
    run = play(np.full(45, 210.0), rate(60, 1, 9, AT_ONCE), initial=7, delays=soon)
    assert run.scalings == ((15, 7, 4), (30, 4, 3))


def test_a_latency_of_no_requests_is_no_metric_and_changes_nothing():
    assert play(np.zeros(600), latency(40, 2, 9, AT_ONCE), initial=4).scalings == ()
    assert play(np.zeros(600), queue(30, 2, 9, AT_ONCE), initial=4).scalings == ((15, 4, 2),)


# Faults


def test_missing_metrics_freeze_the_replicas():
    rps = step(50, 300, 100, 900)
    run = play(rps, queue(30, 1, 5), faults=[Fault("metrics_missing", 120, 300)])
    assert run.scalings[0] == (420, 1, 5)


@pytest.mark.parametrize("setting", [queue(30, 1, 5), rate(60, 1, 5), latency(40, 1, 5), cpu(50, 1, 5)])
def test_metrics_that_lag_delay_the_decision_by_their_lag(setting):
    rps = step(20, 300, 100, 600)
    usual = play(rps, setting).scalings[0].at_s
    assert play(rps, setting, faults=[Fault("metrics_lag", 0, 600)]).scalings[0].at_s == usual + 120


def test_a_lost_node_costs_what_it_should():
    """Half of four replicas at second 600: two are unpaid for the 2 s until they have nodes, and back after 37 s."""
    run = play(np.full(1200, 120.0), queue(30, 4, 4), faults=[Fault("lost_node", 600, share=0.5)])
    assert run.outcome.replica_hours * 3600 == pytest.approx(4 * 1200 - 2 * 2)
    assert run.ready[10] == pytest.approx((37 * 2 + 23 * 4) / 60)
    assert run.p99_ms[9:12] == pytest.approx([table("p99_ms", 30), table("p99_ms", 60), table("p99_ms", 30)])
    assert run.outcome.refused == 0
    assert run.outcome.scalings == 0


def test_a_lost_node_takes_at_least_one_replica_and_what_waits_there():
    """One replica, 50 too many each second for 60 s, then gone: 3,000 are lost, and all refused for 37 s."""
    run = play(np.full(180, 150.0), queue(30, 1, 1), faults=[Fault("lost_node", 60, share=0.1)])
    assert run.refused == pytest.approx([0, 3000 + 37 * 150, 0])
    assert list(run.missed) == [True, True, True]
    assert run.outcome.waiting_at_end == pytest.approx((180 - 97) * 50)


def test_what_waits_in_a_stopped_pod_is_served_as_far_as_its_time_allows():
    """Two replicas with 50 too many each second, until one is stopped at 15: 750 wait in each.

    The stopped one serves 100 a second and is done within its 30 s; with 5 s, 250 are refused.
    """
    rps = np.full(60, 300.0)
    done = play(rps, queue(30, 1, 1), initial=2)
    assert done.outcome.refused == 0
    cut = play(rps, queue(30, 1, 1), initial=2, delays=DELAYS.model_copy(update={"termination_s": 5.0}))
    assert cut.outcome.refused == pytest.approx(250)


def test_a_queue_limit_refuses_the_rest():
    run = play(np.full(60, 150.0), queue(30, 1, 1), limit=10)
    assert run.outcome.refused == pytest.approx(40 + 59 * 50)
    assert run.outcome.waiting_at_end == pytest.approx(10)
    assert run.p99_ms == pytest.approx([140.0])
    assert run.missed.all()


def test_refusals_miss_a_minute_even_if_those_served_are_fast():
    run = play(np.full(60, 101.0), queue(30, 1, 1), limit=0)
    assert run.p99_ms[0] <= SLO_MS
    assert run.missed.all()


# Counting


def test_a_flapping_setting_is_recognised():
    hasty = {"scaleUp": SCALE_UP, "scaleDown": {"stabilizationWindowSeconds": 0}}
    seconds = np.arange(3600)
    rps = np.where(seconds // 120 % 2 == 0, 100.0, 400.0)
    flapping = play(rps, rate(60, 2, 9, hasty)).outcome
    steady = play(rps, rate(60, 2, 9, {"scaleDown": {"stabilizationWindowSeconds": 600}})).outcome
    assert flapping.reversals > 10
    assert flapping.reversals < flapping.scalings
    assert steady.reversals == 0


def test_reversals_and_scalings_are_those_of_the_list():
    seconds = np.arange(7200)
    run = play(150 + 140 * np.sin(seconds / 500), rate(60, 1, 9))
    pairs = itertools.pairwise(run.scalings)
    turned = [b for a, b in pairs if (b.after > b.before) != (a.after > a.before) and b.at_s - a.at_s <= 600]
    assert run.outcome.scalings == len(run.scalings) > 4
    assert run.outcome.reversals == len(turned)


def test_the_cost_is_proportional_to_the_price():
    rps = step(50, 300, 100, 900)
    cheap, dear = (play(rps, queue(30, 1, 5), price=price).outcome for price in (0.5, 1.5))
    assert dear.cost_usd == pytest.approx(3 * cheap.cost_usd)
    assert cheap.cost_usd == pytest.approx(0.5 * cheap.replica_hours)
    assert dear.replica_hours == cheap.replica_hours


@pytest.mark.parametrize(("replicas", "moves"), [(50, True), (200, False)])
def test_few_late_requests_do_not_move_the_p99(replicas, moves):
    """One replica has a backlog for 26 s more when the others start: it gets one request of 50, or of 200."""
    run = play(np.full(120, 150.0), queue(30, replicas, replicas), initial=1)
    assert run.scalings == ((15, 1, replicas),)
    assert run.p99_ms[0] == pytest.approx(52 * 50 * 10 + 40)
    waits = 52 * 50 - 8 * (100 - 150 / replicas)
    assert run.queue[1] == pytest.approx(waits)
    assert run.p99_ms[1] == pytest.approx(waits * 10 + 40 if moves else table("p99_ms", 0.75))


# Against a real controller, and a simulation of every request


def test_the_real_controller_did_the_same_at_the_same_syncs():
    """As recorded of Kubernetes 1.36: a queue of 60 in all, of 450 from 40 s on, of 90 from 150 s on; 30 each wanted.

    Without a `behavior` block. Its metrics were read at once; the twin's are two seconds old, so its load is early.
    """
    loads = [(38, 60), (110, 450), (392, 90)]
    assert show(loads, queue(30, 1, 20, behavior=None)) == ((45, 2, 4), (60, 4, 8), (75, 8, 15), (435, 15, 3))


def test_an_overload_lasts_as_long_as_request_by_request():
    """500 per second at most; 600 for a minute, 250 before and after: 6,000 wait, and are served in 24 s."""
    times_s = [(4 + 1.5 * n) / 1000 for n in range(1, 9)]
    replica = Replica.of(_curve(times_s))
    rates = np.concatenate([np.full(120, 250.0), np.full(60, 600.0), np.full(120, 250.0)])
    draw = np.random.default_rng(5)
    second = np.repeat(np.arange(rates.size), draw.poisson(rates))
    arrivals_s = np.sort(second + draw.random(second.size))
    real = simulate_requests(arrivals_s, fixed(times_s), Greedy(8))
    minute = (real.arrivals_s // 60).astype(int)
    wait_ms = [real.wait_s[minute == m].mean() * 1000 for m in range(5)]
    p99_ms = [np.quantile(real.latency_s[minute == m], 0.99) * 1000 for m in range(5)]
    run = simulate(
        Day("an overload", rates),
        replica,
        queue(30, 1, 1),
        delays=DELAYS,
        slo_ms=SLO_MS,
        price_per_hour_usd=0.5,
    )
    assert run.wait_ms == pytest.approx(wait_ms, rel=0.1, abs=0.2)
    assert run.p99_ms == pytest.approx(p99_ms, rel=0.1)


def _curve(times_s):
    points = [
        ServicePoint(
            batch_size=n,
            p50_ms=1000 * time_s,
            p99_ms=1000 * time_s,
            mean_ms=1000 * time_s,
            throughput_rps=Interval(value=n / time_s, low=n / time_s, high=n / time_s, n=100),
        )
        for n, time_s in enumerate(times_s, start=1)
    ]
    return ServiceCurve(name="fixed times", points=tuple(points), max_batch=len(points))


# What cannot be played, and what is not

PERCENT = {"type": "Utilization", "averageUtilization": 70}
OF_A_CONTAINER = {"name": "cpu", "container": "model", "target": PERCENT}


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ({"type": "External", "external": named("sqs_messages", "AverageValue", 5)}, "sqs_messages"),
        ({"type": "Pods", "pods": named("tokens_per_second", "AverageValue", 5)}, "tokens_per_second"),
        ({"type": "Resource", "resource": {"name": "memory", "target": PERCENT}}, "memory"),
        (
            {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "a", "target": PERCENT}},
            "cpu",
        ),
    ],
)
def test_a_metric_that_the_twin_does_not_know_is_named(metric, name):
    with pytest.raises(UnplayableError, match=f"`{name}`") as raised:
        play(np.full(60, 10.0), hpa(metric, 1, 3, None))
    assert raised.value.metric == name
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_nonsense_in_a_spec_is_the_persons_mistake():
    with pytest.raises(SpecError, match="maxReplicas"):
        play(np.full(60, 10.0), {"minReplicas": 4, "maxReplicas": 2})


def test_a_run_says_what_it_leaves_out():
    sentences = play([1.0] * 60, queue(30, 1, 1)).leaves_out
    assert len(sentences) > 3
    assert all(sentence.endswith(".") for sentence in sentences)
