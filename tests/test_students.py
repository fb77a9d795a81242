"""Students: which ones there are, and how they are built."""

import pytest
import torch
from learning_support import learners, load

from tools.contracts import ModelFormat, Student
from tools.errors import TransformError, WorkloadError
from tools.workloads.students import build_student, identify


def student(function, **fields):
    return Student(name=function, factory=learners(function), **fields)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(tmp_path_factory.mktemp("model")).source


def test_a_model_of_a_known_family_has_students_that_are_found_without_being_named():
    found = identify(None, "torchvision.models.resnet.ResNet")
    assert [(s.name, s.width) for s in found] == [
        ("resnet18", 1.0),
        ("resnet18@width=0.5", 0.5),
        ("resnet18@width=0.25", 0.25),
    ]
    assert all(s.code for s in found)


def test_a_model_of_an_unknown_architecture_can_be_narrower_or_shallower_and_another_has_no_students_of_itself():
    assert [s.name for s in identify(None, "mine.Net")] == ["width=0.5", "depth=0.5"]
    assert identify(None, None) == ()


def test_a_student_whose_file_is_missing_is_refused_by_its_name(tmp_path):
    with pytest.raises(WorkloadError, match=r"nowhere\.py: no such file"):
        identify([f"{tmp_path / 'nowhere.py'}:small"], None)


@pytest.mark.parametrize("factory", ["small", "small_with_keywords"])
def test_a_factory_that_takes_the_number_of_classes_is_given_the_models(model, factory):
    built = build_student(student(factory, code="c"), model, classes=3)
    assert built.module(torch.zeros(2, 4)).shape == (2, 3)
    assert (built.num_classes, built.factory, built.code) == (3, learners(factory), "c")
    assert not built.reshaped


def test_a_factory_that_takes_no_number_of_classes_is_called_without(model):
    built = build_student(student("five"), model, classes=3)
    assert built.module(torch.zeros(2, 4)).shape == (2, 5)
    assert built.num_classes is None


def test_a_student_is_the_same_each_time_it_is_built(model):
    first, second = (build_student(student("small"), model, classes=3).module.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_student_of_the_models_own_architecture_begins_with_its_weights(model):
    built = build_student(Student(name="width=0.5", width=0.5), model, classes=3)
    assert built.module(torch.tensor([[1.0, 2.0, 3.0, 9.0]])).tolist() == [[4.0, 8.0, 12.0]]
    assert (built.factory, built.num_classes) == (model.factory, None)
    assert built.code


def test_a_model_that_no_factory_builds_cannot_be_its_own_student(model):
    program = model.model_copy(update={"format": ModelFormat.ONNX, "factory": None})
    with pytest.raises(TransformError, match=r"width=0\.5 is a part of the model itself.*\(this one is onnx\)"):
        build_student(Student(name="width=0.5", width=0.5), program, classes=3)
