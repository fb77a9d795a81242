"""INT8 in PyTorch's own format: quantized by torchao, run by Inductor."""

import importlib.util

import numpy as np
import pytest
import torch

from tools.artifacts import model_file
from tools.contracts import ModelFormat, Precision, Recipe, Step, WorkloadInfo
from tools.errors import TransformError, UnavailableError
from tools.runtimes import get_runtime
from tools.spec import WorkloadSpec
from tools.transforms import check_order
from tools.transforms.quantize_pt2e import QuantizePt2e
from tools.workloads.datasets import batch_of
from tools.workloads.loading import materialize

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")

NET = """
import numpy as np
import torch


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn = torch.nn.BatchNorm2d(8)
        self.second = torch.nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.relu = torch.nn.ReLU()

    def forward(self, x):
        return self.relu(self.second(self.relu(self.bn(self.first(x)))) + x)


class Choosy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(12, 4)

    def forward(self, x):
        if x.sum() > 0:
            return self.head(x)
        return self.head(-x)


def residual():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), Block(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(8, 4),
    )


def without_layers():
    return torch.nn.Flatten()


def choosy():
    return Choosy()


def images():
    yield np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32), np.arange(32) % 4


def rows():
    yield np.random.default_rng(0).standard_normal((32, 12)).astype(np.float32), np.arange(32) % 4
"""


def load(folder, model, data="images"):
    (folder / "net.py").write_text(NET)
    spec = WorkloadSpec.model_validate(
        {
            "name": "small",
            "model": {"factory": f"{folder}/net.py:{model}"},
            "evaluation": {"factory": f"{folder}/net.py:{data}"},
        }
    )
    return WorkloadInfo.model_validate(materialize(spec.model_dump(mode="json"), str(folder)))


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    return load(tmp_path_factory.mktemp("residual"), "residual")


@pytest.fixture(scope="module")
def built(residual, tmp_path_factory):
    return QuantizePt2e().apply(residual.source, residual, {}, tmp_path_factory.mktemp("artifacts"))


def run(artifact, info, name, batch):
    example = batch_of(info.evaluation, batch)
    recipe = Recipe(runtime=name, precision=Precision.INT8_STATIC)
    runner = get_runtime(name).load(artifact, recipe, batch_size=batch, threads=1, example=example)
    return runner(example)[0]


def test_a_recipe_may_prune_before_it_and_export_nothing_after_it():
    assert check_order(ModelFormat.TORCH, [Step(transform="quantize-pt2e")]) is ModelFormat.PT2
    with pytest.raises(TransformError, match="late"):
        check_order(ModelFormat.TORCH, [Step(transform="quantize-pt2e"), Step(transform="export-onnx")])


def test_all_layers_of_a_residual_net_are_quantized(built):
    assert built.artifact.format is ModelFormat.PT2
    assert built.artifact.precision is Precision.INT8_STATIC
    assert built.facts == {"layers": 4, "quantized_layers": 4}


def test_the_float_weights_are_gone_from_the_file(built):
    program = torch.export.load(model_file(built.artifact))
    assert all(value.ndim < 2 or value.dtype is torch.int8 for value in program.state_dict.values())


def test_the_quantized_net_answers_nearly_as_the_float_one_at_any_batch_size(built, residual):
    for batch in (1, 7):
        right = run(residual.source, residual, "eager", batch)
        answer = run(built.artifact, residual, "eager", batch)
        assert answer.shape == right.shape
        assert np.abs(answer - right).max() < 0.15 * np.abs(right).max()
        assert not np.array_equal(answer, right)


# torch keeps a trace of a global hook with keywords after it was removed: a profile in this process leaves one
@pytest.mark.filterwarnings("ignore:Using `torch.compile")
def test_compiled_it_runs_integer_kernels_and_answers_the_same(built, residual):
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    answer = run(built.artifact, residual, "compiled", 4)
    assert counters["inductor"]["qconv_weight_prepack_matcher_count"] == 3
    np.testing.assert_allclose(answer, run(built.artifact, residual, "eager", 4), atol=0.02)


def test_a_model_without_layers_to_quantize_is_refused(tmp_path):
    info = load(tmp_path, "without_layers")
    with pytest.raises(TransformError, match="no layer"):
        QuantizePt2e().apply(info.source, info, {}, tmp_path / "artifacts")


def test_a_half_precision_model_is_refused(residual, tmp_path):
    half = residual.source.model_copy(update={"precision": Precision.BF16})
    with pytest.raises(TransformError, match="bf16"):
        QuantizePt2e().apply(half, residual, {}, tmp_path)


def test_without_torchao_the_transform_and_the_runtime_say_what_to_install(residual, built, tmp_path, monkeypatch):
    def find_nothing(name, package=None):
        return None

    monkeypatch.setattr("tools.transforms.quantize_pt2e.find_spec", find_nothing)
    monkeypatch.setattr("tools.runtimes.torch_runner.find_spec", find_nothing)
    with pytest.raises(TransformError, match=r"infertune\[torchao\]"):
        QuantizePt2e().apply(residual.source, residual, {}, tmp_path)
    with pytest.raises(UnavailableError, match=r"infertune\[torchao\]"):
        run(built.artifact, residual, "eager", 2)
