"""INT8 in its variants on a real net: what the settings do, what is told, and what is refused."""

import numpy as np
import pytest
import torch
from quantization_support import accuracy, kinds, load_sensitive, run, with_calibration
from safetensors.torch import load_file, save_file

from simulations.sensitive.model import build
from simulations.sensitive.train import DECADES, plant
from tools.artifacts import model_file
from tools.contracts import Precision
from tools.errors import TransformError
from tools.spec import ModelSpec
from tools.transforms.convert_openvino import ConvertOpenVino
from tools.transforms.export_onnx import ExportOnnx
from tools.transforms.graph_facts import (
    OPTIMIZATION_LEVELS,
    TOTAL,
    node_counts,
    optimized_node_counts,
    quantized_layers,
)
from tools.transforms.quantize_aware import QuantizeAware
from tools.transforms.quantize_dynamic import QuantizeDynamic
from tools.transforms.quantize_nncf import QuantizeNncf
from tools.transforms.quantize_static import QuantizeStatic

LAYERS = 6
"""Convolutions and linear layers of the net."""


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    """The net as it was before one layer was made sensitive."""
    folder = tmp_path_factory.mktemp("easy")
    sensitive = load_sensitive(folder)
    model = build()
    model.load_state_dict(load_file(model_file(sensitive.source)))
    plant(model, decades=-DECADES)
    weights = folder / "easy.safetensors"
    save_file(model.state_dict(), weights)
    spec_model = {"factory": sensitive.source.factory, "weights": str(weights)}
    return load_sensitive(folder, model=ModelSpec.model_validate(spec_model))


@pytest.fixture(scope="module")
def ruined(tmp_path_factory):
    """The sensitive net, which rounding ruins, with few items to train with."""
    info = load_sensitive(tmp_path_factory.mktemp("ruined"))
    return info.model_copy(update={"training": info.calibration})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def onnx(easy, root):
    return ExportOnnx().apply(easy.source, easy, {}, root).artifact


@pytest.fixture(scope="module")
def openvino(onnx, easy, root):
    return ConvertOpenVino().apply(onnx, easy, {}, root).artifact


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"symmetric": True},
        {"per_channel": False},
        {"method": "entropy"},
        {"method": "percentile", "reduce_range": True},
    ],
    ids=str,
)
def test_static_quantization_quantizes_every_layer_and_keeps_the_accuracy(onnx, easy, root, settings):
    made = QuantizeStatic().apply(onnx, easy, settings, root)
    assert made.artifact.precision is Precision.INT8_STATIC
    assert made.facts["quantized_layers"] == LAYERS
    assert made.facts["nodes_before"] == kinds(onnx)[TOTAL]
    assert made.facts["nodes_after"] == kinds(made.artifact)[TOTAL]
    assert accuracy(made.artifact, easy) >= accuracy(onnx, easy) - 0.02


def test_ranges_differ_by_method(onnx, easy, root):
    outputs = [
        run(QuantizeStatic().apply(onnx, easy, {"method": m}, root).artifact, easy) for m in ("minmax", "entropy")
    ]
    assert not np.array_equal(*outputs)


@pytest.mark.parametrize("settings", [{}, {"preset": "mixed"}, {"model_type": "transformer", "smooth": 0.5}], ids=str)
def test_nncf_quantizes_every_layer_and_keeps_the_accuracy(openvino, easy, root, settings):
    made = QuantizeNncf().apply(openvino, easy, settings, root)
    assert made.facts["quantized_layers"] == LAYERS
    assert made.facts["nodes_after"] > made.facts["nodes_before"]
    assert accuracy(made.artifact, easy) >= accuracy(openvino, easy) - 0.02


def test_dynamic_quantization_tells_its_facts(onnx, easy, root):
    made = QuantizeDynamic().apply(onnx, easy, {}, root)
    assert made.artifact.precision is Precision.INT8_DYNAMIC
    assert made.facts["quantized_layers"] == LAYERS


def test_the_same_settings_make_the_same_model(onnx, openvino, easy, root):
    for transform, source in ((QuantizeStatic(), onnx), (QuantizeNncf(), openvino)):
        first, second = (run(transform.apply(source, easy, {}, root).artifact, easy) for _ in range(2))
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("transform", "settings", "message"),
    [
        (QuantizeStatic(), {"method": "magic"}, "calibration method 'magic'.*minmax"),
        (QuantizeNncf(), {"preset": "fast"}, "preset 'fast'.*performance"),
        (QuantizeNncf(), {"model_type": "llm"}, "'llm'.*transformer"),
        (QuantizeNncf(), {"smooth": 0.5}, "transformers only"),
    ],
)
def test_a_setting_that_the_library_does_not_know_is_refused(onnx, openvino, easy, root, transform, settings, message):
    source = onnx if isinstance(transform, QuantizeStatic) else openvino
    with pytest.raises(TransformError, match=message):
        transform.apply(source, easy, settings, root)


def test_one_calibration_item_is_enough(onnx, openvino, easy, root, tmp_path):
    one = with_calibration(easy, tmp_path, np.ones((1, 1, 32, 32), np.float32))
    for transform, source in ((QuantizeStatic(), onnx), (QuantizeNncf(), openvino)):
        assert transform.apply(source, one, {}, root).facts["quantized_layers"] == LAYERS


def test_nan_in_a_calibration_item_is_named(onnx, openvino, easy, root, tmp_path):
    inputs = np.ones((12, 1, 32, 32), np.float32)
    inputs[5, 0, 3, 3] = np.nan
    spoilt = with_calibration(easy, tmp_path, inputs)
    for transform, source in ((QuantizeStatic(), onnx), (QuantizeNncf(), openvino)):
        with pytest.raises(TransformError, match="calibration item 5 has NaN"):
            transform.apply(source, spoilt, {}, root)


def test_items_that_do_not_fill_a_fixed_batch_are_refused(onnx, easy, root, tmp_path):
    few = with_calibration(easy, tmp_path, np.ones((3, 1, 32, 32), np.float32))
    fixed = onnx.model_copy(update={"fixed_batch": 8})
    with pytest.raises(TransformError, match="3 calibration items do not fill one batch of 8"):
        QuantizeStatic().apply(fixed, few, {}, root)


def test_a_quantized_model_is_not_quantized_again(onnx, openvino, easy, root):
    for transform, source in ((QuantizeStatic(), onnx), (QuantizeNncf(), openvino)):
        made = transform.apply(source, easy, {}, root).artifact
        with pytest.raises(TransformError, match="quantized already"):
            transform.apply(made, easy, {}, root)


def test_each_level_of_optimization_leaves_no_more_operators(onnx):
    counts = [optimized_node_counts(model_file(onnx), level) for level in OPTIMIZATION_LEVELS]
    assert counts[0] == node_counts(model_file(onnx))
    assert counts[0]["Relu"] > counts[2].get("Relu", 0)
    assert counts[2][TOTAL] < counts[0][TOTAL]


def test_a_float_model_has_no_quantized_layers(onnx, openvino):
    assert quantized_layers(model_file(onnx)) == quantized_layers(model_file(openvino)) == 0
    assert node_counts(model_file(openvino))["Convolution"] == 5
    assert node_counts(model_file(onnx))["Conv"] == 5


def test_training_with_quantizers_brings_the_outputs_closer(ruined, root):
    made = QuantizeAware().apply(ruined.source, ruined, {"epochs": 3, "learning_rate": 1e-3}, root)
    assert made.artifact.precision is Precision.INT8_STATIC
    assert made.facts["quantized_layers"] == LAYERS
    assert made.facts["epochs"] == 3
    assert made.facts["loss"] < made.facts["loss_before"]
    assert made.artifact.size_mb < 0.6 * ruined.source.size_mb


def test_a_training_that_makes_it_worse_is_not_kept(easy, root):
    few = easy.model_copy(update={"training": easy.calibration})
    made = QuantizeAware().apply(easy.source, few, {"epochs": 1, "learning_rate": 1.0}, root)
    assert made.facts["loss"] == made.facts["loss_before"]
    assert accuracy(made.artifact, easy) >= 0.95


def test_training_with_quantizers_is_the_same_for_the_same_seed(ruined, root):
    first, second, other = (
        run(QuantizeAware().apply(ruined.source, ruined, {"epochs": 1, "seed": seed}, root).artifact, ruined)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_training_with_quantizers_needs_training_data(easy, root):
    with pytest.raises(TransformError, match="no training data"):
        QuantizeAware().apply(easy.source, easy.model_copy(update={"training": None}), {}, root)


@pytest.fixture(autouse=True)
def _few_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
