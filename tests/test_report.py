from __future__ import annotations

import html
import io
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from sample_result import BASELINE, STUDENT, configuration, empty_result, failed, sample_result, trials

from agent.console import print_summary
from tools.contracts import Interval, Option, Verdict
from tools.report import choices, rows, steps
from tools.report import format as fmt
from tools.report.html import render, render_task
from tools.report.labels import overlap
from tools.report.pareto import pareto, pareto_front
from tools.result import BuildSummary, SessionResult
from tools.spec import Objective

SECTIONS = (
    "verdict",
    "comparison",
    "trials",
    "steps",
    "left-out",
    "batch",
    "decisions",
    "advice",
    "gates",
    "scaling",
    "profile",
    "edge-cases",
    "environment",
    "files",
    "glossary",
)
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=a()> $x$ {{ 7*7 }} \x1b[m\x00\u202e\ud800 层 [red] #0a0b99"
FREE_TEXT = {
    "summary", "workload", "session", "recipe", "reason", "question", "chosen", "rule", "name", "detail", "path",
    "operator", "bottleneck", "notes", "sentence", "source", "hpa_diff", "cpu", "constraint", "sla_reason",
    "job_reason", "rejected_because", "artifact", "report", "journal", "tracking_uri", "run_id", "torch", "created",
    "steps", "transform", "layer", "variant", "given_up", "evidence",
}  # fmt: skip


class Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    @property
    def ids(self) -> list[str | None]:
        return [value for name, value in self.attributes if name == "id"]


@pytest.fixture(scope="module")
def page() -> str:
    return render(sample_result())


def poisoned(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {k: poisoned(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(v, key) for v in value]
    return value + HOSTILE if isinstance(value, str) and key in FREE_TEXT else value


def hostile_result() -> SessionResult:
    return SessionResult.model_validate(poisoned(sample_result().model_dump(mode="json")))


def summary_of(result: SessionResult, **options: Any) -> str:
    console = Console(record=True, width=80, file=io.StringIO(), **options)
    print_summary(result, console)
    return console.export_text(styles=options.get("force_terminal", False))


def test_every_section_is_on_the_page_and_linked(page):
    parsed = Page(page)
    assert set(SECTIONS) <= set(parsed.ids)
    links = {v for n, v in parsed.attributes if n == "href" and v and v.startswith("#")}
    assert {f"#{s}" for s in SECTIONS if s != "verdict"} <= links
    assert {link[1:] for link in links} <= set(parsed.ids)


def test_ids_are_unique_across_all_plots(page):
    ids = Page(page).ids
    assert len(ids) == len(set(ids))


def test_the_page_loads_nothing_from_outside(page):
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.search(r"https?://|//[a-z]+\.|@import|\bsrc=", without_namespaces)
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    assert "default-src 'none'" in page
    assert not {"script", "link", "img", "iframe", "object"} & set(Page(page).tags)


def test_the_page_is_small_and_the_same_every_time(page):
    assert len(page.encode()) < 1_000_000
    assert render(sample_result()) == page


def test_the_plots_are_well_formed_and_described(page):
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        root = ET.fromstring(drawing)
        assert root.get("role") == "img"
        assert len(re.findall(r"\d[\d,.]*(?:/s| ms| %|x)", root.get("aria-label"))) >= 2, "words without figures"
        assert root.find("{http://www.w3.org/2000/svg}title").text
    assert page.count("<figcaption>") == 4


def test_the_plots_take_their_colours_from_the_page(page):
    for drawing in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        assert "#0a0b" not in drawing
        assert "var(--ink)" in drawing or "var(--best)" in drawing
        assert "DejaVu" not in drawing
        assert "<style" not in drawing


def test_text_from_outside_is_shown_and_never_acted_on():
    page = render(hostile_result())
    parsed = Page(page)
    assert not {"script", "img"} & set(parsed.tags)
    assert not any(name.startswith("on") for name, _ in parsed.attributes)
    assert "&lt;script&gt;alert(1)" in page
    assert "{{ 7*7 }}" in page
    assert not re.search("[\x00\x1b\u202e]", page)
    page.encode()
    for drawing in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ET.fromstring(drawing)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_session_in_which_nothing_was_measured_has_a_page_and_a_summary(verdict):
    result = empty_result(verdict)
    page = render(result)
    assert set(SECTIONS) - {"advice"} == set(SECTIONS) & set(Page(page).ids)
    assert "<svg" not in page
    assert verdict.value in page
    assert verdict.value in summary_of(result)


def test_an_infeasible_session_shows_the_baseline_and_the_broken_promise():
    full = sample_result()
    broken = full.margins[0].model_copy(update={"margin": -3.0})
    result = full.model_copy(
        update={
            "verdict": Verdict.INFEASIBLE, "best": None, "ratio": None, "margins": (broken,),
            "trials": (*trials()[:1], failed(BASELINE, "crashed", "SIGSEGV", 1.0)), "batch": None, "scaling": None,
        }
    )  # fmt: skip
    page = render(result)
    assert "broken" in page
    assert "SIGSEGV" in page
    assert "eager fp32" in summary_of(result)


def test_accuracy_that_is_no_number_and_unknown_operators_are_drawn_around():
    result = sample_result()
    spoiled = result.trials[5].model_copy(update={"accuracy": math.nan})
    page = render(result.model_copy(update={"trials": (*result.trials, spoiled)}))
    assert "not a number" in page


def test_a_metric_that_counts_errors_turns_the_plot_over():
    errors = sample_result().model_copy(update={"metric": "mse", "higher_is_better": False})
    assert pareto(errors) != pareto(sample_result())


def test_failed_trials_are_listed_with_their_reason(page):
    assert "Input partition has more than one output node" in page
    assert "killed after 300 s while building" in page


def test_decisions_unfold_to_their_options_and_evidence(page):
    experiments = [d for d in sample_result().decisions if d.node != "planner"]
    assert page.count("<li><details>") == len(experiments)
    evidence = experiments[1].options[0].evidence[0]
    assert f"<code>{evidence}</code>" in page


def test_a_plan_is_folded_into_the_experiment_that_it_led_to():
    folded = choices.choices(sample_result())
    assert [c.decision.id for c in folded] == ["d1", "d2", "d3", "d4", "d4p", "d5"]
    asked = folded[1]
    assert "expected to be 7.4 to 16 times as good" in asked.planned
    assert asked.tried == ("openvino int8-static",)
    assert [p.name for p in asked.prospects] == [
        "distill resnet18@width=0.5, openvino int8-static",
        "prune-channels ratio=0.5, finetune, openvino bf16",
    ]
    assert asked.prospects[0].gain == "18.2x [9.97x, 33.1x]"
    assert (asked.prospects[0].chance, asked.prospects[0].seconds) == ("74 %", "1 min 01 s")


def test_a_plan_that_led_to_nothing_stands_by_itself_and_small(page):
    alone = [c for c in choices.choices(sample_result()) if c.is_plan]
    assert [c.chosen for c in alone] == ["scaling recommendation:"]
    assert page.count('<li class="plan"><details>') == 1


def test_every_decision_is_told_whatever_their_order():
    given = sample_result().decisions
    for turned in (given[::-1], given[1:2] * 3, given[:2]):
        told = choices.choices(sample_result(decisions=turned))
        planned = sum(bool(c.planned) for c in told)
        assert len(told) + planned == len(turned)


def test_work_size_and_time_of_a_trial_stand_side_by_side(page):
    heads = re.findall(r'<th scope="col">([^<]*)', page[page.index('aria-label="All trials"') :])
    assert heads[1:5] == ["p50, batch 1", "p99, batch 1", "MFLOP", "Size"]
    (pruned,) = [row for row in rows.trials(sample_result()) if row.name.startswith("prune-channels")]
    assert (pruned.p50.text, pruned.work.text, pruned.work.interval, pruned.size) == (
        "0.710 ms", "170", "5.92 M", "6.20 MB",
    )  # fmt: skip


def test_what_was_given_up_is_dimmed_says_why_and_is_no_rival(page):
    (row,) = [row for row in rows.trials(sample_result()) if row.role == "given up"]
    assert "clearly drops too far" in row.reason
    assert "1 of them was given up early" in page
    start = page.rindex("<tr", 0, page.index(row.reason))
    assert page[start:].startswith('<tr class="dim">')
    told = html.unescape(re.search(r'aria-label="(Accuracy against the latency[^"]*)', page)[1])
    assert f"{row.name} (" not in told


def test_steps_say_what_they_did_and_what_they_cost():
    told = {row.name: row for row in steps.steps(sample_result())}
    assert list(told) == [
        "quantize-nncf", "quantize-mixed max_drop=0.01", "prune-channels ratio=0.5", "finetune",
        "distill resnet18@width=0.5", "quantize-pt2e",
    ]  # fmt: skip
    pruned = told["prune-channels ratio=0.5"]
    assert (pruned.parameters.text, pruned.work) == ("23.5 M \u2192 5.92 M", "670 \u2192 170")
    assert told["quantize-nncf"].operators == "125 \u2192 340"
    assert (told["finetune"].agreement, told["finetune"].after) == ("95.8 %", "prune-channels ratio=0.5")
    assert "more than one output node" in told["quantize-pt2e"].reason
    assert (
        steps.silent_steps(sample_result())
    ) == "2 more steps tell nothing but the time taken: convert-openvino, export-onnx (7.1 s in all)."


def test_zeros_are_told_where_somebody_meant_them():
    (thin,) = steps.steps(
        sample_result(
            builds=(
                BuildSummary(
                    steps=("prune-weights ratio=0.4",), transform="prune-weights", outcome="measured", seconds=1.0,
                    facts={"parameters": 4242, "parameters_before": 4242, "sparsity": 0.4}, evidence="e",
                ),
            )
        )
    )  # fmt: skip
    assert (thin.parameters.text, thin.parameters.interval) == ("4,242", "40.0 % zeros")


def test_the_most_sensitive_layers_are_shown_and_all_that_stay_in_float(page):
    (shown,) = steps.sensitivities(sample_result())
    assert (len(shown.rows), shown.total) == (16, 54)
    assert [row.layer for row in shown.rows if row.kept_float] == ["layer1.conv", "layer30.conv"]
    assert shown.rows[0].drop == "+2.00 points"
    assert "16 of 54 layers" in page


def test_what_was_left_out_says_why_and_what_it_could_have_brought(page):
    considered, skipped = choices.left_out(sample_result())
    assert considered.gain == "6.69x [4.06x, 11.0x]"
    assert (skipped.reason, skipped.gain, skipped.chance) == ("this CPU has BF16 too", fmt.NOTHING, fmt.NOTHING)
    assert "The search ended because no candidate is left" in page


def test_what_was_left_out_for_one_reason_stands_in_one_row_and_the_hopeful_first():
    def skipped(number: int, **facts: Any) -> Option:
        return Option(name=f"r{number}", rejected_because="left out, as asked", facts=facts)

    options = (*(skipped(i) for i in range(9)), skipped(10, expected_gain=0.1), skipped(11, expected_gain=0.9))
    first, second, rest = choices.left_out(sample_result(left_out=options))
    assert (first.name, second.name) == ("r11", "r10")
    assert rest.name == "r0; r1; r2; r3; r4; r5; and 3 more"


def test_facts_of_a_search_are_told_as_people_say_them():
    option = (
        sample_result()
        .left_out[0]
        .model_copy(
            update={
                "facts": {"expected_gain": 0.74, "sd": 0.1, "chance": 0.35, "seconds": 48.0, "accuracy_drop": 0.0017}
            }
        )
    )
    assert dict(choices.facts(option, "top1")) == {
        "expected gain": "2.10x [1.90x, 2.32x]",
        "chance": "35 %",
        "time": "48 s",
        "accuracy drop": "+0.17 points",
    }


@given(st.text(), st.integers(0, 60))
def test_a_squeezed_name_is_short_enough_and_keeps_both_its_ends(text, width):
    shown = fmt.squeeze(text, width)
    assert len(shown) <= max(width, 0)
    if len(text) > width >= 3:
        assert (shown[0], shown[-1]) == (text[0], text[-1])


@given(st.floats(-1e6, 1e6))
def test_any_logarithm_is_some_gain(log_ratio):
    assert fmt.gain(log_ratio).endswith(("x",))


def test_the_task_writes_the_page_from_json(tmp_path):
    path = tmp_path / "session" / "report.html"
    assert render_task(sample_result().model_dump(mode="json"), str(path)) == str(path)
    assert path.read_text().startswith("<!DOCTYPE html>")


def test_baseline_and_best_are_compared_at_batch_one_and_at_their_own_batch():
    alone, serving, kept = rows.comparison(sample_result())
    assert (alone.rows[0].baseline.text, alone.rows[0].best.text) == ("13.0 ms", "1.05 ms")
    assert alone.rows[0].ratio == "12.4x [12.1, 12.7]"
    assert serving.rows[0].best.text == "6.96 ms"
    assert kept.rows[2].ratio == "3.91x"


def test_promises_are_told_in_the_unit_that_a_person_reads():
    assert rows.promises(sample_result())[:2] == (
        ("p99", "25.0 ms", "17.2 ms", "7.80 ms", True),
        ("accuracy drop", "1.00 points", "+0.00 points", "+1.00 points", True),
    )


def test_the_front_holds_what_no_other_point_beats():
    assert pareto_front([(1.0, 0.9), (2.0, 0.95), (3.0, 0.95), (0.5, 0.2), (1.0, 0.8)]) == {0, 1, 3}


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 1)), min_size=1, max_size=20))
def test_every_point_off_the_front_is_beaten_by_one_on_it(points):
    front = pareto_front(points)
    assert front
    for i, (x, y) in enumerate(points):
        if i not in front:
            assert any(points[j][0] <= x and points[j][1] >= y for j in front)


def test_boxes_that_only_touch_do_not_overlap():
    assert not overlap((0, 0, 1, 1), (1, 0, 2, 1))
    assert overlap((0, 0, 1, 1), (0.5, 0.5, 2, 2))


def test_numbers_are_written_with_sensible_precision():
    assert fmt.ms(1.034) == "1.03 ms"
    assert fmt.ms(9.999) == "10.0 ms"
    assert fmt.rate(2543.2) == "2,540/s"
    assert fmt.usd(0.0093) == "$0.00930"
    assert fmt.usd(64.7) == "$64.70"
    assert fmt.ratio(Interval(value=12.43, low=12.1, high=12.71, n=60)) == "12.4x [12.1, 12.7]"
    assert fmt.drop(-1e-9, "top1") == "+0.00 points"
    assert fmt.drop(0.0017, "top5") == "+0.17 points"
    assert fmt.drop(0.0017, "mse") == "+0.0017"
    assert fmt.accuracy(0.9816, "top1") == "98.16 %"
    assert fmt.accuracy(0.9816, "cosine") == "0.9816"
    assert fmt.number(math.inf) == "infinite"


def test_durations_are_written_as_people_say_them():
    assert [fmt.seconds(s) for s in (0.4, 48, 192, 300, 3900, 86400)] == [
        "0.4 s", "48 s", "3 min 12 s", "5 min", "1 h 05 min", "24 h",
    ]  # fmt: skip


def test_values_take_their_unit_from_their_name():
    assert fmt.quantity("p50_ms", 1.05) == "1.05 ms"
    assert fmt.quantity("size_mb", 24.1) == "24.1 MB"
    assert fmt.quantity("stable", value=True) == "yes"
    assert fmt.quantity("batch", 1200) == "1,200"
    assert fmt.quantity("x", None) == fmt.NOTHING
    assert fmt.label("p50_ms") == "p50"


def test_the_objective_is_said_in_words():
    asked = Objective(minimize="latency", p99_ms=25, max_accuracy_drop=0.01, max_size_mb=50)
    assert fmt.objective(asked, "top1") == (
        "lowest latency, p99 at most 25.0 ms, accuracy drop at most 1.00 points, size at most 50.0 MB"
    )


@given(st.floats(1e-9, 1e12))
def test_three_significant_digits_are_within_half_a_percent(value):
    shown = float(fmt.number(value).replace(",", ""))
    assert shown == pytest.approx(value, rel=0.0051)


@given(st.text())
def test_cleaned_text_is_one_visible_line(text):
    shown = fmt.clean(text)
    assert len(shown.splitlines()) <= 1
    assert shown.encode().decode() == shown
    assert fmt.clean(shown) == shown


def test_the_summary_fits_eighty_columns_on_a_terminal():
    text = summary_of(sample_result(), force_terminal=False)
    table = text[text.index("baseline") : text.index("took ")]
    assert max(len(line) for line in table.splitlines()) <= 80
    for part in ("MET", "12.4x [12.1, 12.7]", "Decisions", "maxReplicas: 8", "Open gates", "report.html"):
        assert part in text


def test_a_long_name_of_the_best_fits_eighty_columns_too():
    (trial,) = [t for t in trials() if t.definition == STUDENT]
    text = summary_of(sample_result(best=configuration(trial, 1)), force_terminal=False)
    table = text[text.index("baseline") : text.index("took ")].splitlines()
    assert max(map(len, table)) <= 80
    assert any("openvino int8-static" in line for line in table)
    assert any("0.450 ms [0.446, 0.454]" in line for line in table)


def test_of_a_question_that_came_up_often_the_summary_tells_the_last_answer():
    result = sample_result()
    again = result.decisions[2].model_copy(update={"chosen": "openvino bf16", "id": "d9"})
    text = summary_of(sample_result(decisions=(*result.decisions, again)))
    assert "Which precision? openvino bf16" in text
    assert text.count("Which precision?") == 1
    assert "What next?" not in text


def test_the_summary_is_coloured_on_a_terminal_only():
    assert "\x1b[" in summary_of(sample_result(), force_terminal=True, color_system="standard")
    assert "\x1b[" not in summary_of(sample_result(), force_terminal=False)


def test_sentences_and_paths_stay_on_one_line_in_a_pipe():
    text = summary_of(sample_result())
    assert sample_result().summary in text
    assert f"{sample_result().files['report']}\n" in text


def test_the_summary_shows_text_from_outside_as_it_is():
    text = summary_of(hostile_result())
    assert "[red]" in text
    assert not re.search("[\x00\x1b\u202e]", text)


def test_energy_is_a_row_where_the_machine_counts_it():
    result = sample_result()
    assert not any(row.name == "Energy per request" for group in rows.comparison(result) for row in group.rows)
    counted = result.model_copy(
        update={
            "baseline": result.baseline.model_copy(update={"joules_per_request": 1.2}),
            "best": result.best.model_copy(update={"joules_per_request": 0.1}),
        }
    )
    (row,) = [row for group in rows.comparison(counted) for row in group.rows if row.name == "Energy per request"]
    assert (row.baseline.text, row.best.text, row.ratio) == ("1.2 J", "0.1 J", "12x")
