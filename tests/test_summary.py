"""What a result lists: trials with the size of their models, steps, and what was left out."""

from __future__ import annotations

from typing import Any

import pytest
from recorded_support import EAGER, FLOAT, INT8, view
from tests_support import artifact, measured_trial

from tools.contracts import (
    BuildResult,
    Decision,
    Evidence,
    EvidenceKind,
    Failed,
    Finding,
    Measured,
    Option,
    Outcome,
    Recipe,
    Step,
)
from tools.outcomes import describe
from tools.result import Seconds
from tools.selection import Configured
from tools.summary import summarize
from tools.summary_trials import OVERTAKEN, build_summaries, left_out, trial_summaries

PRUNE = Step(transform="prune-channels", settings={"ratio": 0.5})
FINETUNE = Step(transform="finetune", settings={"max_s": 60, "seed": 0})
PRUNED = Recipe(runtime="eager", steps=(PRUNE, FINETUNE))


def build(*steps: Step, outcome: Outcome | None = None, facts: Any = None, seconds: float = 2.0) -> Evidence:
    made = BuildResult(artifact=artifact(), facts=facts or {}, notes=("It went well.",))
    return Evidence.of(
        Finding(
            question=f"build {len(steps)} {seconds}",
            kind=EvidenceKind.BUILD,
            workload="w",
            recipe=Recipe(steps=steps, runtime="build"),
            parameters={},
            hardware="h",
            versions={},
            session="s",
            outcome=outcome or Measured(result=made),
            seconds=seconds,
            created="2026-11-22T00:00:00+00:00",
        )
    )


def given_up(evidence: Evidence, why: str) -> Evidence:
    assert isinstance(evidence.outcome, Measured)
    result = evidence.outcome.result.model_copy(update={"given_up": why})
    return Evidence.of(
        Finding.model_validate({**evidence.model_dump(exclude={"id"}), "outcome": Measured(result=result)})
    )


def planned(*options: Option, chosen: str = "quantization_evaluation", node: str = "planner") -> Decision:
    return Decision(id="d", node=node, question="What next?", options=options, chosen=chosen, rule="r", reason="why")


def summarized(*evidence: Evidence, decisions: tuple[Decision, ...] = ()):
    return summarize(
        view(evidence),
        session="s",
        created="2026-11-22T00:00:00+00:00",
        versions={},
        decisions=decisions,
        scaling=None,
        seconds=Seconds(total=1, trials=1, overhead=0),
        files={},
    )


def test_a_trial_is_as_large_as_the_last_step_tells_that_counted():
    seen = view(
        [
            measured_trial(EAGER, 12.0),
            build(PRUNE, facts={"flops": 4e6, "parameters": 500, "nonzero_parameters": 490, "sparsity": 0.02}),
            build(PRUNE, FINETUNE, facts={"flops": 3e6, "parameters": 400, "sparsity": 0.1, "agreement": 0.9}),
            measured_trial(PRUNED, 6.0),
        ]
    )
    whole, pruned = trial_summaries(seen, None)
    assert (pruned.variant, pruned.flops, pruned.parameters, pruned.sparsity) == (PRUNED.variant, 3e6, 400, 0.1)
    assert pruned.nonzero_parameters is None  # the last step that counted parameters did not count zeros
    assert (whole.variant, whole.flops, whole.parameters) == ("", None, 1000)


def test_a_changed_model_that_nobody_counted_is_not_taken_for_the_one_as_given():
    _, pruned = trial_summaries(view([measured_trial(EAGER, 12.0), measured_trial(PRUNED, 6.0)]), None)
    assert (pruned.flops, pruned.parameters) == (None, None)


def test_facts_that_are_no_numbers_count_for_nothing():
    odd = [measured_trial(EAGER, 12.0), build(PRUNE, FINETUNE, facts={"flops": "many"}), measured_trial(PRUNED, 6.0)]
    assert trial_summaries(view(odd), None)[1].flops is None


def test_steps_are_told_in_words_with_their_facts_and_the_last_time_counts():
    failure = Failed(stage="applying finetune", reason="the loss turned NaN")
    seen = view(
        [
            build(PRUNE, facts={"flops": 5e6}, seconds=3.0),
            build(PRUNE, facts={"flops": 4e6}, seconds=1.0),
            build(PRUNE, FINETUNE, outcome=failure),
            build(*INT8.steps),
        ]
    )
    pruned, tuned, quantized = build_summaries(seen)
    assert (pruned.steps, pruned.seconds, pruned.facts) == (("prune-channels ratio=0.5",), 1.0, {"flops": 4e6})
    assert (pruned.size_mb, pruned.notes) == (10, ("It went well.",))
    assert tuned.steps == ("prune-channels ratio=0.5", "finetune")
    assert (tuned.outcome, tuned.size_mb) == ("failed", None)
    assert tuned.reason == "failed while applying finetune: the loss turned NaN"
    assert quantized.transform == "quantize-nncf"


def test_what_is_left_out_is_told_once_with_the_last_reason():
    tried = view([measured_trial(EAGER, 12.0), measured_trial(INT8, 2.0, batches=(1, 2, 4))])
    gains = {"expected_gain": 0.5, "sd": 0.1, "chance": 0.2, "seconds": 9.0}
    decisions = [
        planned(
            Option(name=INT8.name),
            Option(name="distill small", facts=gains),
            Option(name=f"batch sizes of {INT8.name}", facts=gains),
            Option(name="openvino fp16", rejected_because="no kernels"),
        ),
        planned(
            Option(name="distill small", facts={**gains, "chance": 0.1}),
            Option(name=INT8.name, facts=gains),
            Option(name="openvino fp16", rejected_because="this CPU has no FP16 kernels"),
        ),
        planned(Option(name="something else", rejected_because="over its limits"), node="batch_tuning"),
    ]
    found = left_out(tried, decisions)
    assert [(o.name, o.rejected_because) for o in found] == [
        ("distill small", OVERTAKEN),
        ("openvino fp16", "this CPU has no FP16 kernels"),
    ]
    assert found[0].facts["chance"] == 0.1


def test_what_was_given_up_is_neither_feasible_nor_the_best_nor_the_way_back():
    result = summarized(
        measured_trial(EAGER, 12.0),
        given_up(measured_trial(FLOAT, 1.0), "it clearly drops too far"),
        build(PRUNE),
    )
    _, abandoned = result.trials
    assert (abandoned.given_up, abandoned.feasible) == ("it clearly drops too far", False)
    assert result.best is not None
    assert result.best.recipe == EAGER.name
    assert "fallback" not in result.files
    assert len(result.builds) == 1


def test_the_closest_of_an_infeasible_session_was_measured_to_the_end():
    result = summarized(
        measured_trial(EAGER, 120.0),
        measured_trial(INT8, 90.0),
        given_up(measured_trial(FLOAT, 60.0), "it is clearly slower"),
    )
    assert result.best is not None
    assert result.best.recipe == INT8.name


def test_results_from_before_can_still_be_read():
    result = summarized(measured_trial(EAGER, 12.0))
    old = result.model_dump(mode="json", exclude={"builds", "left_out"})
    for trial in old["trials"]:
        for name in ("variant", "flops", "parameters", "nonzero_parameters", "sparsity", "given_up"):
            del trial[name]
    assert type(result).model_validate(old).builds == ()


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, "torch, 10.0 MB"),
        ({"flops": 3.03e8, "epochs": 1, "agreement": 0.983}, "torch, 10.0 MB, 303 MFLOP, 1 epoch, agreement 98.3 %"),
        ({"epochs": 20, "layers_float": 3}, "torch, 10.0 MB, 20 epochs, 3 layers in float"),
        ({"flops": None, "epochs": "some"}, "torch, 10.0 MB"),
    ],
)
def test_a_build_is_described_with_what_it_tells(facts, words):
    assert describe(build(PRUNE, facts=facts)) == words


def test_a_trial_that_was_given_up_is_described_as_such():
    told = describe(given_up(measured_trial(EAGER, 12.0), "it is clearly slower"))
    assert told.endswith("97.00 %; given up: it is clearly slower")


def test_the_chosen_trial_is_marked():
    tried = view([measured_trial(EAGER, 12.0)]).ran[0]
    assert trial_summaries(view([measured_trial(EAGER, 12.0)]), Configured(tried, tried.first_point))[0].chosen
