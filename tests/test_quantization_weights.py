"""Weights in 4 bits: which layers, how much smaller, and what is refused."""

import numpy as np
import pytest
from quantization_support import kinds, load_sensitive, run

from tools.contracts import Precision, WorkloadInfo
from tools.errors import TransformError
from tools.spec import WorkloadSpec
from tools.transforms.convert_openvino import ConvertOpenVino
from tools.transforms.export_onnx import ExportOnnx
from tools.transforms.quantize_weights import QuantizeWeights, QuantizeWeightsOnnx
from tools.workloads.loading import materialize

NET = """
import numpy as np
import torch


def build():
    return torch.nn.Sequential(
        torch.nn.Linear(96, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256, bias=False), torch.nn.ReLU(),
        torch.nn.Linear(256, 8),
    )


def data():
    yield np.random.default_rng(0).standard_normal((400, 96)).astype(np.float32), np.arange(400) % 8
"""


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    folder = tmp_path_factory.mktemp("linear")
    (folder / "net.py").write_text(NET)
    spec = WorkloadSpec.model_validate(
        {
            "name": "linear",
            "model": {"factory": f"{folder}/net.py:build"},
            "evaluation": {"factory": f"{folder}/net.py:data"},
        }
    )
    return WorkloadInfo.model_validate(materialize(spec.model_dump(mode="json"), str(folder)))


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def way(request, linear, tmp_path_factory):
    root = tmp_path_factory.mktemp("artifacts")
    exported = ExportOnnx().apply(linear.source, linear, {}, root).artifact
    if request.param == "onnx":
        return exported, QuantizeWeightsOnnx()
    return ConvertOpenVino().apply(exported, linear, {}, root).artifact, QuantizeWeights()


@pytest.mark.parametrize("settings", [{}, {"symmetric": True, "group_size": 32}], ids=str)
def test_large_linear_layers_are_packed_and_still_compute_about_the_same(way, linear, tmp_path, settings):
    source, transform = way
    made = transform.apply(source, linear, settings, tmp_path)
    assert made.artifact.precision is Precision.INT4_WEIGHTS
    assert made.facts["quantized_layers"] == 2  # the last one has eight outputs
    assert made.artifact.size_mb < 0.3 * source.size_mb
    exact, packed = run(source, linear), run(made.artifact, linear)
    assert np.square(exact - packed).mean() < 0.05 * exact.var()
    assert not np.array_equal(exact, packed)


def test_smaller_groups_are_more_accurate(way, linear, tmp_path):
    source, transform = way
    exact = run(source, linear)
    errors = [
        np.square(run(transform.apply(source, linear, {"group_size": group}, tmp_path).artifact, linear) - exact).mean()
        for group in (16, 128)
    ]
    assert errors[0] < errors[1]


def test_a_group_size_that_no_kernel_takes_is_refused(way, linear, tmp_path):
    source, transform = way
    with pytest.raises(TransformError, match=r"groups of 7.*16, 32"):
        transform.apply(source, linear, {"group_size": 7}, tmp_path)


def test_a_model_of_convolutions_is_refused(tmp_path):
    convolutions = load_sensitive(tmp_path)
    exported = ExportOnnx().apply(convolutions.source, convolutions, {}, tmp_path).artifact
    converted = ConvertOpenVino().apply(exported, convolutions, {}, tmp_path).artifact
    for source, transform in ((exported, QuantizeWeightsOnnx()), (converted, QuantizeWeights())):
        with pytest.raises(TransformError, match=r"hold 0.0% of its weights"):
            transform.apply(source, convolutions, {}, tmp_path)


def test_the_packed_operators_are_those_of_the_runtime(linear, tmp_path):
    exported = ExportOnnx().apply(linear.source, linear, {}, tmp_path).artifact
    made = QuantizeWeightsOnnx().apply(exported, linear, {}, tmp_path)
    assert kinds(made.artifact)["MatMulNBits"] == 2
