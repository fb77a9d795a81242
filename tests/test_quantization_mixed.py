"""Mixed precision: which layers go back to float, judged on what, and how it is told."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantization_support import accuracy, load_sensitive

from tools.contracts import Precision
from tools.errors import TransformError
from tools.transforms.convert_openvino import ConvertOpenVino
from tools.transforms.export_onnx import ExportOnnx
from tools.transforms.quantize_mixed import QuantizeMixed, QuantizeMixedOnnx
from tools.transforms.quantize_nncf import QuantizeNncf
from tools.transforms.quantize_static import QuantizeStatic
from tools.transforms.sensitivity.choice import (
    LONGEST_TABLE,
    LayerCost,
    by_value,
    clear_difference_ms,
    fewest,
    table,
    without_idle,
)
from tools.transforms.sensitivity.judge import Items, Judge, read_items

NAMES = tuple("abcdefghijklmnop")
costs = st.lists(st.tuples(st.floats(0, 10), st.floats(-0.1, 1), st.floats(0, 5)), min_size=1, max_size=len(NAMES)).map(
    lambda rows: [LayerCost(name, *row) for name, row in zip(NAMES, rows, strict=False)]
)


@pytest.fixture(scope="module")
def sensitive(tmp_path_factory):
    return load_sensitive(tmp_path_factory.mktemp("sensitive"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def onnx(sensitive, root):
    return ExportOnnx().apply(sensitive.source, sensitive, {}, root).artifact


@pytest.fixture(scope="module")
def openvino(onnx, sensitive, root):
    return ConvertOpenVino().apply(onnx, sensitive, {}, root).artifact


@pytest.fixture(params=["openvino", "onnx"])
def way(request, openvino, onnx):
    """Source, full INT8 and mixed INT8 of each library."""
    if request.param == "openvino":
        return openvino, QuantizeNncf(), QuantizeMixed()
    return onnx, QuantizeStatic(), QuantizeMixedOnnx()


def test_the_planted_layer_ruins_full_int8_and_stays_in_float(way, sensitive, root):
    source, full, mixed = way
    exact = accuracy(source, sensitive)
    assert accuracy(full.apply(source, sensitive, {}, root).artifact, sensitive) < exact - 0.05
    made = mixed.apply(source, sensitive, {"max_drop": 0.01}, root)
    assert made.artifact.precision is Precision.INT8_MIXED
    assert accuracy(made.artifact, sensitive) >= exact - 0.02
    kept = [row for row in made.sensitivity if row.kept_float]
    # ONNX Runtime ties the quantization of a layer's output to it: the layer before makes what the planted one reads
    expected = 1 if isinstance(mixed, QuantizeMixed) else 2
    assert len(kept) == made.facts["layers_float"] == expected
    assert tuple(kept) == made.sensitivity[:expected]
    assert made.facts["quantized_layers"] == 6 - expected
    assert made.facts["judged_drop"] <= 0.01 < made.facts["judged_drop_int8"]
    assert f"{expected} of 7 layers stay in float" in made.notes[0]


def test_full_int8_is_kept_where_the_budget_allows_it(way, sensitive, root):
    source, _, mixed = way
    made = mixed.apply(source, sensitive, {"max_drop": 1.0}, root)
    assert made.artifact.precision is Precision.INT8_STATIC
    assert made.sensitivity == ()
    assert made.facts["layers_float"] == 0


def test_a_negative_budget_is_refused(way, sensitive, root):
    source, _, mixed = way
    with pytest.raises(TransformError, match="max_drop"):
        mixed.apply(source, sensitive, {"max_drop": -0.1}, root)


def test_judging_uses_calibration_and_training_items_and_no_others(sensitive):
    alone = read_items(sensitive.model_copy(update={"training": None}))
    both = read_items(sensitive)
    assert alone.n == sensitive.calibration.n
    assert both.n == 1000
    np.testing.assert_array_equal(both.inputs["input_0"][: alone.n], alone.inputs["input_0"])


def test_without_targets_the_float_model_has_the_say(sensitive):
    outputs = (np.eye(10, dtype=np.float32),)
    judge = Judge(sensitive, Items({"input_0": np.zeros((10, 1))}, None), outputs)
    assert judge.drop(outputs) == 0
    assert judge.error(outputs) == 0
    assert judge.drop((np.roll(outputs[0], 1, axis=1),)) == 1


def test_a_metric_that_should_be_low_drops_when_it_rises(sensitive):
    lower = sensitive.model_copy(update={"metric": "mse", "higher_is_better": False})
    items = Items({"input_0": np.zeros((4, 1))}, np.zeros((4, 2), np.float32))
    judge = Judge(lower, items, (np.ones((4, 2), np.float32),))
    assert judge.drop((np.full((4, 2), 2, np.float32),)) == 3
    assert judge.drop((np.zeros((4, 2), np.float32),)) == -1


def test_outputs_that_are_not_finite_are_the_worst_and_of_the_float_model_an_error(sensitive):
    good, bad = (np.eye(10, dtype=np.float32),), (np.full((10, 10), np.nan, np.float32),)
    items = Items({"input_0": np.zeros((10, 1))}, np.arange(10))
    judge = Judge(sensitive, items, good)
    assert judge.drop(bad) == judge.error(bad) == math.inf
    with pytest.raises(TransformError, match="not finite"):
        Judge(sensitive, items, bad)


@given(st.integers(1, 200), st.data())
def test_the_fewest_layers_are_found_in_few_looks(total, data):
    needed = data.draw(st.integers(1, total))
    order = [str(i) for i in range(total)]
    looked = []

    def acceptable(kept):
        looked.append(len(kept))
        return len(kept) >= needed

    assert fewest(order, acceptable) == frozenset(order[:needed])
    assert len(looked) <= 2 * math.log2(total) + 2
    assert total not in looked or needed == total or len(set(looked)) == len(looked)


@given(costs, st.sets(st.sampled_from(NAMES), min_size=1), st.integers(0, 20))
def test_only_what_is_not_needed_is_quantized_again(found, needed, tries):
    layers = {cost.layer for cost in found}
    needed &= layers
    left = without_idle(layers, found, lambda kept: needed <= kept, most_tries=tries)
    assert needed <= left <= layers
    assert left
    if tries >= len(layers) and needed:
        assert left == needed


@given(costs)
def test_layers_are_ordered_by_error_per_millisecond(found):
    order = by_value(found)
    assert sorted(order) == sorted(cost.layer for cost in found)
    dear = [cost for cost in found if cost.float_ms > 0.002 * sum(c.float_ms for c in found)]
    values = {cost.layer: cost.error / cost.float_ms for cost in dear}
    ranked = [values[layer] for layer in order if layer in values]
    assert ranked == sorted(ranked, reverse=True)


@given(costs, st.sets(st.sampled_from(NAMES)))
def test_the_table_starts_with_the_most_sensitive(found, kept):
    rows = table(found, kept)
    assert [row.drop for row in rows] == sorted((cost.drop for cost in found), reverse=True)
    assert {row.layer for row in rows if row.kept_float} == kept & {cost.layer for cost in found}


def test_a_long_table_ends_but_shows_what_stays_in_float():
    many = [LayerCost(f"layer{i}", 0.0, -float(i), 0.1) for i in range(100)]
    rows = table(many, {"layer99"})
    assert len(rows) == LONGEST_TABLE + 1
    assert rows[-1].kept_float


@given(st.lists(st.floats(0.1, 10), min_size=5, max_size=40))
def test_times_that_do_not_clearly_differ_cost_nothing(times):
    assert clear_difference_ms(times, times) == 0
    slower = [time + 100 for time in times]
    assert clear_difference_ms(slower, times) == pytest.approx(100)
    assert clear_difference_ms(times, slower) == 0
