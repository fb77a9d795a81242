"""What Prometheus is asked and told: alerts that fire when they should, and metrics that an autoscaler can follow.

promtool runs the rules and the queries, as they are in the manifests, against made-up traffic.
"""

import re

import pytest
import yaml
from manifests_support import build, one, promtool, run_rule_tests, service

from tools.manifests import metrics, slo
from tools.manifests.tree import tree


@pytest.fixture(scope="module")
def rules():
    objects = build(tree(service(hpa=True)), "overlays/production")
    return one(objects, "PrometheusRule")["spec"]["groups"]


# --- alerts ---

LABELS = 'namespace="inference",service="image-classifier"'
PER_STEP = 6000


def traffic(*, steps, failed=0.0, slow=0.0, bound="0.05"):
    """Counters of a service of which these shares of the requests fail, or take too long."""

    def counter(name, labels, share):
        return {"series": f"{name}{{{LABELS}{labels}}}", "values": f"0+{PER_STEP * share:g}x{steps}"}

    return [
        counter("requests_total", ',code="200"', 1 - failed),
        counter("requests_total", ',code="429"', failed / 2),
        counter("requests_total", ',code="503"', failed / 2),
        counter("request_duration_seconds_bucket", f',le="{bound}"', 1 - slow),
        counter("request_duration_seconds_bucket", ',le="+Inf"', 1),
        counter("request_duration_seconds_count", "", 1),
    ]


def fires(rules, series, at, folder, *, name="ErrorBudgetBurning", interval="5m"):
    """Return the (slo, severity, window) of the alerts that fire then, as promtool says; a step is a minute."""
    test = {
        "interval": "1m",
        "input_series": series,
        "alert_rule_test": [{"eval_time": at, "alertname": name, "exp_alerts": [{"exp_labels": {"none": "such"}}]}],
    }
    good, said = run_rule_tests(rules, [test], folder, interval=interval)
    assert not good, "what is expected never fires, so promtool tells what does"
    got = said.partition("got:")[2]
    labels = [dict(re.findall(r'(\w+)="([^"]*)"', line)) for line in re.findall(r"Labels:\{[^}]*\}", got)]
    return {(found.get("slo"), found["severity"], found.get("long_window")) for found in labels}


def test_the_rules_are_good_ones(rules, tmp_path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": rules}))
    good, said = promtool("check", "rules", "rules.yaml", cwd=tmp_path)
    assert good, said
    assert "17 rules found" in said


def test_a_fast_burn_pages_within_minutes(rules, tmp_path):
    assert ("latency", "page", "1h") in fires(rules, traffic(slow=0.2, steps=90), "10m", tmp_path)
    assert ("availability", "page", "1h") in fires(rules, traffic(failed=0.02, steps=90), "10m", tmp_path)


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ({"slow": 0.009, "failed": 0.0009}, set()),
        ({"slow": 0.02, "failed": 0.002}, {("latency", "ticket", "3d"), ("availability", "ticket", "3d")}),
    ],
    ids=["a burn that the budget allows is silent", "a slow burn makes a ticket and wakes nobody"],
)
def test_three_days(rules, tmp_path, bad, expected):
    assert fires(rules, traffic(**bad, steps=3 * 1440), "3d", tmp_path, interval="1h") == expected


def test_a_burn_that_is_over_stops_paging_after_the_short_window(rules, tmp_path):
    series = traffic(steps=120)
    series[3]["values"] = "0+3000x60 186000+6000x59"  # half of the requests of the first hour were slow
    assert ("latency", "page", "1h") in fires(rules, series, "60m", tmp_path)
    assert ("latency", "page", "1h") not in fires(rules, series, "75m", tmp_path)


def test_what_nobody_measures_is_not_silence(rules, tmp_path):
    series = traffic(steps=60, bound="0.1")  # no bucket ends at the SLO
    assert fires(rules, series, "30m", tmp_path, name="SloNotMeasured") == {(None, "ticket", None)}
    assert fires(rules, traffic(steps=60), "30m", tmp_path, name="SloNotMeasured") == set()


def test_burn_rates_are_those_of_the_workbook():
    table = [(r.severity, *r.windows, float(r.factor), float(r.budget)) for r in slo.BURN_RATES]
    assert table == [
        ("page", "1h", "5m", 14.4, 0.02),
        ("page", "6h", "30m", 6.0, 0.05),
        ("ticket", "3d", "6h", 1.0, 0.1),
    ]


@pytest.mark.parametrize(
    ("slo_ms", "matcher"),
    [(50.0, 'le="0.05"'), (70.0, 'le="0.07"'), (1000.0, 'le=~"1([.]0)?"'), (2500.0, 'le="2.5"'), (0.05, 'le="5e-05"')],
)
def test_the_bucket_is_named_as_client_libraries_name_it(slo_ms, matcher):
    assert slo.bound(slo_ms) == matcher


def test_without_an_slo_only_availability_is_alerted_on():
    found = service(objective={})
    text = str(slo.prometheus_rule(found, "n"))
    assert "'slo': 'availability'" in text
    assert "latency" not in text


# --- metrics for the autoscaler ---


def measured(name, query, samples, folder):
    """Evaluate PromQL after ten minutes of the traffic below, as a recording rule in promtool."""
    test = {
        "interval": "15s",
        "input_series": SERVICE_SERIES,
        "promql_expr_test": [{"expr": "measured", "eval_time": "10m", "exp_samples": samples}],
    }
    groups = [{"name": name, "rules": [{"record": "measured", "expr": f"round({query}, 0.001)"}]}]
    return run_rule_tests(groups, [test], folder, interval="15s")


SERVICE_SERIES = [
    series
    for pod, waiting, each in (("a", 4, 60), ("b", 8, 30))
    for labels in (f'{LABELS},pod="{pod}"',)
    for series in (
        {"series": f"request_queue_length{{{labels}}}", "values": f"{waiting}x40"},
        {"series": f'requests_total{{{labels},code="200"}}', "values": f"0+{each}x40"},
        {"series": f'request_duration_seconds_bucket{{{labels},le="0.05"}}', "values": f"0+{each * 0.98:g}x40"},
        {"series": f'request_duration_seconds_bucket{{{labels},le="0.1"}}', "values": f"0+{each}x40"},
        {"series": f'request_duration_seconds_bucket{{{labels},le="+Inf"}}', "values": f"0+{each}x40"},
        {"series": f'requests_total{{{LABELS},pod="idle",code="200"}}', "values": "7x40"} if pod == "a" else None,
    )
    if series is not None
]


def adapter_query(name, *, by):
    """The query that prometheus-adapter sends for a metric of these objects."""
    config = yaml.safe_load(metrics.adapter_config()["data"]["config.yaml"])
    (rule,) = [r for r in config["rules"] if r["name"]["as"] == name]
    series = rule["name"]["matches"].strip("^$")
    assert rule["seriesQuery"].startswith(series)
    assert by in rule["resources"]["overrides"]
    return (
        rule["metricsQuery"]
        .replace("<<.Series>>", series)
        .replace("<<.LabelMatchers>>", LABELS)
        .replace("<<.GroupBy>>", by)
    )


@pytest.mark.parametrize(
    ("name", "by", "samples"),
    [
        ("request_queue_length", "pod", [('measured{pod="a"}', 4), ('measured{pod="b"}', 8)]),
        ("request_rate", "pod", [('measured{pod="a"}', 4), ('measured{pod="b"}', 2), ('measured{pod="idle"}', 0)]),
        ("request_latency_p99_ms", "service", [('measured{service="image-classifier"}', 75)]),
    ],
)
def test_the_adapter_serves_what_the_autoscaler_asks_for(tmp_path, name, by, samples):
    expected = [{"labels": labels, "value": value} for labels, value in samples]
    good, said = measured(name, adapter_query(name, by=by), expected, tmp_path)
    assert good, said


@pytest.mark.parametrize(
    ("name", "value"), [("request_queue_length", 12), ("request_rate", 6), ("request_latency_p99_ms", 75)]
)
def test_keda_asks_for_the_same_of_the_whole_service(tmp_path, name, value):
    query = metrics.total(service(hpa=True), name, "inference")
    good, said = measured(name, query, [{"labels": "measured", "value": value}], tmp_path)
    assert good, said


def test_without_requests_there_is_no_latency_rather_than_none_at_all(tmp_path):
    query = metrics.total(service(hpa=True), "request_latency_p99_ms", "elsewhere")
    for promql in (query, adapter_query("request_latency_p99_ms", by="service").replace("inference", "elsewhere")):
        good, said = measured("latency", promql, [], tmp_path)
        assert good, said
    assert metrics.total(service(hpa=True), "something", "inference") is None
