"""The policy: the same evidence gives the same proposal, and nothing is proposed that cannot run or win."""

import pytest
from tests_support import compared, crashed, hardware, measured_trial, spec, workload

from agent.policy import BATCH_SIZES, DefaultPolicy
from nodes.context import Proposal
from tools.contracts import Availability, Evidence, Finding, Measured, ModelFormat, Precision, Recipe, Unstable
from tools.result import Seconds
from tools.runtimes import RUNTIME_NAMES
from tools.selection import configurations, final_choice, held, rivals, unsettled, untold
from tools.summary import summarize
from tools.transforms import check_order
from tools.view import SessionView

POLICY = DefaultPolicy()


def view(evidence=(), *, source=ModelFormat.TORCH, flags=("avx512_vnni", "avx512_bf16"), missing=(), **changes):
    availability = {
        name: Availability(name=name, available=name not in missing, reason=f"{name} is missing")
        for name in RUNTIME_NAMES
    }
    arguments = {
        "spec": spec(),
        "workload": workload(source, changes.pop("fixed_batch", None)),
        "hardware": hardware(flags),
        "availability": availability,
        "evidence": tuple(evidence),
    }
    return SessionView(**{**arguments, **changes})


def walk(view_, speeds, *, drops=None, limit=12):
    """Answer every proposal with invented measurements, and return the proposals in order."""
    evidence = [measured_trial(POLICY.baseline(view_), 12.0)]
    proposals = []
    for _ in range(limit):
        now = SessionView(
            spec=view_.spec,
            workload=view_.workload,
            hardware=view_.hardware,
            availability=view_.availability,
            evidence=tuple(evidence),
        )
        proposal = POLICY.next(now)
        assert proposal == POLICY.next(now)
        proposals.append(proposal)
        if proposal.node in ("scaling_recommendation", "confirmation"):
            return proposals
        for recipe in proposal.recipes:
            if proposal.node == "batch_tuning":
                evidence.append(measured_trial(recipe, speeds.get(recipe.name, 5.0), batches=proposal.batch_sizes))
            else:
                drop = (drops or {}).get(recipe.name, 0.0)
                evidence.append(measured_trial(recipe, speeds.get(recipe.name, 5.0), drop=drop))
    pytest.fail("the policy does not come to an end")


def test_runtimes_come_first_then_precisions_then_batches_then_confirmation():
    nodes = [p.node for p in walk(view(), {"openvino int8-static": 1.0})]
    assert nodes == ["runtime_evaluation", "quantization_evaluation", "batch_tuning", "confirmation"]


def test_every_recipe_that_is_proposed_keeps_the_legal_order():
    for source in (ModelFormat.TORCH, ModelFormat.PT2, ModelFormat.ONNX, ModelFormat.TORCHSCRIPT):
        for proposal in walk(view(source=source), {}):
            for recipe in proposal.recipes:
                check_order(source, recipe.steps)


@pytest.mark.parametrize(
    ("source", "baseline"),
    [(ModelFormat.TORCH, "eager"), (ModelFormat.ONNX, "onnxruntime"), (ModelFormat.TORCHSCRIPT, "eager")],
)
def test_the_baseline_is_the_model_as_given(source, baseline):
    recipe = POLICY.baseline(view(source=source))
    assert (recipe.runtime, recipe.steps, recipe.precision) == (baseline, (), Precision.FP32)


def test_a_runtime_that_is_missing_is_skipped_with_its_reason():
    now = view([measured_trial(POLICY.baseline(view()), 12.0)], missing=("openvino", "onnxruntime-cuda"))
    proposal = POLICY.next(now)
    assert "openvino" not in {r.runtime for r in proposal.recipes}
    assert {o.name: o.rejected_because for o in proposal.skipped}["openvino fp32"] == "openvino is missing"


def test_precisions_without_kernels_are_skipped_and_not_emulated():
    proposal = walk(view(flags=("avx2",)), {})[1]
    assert not {r.precision for r in proposal.recipes} & {Precision.BF16, Precision.FP16}
    assert any("no BF16" in (o.rejected_because or "") for o in proposal.skipped)


def test_fp16_is_tried_where_there_is_no_bf16_only():
    with_both = walk(view(flags=("avx512_bf16", "avx512_fp16")), {})[1]
    assert Precision.FP16 not in {r.precision for r in with_both.recipes}
    assert any("BF16 too" in (o.rejected_because or "") for o in with_both.skipped)
    assert Precision.FP16 in {r.precision for r in walk(view(flags=("avx512_fp16",)), {})[1].recipes}


def test_without_vnni_static_quantization_leaves_a_bit_of_headroom():
    def settings(flags):
        recipes = [r for p in walk(view(flags=flags), {}) for r in p.recipes]
        static = (r for r in recipes if r.precision is Precision.INT8_STATIC and r.runtime == "onnxruntime")
        return next(static).steps[-1].settings

    assert settings(("avx2",)) == {"reduce_range": True}
    assert settings(("avx2", "avx512_vnni")) == {}


def test_asymmetric_int8_is_tried_only_when_symmetric_loses_too_much():
    def names(proposals):
        return {r.name for p in proposals for r in p.recipes}

    assert "openvino int8-static preset=mixed" not in names(walk(view(), {}))
    assert "openvino int8-static preset=mixed" in names(walk(view(), {}, drops={"openvino int8-static": 0.05}))


def test_the_sweep_takes_the_leader_and_the_best_float():
    sweep = walk(view(), {"openvino int8-static": 1.0, "onnxruntime int8-static": 1.5, "openvino fp32": 3.0})[2]
    assert [r.name for r in sweep.recipes] == ["openvino int8-static", "openvino fp32"]
    assert sweep.batch_sizes == BATCH_SIZES


def test_a_model_with_a_fixed_batch_is_not_swept():
    assert "batch_tuning" not in [p.node for p in walk(view(fixed_batch=4), {"openvino int8-static": 1.0})]


def test_when_time_is_nearly_up_nothing_new_is_tried_but_the_leader_is_confirmed():
    evidence = [measured_trial(POLICY.baseline(view()), 12.0)]
    late = view(evidence, elapsed_s=890.0)
    assert POLICY.next(late).node == "scaling_recommendation"
    faster = POLICY.next(view(evidence)).recipes[0]
    proposal = POLICY.next(view([*evidence, measured_trial(faster, 3.0)], elapsed_s=890.0))
    assert (proposal.node, proposal.recipes) == ("confirmation", (faster,))


def test_after_an_interruption_nothing_is_tried():
    proposal = POLICY.next(view([measured_trial(POLICY.baseline(view()), 12.0)], stopped=True))
    assert proposal == Proposal(node="scaling_recommendation", reason="the session was interrupted")


def test_without_a_baseline_nothing_is_tried():
    assert POLICY.next(view()).node == "scaling_recommendation"
    broken: Evidence = crashed(POLICY.baseline(view()))
    assert POLICY.next(view([broken])).reason == "the baseline could not be measured"


def test_when_onnx_cannot_take_the_model_openvino_is_reached_through_torchscript():
    base = view()
    proposal = POLICY.next(view([measured_trial(POLICY.baseline(base), 12.0)]))
    onnx = next(r for r in proposal.recipes if r.runtime == "onnxruntime")
    later = view([measured_trial(POLICY.baseline(base), 12.0), crashed(onnx)])
    openvino = next(r for r in POLICY.next(later).recipes if r.runtime == "openvino")
    assert [s.transform for s in openvino.steps] == ["script", "convert-openvino"]


def test_an_integer_leader_must_beat_the_baseline_and_the_best_float():
    base = view()
    baseline = measured_trial(POLICY.baseline(base), 12.0)
    walked = walk(base, {"openvino int8-static": 1.0, "onnxruntime fp32": 2.0})
    sweep = walked[2]
    int8 = next(r for r in sweep.recipes if r.precision is Precision.INT8_STATIC)
    best_float = next(r for r in sweep.recipes if r.precision.is_float)
    evidence = [baseline, measured_trial(int8, 1.0), measured_trial(best_float, 2.0)]
    leader = final_choice(view(evidence))[0]
    assert leader.tried.recipe == int8
    assert [r.tried.recipe for r in rivals(view(evidence), leader)] == [baseline.recipe, best_float]
    evidence.append(compared(int8, baseline.recipe, 12.0))
    assert [r.tried.recipe for r in rivals(view(evidence), leader)] == [best_float]
    lost = [*evidence, compared(int8, best_float, 0.97)]
    assert held(view(lost), leader) is False
    assert final_choice(view(lost))[0].tried.recipe == best_float
    won = [*evidence, compared(int8, best_float, 1.8)]
    assert held(view(won), leader) is True
    assert rivals(view(won), leader) == []
    assert final_choice(view(won))[0].tried.recipe == int8


def test_the_model_as_given_at_a_larger_batch_is_a_change_that_must_hold():
    base = view(source=ModelFormat.ONNX)
    recipe = POLICY.baseline(base)
    evidence = [measured_trial(recipe, 1.0), measured_trial(recipe, 1.0, batches=(1, 2, 4))]
    now = view(evidence, source=ModelFormat.ONNX, elapsed_s=899.0)
    leader = final_choice(now)[0]
    assert (leader.tried.recipe, leader.point.batch_size) == (recipe, 4)
    assert POLICY.next(now).node == "confirmation"
    sure = view([*evidence, compared(recipe, recipe, 1.5, batch=4)], source=ModelFormat.ONNX, elapsed_s=899.0)
    assert POLICY.next(sure).node == "scaling_recommendation"
    result = summarize(
        sure,
        session="s",
        created="2026-11-22T00:00:00+00:00",
        versions={},
        decisions=[],
        scaling=None,
        seconds=Seconds(total=1, trials=1, overhead=0),
        files={},
    )
    assert result.ratio.throughput.value == 1.5
    assert "1.5x the requests for the same money" in result.summary
    assert "Nothing" not in result.summary


def test_a_slow_leader_is_measured_for_longer_once_even_if_it_is_the_model_as_given():
    recipe = POLICY.baseline(view(missing=RUNTIME_NAMES))
    few = measured_trial(recipe, 20.0, n=80)
    now = view([few], missing=[n for n in RUNTIME_NAMES if n != "eager"], fixed_batch=1)
    proposal = POLICY.next(SessionView(**{**vars_of(now), "elapsed_s": 899.0}))
    assert (proposal.node, proposal.recipes) == ("confirmation", (recipe,))
    longer = measured_trial(recipe, 20.0, n=400, sweep=True)
    done = SessionView(**{**vars_of(now), "elapsed_s": 899.0, "evidence": (few, longer)})
    assert POLICY.next(done).node == "scaling_recommendation"
    still_few = measured_trial(recipe, 20.0, n=200, sweep=True)
    given_up = SessionView(**{**vars_of(now), "elapsed_s": 899.0, "evidence": (few, still_few)})
    assert POLICY.next(given_up).node == "scaling_recommendation"


def vars_of(view_):
    names = ("spec", "workload", "hardware", "availability", "evidence")
    return {name: getattr(view_, name) for name in names}


def test_half_precision_is_not_tried_on_an_eager_that_is_beaten_already():
    fast = walk(view(), {"onnxruntime fp32": 4.0})[1]
    assert "eager bf16" not in {r.name for r in fast.recipes}
    reasons = {o.name: o.rejected_because for o in fast.skipped}
    assert (
        reasons["eager bf16"] == "onnxruntime fp32 is 3.0x faster than eager already; half precision gives 2x at best"
    )
    slow = dict.fromkeys(
        ("onnxruntime fp32", "onnxruntime-cuda fp32", "openvino fp32", "torchscript fp32", "compiled fp32"), 11.0
    )
    assert "eager bf16" in {r.name for r in walk(view(), slow)[1].recipes}


def test_a_sweep_that_failed_is_not_asked_again_and_the_next_in_line_takes_its_place():
    base = view()
    recipes = [r for p in walk(base, {})[:2] for r in p.recipes]
    evidence = [measured_trial(POLICY.baseline(base), 12.0)]
    evidence += [measured_trial(recipe, 2.0 + n) for n, recipe in enumerate(recipes)]
    first = POLICY.next(view(evidence))
    assert (first.node, len(first.recipes)) == ("batch_tuning", 2)
    evidence += [crashed(first.recipes[0], sweep=True), measured_trial(first.recipes[1], 3.0, batches=(1, 2, 4))]
    second = POLICY.next(view(evidence))
    assert (second.node, len(second.recipes)) == ("batch_tuning", 1)
    assert second.recipes[0] not in first.recipes
    evidence.append(measured_trial(second.recipes[0], 30.0, batches=(1, 2, 4)))
    assert POLICY.next(view(evidence)).node == "confirmation"


def test_a_sweep_that_changes_the_order_is_no_reason_for_a_third():
    base = view()
    recipes = [r for p in walk(base, {})[:2] for r in p.recipes]
    evidence = [measured_trial(POLICY.baseline(base), 12.0)]
    evidence += [measured_trial(recipe, 2.0 + 0.1 * n) for n, recipe in enumerate(recipes)]
    first = POLICY.next(view(evidence))
    evidence += [measured_trial(r, 9.0, batches=(1, 2, 4), n=900) for r in first.recipes]
    assert POLICY.next(view(evidence)).node == "confirmation"


# --- on a noisy machine ----------------------------------------------------------------------------------------


def noisy(evidence):
    outcome = Unstable(result=evidence.outcome.result, reason="the machine was disturbed in 20 of 24 rounds")
    return Evidence.of(Finding(**{**evidence.model_dump(exclude={"id", "outcome"}), "outcome": outcome}))


def test_a_disturbed_comparison_is_tried_once_more_and_then_leaves_the_answer_open():
    eager, fast = Recipe(runtime="eager"), Recipe(runtime="onnxruntime")
    known = [measured_trial(eager, 10), measured_trial(fast, 4)]
    disturbed = noisy(compared(fast, eager, 2))
    for attempts_made, open_pairs in ((0, 1), (1, 1), (2, 0)):
        seen = view([*known, *[disturbed] * attempts_made])
        winner, _ = final_choice(seen)
        assert winner.tried.recipe == fast
        assert len(rivals(seen, winner)) == open_pairs
        assert held(seen, winner) is None
    assert "disturbed in 20 of 24 rounds" in untold(seen, winner)
    quiet = view([*known, disturbed, compared(fast, eager, 2)])
    assert held(quiet, final_choice(quiet)[0]) is True
    assert untold(quiet, winner) is None
    lost = view([*known, disturbed, compared(fast, eager, 0.9)])
    assert final_choice(lost)[0].tried.recipe == eager


def test_a_point_that_did_not_settle_or_whose_calls_resemble_each_other_is_measured_for_longer():
    point = measured_trial(Recipe(runtime="eager"), 10).outcome.result.points[0]
    slow = measured_trial(Recipe(runtime="eager"), 30).outcome.result.points[0].latency_ms  # its p99 is near the SLO
    for update, why in (
        ({}, None),
        ({"stable": False, "unstable_because": "others took the CPUs"}, "others took the CPUs"),
        ({"independent_calls": 120.0}, None),
        (
            {"independent_calls": 120.0, "latency_ms": slow},
            "400 calls are too few to bound a p99, since each resembles",
        ),
    ):
        trial = measured_trial(Recipe(runtime="eager"), 10)
        result = trial.outcome.result.model_copy(update={"points": (point.model_copy(update=update),)})
        seen = view([trial.model_copy(update={"outcome": Measured(result=result)})])
        told = unsettled(seen, configurations(seen.ran)[0])
        assert told is None if why is None else told.startswith(why)
