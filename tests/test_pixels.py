"""Items that are normalized 8-bit images, and models that take the pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.space import techniques_of
from tools.contracts import Normalization, Precision, Recipe, Step, WorkloadInfo
from tools.errors import SpecError, TransformError, WorkloadError
from tools.measure.edge_cases import run_edge_cases
from tools.measure.served import load_for, load_runner
from tools.measure.trial import run_trial
from tools.runtimes import get_runtime
from tools.spec import load_spec
from tools.transforms import apply_step
from tools.transforms.fold_normalization import folding_settings
from tools.workloads.datasets import batch_of
from tools.workloads.loading import materialize
from tools.workloads.pixels import factors, to_pixels

CODE = """
import numpy as np
import torch

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def build():
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3, stride=2), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 10),
    )


def evaluation():
    draw = np.random.default_rng(1)
    for _ in range(4):
        pixels = draw.integers(0, 256, (32, 3, 16, 16))
        images = (pixels.astype(np.float32) / 255 - MEAN[:, None, None]) / STD[:, None, None]
        yield images.astype(np.float32), draw.integers(0, 10, 32)
"""
SPEC = """
workload:
  name: pixels
  model: {factory: user.py:build}
  evaluation: {factory: user.py:evaluation}
  normalization: {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}
hardware: {price_per_hour_usd: 0.1}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pixels")
    (folder / "user.py").write_text(CODE)
    (folder / "tuning.yaml").write_text(SPEC)
    return folder


@pytest.fixture(scope="module")
def info(folder):
    return load(folder)


def load(folder, **changes):
    spec = load_spec(folder / "tuning.yaml").workload
    workload = spec.model_copy(update=changes)
    return WorkloadInfo.model_validate(materialize(workload.model_dump(mode="json"), str(folder)))


def build(info, folder, *steps):
    artifact = info.source
    for step in steps:
        made = apply_step(
            artifact=artifact.model_dump(mode="json"),
            workload=info.model_dump(mode="json"),
            step=step.model_dump(mode="json"),
            root=str(folder / "artifacts"),
        )
        artifact = type(artifact).model_validate(made["artifact"])
    return artifact


def folded(info, runtime, *quantize):
    last = "fold-normalization" if runtime == "openvino" else "fold-normalization-onnx"
    names = ["export-onnx", *(["convert-openvino"] if runtime == "openvino" else []), *quantize]
    return (*(Step(transform=n) for n in names), Step(transform=last, settings=folding_settings(info.normalization)))


@pytest.mark.parametrize(
    ("runtime", "quantize", "precision"),
    [
        ("onnxruntime", (), Precision.FP32),
        ("openvino", (), Precision.FP32),
        ("onnxruntime", ("quantize-static",), Precision.INT8_STATIC),
        ("openvino", ("quantize-nncf",), Precision.INT8_STATIC),
    ],
)
def test_a_model_that_takes_pixels_answers_as_before(info, folder, runtime, quantize, precision):
    steps = folded(info, runtime, *quantize)
    recipe = Recipe(runtime=runtime, steps=steps, precision=precision)
    as_floats, as_pixels = build(info, folder, *steps[:-1]), build(info, folder, *steps)
    example = batch_of(info.evaluation, 8)
    before, after = (
        load_runner(get_runtime(runtime), artifact, recipe, info, example, 1)(example)[0]
        for artifact in (as_floats, as_pixels)
    )
    assert as_pixels.pixels == info.normalization
    assert as_pixels.digest != as_floats.digest
    np.testing.assert_allclose(after, before, atol=0.02 * float(np.std(before)))


def test_what_is_timed_is_fed_pixels(info, folder):
    steps = folded(info, "onnxruntime")
    recipe = Recipe(runtime="onnxruntime", steps=steps)
    call = load_for(get_runtime("onnxruntime"), build(info, folder, *steps), recipe, info, 4, 1)
    fed = []
    call.runner, run = (lambda inputs: fed.append(inputs) or run(inputs)), call.runner
    call()
    assert fed[0]["input_0"].dtype == np.uint8
    assert fed[0]["input_0"].shape == (4, 3, 16, 16)


def test_a_trial_of_it_has_the_same_accuracy_and_survives_unusual_inputs(info, folder, tmp_path):
    steps = folded(info, "openvino")
    recipe, artifact = Recipe(runtime="openvino", steps=steps), build(info, folder, *steps)
    common = {"workload": info.model_dump(mode="json"), "threads": 1}
    measure = {"batch_sizes": [1], "point_max_s": 0.3, "with_accuracy": True, "build_s": 0.0, **common}
    reference = str(tmp_path / "eager.npz")
    plain = Recipe(runtime="eager")
    run_trial(
        artifact=info.source.model_dump(mode="json"),
        recipe=plain.model_dump(mode="json"),
        raw=reference,
        reference=None,
        **measure,
    )
    of_it = {"artifact": artifact.model_dump(mode="json"), "recipe": recipe.model_dump(mode="json")}
    tried = run_trial(**of_it, raw=str(tmp_path / "pixels.npz"), reference=reference, **measure)
    assert tried["accuracy"]["changed_items"] == 0
    cases = run_edge_cases(**of_it, batch_sizes=[1, 8], **common)["cases"]
    assert all(case["passed"] for case in cases), cases


@given(
    pixels=st.lists(st.integers(0, 255), min_size=4, max_size=4),
    mean=st.floats(-1, 1),
    std=st.floats(0.05, 4),
    scale=st.sampled_from([1.0, 127.5, 255.0]),
)
def test_pixels_come_back_as_they_were(pixels, mean, std, scale):
    normalization = Normalization(input="x", mean=(mean,), std=(std,), scale=scale)
    given_pixels = np.asarray(pixels, np.uint8).reshape(1, 1, 2, 2)
    subtract, multiply = factors(normalization, 4)
    normalized = (given_pixels.astype(np.float32) - subtract) * multiply
    np.testing.assert_array_equal(to_pixels(normalization, {"x": normalized})["x"], given_pixels)


@pytest.mark.parametrize(
    ("normalization", "message"),
    [
        ({"mean": (0.5, 0.5), "std": (0.2, 0.2)}, "has 3 channels"),
        ({"mean": (0.5,), "std": (0.2,)}, "does not hold 8-bit images"),
        ({"mean": (0.5,), "std": (0.2,), "axis": 7}, "no axis 7"),
        ({"mean": (0.5,), "std": (0.2,), "input": "image"}, "must name one of the inputs input_0"),
    ],
)
def test_a_normalization_that_is_not_theirs_is_refused_when_loading(folder, normalization, message):
    from tools.spec import NormalizationSpec

    with pytest.raises(WorkloadError, match=message):
        load(folder, normalization=NormalizationSpec(**normalization))


def test_a_deviation_of_zero_is_refused_in_the_spec(folder, tmp_path):
    (tmp_path / "tuning.yaml").write_text(SPEC.replace("std: [0.229", "std: [0.0"))
    with pytest.raises(SpecError, match=r"workload\.normalization\.std: each must be above 0"):
        load_spec(tmp_path / "tuning.yaml")


def test_folding_twice_or_what_the_workload_does_not_say_is_refused(info, folder):
    steps = folded(info, "onnxruntime")
    with pytest.raises(TransformError, match="takes pixels already"):
        build(info, folder, *steps, steps[-1])
    without = info.model_copy(update={"normalization": None})
    with pytest.raises(TransformError, match="does not say"):
        build(without, folder, *steps)


def test_it_is_a_technique_that_can_be_left_out(info):
    assert frozenset({"fold-normalization"}) in techniques_of(
        Recipe(runtime="openvino", steps=folded(info, "openvino"))
    )
