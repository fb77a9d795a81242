"""What `infertune init` writes is true in its comments too: uncommented, every line of it is taken."""

import copy
import re

import pytest
import yaml

from agent.template import TEMPLATE
from tools.contracts import Delays
from tools.spec import ScalingSpec, TuningSpec
from tools.spec.scaling import ClusterSpec, PrometheusSpec
from tools.spec.workload import NormalizationSpec
from tools.traffic.queries import queries_of

COMMENTED = re.compile(r"^( *)# ( *(?:# )?(?:- |\w+:))", re.MULTILINE)
"""A comment that is a line of YAML."""

ALTERNATIVES = [
    (("workload", "model"), [{"factory", "weights"}, {"onnx"}, {"pt2"}, {"torchscript"}]),
    (("workload", "evaluation"), [{"factory", "limit"}, {"npz", "limit"}]),
    (("traffic",), [{"rate_rps"}, {"trace"}, {"prometheus"}]),
]
"""Where only one may be given, and so only one is not commented out."""


def uncommented():
    text = TEMPLATE
    while COMMENTED.search(text):
        text = COMMENTED.sub(r"\1\2", text)
    return yaml.safe_load(text)


def part_of(raw, path):
    for key in path:
        raw = raw[key]
    return raw


def with_one_of_each(raw, place, keys):
    """The spec with these keys at one place of `ALTERNATIVES`, and with the first ones at the others."""
    raw = copy.deepcopy(raw)
    for path, choices in ALTERNATIVES:
        kept = keys if path == place else choices[0]
        part = part_of(raw, path)
        for key in part.keys() - kept:
            del part[key]
    return raw


@pytest.mark.parametrize(("place", "keys"), [(path, keys) for path, choices in ALTERNATIVES for keys in choices])
def test_every_line_of_the_template_is_taken_once_it_is_uncommented(place, keys):
    raw = uncommented()
    assert part_of(raw, place).keys() >= keys, "the template shows each alternative"
    spec = TuningSpec.model_validate(with_one_of_each(raw, place, keys))
    assert spec.model_fields_set >= {"hpa", "scaling", "cluster", "search"}


def test_as_it_is_written_only_what_each_spec_needs_is_asked_for():
    spec = TuningSpec.model_validate(yaml.safe_load(TEMPLATE))
    assert (spec.hpa, spec.cluster, spec.traffic.prometheus, spec.workload.normalization) == (None,) * 4
    assert "scaling" not in spec.model_fields_set


def test_all_that_scaling_and_cluster_can_be_told_is_shown_or_rarely_needed():
    raw = uncommented()
    assert raw["scaling"].keys() == ScalingSpec.model_fields.keys()
    assert ClusterSpec.model_fields.keys() - raw["cluster"].keys() == {"writer_kubeconfig", "approval_s"}
    assert NormalizationSpec.model_fields.keys() - raw["workload"]["normalization"].keys() == {"input"}
    rare = {"step_s", "timeout_s", "token_env", "ca_file", "cert_file", "key_file"}
    assert PrometheusSpec.model_fields.keys() - raw["traffic"]["prometheus"].keys() == rare


def test_what_is_shown_beside_the_default_is_the_default():
    raw = uncommented()
    defaults, shown = Delays().model_dump(), raw["scaling"]["delays"]
    assert shown == {key: defaults[key] for key in shown}
    assert (raw["scaling"]["kept_share"], tuple(raw["scaling"]["metrics"])) == (
        ScalingSpec().kept_share,
        ScalingSpec().metrics,
    )
    for key in ("apply", "verify_s", "cooldown_s"):
        assert raw["cluster"][key] == ClusterSpec.model_fields[key].default, key
    assert raw["traffic"]["prometheus"]["window_s"] == PrometheusSpec.model_fields["window_s"].default


def test_the_prometheus_that_is_shown_can_be_asked():
    source = PrometheusSpec.model_validate(uncommented()["traffic"]["prometheus"])
    promql = {query.signal: query.promql for query in queries_of(source)}
    assert promql["request_rate"] == 'sum(rate(requests_total{namespace="shop",model_name="my-model"}[120s]))'
    assert "request_predict_seconds" in promql["latency_buckets"], "what has no query of its own is the preset's"
