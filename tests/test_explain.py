"""Explain: every decision with its options and numbers, whole when piped, readable on a terminal."""

import datetime as dt
import io
import json

import pytest
from recorded_support import settled_evidence, write_session
from rich.console import Console
from typer.testing import CliRunner

from agent.cli_questions import app
from agent.explain import print_explained
from agent.questions import explain
from tools.errors import InfertuneError

NOW = dt.datetime(2026, 11, 22, 0, 1, tzinfo=dt.UTC)


def told(folder, wanted=None, **console):
    out = io.StringIO()
    print_explained(explain(folder, wanted), Console(file=out, color_system=None, **console), NOW)
    return out.getvalue().splitlines()


def test_without_a_decision_all_are_listed_and_how_it_ended(tmp_path):
    lines = told(write_session(tmp_path))
    assert lines[0] == "Session 20261122-000000-abcd, /specs/tuning.yaml, 2026-11-22T00:00:00+00:00"
    assert "d01  planner: What next? batch_tuning: two lead." in lines
    assert "     Rule: the first that is open. 0 options, 0 pieces of evidence." in lines
    assert any(
        line.startswith("d02  batch_tuning: Which batch size? openvino int8-static at batch 8:") for line in lines
    )
    assert "     Rule: smallest cost. 10 options, 5 pieces of evidence." in lines
    assert lines[-1] == "It came to its end."


def test_a_decision_is_told_with_every_fact_on_its_own_line_when_piped(tmp_path):
    evidence = settled_evidence()
    lines = told(write_session(tmp_path, evidence), "d02")
    start = lines.index("  * openvino int8-static at batch 8")
    assert lines[start + 1 : start + 9] == [
        "      p50: 8.57 ms [8.49, 8.66]",
        "      p99: 10.3 ms [10.2, 10.4]",
        "      p99, upper end: 10.4 ms",
        "      throughput: 933/s [924, 942]",
        "      cost per 1000: $0.0000298 [0.0000295, 0.0000301]",
        "      accuracy drop: +0.00 points [-0.50, +0.50]",
        "      size: 10.0 MB",
        "      stable: yes",
    ]
    over = lines.index("  x openvino fp32 at batch 8")
    assert "rejected: p99_ms: up to 62.35 ms where 50 is allowed." in "".join(lines[over : over + 10])
    assert (
        f"  {evidence[0].id[:10]}  trial of eager fp32: measured, batch 1: p50 12.0 ms, 83.3/s, 97.00 %; "
        in "\n".join(lines)
    )
    assert any(line.endswith("by session s, 1 min ago") for line in lines)


def test_text_from_outside_cannot_act_on_the_terminal(tmp_path):
    text = "\n".join(told(write_session(tmp_path), "d02", force_terminal=True, width=80))
    assert "there is no [31mGPU[0m" in text
    assert "\x1b[31m" not in text


def test_on_a_terminal_the_options_stand_in_a_table_of_80_columns(tmp_path):
    lines = told(write_session(tmp_path), "d02", force_terminal=True, width=80)
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert any(line.startswith("*  openvino") for line in lines)
    assert any("per 1,000" in line for line in lines)


def test_a_node_names_all_its_decisions(tmp_path):
    assert told(write_session(tmp_path), "planner")[0] == "d01  planner: What next?"


def test_an_unknown_decision_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(InfertuneError, match=r"no decision 'd9'. There are: d01 \(planner\), d02 \(batch_tuning\)"):
        explain(write_session(tmp_path), "d9")


def test_evidence_that_is_gone_leaves_the_decision_readable(tmp_path):
    evidence = settled_evidence()
    lines = told(write_session(tmp_path, evidence, kept=evidence[1:]), "d02")
    assert f"  {evidence[0].id[:10]}  is no longer in the store, or was damaged there" in lines
    assert any("p50: 12.0 ms" in line for line in lines)


def test_what_was_decided_while_a_person_was_stopping_it_is_provisional(tmp_path):
    folder = write_session(tmp_path, ends=("interrupted",))
    lines = told(folder)
    assert any("Provisional" in line for line in lines)
    assert lines[-1].startswith("A person stopped it; to go on: infertune resume 20261122-000000-abcd.")
    assert "  by: policy, while a person was stopping the session" in told(folder, "d02")


def test_a_session_that_could_not_be_loaded_says_so(tmp_path):
    lines = told(write_session(tmp_path, [], loaded=False, ends=("failed",)))
    assert lines[-1] == "Its workload could not be loaded: no such file"


def test_json_has_full_ids_and_what_became_of_each_evidence(tmp_path):
    evidence = settled_evidence()
    write_session(tmp_path, evidence)
    answer = CliRunner().invoke(app, ["explain", "2026", "d02", "--home", str(tmp_path), "--output", "json"])
    [decision] = json.loads(answer.stdout)["decisions"]
    assert decision["chosen"] == "openvino int8-static at batch 8"
    assert decision["evidence"][0]["id"] == evidence[0].id
    assert decision["evidence"][0]["description"] == "batch 1: p50 12.0 ms, 83.3/s, 97.00 %"
