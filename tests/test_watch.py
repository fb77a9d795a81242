"""The latest p99, asked of a real Prometheus while a change is watched."""

import time

import pytest
from prometheus_support import start_prometheus  # noqa: F401  a fixture

from simulations.prometheus_week import service_life
from tools.errors import TrafficError
from tools.spec import PrometheusSpec
from tools.traffic.watch import slo_watch

QUIET, BUSY = 100.0, 970.0
"""Requests per second on one replica that can do 1,000: p99 of 5 ms, and of more than 100 ms."""


def source(url, **changes):
    return PrometheusSpec(url=url, preset="ray-serve", labels={"deployment": "model"}, **changes)


def history(*rates, until_s):
    start_s = int(until_s) // 60 * 60 - 60 * len(rates)
    return service_life(rates, start_s=start_s, rps_per_replica=1000.0, min_replicas=1, max_replicas=1)


def test_the_last_two_minutes_count_and_not_what_was_before(start_prometheus):  # noqa: F811
    now = time.time()
    became_slow = source(start_prometheus(history(*[QUIET] * 30, *[BUSY] * 4, until_s=now)))
    became_fast = source(start_prometheus(history(*[BUSY] * 30, *[QUIET] * 4, until_s=now)))
    assert slo_watch(became_slow, 20.0)() > 100
    assert slo_watch(became_fast, 20.0)() < 10


def test_without_a_histogram_there_is_nothing_to_watch():
    assert slo_watch(PrometheusSpec(url="http://127.0.0.1:9", preset="triton"), 20.0) is None


def test_what_is_stale_is_no_answer(start_prometheus):  # noqa: F811
    url = start_prometheus(history(*[QUIET] * 30, until_s=time.time() - 7200))
    with pytest.raises(TrafficError):
        slo_watch(source(url), 20.0)()
