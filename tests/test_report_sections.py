"""What single sections of the report say: the layers, the advice, the replicas, the front, what was left out."""

from __future__ import annotations

import math
import re

import pytest
from challenge_support import played_scaling, sample_challenge
from sample_result import interval, left_out, sample_result, scaling, trials

from tools.contracts import LayerProfile
from tools.report import challenge, html, plots, scaling_plot, traffic_plot
from tools.report import format as fmt
from tools.report.pareto import pareto

HOSTILE = "<script>alert(1)</script><img src=x>\x1b[31m\u202e\n{{ 7*7 }}"
MOST_BYTES = 2_000_000


def section(page, name):
    return page[page.index(f'<section id="{name}"') :].partition("</section>")[0]


def words(svg):
    return html_unescaped(re.search(r'aria-label="([^"]*)"', svg)[1])


def html_unescaped(text):
    from html import unescape

    return unescape(text)


# --- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operator", "kind", "color"),
    [
        ("Conv2d", "convolution", "var(--kind-1)"),
        ("QLinearMatMul", "linear", "var(--kind-2)"),
        ("BatchNorm2d", "normalization", "var(--kind-3)"),
        ("<Custom>", "other", "var(--other)"),
    ],
)
def test_a_layer_has_the_colour_of_its_kind_whatever_its_class_is_called(operator, kind, color):
    layer = LayerProfile(path="a", operator=operator, ms=1.0, share=0.5, flops=1, bytes_moved=1, gflops_per_s=1)
    drawn = plots.layers([layer])
    assert f"fill: {color}" in drawn
    assert f">{kind}</text>" in drawn


# --- advice ----------------------------------------------------------------------------------------------------------


def test_what_a_model_advised_is_told_with_what_came_of_it():
    told = section(html.render(sample_result()), "advice")
    for part in ("small-model at llm.example.internal, 3 questions", "onnxruntime int8-dynamic", "5,210 in, 388 out"):
        assert part in told
    assert "The answer named option 9 of 4." in told
    assert "was found without it" in told
    assert "estimated" not in told
    assert all(identity in told for identity in sample_result().advice.evidence)


def test_its_summary_is_set_apart_and_marked_as_what_it_wrote():
    told = section(html.render(sample_result()), "advice")
    mark = told.index("Written by small-model at llm.example.internal; every figure held against this result.")
    assert mark < told.index("<blockquote><p>openvino int8-static at batch 16") < told.index("</blockquote>")
    without = sample_result().advice.model_copy(update={"text": None, "tried": (), "refused": (), "estimated": True})
    told = section(html.render(sample_result(advice=without)), "advice")
    assert "blockquote" not in told
    assert "partly estimated" in told


def test_without_an_advisor_there_is_no_section_and_no_link_to_one():
    for page in (
        html.render(sample_result(advice=None)),
        challenge.render(sample_challenge(), sample_result(advice=None)),
    ):
        assert "advice" not in page


def test_nothing_a_model_wrote_acts_on_the_page():
    advice = sample_result().advice
    texts = dict.fromkeys(("model", "influence", "text"), HOSTILE)
    lists = dict.fromkeys(("refused", "tried", "evidence"), (HOSTILE,))
    page = html.render(sample_result(advice=advice.model_copy(update={**texts, **lists})))
    told = section(page, "advice")
    assert not re.search(r"<(?:script|img)|[\x1b\u202e]", page)
    assert told.count("{{ 7*7 }}") == 7, "the model stands twice"


# --- replicas before and after ---------------------------------------------------------------------------------------


def test_replicas_before_and_after_are_those_that_the_session_planned_with():
    result = sample_result(
        scaling=scaling().model_copy(update={"usable_rps": 1557.0, "baseline_replicas_peak": 1, "max_replicas": 8})
    )
    before_rps = traffic_plot.usable_as_given_rps(result)
    assert before_rps == pytest.approx(result.best.throughput_rps / 30.5 * 0.7)
    peak = max(rate for _, rate in result.scaling.traffic.series)
    told = words(traffic_plot.traffic(result))
    assert f"to {math.ceil(peak / before_rps)} replicas of the model as given" in told
    assert f"to {math.ceil(peak / 1557.0)} replicas of the best" in told
    assert "before: the model as given" in traffic_plot.traffic(result)


@pytest.mark.parametrize(
    "updates",
    [{"ratio": None}, {"best": None}, {"scaling": scaling().model_copy(update={"baseline_replicas_peak": None})}],
)
def test_without_a_plan_for_the_model_as_given_only_the_best_is_drawn(updates):
    result = sample_result(**updates)
    assert traffic_plot.usable_as_given_rps(result) is None
    drawn = traffic_plot.traffic(result)
    assert "model as given" not in drawn
    assert "of the model as given" not in section(html.render(result), "scaling")


def test_traffic_without_a_series_is_not_drawn():
    quiet = scaling().traffic.model_copy(update={"series": ()})
    assert traffic_plot.traffic(sample_result(scaling=scaling().model_copy(update={"traffic": quiet}))) is None
    assert traffic_plot.traffic(sample_result(scaling=None)) is None


def test_a_p99_far_below_the_slo_can_still_be_read():
    fast, near = (played_scaling(worst_p99_ms=ms).recommendation for ms in (0.4, 40.0))
    assert "log scale" in scaling_plot.scaling(fast)
    assert "log scale" not in scaling_plot.scaling(near)


def test_a_path_of_a_trace_keeps_its_letters():
    named = scaling().traffic.model_copy(update={"source": "/data/Shop/Day.csv"})
    page = html.render(sample_result(scaling=scaling().model_copy(update={"traffic": named})))
    assert "<caption>/data/Shop/Day.csv, 24 h long" in page


def test_an_autoscaler_that_stays_is_not_called_missing():
    page = html.render(sample_result(scaling=played_scaling(hpa_diff="")))
    told = section(page, "scaling")
    assert "nothing is to be changed" in told
    assert "none to compare" not in told


# --- the front, the trials, what was left out ------------------------------------------------------------------------


def test_the_best_and_the_model_as_given_are_named_on_the_front_even_at_its_edge():
    """The best is the fastest, so it lies at the left edge, where a long name has no room on both its sides."""
    first, *rest = trials()
    long = [
        t.model_copy(update={"recipe": f"distill student@width=0.25, prune-channels ratio=0.5, finetune, {t.recipe}"})
        for t in rest
    ]
    drawn = pareto(sample_result(trials=(first, *long)))
    assert ">best</text>" in drawn
    assert ">as given</text>" in drawn
    assert "(best" in words(drawn)
    assert "(as given)" in words(drawn)


def test_a_loss_is_one_only_beyond_the_noise():
    drops = {(-0.02, -0.01): "a gain", (-0.02, 0.01): "no change", (0.0, 0.02): "no change", (0.01, 0.02): "a loss"}
    for (low, high), told in drops.items():
        found = interval(0.01).model_copy(update={"low": low, "high": high})
        assert fmt.loss(found) == f"{told} beyond the noise"


def test_much_that_was_left_out_is_folded_but_for_the_most_promising():
    many = tuple(left_out()[0].model_copy(update={"name": f"candidate {n:02d}"}) for n in range(30))
    told = section(html.render(sample_result(left_out=many)), "left-out")
    first, folded = told.split("<details", 1)
    assert (first.count('scope="row"'), folded.count('scope="row"')) == (8, 22)
    assert "22 more that were not tried" in folded
    assert "<details" not in section(html.render(sample_result(left_out=many[:8])), "left-out")


def test_a_long_session_with_a_week_of_traffic_stays_a_light_page():
    tried = trials()
    many = tuple(t.model_copy(update={"recipe": f"{t.recipe} {n}", "chosen": False}) for n in range(6) for t in tried)
    result = sample_result(trials=(*tried, *many)[:60], scaling=played_scaling(days=7), left_out=left_out() * 20)
    assert len(result.trials) == 60
    page = challenge.render(sample_challenge(), result)
    assert len(page.encode()) < MOST_BYTES
    assert page.count("<svg") == 6


def test_layers_of_several_kinds_say_theirs_in_words_and_not_by_colour_alone():
    conv, fc = (
        LayerProfile(path=p, operator=o, ms=1.0, share=0.5, flops=1, bytes_moved=1, gflops_per_s=1)
        for p, o in (("conv1", "Conv2d"), ("fc", "Linear"))
    )
    assert "(1.00 ms, linear)" in plots.layers([conv, fc])
    assert "(1.00 ms)" in plots.layers([conv, conv])
