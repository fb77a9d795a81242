"""Distillation and fine-tuning, from an artifact to an artifact."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from learning_support import learners, load

from tools.contracts import ArtifactRef, ModelFormat, Precision, Step, Student, WorkloadInfo
from tools.errors import TransformError
from tools.transforms import apply_step, check_order
from tools.transforms.distill import Distill
from tools.transforms.finetune import Finetune
from tools.workloads.bundled import bundled_spec, prepare
from tools.workloads.datasets import batch_of, load_inputs, load_targets
from tools.workloads.loading import materialize
from tools.workloads.modules import call_module, load_module
from tools.workloads.weights import save_weights

STUDENTS = ("small", "five", "of_images", "large", "same@width=0.5")
QUICK = {"max_s": 1000.0, "epochs": 3}


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
    return load(home, students=STUDENTS, loss="cross_entropy")


@pytest.fixture(scope="module")
def tiny(home):
    """The bundled digits-tiny, trained, with students of its own architecture."""
    spec = bundled_spec("digits-tiny", Path(prepare("digits-tiny", str(home))))
    students = ["same@width=0.5"]
    return WorkloadInfo.model_validate(materialize(spec.workload.model_dump(mode="json"), str(home), 300, students))


def accuracy(artifact, info):
    (outputs,) = call_module(load_module(artifact), load_inputs(info.evaluation))
    return float((outputs.argmax(1) == load_targets(info.evaluation)).mean())


def as_program(info: WorkloadInfo, kind: ModelFormat, folder) -> WorkloadInfo:
    """Return the workload as if its model had been given in another format."""
    module, example = load_module(info.source), torch.zeros(2, 4)
    if kind is ModelFormat.PT2:
        shapes = ({0: torch.export.Dim("b")},)
        torch.export.save(torch.export.export(module, (example,), dynamic_shapes=shapes), folder / "model.pt2")
    elif kind is ModelFormat.TORCHSCRIPT:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.trace(module, example), str(folder / "model.ts"))
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (example,),
                str(folder / "model.onnx"),
                dynamo=True,
                external_data=False,
                dynamic_shapes=({0: "b"},),
                input_names=["input_0"],
                verbose=False,
            )
    source = ArtifactRef(digest="d", directory=str(folder), format=kind, precision=Precision.FP32, size_mb=1)
    return info.model_copy(update={"source": source})


# --- distillation ----------------------------------------------------------------------------------------------------


def test_a_student_of_another_architecture_takes_the_models_place(workload, home):
    settings = {"student": "small", "max_s": 1000.0, "learning_rate": 1e-2}
    built = Distill().apply(workload.source, workload, settings, home / "artifacts")
    made = built.artifact
    assert (made.format, made.precision) == (ModelFormat.TORCH, Precision.FP32)
    assert (made.student, made.num_classes, made.reshaped) == ("small", 3, False)
    assert made.factory == learners("small")
    assert accuracy(made, workload) > 0.9
    assert built.facts["parameters"] == 4 * 8 + 8 + 2 * 8 + 8 * 3 + 3
    assert built.facts["flops"] == 2 * (4 * 8 + 8 * 3)
    assert set(built.facts) >= {"epochs", "planned_epochs", "loss", "agreement", "seconds"}
    assert "top1" in built.notes[0]


def test_the_same_question_gives_the_same_artifact(workload, home):
    first, again = (
        Distill().apply(workload.source, workload, {"student": "small", **QUICK}, home / "artifacts") for _ in range(2)
    )
    assert first.artifact == again.artifact


def test_a_narrower_version_of_a_trained_model_learns_from_it(tiny, home):
    assert [s.name for s in tiny.students] == ["width=0.5"]
    settings = {"student": "width=0.5", "max_s": 1000.0, "epochs": 4}
    built = Distill().apply(tiny.source, tiny, settings, home / "artifacts")
    assert (built.artifact.student, built.artifact.reshaped) == (None, True)
    assert built.artifact.factory == tiny.source.factory
    assert built.facts["parameters"] < 0.5 * tiny.parameters
    assert accuracy(built.artifact, tiny) > accuracy(tiny.source, tiny) - 0.05


@pytest.mark.parametrize("kind", [ModelFormat.PT2, ModelFormat.TORCHSCRIPT, ModelFormat.ONNX])
def test_a_model_of_any_format_teaches_a_student_that_has_a_factory(workload, home, tmp_path, kind):
    info = as_program(workload, kind, tmp_path)
    settings = {"student": "small", "learning_rate": 1e-2, "max_s": 1000.0, "epochs": 6, "features": True}
    built = Distill().apply(info.source, info, settings, home / "artifacts")
    assert accuracy(built.artifact, workload) > 0.7
    assert "The original has no linear layer to take features from: it learnt from outputs alone." in built.notes
    assert check_order(kind, [Step(transform="distill"), Step(transform="export-onnx")]) is ModelFormat.ONNX


def test_a_model_of_another_format_cannot_be_its_own_student(workload, home, tmp_path):
    info = as_program(workload, ModelFormat.PT2, tmp_path)
    with pytest.raises(TransformError, match=r"given as a PyTorch factory can be taken apart \(this one is pt2\)"):
        Distill().apply(info.source, info, {"student": "width=0.5"}, home / "artifacts")


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ("nobody", r"has no student 'nobody'\. Known: small, five, of_images, large, width=0\.5"),
        ("five", r"gives 1 output of shape \(5,\) an item, and the model 1 output of shape \(3,\)"),
        ("of_images", r"cannot take the model's inputs \(input_0 float32 \(4,\)\): RuntimeError"),
        ("large", "the student large is no smaller than the model: it has 515 parameters, and the model 259"),
    ],
)
def test_a_student_that_will_not_do_is_refused_before_anything_is_trained(workload, home, student, message):
    with pytest.raises(TransformError, match=message):
        Distill().apply(workload.source, workload, {"student": student}, home / "artifacts")


def test_a_student_has_to_be_named(workload, home):
    with pytest.raises(TransformError, match="settings of distill: student: is missing"):
        Distill().apply(workload.source, workload, {}, home / "artifacts")


def test_what_a_student_keeps_outside_of_its_state_is_noticed(workload, home):
    student = Student(name="forgetful", factory=learners("forgetful"))
    info = workload.model_copy(update={"students": (student,)})
    with pytest.raises(TransformError, match="built again, and with the weights just learnt"):
        Distill().apply(info.source, info, {"student": "forgetful", **QUICK}, home / "artifacts")


def test_evaluation_items_are_never_read(workload, home):
    missing = workload.evaluation.model_copy(update={"directory": "/nowhere"})
    info = workload.model_copy(update={"evaluation": missing})
    Distill().apply(info.source, info, {"student": "small", **QUICK}, home / "artifacts")


# --- fine-tuning -----------------------------------------------------------------------------------------------------


def damaged(info, home, share):
    """The model with so many of the smallest weights of each layer set to zero."""
    from tools.artifacts import write_artifact

    module = load_module(info.source)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                limit = parameter.abs().flatten().kthvalue(max(1, int(share * parameter.numel()))).values
                parameter[parameter.abs() <= limit] = 0
    return write_artifact(
        home / "artifacts",
        ModelFormat.TORCH,
        Precision.FP32,
        lambda folder: save_weights(module, folder / "weights.safetensors"),
        like=info.source,
    )


def test_what_was_lost_is_learnt_again_and_zeros_stay(tiny, home):
    artifact = damaged(tiny, home, 0.85)
    settings = {"max_s": 1000.0, "epochs": 4, "learning_rate": 2e-3}
    built = Finetune().apply(artifact, tiny, settings, home / "artifacts")
    assert accuracy(built.artifact, tiny) > accuracy(artifact, tiny) + 0.05
    assert built.facts["sparsity"] > 0.84
    assert built.facts["parameters"] == tiny.parameters
    assert (built.artifact.factory, built.artifact.reshaped) == (artifact.factory, False)


def test_zeros_may_be_learnt_from_where_that_is_wanted(tiny, home):
    artifact = damaged(tiny, home, 0.5)
    settings = {"max_s": 1000.0, "epochs": 1, "keep_zeros": False}
    assert Finetune().apply(artifact, tiny, settings, home / "artifacts").facts["sparsity"] < 0.1


def test_a_student_is_fine_tuned_as_what_it_is(workload, home):
    first = Distill().apply(workload.source, workload, {"student": "small", **QUICK}, home / "artifacts").artifact
    again = Finetune().apply(first, workload, QUICK, home / "artifacts").artifact
    assert (again.student, again.num_classes, again.factory) == ("small", 3, first.factory)
    assert np.isfinite(call_module(load_module(again), batch_of(workload.calibration, 4))[0]).all()


def test_a_step_runs_by_its_name_as_a_workers_task(workload, home):
    step = Step(transform="finetune", settings={"max_s": 1000.0, "epochs": 1})
    made = apply_step(
        workload.source.model_dump(mode="json"),
        workload.model_dump(mode="json"),
        step.model_dump(mode="json"),
        str(home / "artifacts"),
    )
    assert made["kind"] == "build"
    assert made["facts"]["epochs"] == 1
