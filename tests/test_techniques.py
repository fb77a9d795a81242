"""The table of techniques: every row is a legal recipe, and two of them are measured for real."""

from __future__ import annotations

import dataclasses

import pytest

from simulations.techniques import BATCH, FAST, FULL, HEADINGS, Technique, measure, table, techniques
from tools.contracts import ModelFormat, Precision, Step
from tools.observer import Silent
from tools.transforms import check_order

TOO_MUCH = Technique("impossible", (Step(transform="prune-channels", settings={"ratio": 2.0}),))


@pytest.mark.parametrize("technique", techniques("resnet18", 60.0), ids=lambda t: t.name)
def test_every_row_is_a_legal_recipe_that_runs_on_openvino(technique):
    recipe = technique.recipe(Precision.FP32)
    assert check_order(ModelFormat.TORCH, recipe.steps) is ModelFormat.OPENVINO
    assert recipe.runtime == "openvino"


def test_each_technique_stands_alone_in_pairs_and_with_all_others():
    kinds = ("distill", "prune-channels", "quantize-nncf")
    found = [
        tuple(kind for kind in kinds if any(s.transform == kind for s in t.recipe(Precision.FP32).steps))
        for t in techniques("resnet18", 60.0)
        if not any(s.transform == "prune-weights" for s in t.steps)
    ]
    assert sorted(map(len, found)) == [0, 1, 1, 1, 2, 2, 2, 3]
    assert len(set(found)) == len(found)


def test_whatever_was_pruned_is_trained_again():
    for technique in techniques("resnet18", 60.0):
        names = [step.transform for step in technique.steps]
        assert all(names[i + 1] == "finetune" for i, name in enumerate(names) if name.startswith("prune"))


def test_only_what_is_quantized_runs_in_integers():
    for technique in techniques("resnet18", 60.0):
        recipe = technique.recipe(Precision.BF16)
        assert recipe.precision is (Precision.INT8_STATIC if technique.quantized else Precision.BF16)


@pytest.mark.timeout(600)  # on a machine that is busy with other things
def test_rows_are_measured_timed_in_turn_and_printed_and_what_failed_says_why(tmp_path):
    quick = FAST.limits.model_copy(update={"screen_point_s": 0.3, "sweep_point_s": 0.2, "comparison_processes": 1})
    study = dataclasses.replace(FAST, limits=quick)
    measured = measure(study, tmp_path, Silent(), [Technique("as given, on OpenVINO"), TOO_MUCH])
    given, converted, failed = measured
    assert [m.name for m in measured] == ["as given, in eager mode", "as given, on OpenVINO", "impossible"]
    assert (given.compared, failed.compared) == (None, None)
    assert {point.batch_size for point in converted.trial.points} == {1, BATCH}
    assert given.trial.flops == converted.trial.flops > 0
    assert converted.compared is None or converted.compared.candidate_batch == BATCH
    head, rule, *lines = table(measured).splitlines()
    assert head == f"| {' | '.join(HEADINGS)} |"
    assert {line.count("|") for line in (head, rule, *lines[:3])} == {len(HEADINGS) + 1}
    assert lines[-1].startswith("impossible: failed while applying prune-channels: ")
    assert "ratio" in lines[-1]


def test_the_readme_s_table_is_of_the_reference_workload():
    assert (FULL.workload, FULL.student) == ("digits-resnet50", "torchvision.models:resnet18")
