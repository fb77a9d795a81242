"""Batching policies, and the simulation of requests that takes them."""

import asyncio
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.scaling.batching import Greedy, OneByOne, QueueState, Serve, WakeAt, Window
from tools.scaling.requests import poisson_arrivals_s, simulate_requests
from tools.scaling.service_times import exponential, fixed, spread

# --- the policies ---


def test_greedy_takes_what_waits_up_to_its_largest_batch():
    assert Greedy(8).decide(1.0, QueueState(3, 0.5)) == Serve(3)
    assert Greedy(8).decide(1.0, QueueState(20, 0.5)) == Serve(8)
    assert OneByOne().decide(1.0, QueueState(20, 0.5)) == Serve(1)


def test_a_window_waits_for_a_full_batch_or_for_the_oldest_request():
    window = Window(4, max_wait_ms=10)
    assert window.decide(1.0, QueueState(3, 1.0)) == WakeAt(1.01)
    assert window.decide(1.0, QueueState(5, 1.0)) == Serve(4)
    assert window.decide(1.01, QueueState(3, 1.0)) == Serve(3)


@pytest.mark.parametrize(("make", "named"), [(lambda: Greedy(0), "max_batch"), (lambda: Window(4, -1), "max_wait_ms")])
def test_a_policy_that_makes_no_sense_cannot_be_built(make, named):
    with pytest.raises(ValueError, match=named):
        make()


async def _serve(policy, sent, batches):
    """Serve a list of waiting requests as an asyncio server does: a worker, an event, and the loop's own clock."""
    loop = asyncio.get_running_loop()
    queue, news = [], asyncio.Event()

    async def worker():
        while sum(batches) < sent:
            if not queue:
                news.clear()
                await news.wait()
            decision = policy.decide(loop.time(), QueueState(len(queue), queue[0]))
            if isinstance(decision, Serve):
                del queue[: decision.batch_size]
                batches.append(decision.batch_size)
                await asyncio.sleep(0)
            else:
                news.clear()
                timeout = None if math.isinf(decision.time_s) else decision.time_s - loop.time()
                try:
                    await asyncio.wait_for(news.wait(), timeout)
                except TimeoutError:
                    continue

    running = asyncio.create_task(worker())
    for _ in range(sent):
        queue.append(loop.time())
        news.set()
    await running


@pytest.mark.parametrize(
    ("policy", "batches"),
    [(OneByOne(), [1] * 6), (Greedy(4), [4, 2]), (Window(3, 3_600_000), [3, 3]), (Window(4, 20), [4, 2])],
)
def test_the_same_policy_serves_in_a_real_asyncio_server(policy, batches):
    served = []
    asyncio.run(_serve(policy, 6, served))
    assert served == batches


# --- the simulation ---


class EventByEvent:
    """A policy that the simulation has no shortcut for."""

    def __init__(self, policy):
        self.policy = policy

    def decide(self, now_s, queue):
        return self.policy.decide(now_s, queue)


class Never:
    def decide(self, now_s, queue):
        return WakeAt(math.inf)


SERVICE = fixed([1.0, 1.5, 2.0, 2.5])
"""Half a second, and half a second for each request."""


def at(*times_s):
    return np.array(times_s, dtype=np.float64)


def test_greedy_batches_grow_while_the_server_is_busy():
    run = simulate_requests(at(0, 0.2, 0.4, 0.6, 5), SERVICE, Greedy(2))
    assert run.start_s.tolist() == [0, 1, 1, 2.5, 5]
    assert run.done_s.tolist() == [1, 2.5, 2.5, 3.5, 6]
    assert run.batch_sizes.tolist() == [1, 2, 1, 1]
    assert run.utilization == pytest.approx(4.5 / 6)
    assert run.mean_queue == pytest.approx((0.8 + 0.6 + 1.9) / 6)


def test_a_window_counts_from_the_oldest_arrival():
    run = simulate_requests(at(0, 0.2, 1.0, 1.1, 1.2, 1.3), SERVICE, Window(4, 500))
    # Two when the window closes; four more are there, and their window has passed, when the server is idle again.
    assert run.start_s.tolist() == [0.5, 0.5, 2, 2, 2, 2]
    assert run.batch_sizes.tolist() == [2, 4]


def test_a_full_window_starts_at_once():
    run = simulate_requests(at(0, 0.1, 0.2), SERVICE, Window(3, 10_000))
    assert run.start_s.tolist() == [0.2] * 3


def test_two_servers_share_a_queue():
    run = simulate_requests(at(0, 0.1, 0.2, 0.3), SERVICE, OneByOne(), servers=2)
    assert run.start_s.tolist() == [0, 0.1, 1, 1.1]


def test_the_shortest_queue_counts_who_is_being_served():
    run = simulate_requests(at(0, 0.1, 0.2, 0.3, 1.05), SERVICE, OneByOne(), servers=2, routing="shortest")
    # The last finds one served at each server, and one more waiting at the second.
    assert run.start_s.tolist() == [0, 0.1, 1, 1.1, 2]


def test_a_full_queue_refuses_the_newest():
    run = simulate_requests(at(0, 0.1, 0.2, 0.3), SERVICE, OneByOne(), queue_limit=1)
    assert (run.served, run.refused) == (2, 2)
    assert np.isnan(run.latency_s).tolist() == [False, False, True, True]


def test_who_waited_past_the_deadline_is_not_served():
    run = simulate_requests(at(0, 0.1, 0.6), SERVICE, OneByOne(), deadline_ms=700)
    assert run.start_s.tolist()[::2] == [0, 1]
    assert math.isnan(run.start_s[1])
    assert run.expired == 1
    assert run.mean_queue * run.horizon_s == pytest.approx(0.7 + 0.4)


def test_a_horizon_leaves_some_waiting():
    for policy in (OneByOne(), EventByEvent(OneByOne())):
        run = simulate_requests(at(0, 0.1, 0.2, 3), SERVICE, policy, until_s=1.5)
        assert (run.arrived, run.served, run.waiting) == (3, 2, 1)
        assert run.utilization == pytest.approx(1)
        assert run.mean_queue == pytest.approx((0.9 + 1.3) / 1.5)


def test_whom_nobody_ever_serves_waits_or_leaves_at_the_deadline():
    assert simulate_requests(at(0, 1), SERVICE, Never()).waiting == 2
    assert simulate_requests(at(0), SERVICE, Never()).mean_queue == 0
    run = simulate_requests(at(0, 1), SERVICE, Never(), deadline_ms=2000)
    assert (run.expired, run.horizon_s) == (2, 3)
    assert run.mean_queue == pytest.approx(4 / 3)


class Fixed:
    def __init__(self, decision):
        self.decision = decision

    def decide(self, now_s, queue):
        return self.decision


@pytest.mark.parametrize(
    ("policy", "said"), [(Serve(3), "serve 3 of 1"), (Serve(0), "serve 0 of 1"), (WakeAt(1.0), "woken at")]
)
def test_a_policy_that_asks_for_the_impossible_is_named(policy, said):
    with pytest.raises(ValueError, match=said):
        simulate_requests(at(1), SERVICE, Fixed(policy))


@pytest.mark.parametrize(
    ("arrivals_s", "changes", "named"),
    [
        (at(), {}, "arrivals_s"),
        (at(1, 0.5), {}, "arrivals_s"),
        (at(-1, 0.5), {}, "arrivals_s"),
        (at(0, math.nan), {}, "arrivals_s"),
        (at(0, math.inf), {}, "arrivals_s"),
        (at(0), {"servers": 0}, "servers"),
        (at(0), {"queue_limit": -1}, "queue_limit"),
        (at(0), {"deadline_ms": 0}, "deadline_ms"),
        (at(0), {"until_s": math.nan}, "until_s"),
    ],
)
def test_arguments_out_of_range_are_named(arrivals_s, changes, named):
    with pytest.raises(ValueError, match=named):
        simulate_requests(arrivals_s, SERVICE, OneByOne(), **changes)


@pytest.mark.parametrize("policy", [Greedy(2), EventByEvent(Greedy(2))])
@pytest.mark.parametrize("time_s", [-1.0, math.nan, math.inf])
def test_a_service_time_that_is_none_is_refused(policy, time_s):
    with pytest.raises(ValueError, match="service time"):
        simulate_requests(at(0, 1), lambda _: time_s, policy)


@pytest.mark.parametrize("rate_rps", [0.0, -1.0, math.inf, math.nan])
def test_a_poisson_process_has_a_rate(rate_rps):
    with pytest.raises(ValueError, match="rate_rps"):
        poisson_arrivals_s(rate_rps, 3, np.random.default_rng(0))


# Gaps of quarters of a second: many requests arrive, and many batches end, at the very same time.
gaps = st.lists(st.one_of(st.integers(0, 8).map(lambda n: n / 4), st.floats(0, 3)), min_size=1, max_size=60)
largest = st.integers(1, 4)
policies = st.one_of(
    st.builds(Greedy, largest),
    st.builds(OneByOne),
    st.builds(Window, largest, st.one_of(st.integers(0, 12).map(lambda n: n * 250), st.floats(0, 3000))),
)


@given(
    gaps=gaps,
    policy=policies,
    servers=st.integers(1, 3),
    routing=st.sampled_from(["shared", "random", "shortest"]),
    queue_limit=st.none() | st.integers(0, 5),
    deadline_ms=st.none() | st.floats(1, 4000),
    until_s=st.floats(0.1, 60) | st.just(math.inf),
)
def test_every_request_is_accounted_for(gaps, policy, servers, routing, queue_limit, deadline_ms, until_s):
    options = {"servers": servers, "routing": routing, "queue_limit": queue_limit, "deadline_ms": deadline_ms}
    arrivals_s = np.cumsum(gaps)
    run = simulate_requests(arrivals_s, SERVICE, policy, **options, until_s=until_s)
    again = simulate_requests(arrivals_s, SERVICE, policy, **options, until_s=until_s)
    assert run.start_s.tobytes() == again.start_s.tobytes()
    assert run.done_s.tobytes() == again.done_s.tobytes()
    assert run.arrived == run.served + run.refused + run.expired + run.waiting == np.sum(arrivals_s < until_s)
    wait_s = run.wait_s[~np.isnan(run.wait_s)]
    assert len(wait_s) == run.served
    assert (wait_s >= 0).all()
    assert 0 <= run.utilization <= 1 + 1e-12
    assert run.batch_sizes.max(initial=1) <= policy.max_batch
    if deadline_ms is not None:
        assert (wait_s < deadline_ms / 1000 + 1e-9).all()
    if queue_limit is not None:
        most = servers if routing != "shared" else 1
        assert run.mean_queue <= queue_limit * most + policy.max_batch * servers
    if math.isinf(until_s):
        assert run.waiting == 0


@given(gaps=gaps, policy=policies, servers=st.integers(1, 3))
def test_nobody_overtakes_in_a_shared_queue(gaps, policy, servers):
    run = simulate_requests(np.cumsum(gaps), SERVICE, policy, servers=servers)
    assert (np.diff(run.start_s) >= 0).all()


@given(gaps=gaps, policy=policies, servers=st.integers(1, 3), deadline_ms=st.none() | st.floats(1, 4000))
def test_littles_law_holds_to_rounding(gaps, policy, servers, deadline_ms):
    run = simulate_requests(np.cumsum(gaps), SERVICE, policy, servers=servers, deadline_ms=deadline_ms)
    expired_s = 0 if deadline_ms is None else run.expired * deadline_ms / 1000
    waited_s = np.nansum(run.wait_s) + expired_s
    assert run.waited_s == pytest.approx(waited_s, rel=1e-9, abs=1e-9)


@given(
    gaps=gaps,
    max_batch=largest,
    servers=st.integers(1, 3),
    until_s=st.floats(0.1, 60) | st.just(math.inf),
    seed=st.integers(0, 99),
)
def test_the_shortcut_for_greedy_gives_the_same_bytes_as_event_by_event(gaps, max_batch, servers, until_s, seed):
    runs = [
        simulate_requests(
            np.cumsum(gaps), exponential(0.5, np.random.default_rng(seed)), policy, servers=servers, until_s=until_s
        )
        for policy in (Greedy(max_batch), EventByEvent(Greedy(max_batch)))
    ]
    for name in ("start_s", "done_s", "batch_sizes", "batch_starts_s", "batch_times_s"):
        assert getattr(runs[0], name).tobytes() == getattr(runs[1], name).tobytes()
    assert runs[0].mean_queue == pytest.approx(runs[1].mean_queue, rel=1e-9, abs=1e-9)
    assert runs[0].horizon_s == runs[1].horizon_s
    assert runs[0].waiting == runs[1].waiting


@given(p50_ms=st.floats(0.1, 100), wide=st.floats(1, 5), place=st.floats(0.02, 0.45), seed=st.integers(0, 99))
def test_a_spread_has_the_measured_median_p99_and_mean(p50_ms, wide, place, seed):
    p99_ms = p50_ms * wide
    mean_ms = p50_ms + place * (p99_ms - p50_ms)
    draw = spread(at(p50_ms), at(p99_ms), at(mean_ms), np.random.default_rng(seed))
    drawn = np.array([draw(1) for _ in range(20_000)])
    tolerance_ms = 0.02 * (p99_ms - p50_ms) + 1e-9
    assert np.quantile(drawn, 0.45) == pytest.approx(p50_ms, rel=1e-9)
    assert drawn.max() == pytest.approx(p99_ms, rel=1e-9)
    assert (drawn >= drawn.max() * (1 - 1e-9)).mean() == pytest.approx(0.01, abs=0.005) or wide < 1.001
    assert drawn.mean() == pytest.approx(mean_ms, abs=tolerance_ms)


@pytest.mark.parametrize("mean_ms", [0.9, 1.0, 4.0])
def test_a_mean_that_no_shape_gives_is_still_kept(mean_ms):
    draw = spread(at(1.0), at(3.0), at(mean_ms), np.random.default_rng(0))
    assert np.mean([draw(1) for _ in range(50_000)]) == pytest.approx(mean_ms, rel=0.01)
