"""Training: its arithmetic, its losses, and what comes of a training on a few small models."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from learning_support import learners, load
from torch.nn import functional

from tools.contracts import WorkloadInfo
from tools.contracts.workload import SequenceInfo
from tools.errors import TransformError, WorkloadError
from tools.measure.flops_torch import count_flops
from tools.training import schedule
from tools.training.checks import check_fits, count_parameters
from tools.training.learning import learn
from tools.training.losses import Losses, class_axis, soft_kl
from tools.training.settings import TrainingSettings, read_settings
from tools.workloads.datasets import batch_of, load_inputs, load_targets
from tools.workloads.modules import build_module, call_module

QUICK = TrainingSettings(epochs=4, max_s=1000)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def workload(home):
    return load(home, loss="cross_entropy")


def student(function="small"):
    return build_module(learners(function), num_classes=3 if function == "small" else None)


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def accuracy(module, info: WorkloadInfo):
    (outputs,) = call_module(module, load_inputs(info.evaluation))
    return float((outputs.argmax(1) == load_targets(info.evaluation)).mean())


# --- the schedule ----------------------------------------------------------------------------------------------------


@given(
    step_s=st.floats(1e-4, 100),
    judging_s=st.floats(0, 100),
    steps=st.integers(1, 1000),
    epochs=st.integers(1, 100),
    budget_s=st.floats(-10, 10_000),
)
def test_a_plan_fits_into_the_time_unless_a_single_step_does_not(step_s, judging_s, steps, epochs, budget_s):
    plan = schedule.plan_schedule(step_s=step_s, judging_s=judging_s, steps=steps, epochs=epochs, budget_s=budget_s)
    assert 1 <= plan.epochs <= epochs
    assert 1 <= plan.steps <= steps
    took_s = plan.epochs * (plan.steps * step_s + judging_s)
    assert took_s <= budget_s * (1 + 1e-9) or (plan.epochs, plan.steps) == (1, 1)


def test_a_plan_makes_as_many_epochs_as_are_wanted_when_there_is_time():
    plan = schedule.plan_schedule(step_s=0.1, judging_s=1, steps=20, epochs=5, budget_s=60)
    assert plan == schedule.Plan(epochs=5, steps=20)


@given(st.integers(1, 3000))
def test_the_learning_rate_rises_once_and_falls_almost_to_zero(total):
    factors = [schedule.learning_rate_factor(step, total) for step in range(total)]
    peak = int(np.argmax(factors))
    assert all(0 < factor <= 1 for factor in factors)
    assert factors == sorted(factors[:peak]) + sorted(factors[peak:], reverse=True)
    assert total < 30 or (factors[0] < 0.1 and factors[-1] < 0.01 and max(factors) > 0.99)


@given(n=st.integers(8, 20_000), seed=st.integers(0, 5))
def test_held_out_items_are_a_tenth_at_most_500_and_never_trained_with(n, seed):
    train, held = schedule.hold_out(n, seed)
    assert np.array_equal(np.sort(np.concatenate([train, held])), np.arange(n))
    assert len(held) == min(500, max(1, round(n / 10)))


@given(n=st.integers(7, 2000), wanted=st.integers(2, 256), seed=st.integers(0, 3))
def test_batches_hold_every_item_once_and_none_has_a_single_item(n, wanted, seed):
    size = schedule.batch_size(n, wanted)
    made = schedule.batches(np.arange(n), size, np.random.default_rng(seed))
    assert np.array_equal(np.sort(np.concatenate(made)), np.arange(n))
    assert len(made) == schedule.count_steps(n, size)
    assert min(map(len, made)) >= 2
    assert max(map(len, made)) - min(map(len, made)) <= 1


@given(n=st.integers(7, 200), size=st.integers(1, 64))
def test_a_model_that_takes_one_batch_size_gets_no_other(n, size):
    made = schedule.batches(np.arange(n), size, np.random.default_rng(0), exactly=True)
    assert {len(batch) for batch in made} == {size}


# --- settings --------------------------------------------------------------------------------------------------------


def test_a_setting_that_does_not_exist_is_refused_with_the_likely_one():
    with pytest.raises(TransformError, match=r"settings of distill: epoch: unknown field\. Did you mean `epochs`\?"):
        read_settings(TrainingSettings, {"epoch": 3}, "distill")


def test_a_setting_out_of_bounds_is_refused():
    with pytest.raises(TransformError, match=r"settings of finetune: alpha: .*less than or equal to 1"):
        read_settings(TrainingSettings, {"alpha": 2}, "finetune")


# --- losses ----------------------------------------------------------------------------------------------------------


@given(temperature=st.floats(0.5, 20), seed=st.integers(0, 20))
def test_the_soft_loss_is_zero_for_equal_distributions_only(temperature, seed):
    generator = torch.Generator().manual_seed(seed)
    one, other = torch.randn(5, 4, generator=generator), torch.randn(5, 4, generator=generator)
    assert float(soft_kl(one, one + 3, temperature, 1)) == pytest.approx(0, abs=1e-3)
    assert float(soft_kl(one, other, temperature, 1)) > 1e-3


def test_the_soft_loss_at_temperature_one_is_cross_entropy_less_the_teachers_entropy():
    generator = torch.Generator().manual_seed(0)
    found, wanted = torch.randn(6, 5, generator=generator), torch.randn(6, 5, generator=generator)
    shares = wanted.softmax(1)
    entropy = -(shares * shares.log()).sum(1).mean()
    expected = functional.cross_entropy(found, shares) - entropy
    assert float(soft_kl(found, wanted, 1.0, 1)) == pytest.approx(float(expected), rel=1e-5)


def test_the_soft_loss_at_a_high_temperature_is_the_squared_error_of_centred_logits():
    """Hinton et al., 2015, section 2.1: the limit is sum((z - v)^2) / (2 * classes)."""
    generator = torch.Generator().manual_seed(0)
    found, wanted = (
        x - x.mean(1, keepdim=True) for x in torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    )
    expected = (found - wanted).square().sum(1).mean() / (2 * 5)
    assert float(soft_kl(found, wanted, 1000.0, 1)) == pytest.approx(float(expected), rel=1e-2)


@pytest.mark.parametrize(
    ("output", "targets", "axis"),
    [
        ((8, 10), None, 1),
        ((8, 10), (8,), 1),
        ((8, 21, 16, 16), (8, 16, 16), 1),
        ((8, 12, 50), (8, 12), 2),
        ((8, 12, 50), None, 2),
        ((8, 1), (8,), None),
        ((8,), (8,), None),
    ],
)
def test_classes_are_found_where_pytorch_or_a_token_model_has_them(output, targets, axis):
    assert class_axis(np.zeros(output), None if targets is None else np.zeros(targets)) == axis


def losses(info, teacher, found, targets=None, alpha=0.5):
    return Losses.of(info, teacher, found, targets, temperature=2.0, alpha=alpha)


def test_a_student_of_logits_learns_from_a_teacher_of_probabilities(workload):
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    chosen = losses(workload, [logits.softmax(1).numpy()], [logits.numpy()])
    assert float(chosen.soft([logits], [logits.softmax(1)])) == pytest.approx(0, abs=1e-4)
    assert chosen.notes == ("The model gives probabilities, and what learnt from it gives logits.",)


def test_numbers_are_compared_relative_to_their_spread(workload):
    info = workload.model_copy(update={"metric": "mse", "loss": "mse"})
    wanted = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    for scale in (1e-3, 1.0, 1e3):
        chosen = losses(info, [(wanted * scale).numpy()], [(wanted * scale).numpy()], np.zeros((500, 2)))
        mean = torch.full_like(wanted, float(wanted.mean())) * scale
        assert float(chosen([mean], [wanted * scale], wanted * scale)) == pytest.approx(1.0, rel=1e-3)


def test_alpha_weighs_the_originals_outputs_against_the_targets(workload):
    generator = torch.Generator().manual_seed(0)
    found, wanted, labels = (
        torch.randn(9, 3, generator=generator),
        torch.randn(9, 3, generator=generator),
        torch.arange(9) % 3,
    )
    parts = [
        float(
            losses(workload, [wanted.numpy()], [found.numpy()], labels.numpy(), alpha=alpha)([found], [wanted], labels)
        )
        for alpha in (0.0, 0.25, 1.0)
    ]
    assert parts[0] == pytest.approx(float(functional.cross_entropy(found, labels)), rel=1e-5)
    assert parts[1] == pytest.approx(0.75 * parts[0] + 0.25 * parts[2], rel=1e-5)


def test_cross_entropy_of_a_single_number_is_refused(workload):
    with pytest.raises(TransformError, match="cross_entropy needs an output of two classes or more"):
        losses(workload, [np.zeros((9, 1), np.float32)], [np.zeros((9, 1), np.float32)], np.zeros(9, np.int64))


def test_a_model_without_floating_point_outputs_teaches_nothing(workload):
    with pytest.raises(TransformError, match="nothing to learn from"):
        losses(workload, [np.zeros((9, 3), np.int64)], [np.zeros((9, 3), np.int64)])


# --- trainings -------------------------------------------------------------------------------------------------------


def test_a_student_learns_what_the_model_does(workload):
    module = student()
    before = accuracy(module, workload)
    learnt = learn(module, workload, TrainingSettings(max_s=1000, learning_rate=1e-2))
    assert accuracy(module, workload) > 0.9 > before
    assert learnt.facts["agreement"] > 0.9
    assert set(learnt.facts) == {"epochs", "planned_epochs", "loss", "agreement", "seconds"}
    assert "540 items" in learnt.notes[0]
    assert "60 others held out" in learnt.notes[0]
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_the_same_seed_gives_the_same_weights_and_another_others(workload):
    made = []
    for seed in (1, 1, 2):
        module = student()
        learn(module, workload, QUICK.model_copy(update={"epochs": 2, "seed": seed}))
        made.append(state_of(module))
    first, again, other = made
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_a_training_leaves_the_random_numbers_of_the_process_alone(workload):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    learn(student(), workload, QUICK.model_copy(update={"epochs": 1}))
    assert torch.equal(torch.rand(3), expected)


def test_items_without_targets_teach_by_the_models_outputs_alone(home):
    info = load(home, training="unlabelled")
    module = student()
    learnt = learn(module, info, TrainingSettings(max_s=1000, learning_rate=1e-2))
    assert accuracy(module, info) > 0.9
    assert "agreement is" in learnt.notes[0]


def test_a_training_ends_when_the_student_is_as_good_as_the_model(workload):
    learnt = learn(student(), workload, TrainingSettings(max_s=1000, epochs=15, learning_rate=1e-2, enough=0.2))
    assert learnt.facts["epochs"] < learnt.facts["planned_epochs"] == 15


def test_features_are_learnt_from_where_both_have_a_linear_layer(workload):
    with_features, without = student(), student()
    learnt = learn(with_features, workload, QUICK.model_copy(update={"features": True}))
    learn(without, workload, QUICK)
    assert "linear layer" not in " ".join(learnt.notes)
    assert not torch.equal(with_features[0].weight, without[0].weight)


def test_a_training_set_smaller_than_a_batch_is_enough(home):
    module = student()
    learn(module, load(home, training="thirty_three"), QUICK.model_copy(update={"batch": 64}))
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())


def test_too_few_items_are_refused(home, workload):
    with pytest.raises(TransformError, match="7 training items are too few: give 8 or more"):
        learn(student(), load(home, training="seven"), QUICK)
    with pytest.raises(TransformError, match="there are no training items"):
        learn(student(), load(home, training=None), QUICK)
    crowded = workload.outputs[0].model_copy(update={"shape": (301,)})
    with pytest.raises(TransformError, match="600 training items are too few for 301 classes"):
        learn(student(), workload.model_copy(update={"outputs": (crowded,)}), QUICK)


def test_a_loss_that_turns_nan_is_tried_again_more_carefully(workload):
    module = student("brittle")
    learnt = learn(module, workload, QUICK.model_copy(update={"epochs": 1, "learning_rate": 0.02}))
    assert any("With a learning rate of 0.02, the" in n and "trained with 0.002 instead" in n for n in learnt.notes)
    assert np.isfinite(call_module(module, batch_of(workload.evaluation, 8))[0]).all()


def test_a_loss_that_turns_nan_again_is_the_end(workload):
    with pytest.raises(
        TransformError, match=r"the loss turned NaN in epoch 1 with a learning rate of 0\.0001, and likewise"
    ):
        learn(student("hopeless"), workload, QUICK)


def test_a_model_whose_own_outputs_are_nan_teaches_nothing(home):
    with pytest.raises(WorkloadError, match="items have NaN or infinity"):
        learn(student(), load(home, model="nan_teacher"), QUICK)


def test_a_loss_of_ones_own_is_used(home):
    own = load(home, loss=learners("doubled_error"))
    plain = load(home, loss="cross_entropy")
    settings = QUICK.model_copy(update={"alpha": 0.0, "epochs": 1})
    first, second = (learn(student(), info, settings).facts["loss"] for info in (own, plain))
    assert first == pytest.approx(2 * second, rel=0.3)


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        ("no_tensor", TransformError, "learners.py:no_tensor: must return one number as a tensor"),
        ("raises", WorkloadError, "learners.py:raises: calling it raised KeyError: 'lost'"),
    ],
)
def test_a_loss_of_ones_own_that_does_not_work_is_named(home, loss, error, message):
    with pytest.raises(error, match=message):
        learn(student(), load(home, loss=learners(loss)), QUICK)


def test_regression_comes_close_whatever_the_scale(home):
    info = load(home, model="numbers", training="unlabelled", evaluation="unlabelled", metric="cosine")
    learnt = learn(student("few_numbers"), info, TrainingSettings(max_s=1000, learning_rate=3e-2, enough=0))
    assert learnt.facts["agreement"] > 0.9


def test_what_a_module_returns_in_training_only_is_left_out(workload):
    learn(student("auxiliary"), workload, QUICK.model_copy(update={"epochs": 1}))


def test_zeros_are_kept_where_that_is_wanted(workload):
    module = student()
    with torch.no_grad():
        module[0].weight[:4] = 0
    start = state_of(module)
    learn(module, workload, QUICK, keep_zeros=True)
    assert (module[0].weight[:4] == 0).all()
    assert not torch.equal(module[0].weight, start["0.weight"])
    learn(module, workload, QUICK)
    assert (module[0].weight[:4] != 0).any()


def test_a_half_precision_module_is_trained_in_float32_and_stays_what_it_was(workload):
    module = student().to(torch.bfloat16)
    learn(module, workload, TrainingSettings(max_s=1000, epochs=8, learning_rate=1e-2))
    assert module[0].weight.dtype is torch.bfloat16
    assert accuracy(module, workload) > 0.8


def test_the_only_batch_size_that_a_module_takes_is_kept(workload):
    class Seven(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = student()

        def forward(self, x):
            assert len(x) == 7
            return self.inner(x)

    learn(Seven(), workload, QUICK.model_copy(update={"epochs": 1}), fixed_batch=7)


def test_a_training_that_has_no_time_makes_one_step(workload):
    learnt = learn(student(), workload, QUICK.model_copy(update={"max_s": 1e-6}))
    assert (learnt.facts["epochs"], learnt.facts["planned_epochs"]) == (1, 1)


# --- several inputs and outputs, and texts ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts(home):
    return load(home, model="token_teacher", training="texts", evaluation="texts", loss=learners("of_both"))


def test_ids_and_masks_by_keyword_and_two_outputs_are_learnt(texts):
    module = student("small_tokens")
    first = learn(module, texts, QUICK.model_copy(update={"epochs": 1, "alpha": 1.0})).facts["loss"]
    learnt = learn(module, texts, QUICK.model_copy(update={"epochs": 20, "alpha": 1.0, "learning_rate": 5e-2}))
    assert learnt.facts["loss"] < 0.6 * first


def test_what_stands_behind_the_end_of_a_text_makes_no_difference(texts):
    sequence = SequenceInfo(
        mask="mask", inputs=("ids", "mask"), fill={"ids": 0, "mask": 0}, outputs=("tokens",), length=9
    )
    info = texts.model_copy(update={"sequence": sequence})
    module = student("small_tokens")
    learn(module, info, QUICK.model_copy(update={"alpha": 1.0, "learning_rate": 2e-2}))
    nothing = build_module(learners("small_tokens")).embedding.weight[0]
    assert torch.allclose(module.embedding.weight[0], nothing, atol=0.02)  # the padding id: no more than weight decay


# --- checks ----------------------------------------------------------------------------------------------------------


def test_a_student_that_cannot_take_the_inputs_is_told_by_its_layer(workload):
    with pytest.raises(
        TransformError, match=r"cannot take the model's inputs \(input_0 float32 \(4,\)\): RuntimeError"
    ):
        check_fits(student("of_images"), workload, batch_of(workload.calibration, 2))


def test_a_student_with_other_outputs_is_refused_and_both_are_named(workload):
    message = r"gives 1 output of shape \(5,\) an item, and the model 1 output of shape \(3,\)"
    with pytest.raises(TransformError, match=message):
        check_fits(student("five"), workload, batch_of(workload.calibration, 2))


def test_parameters_and_flops_are_counted_for_one_item(workload):
    module = torch.nn.Sequential(torch.nn.Linear(4, 8, bias=False), torch.nn.Linear(8, 3, bias=False))
    assert count_parameters(module) == 4 * 8 + 8 * 3
    assert count_flops(module, batch_of(workload.calibration, 5)) == 2 * (4 * 8 + 8 * 3)
