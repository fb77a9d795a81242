"""The fence: how far a change may go. Replicas, metrics, targets and money."""

import math

import pytest
from cluster_support import AFTER, BOUNDS, CPU_70, PRICE_USD, QUEUE_30, with_target
from hypothesis import given
from hypothesis import strategies as st

from tools.cluster.bounds import quantity
from tools.cluster.fence import within
from tools.contracts.scaling import Bounds


@pytest.mark.parametrize(
    ("after", "sentence"),
    [
        ({**AFTER, "minReplicas": 1}, "minReplicas 1 is below the bound of 2."),
        ({"maxReplicas": 6, "metrics": [QUEUE_30]}, "minReplicas 1 is below the bound of 2."),
        ({**AFTER, "minReplicas": 7}, "minReplicas 7 is above maxReplicas 6."),
        ({"minReplicas": 2}, "minReplicas (2) and maxReplicas (None) must be whole numbers, at least 1."),
        ({**AFTER, "minReplicas": True}, "minReplicas (True) and maxReplicas (6) must be whole numbers, at least 1."),
        ({**AFTER, "maxReplicas": 6.0}, "minReplicas (2) and maxReplicas (6.0) must be whole numbers, at least 1."),
        ({**AFTER, "scaleTargetRef": {}}, "It names fields that are never written: scaleTargetRef."),
        ({**AFTER, "metrics": {}}, None),  # empty: the server's default, which is within
        ({**AFTER, "metrics": "cpu"}, "metrics must be a list."),
        ({**AFTER, "metrics": [{"type": "Pods"}]}, "A metric has no name."),
        ({**AFTER, "metrics": [{"type": "Magic", "magic": {"metric": {"name": "cpu"}}}]}, "A metric has no name."),
        ({**AFTER, "metrics": [None]}, "A metric has no name."),
        (with_target(name="secrets"), "The metric secrets may not be scaled on; allowed: cpu, request_queue_length."),
        (with_target(value="0"), "The target of request_queue_length, 0, is not positive and finite."),
        (with_target(value="-5"), "The target of request_queue_length, -5, is not positive and finite."),
        (with_target(value="NaN"), "The target of request_queue_length cannot be read."),
        (with_target(value=True), "The target of request_queue_length cannot be read."),
        (with_target(kind="other"), "The target of request_queue_length cannot be read."),
        (with_target(value="500m"), "The target of request_queue_length, 0.5, is not within 1 and 100."),
        (with_target(value="1k"), "The target of request_queue_length, 1000, is not within 1 and 100."),
        (with_target(value=100), None),
        ({**AFTER, "metrics": [CPU_70]}, None),
    ],
)
def test_what_leaves_the_bounds_is_said_and_what_does_not_is_not(after, sentence):
    assert within(BOUNDS, after, PRICE_USD) == (() if sentence is None else (sentence,))


def test_a_maximum_above_its_bound_and_above_what_a_day_may_cost():
    assert within(BOUNDS, {**AFTER, "maxReplicas": 11}, PRICE_USD) == (
        "maxReplicas 11 is above the bound of 10.",
        "maxReplicas 11 for a whole day costs 26.40 USD, above the bound of 20.00 USD.",
    )


def test_a_bound_on_the_cost_cannot_be_kept_without_a_price():
    assert "cannot be told without a price" in within(BOUNDS, AFTER, None)[0]
    assert "costs nan USD" in within(BOUNDS, AFTER, math.nan)[0]
    assert within(Bounds(), AFTER, None) == ()


def test_without_metrics_the_servers_default_is_what_counts():
    bare = {"minReplicas": 2, "maxReplicas": 6}
    assert within(Bounds(metrics=("request_queue_length",)), bare, None) == (
        "The metric cpu may not be scaled on; allowed: request_queue_length.",
    )
    assert within(Bounds(target=(1, 70)), bare, None) == ("The target of cpu, 80, is not within 1 and 70.",)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("30", 30), (30, 30), ("1.5", 1.5), (".5", 0.5), ("500m", 0.5), ("2k", 2000), ("2Ki", 2048), ("1e3", 1000),
        ("1E-3", 0.001), ("2E", 2e18), ("7n", 7e-9), ("-1", -1), ("", None), ("m", None), ("1 k", None), ("inf", None),
        ("1e99999", None), (None, None), (True, None), ([], None), ("1kk", None), ("٣", 3),
    ],
)  # fmt: skip
def test_quantities_are_read_as_kubernetes_does(text, value):
    assert quantity(text) == (None if value is None else pytest.approx(value))


@given(st.integers(0, 10**6))
def test_milli_units_are_thousandths(number):
    assert quantity(f"{number}m") == pytest.approx(quantity(str(number)) / 1000)
