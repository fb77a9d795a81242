"""The policy: the same evidence gives the same proposal, and nothing is proposed that cannot run or win."""

from dataclasses import replace

import pytest
from tests_support import build_failed, compared, crashed, hardware, measured_trial, spec, workload

from agent.policy import BATCH_SIZES, DefaultPolicy
from agent.prospecting import prospecting
from agent.space import space
from nodes.context import Proposal
from tools.contracts import Availability, Evidence, Finding, Measured, ModelFormat, Precision, Recipe, Student, Unstable
from tools.result import Seconds
from tools.runtimes import RUNTIME_NAMES
from tools.selection import configurations, final_choice, held, rivals, unsettled, untold
from tools.summary import summarize
from tools.transforms import check_order
from tools.view import SessionView

POLICY = DefaultPolicy()


ON_GPU = tuple(name for name in RUNTIME_NAMES if "cuda" in name or "tensorrt" in name)


def view(evidence=(), *, source=ModelFormat.TORCH, flags=("avx512_vnni", "avx512_bf16"), missing=ON_GPU, **changes):
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


RUNTIMES = {"eager": 1.0, "torchscript": 0.6, "compiled": 0.5, "onnxruntime": 0.42, "openvino": 0.4}
PRECISIONS = {"bf16": 0.6, "fp16": 0.6, "int8-dynamic": 1.1, "int8-static": 0.4, "int8-mixed": 0.5}
VARIANTS = {"": 1.0, "distill small": 0.5}


def usual_ms(recipe):
    """What a recipe would take on a machine that is as the books say: 12 ms for the model as given."""
    threads = 1.6 if recipe.settings.get("threads") == 1 else 1.0
    part = RUNTIMES.get(recipe.runtime, 0.5) * PRECISIONS.get(recipe.precision.value, 1.0)
    return 12.0 * part * VARIANTS.get(recipe.variant, 0.7) * threads


def walk(view_, speeds, *, drops=None, limit=60):
    """Answer every proposal with invented measurements, and return the proposals in order."""
    evidence = [measured_trial(POLICY.baseline(view_), 12.0)]
    proposals = []
    for _ in range(limit):
        now = replace(view_, evidence=tuple(evidence))
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
                evidence.append(measured_trial(recipe, speeds.get(recipe.name, usual_ms(recipe)), drop=drop))
    pytest.fail("the policy does not come to an end")


def trained(view_, *students):
    """The same session with data to train with, and these students."""
    workload_ = view_.workload.model_copy(
        update={"training": view_.workload.calibration, "students": tuple(Student(name=s) for s in students)}
    )
    return replace(view_, workload=workload_)


def names(proposals):
    return [r.name for p in proposals for r in p.recipes]


def test_the_float_runtimes_come_first_and_the_leader_is_confirmed_last():
    walked = walk(view(), {"openvino int8-static": 1.0})
    assert [r.name for r in walked[0].recipes] == ["onnxruntime fp32", "openvino fp32"]
    nodes = [p.node for p in walked]
    assert nodes[0] == "runtime_evaluation"
    assert nodes[-1] == "confirmation"
    assert {"quantization_evaluation", "batch_tuning"} <= set(nodes)
    assert walked[-1].recipes[0].name == "openvino int8-static"


def test_nothing_is_tried_that_cannot_win():
    fast = walk(view(), {"openvino int8-static": 0.5, "onnxruntime int8-static": 0.6})
    assert not {"compiled fp32", "torchscript fp32", "eager bf16"} & set(names(fast))


def test_where_integers_disappoint_the_other_floats_are_tried():
    now = view(flags=("avx2",))
    recipes = [r for r in space(now).recipes if r.runtime in ("onnxruntime", "openvino")]
    settings = [r.model_copy(update={"settings": s}) for r in recipes for s in ({"threads": 1}, {"streams": 2})]
    assert "compiled fp32" in names(walk(now, dict.fromkeys([r.name for r in (*recipes, *settings)], 11.0)))


def test_students_are_tried_when_there_is_something_to_learn_from():
    speeds = {"openvino int8-static": 1.0, "distill small, openvino int8-static": 0.3}
    walked = walk(trained(view(), "small"), speeds)
    assert "compression_evaluation" in {p.node for p in walked}
    assert any(name.startswith("distill small") for name in names(walked))
    assert not any("distill" in name for name in names(walk(view(), speeds)))


def test_without_training_data_it_is_said_what_is_missed():
    skipped = {o.name: o.rejected_because for o in walk(view(), {})[0].skipped}
    assert "no `workload.training`" in skipped["distill"]
    assert "quarter of the work" in skipped["prune-channels"]


def test_an_integer_student_must_beat_the_student_in_float():
    now = trained(view(), "small")
    student = tuple(r for r in space(now).recipes if r.variant.startswith("distill small"))
    integer = next(r for r in student if (r.runtime, r.precision) == ("openvino", Precision.INT8_STATIC))
    evidence = [measured_trial(POLICY.baseline(now), 12.0)]
    evidence += [measured_trial(r, 5.0) for r in walk(now, {})[0].recipes]
    evidence += [measured_trial(integer, 0.2), measured_trial(integer, 0.2, batches=BATCH_SIZES)]
    late = replace(now, evidence=tuple(evidence), spec=with_exclusions(now.spec, "streams"))
    proposals = []
    while (proposal := POLICY.next(late)).node != "confirmation" and len(proposals) < 40:
        proposals.append(proposal)
        batches = BATCH_SIZES if proposal.node == "batch_tuning" else (1,)
        late = replace(
            late,
            evidence=(*late.evidence, *(measured_trial(r, usual_ms(r), batches=batches) for r in proposal.recipes)),
        )
    leaders = [
        name for name in names(proposals) if name.startswith("distill small") and name.endswith((" fp32", " bf16"))
    ]
    assert leaders


def with_exclusions(spec_, *excluded):
    return spec_.model_copy(update={"search": spec_.search.model_copy(update={"exclude": excluded})})


def test_what_could_not_be_built_is_not_built_again_for_another_runtime():
    now = trained(view(), "small")
    distill = next(r for r in space(now).recipes if r.variant.startswith("distill")).steps[0]
    failed = build_failed(Recipe(steps=(distill,), runtime="build"))
    evidence = [measured_trial(POLICY.baseline(now), 12.0), failed]
    recipes = prospecting(replace(now, evidence=tuple(evidence)), space(now).recipes).targets.values()
    assert recipes
    assert not any(distill in target.recipe.steps for target in recipes)


def test_what_a_person_leaves_out_is_not_tried():
    now = view()
    without = replace(now, spec=with_exclusions(now.spec, "openvino", "int8"))
    tried = [r for p in walk(without, {}) for r in p.recipes]
    assert "openvino" not in {r.runtime for r in tried}
    assert not {r.precision for r in tried} & {Precision.INT8_STATIC, Precision.INT8_DYNAMIC}
    skipped = {o.name: o.rejected_because for o in space(without).skipped}
    assert skipped["onnxruntime int8-static"] == "left out, as asked: int8"


def test_only_what_a_person_asks_for_is_tried():
    now = view()
    search = now.spec.search.model_copy(update={"only": ("onnxruntime", "quantize-static")})
    wished = replace(now, spec=now.spec.model_copy(update={"search": search}))
    assert set(names(walk(wished, {}))) == {"onnxruntime fp32", "onnxruntime int8-static"}


def test_after_the_last_allowed_trial_batch_sizes_are_measured_and_the_leader_is_confirmed():
    now = view()
    search = now.spec.search.model_copy(update={"max_trials": 3})
    few = replace(now, spec=now.spec.model_copy(update={"search": search}))
    walked = walk(few, {})
    assert [p.node for p in walked] == ["runtime_evaluation", "batch_tuning", "confirmation"]


def test_how_long_it_took_changes_no_decision_while_there_is_time():
    now = view()
    search = now.spec.search.model_copy(update={"max_trials": 6})
    few = replace(now, spec=now.spec.model_copy(update={"search": search}))
    evidence = [measured_trial(POLICY.baseline(few), 12.0)]
    yardsticks = POLICY.next(replace(few, evidence=tuple(evidence))).recipes
    evidence += [measured_trial(recipe, usual_ms(recipe)) for recipe in yardsticks]
    decided = [POLICY.next(replace(few, evidence=tuple(evidence), elapsed_s=s)) for s in (1.0, 300.0, 600.0, 700.0)]
    assert decided[0].considered
    assert all(proposal == decided[0] for proposal in decided)


def test_what_was_considered_is_told_with_what_is_expected_of_it():
    proposal = walk(view(), {})[1]
    assert proposal.considered
    assert set(proposal.considered[0].facts) == {"expected_gain", "sd", "chance", "seconds"}


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
    found = space(view(flags=("avx2",)))
    assert not {r.precision for r in found.recipes} & {Precision.BF16, Precision.FP16}
    assert any("no BF16" in (o.rejected_because or "") for o in found.skipped)


def test_fp16_is_tried_where_there_is_no_bf16_only():
    with_both = space(view(flags=("avx512_bf16", "avx512_fp16")))
    assert Precision.FP16 not in {r.precision for r in with_both.recipes}
    assert any("BF16 too" in (o.rejected_because or "") for o in with_both.skipped)
    assert Precision.FP16 in {r.precision for r in space(view(flags=("avx512_fp16",))).recipes}


def test_without_vnni_static_quantization_leaves_a_bit_of_headroom():
    def settings(flags):
        recipes = space(view(flags=flags)).recipes
        static = (r for r in recipes if r.precision is Precision.INT8_STATIC and r.runtime == "onnxruntime")
        return next(static).steps[-1].settings

    assert settings(("avx2",)) == {"reduce_range": True}
    assert settings(("avx2", "avx512_vnni")) == {}


def test_gentler_int8_is_tried_only_when_the_fastest_loses_too_much():
    gentler = {
        "openvino int8-static preset=mixed",
        "openvino int8-mixed max_drop=0.01",
        "onnxruntime int8-static method=percentile",
    }
    assert not gentler & set(names(walk(view(), {})))
    drops = {"openvino int8-static": 0.05, "onnxruntime int8-static": 0.05}
    assert gentler & set(names(walk(view(), {"openvino int8-static": 1.0}, drops=drops)))


def test_the_leader_and_the_best_float_are_swept():
    walked = walk(view(), {"openvino int8-static": 1.0, "onnxruntime int8-static": 1.5, "openvino bf16": 3.0})
    swept = [r.name for p in walked if p.node == "batch_tuning" for r in p.recipes]
    assert "openvino int8-static" in swept
    assert "openvino bf16" in swept
    assert all(p.batch_sizes == BATCH_SIZES for p in walked if p.node == "batch_tuning")


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
    int8 = next(r for r in space(base).recipes if r.precision is Precision.INT8_STATIC)
    best_float = walk(base, {})[0].recipes[0]
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


@pytest.mark.parametrize(("spread", "told"), [(1.1, True), (1.4, True), (1.5, False), (3.0, False)])
def test_a_gain_that_noise_hides_is_not_claimed(spread, told):
    base = view(source=ModelFormat.ONNX)
    recipe = POLICY.baseline(base)
    evidence = [measured_trial(recipe, 1.0), measured_trial(recipe, 1.0, batches=(1, 2, 4))]
    sure = [*evidence, compared(recipe, recipe, 300.0, batch=4, spread=spread)]
    summary = summarize(
        view(sure, source=ModelFormat.ONNX, elapsed_s=899.0),
        session="s",
        created="2026-11-22T00:00:00+00:00",
        versions={},
        decisions=[],
        scaling=None,
        seconds=Seconds(total=1, trials=1, overhead=0),
        files={},
    ).summary
    assert ("300.0x the requests for the same money, compared" in summary) is told
    assert ("this noise does not tell" in summary) is not told


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


def test_a_sweep_that_failed_is_not_asked_again_and_the_next_in_line_takes_its_place():
    base = view()
    evidence = [measured_trial(POLICY.baseline(base), 12.0)]
    evidence += [measured_trial(r, 2.0 + n) for n, r in enumerate(space(base).recipes)]
    now = replace(base, evidence=tuple(evidence))
    asked = []
    while (proposal := POLICY.next(now)).node != "confirmation":
        sweep = proposal.node == "batch_tuning"
        asked += [r.digest for r in proposal.recipes if sweep]
        now = replace(now, evidence=(*now.evidence, *(crashed(r, sweep=sweep) for r in proposal.recipes)))
    assert len(asked) > 1
    assert len(asked) == len(set(asked))


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
