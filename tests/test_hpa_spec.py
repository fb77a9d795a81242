"""What the spec of a HorizontalPodAutoscaler means, and what is none."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.errors import SpecError
from tools.scaling.hpa import Controller, Metric, Policy, Rules, Tolerance, parse_autoscaler
from tools.scaling.hpa_quantity import quantity_float, quantity_milli


def queue(**target):
    return {"type": "Pods", "pods": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", **target}}}


def resource(**target):
    return {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", **target}}}


def one(metric):
    return parse_autoscaler({"maxReplicas": 9, "metrics": [metric]}).metrics[0]


@pytest.mark.parametrize(
    ("text", "milli"),
    [
        ("30", 30_000),
        (30, 30_000),
        (0.5, 500),
        ("500m", 500),
        ("1k", 1_000_000),
        ("2Gi", 2 * 2**30 * 1000),
        ("1.5Ki", 1_536_000),
        ("1e3", 1_000_000),
        ("1E3", 1_000_000),
        ("1E", 10**21),
        ("1e999", (2**63 - 1) * 1000),
        ("12.", 12_000),
        (".5", 500),
        ("+3", 3_000),
        ("100u", 1),
        ("1n", 1),
        ("1000001u", 1001),
        (1e-05, 1),
    ],
)
def test_quantities_are_read_in_thousandths_rounded_up(text, milli):
    assert quantity_milli(text, "here") == milli


@pytest.mark.parametrize(
    "text", ["", "m", "1 k", "1K", "1ki", "0x10", "nan", "inf", "1e", "1.2.3", None, True, [], "30\n", "٣"]
)
def test_what_is_no_quantity_is_refused_with_its_place(text):
    with pytest.raises(SpecError, match=r"^spec\.here: "):
        quantity_milli(text, "spec.here")


@given(milli=st.integers(0, 10**6))
def test_a_tolerance_is_the_controllers_float_to_the_last_bit(milli):
    # The server keeps the canonical text: whole numbers without a suffix, else thousandths.
    expected = float(milli // 1000) if milli % 1000 == 0 else milli * 0.001
    assert quantity_float(f"{milli}m", "here") == expected
    assert quantity_float(str(float(Fraction(milli, 1000))), "here") == expected


def test_a_bare_spec_scales_on_cpu_from_one_replica():
    spec = parse_autoscaler({"maxReplicas": 9})
    assert (spec.min_replicas, spec.max_replicas, spec.behavior) == (1, 9, None)
    assert spec.metrics == (Metric("Resource", "cpu", "Utilization", target_percent=80),)
    assert spec.tolerance == Tolerance(0.9, 1.1)
    assert parse_autoscaler({"maxReplicas": 9, "metrics": [], "behavior": None}) == spec


def test_a_behavior_block_even_an_empty_one_gets_the_servers_rules():
    for block in ({}, {"scaleUp": {}}, {"scaleDown": None}, {"scaleUp": {"policies": None}}):
        behavior = parse_autoscaler({"maxReplicas": 9, "behavior": block}).behavior
        assert behavior.up == Rules(0.0, "Max", (Policy("Pods", 4, 15.0), Policy("Percent", 100, 15.0)), 15.0)
        assert behavior.down == Rules(300.0, "Max", (Policy("Percent", 100, 15.0),), 15.0)


def test_what_is_given_replaces_a_default_and_the_rest_stays():
    rules = {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 7}], "selectPolicy": "Min"}
    behavior = parse_autoscaler({"maxReplicas": 9, "behavior": {"scaleDown": rules}}).behavior
    assert behavior.down == Rules(300.0, "Min", (Policy("Pods", 2, 7.0),), 7.0)
    assert behavior.up.longest_s == 15.0


def test_flags_of_the_controller_are_the_last_resort():
    flags = Controller(tolerance=0.2, downscale_window_s=60.0)
    spec = parse_autoscaler({"maxReplicas": 9, "behavior": {"scaleUp": {"tolerance": "0.05"}}}, flags)
    assert spec.tolerance == Tolerance(0.8, 1.05)
    assert spec.behavior.down.window_s == 60.0


def test_each_source_takes_the_target_that_the_controller_takes():
    assert one(queue(averageValue="500m")) == Metric("Pods", "queue", "AverageValue", target_milli=500)
    assert one(resource(averageUtilization=70)).target_percent == 70
    # Only an Object metric is asked for the type of its target.
    assert one(resource(averageValue="1")).target == "AverageValue"
    described = {"kind": "Service", "name": "s"}
    targets = {"type": "Value", "value": "1", "averageValue": "2"}
    both = {"type": "Object", "object": {"describedObject": described, "metric": {"name": "q"}, "target": targets}}
    assert one(both) == Metric("Object", "q", "Value", target_milli=1000)
    external = {"metric": {"name": "q"}, "target": {"type": "Value", "averageValue": "2"}}
    assert one({"type": "External", "external": external}) == Metric("External", "q", "AverageValue", target_milli=2000)
    container = {"name": "cpu", "container": "main", "target": {"type": "Utilization", "averageUtilization": 60}}
    assert one({"type": "ContainerResource", "containerResource": container}) == Metric(
        "ContainerResource", "cpu", "Utilization", target_percent=60, container="main"
    )


def test_zero_replicas_need_a_metric_that_works_without_pods():
    with pytest.raises(SpecError, match=r"^minReplicas: "):
        parse_autoscaler({"minReplicas": 0, "maxReplicas": 9})
    external = {"metric": {"name": "q"}, "target": {"type": "Value", "value": "2"}}
    spec = parse_autoscaler(
        {"minReplicas": 0, "maxReplicas": 9, "metrics": [{"type": "External", "external": external}]}
    )
    assert spec.min_replicas == 0


def up(**rules):
    return {"maxReplicas": 9, "behavior": {"scaleUp": rules}}


def policy(**fields):
    return up(policies=[{"type": "Pods", "value": 1, "periodSeconds": 1, **fields}])


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ({}, "maxReplicas"),
        ({"maxReplicas": "9"}, "maxReplicas"),
        ({"maxReplicas": True}, "maxReplicas"),
        ({"maxReplicas": 0}, "maxReplicas"),
        ({"maxReplicas": 2**31}, "maxReplicas"),
        ({"maxReplicas": 2, "minReplicas": 3}, "maxReplicas"),
        ({"maxReplicas": 2, "minReplicas": -1}, "minReplicas"),
        ({"maxReplicas": 9, "metrics": {"type": "Pods"}}, "metrics"),
        ({"maxReplicas": 9, "metrics": ["cpu"]}, "metrics[0]"),
        ({"maxReplicas": 9, "metrics": [{"type": "Pod"}]}, "metrics[0].type"),
        ({"maxReplicas": 9, "metrics": [{"type": ["Pods"]}]}, "metrics[0].type"),
        ({"maxReplicas": 9, "metrics": [{"type": "Pods"}]}, "metrics[0].pods"),
        ({"maxReplicas": 9, "metrics": [{"type": "Pods", "pods": {}}]}, "metrics[0].pods.metric"),
        ({"maxReplicas": 9, "metrics": [queue()]}, "metrics[0].pods.target"),
        ({"maxReplicas": 9, "metrics": [queue(averageValue="0")]}, "metrics[0].pods.target.averageValue"),
        ({"maxReplicas": 9, "metrics": [queue(averageValue="ten")]}, "metrics[0].pods.target.averageValue"),
        ({"maxReplicas": 9, "metrics": [queue(averageValue="1", type="Mean")]}, "metrics[0].pods.target.type"),
        (
            {"maxReplicas": 9, "metrics": [queue(averageValue="1"), resource(averageUtilization=0)]},
            "metrics[1].resource.target.averageUtilization",
        ),
        (
            {"maxReplicas": 9, "metrics": [resource(averageUtilization=7, averageValue="7")]},
            "metrics[0].resource.target",
        ),
        ({"maxReplicas": 9, "behavior": []}, "behavior"),
        ({"maxReplicas": 9, "behavior": {"scaleUp": 3}}, "behavior.scaleUp"),
        (up(stabilizationWindowSeconds=3601), "behavior.scaleUp.stabilizationWindowSeconds"),
        (up(stabilizationWindowSeconds=-1), "behavior.scaleUp.stabilizationWindowSeconds"),
        (up(selectPolicy="Most"), "behavior.scaleUp.selectPolicy"),
        (up(policies=[]), "behavior.scaleUp.policies"),
        (up(policies={}), "behavior.scaleUp.policies"),
        (policy(type="Pod"), "behavior.scaleUp.policies[0].type"),
        (policy(value=0), "behavior.scaleUp.policies[0].value"),
        (policy(periodSeconds=1801), "behavior.scaleUp.policies[0].periodSeconds"),
        (up(tolerance="-0.1"), "behavior.scaleUp.tolerance"),
        (up(tolerance="10%"), "behavior.scaleUp.tolerance"),
    ],
)
def test_nonsense_is_refused_with_the_path_of_the_field(spec, place):
    with pytest.raises(SpecError) as caught:
        parse_autoscaler(spec)
    assert caught.value.where == place
    assert str(caught.value).startswith(f"{place}: ")


@given(whole=st.integers(1, 10**9), suffix=st.sampled_from(["n", "u", "m", "", "k", "M", "G", "Ki", "Mi"]))
def test_a_quantity_is_never_read_as_less_than_it_is(whole, suffix):
    factor = {"n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": 1, "k": 1000}
    factor |= {"M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20}
    assert quantity_milli(f"{whole}{suffix}", "here") == math.ceil(whole * factor[suffix] * 1000)
