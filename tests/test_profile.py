"""Where time goes: rows, shares, FLOPs by hand, the request's stages, and the sentence at the end."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tools.artifacts import model_file_name, write_artifact
from tools.contracts import Hardware, LayerProfile, ModelFormat, Precision, ProfileResult, Roofline, WorkloadInfo
from tools.measure import layers_torch, profile
from tools.measure import roofline as roofline_module
from tools.measure.flops_onnx import node_flops
from tools.measure.layers import (
    OPERATOR_KINDS,
    OTHER,
    Layer,
    Measured,
    kind_of,
    layer_profiles,
    operator_shares,
    typical_ms,
)
from tools.measure.layers_torch import ModuleCall, profile_modules
from tools.measure.profile_bottleneck import bottleneck
from tools.worker import Returned, Worker
from tools.workloads.datasets import write_dataset
from tools.workloads.modules import load_module
from tools.workloads.weights import save_weights

MACHINE = Hardware(cpu="test", architecture="x86_64", cores=2, memory_mb=16000, flags=("avx512_vnni",))
PEAKS = Roofline(fp32_gflops=300.0, memory_gb_per_s=30.0)
MODELS = '''
import numpy as np
import torch
from torch import nn


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.relu = nn.ReLU()
        self.linear = nn.Linear(16, 10)

    def forward(self, x):
        return self.linear(self.relu(self.conv(x)).mean((2, 3)))


class Attention(nn.Module):
    """Attention by functions: its products are in no submodule."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(16, 48)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return nn.functional.scaled_dot_product_attention(q, k, v)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(16, 16)

    def forward(self, x):
        return self.shared(self.shared(x)) + 1


class Named(nn.Module):
    """Inputs by name, an embedding, a dict as output."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(1000, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, mask, ids):
        return {"logits": self.head((self.embedding(ids) * mask[..., None]).sum(1))}


def encoder():
    return nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)


def multihead():
    return Multihead()


class Multihead(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0]


def lstm():
    return nn.LSTM(16, 8, batch_first=True)


def raw():
    yield [bytes([i]) * 3072 for i in range(4)], np.zeros(4, dtype=np.int64)


def decode(items):
    return np.stack([np.frombuffer(item, np.uint8).reshape(3, 32, 32) for item in items]).astype(np.float32)


def decode_four(items):
    if len(items) != 4:
        raise ValueError("four, please")
    return decode(items)


def broken(items):
    raise KeyError("colour")


def answer(logits):
    return int(logits.argmax())
'''
IMAGE = {"input_0": np.zeros((4, 3, 16, 16), np.float32)}
SEQUENCE = {"input_0": np.random.default_rng(0).normal(size=(4, 5, 16)).astype(np.float32)}
TOKENS = {"mask": np.ones((4, 5), np.float32), "ids": np.arange(20).reshape(4, 5)}
CONV_FLOPS = 2 * 16 * 16 * 16 * (3 * 3 * 3)
CNN_FLOPS = CONV_FLOPS + 2 * 16 * 10
ENCODER_FLOPS = 2 * 5 * (16 * 48 + 16 * 16 + 2 * 16 * 32) + 2 * 2 * 5 * 5 * 16
LSTM_FLOPS = 2 * 5 * 4 * 8 * (16 + 8)


class Bench:
    """Makes workloads of the models above in a folder, and profiles them without waiting long."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.file = folder / "models.py"
        self.file.write_text(MODELS)

    def code(self, name: str) -> str:
        return f"{self.file}:{name}"

    def torch(self, factory: str, inputs, **settings) -> WorkloadInfo:
        from tools.workloads.modules import build_module

        def fill(folder: Path):
            save_weights(build_module(self.code(factory)), folder / model_file_name(ModelFormat.TORCH))

        return self.workload(ModelFormat.TORCH, fill, inputs, factory=self.code(factory), **settings)

    def exported(self, model_format: ModelFormat, factory: str, inputs, *, batch: int = 1, **settings) -> WorkloadInfo:
        module = load_module(self.torch(factory, inputs).source)
        call = ModuleCall.of(module, {name: value[:batch].copy() for name, value in inputs.items()})

        def fill(folder: Path):
            file = folder / model_file_name(model_format)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if model_format is ModelFormat.PT2:
                    torch.export.save(torch.export.export(module, call.positional, call.keywords), file)
                elif model_format is ModelFormat.TORCHSCRIPT:
                    torch.jit.trace(module, call.positional).save(str(file))
                else:
                    torch.onnx.export(
                        module,
                        call.positional,
                        file,
                        kwargs=call.keywords,
                        input_names=list(inputs),
                        external_data=False,
                        verbose=False,
                    )

        return self.workload(model_format, fill, inputs, fixed_batch=batch, **settings)

    def workload(self, model_format, fill, inputs, *, factory=None, fixed_batch=None, **settings) -> WorkloadInfo:
        source = write_artifact(
            self.folder / "artifacts", model_format, Precision.FP32, fill, factory=factory, fixed_batch=fixed_batch
        )
        data = write_dataset(self.folder / "data", inputs, None)
        return WorkloadInfo(
            name="test",
            digest="0" * 16,
            source=source,
            inputs=data.inputs,
            outputs=(),
            evaluation=data,
            calibration=data,
            metric=settings.pop("metric", "top1"),
            higher_is_better=True,
            parameters=0,
            **settings,
        )

    def profile(self, workload: WorkloadInfo) -> ProfileResult:
        dumped = profile.profile_workload(
            workload.model_dump(mode="json"), MACHINE.model_dump(mode="json"), str(self.folder / "t" / "trace.json"), 1
        )
        return ProfileResult.model_validate(json.loads(json.dumps(dumped)))


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(profile, "LAYERS_BUDGET_S", 0.0)
    monkeypatch.setattr(profile, "roofline", lambda *_: PEAKS)
    monkeypatch.setattr("tools.measure.end_to_end.BUDGET_S", 0.0)
    return Bench(tmp_path)


def row(result: ProfileResult, path: str) -> LayerProfile:
    return next(layer for layer in result.layers if layer.path == path)


def check_sums(result: ProfileResult) -> None:
    assert math.isclose(sum(layer.share for layer in result.layers), 1.0, rel_tol=1e-9)
    assert math.isclose(sum(result.operators.values()), 1.0, rel_tol=1e-9)
    assert math.isclose(sum(layer.ms for layer in result.layers), result.forward_ms, rel_tol=1e-9)
    assert min(layer.ms for layer in result.layers) >= 0
    assert sum(layer.flops for layer in result.layers) == pytest.approx(result.flops)
    assert set(result.operators) <= set(OPERATOR_KINDS)
    named = [layer.ms for layer in result.layers if layer.path != OTHER]
    assert named == sorted(named, reverse=True)


# --- rows and shares -----------------------------------------------------------------------------------------

times = st.just(0.0) | st.floats(1e-6, 1e4, allow_nan=False)  # a clock counts nanoseconds
some_layers = st.lists(
    st.builds(Layer, st.text("ab", max_size=3), st.sampled_from(["Conv2d", "Add"]), times), max_size=8
)


@given(some_layers, times)
def test_shares_sum_to_one_whatever_was_measured(layers, forward_ms):
    rows = layer_profiles(Measured(tuple(layers), forward_ms, 0.0))
    if forward_ms > 0 or any(layer.ms > 0 for layer in layers):
        assert math.isclose(sum(one.share for one in rows), 1.0, rel_tol=1e-6)
        assert math.isclose(sum(operator_shares(rows).values()), 1.0, rel_tol=1e-6)
    assert all(one.share >= 0 and one.ms >= 0 for one in rows)
    assert OTHER not in [one.path for one in rows[:-1]]


@given(some_layers, times)
def test_layers_that_fit_keep_their_time_and_the_rest_is_other(layers, forward_ms):
    total = sum(layer.ms for layer in layers)
    rows = layer_profiles(Measured(tuple(layers), total + forward_ms, 0.0))
    assert sorted(one.ms for one in rows if one.path != OTHER) == pytest.approx(sorted(layer.ms for layer in layers))


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.floats(1e-3, 1e3)), min_size=1, max_size=9))
def test_typical_layers_add_up_to_a_typical_pass(passes):
    result = typical_ms(passes)
    assert set(result) == {key for one in passes for key in one}
    if sum(result.values()) > 0:
        assert sum(result.values()) == pytest.approx(float(np.median([sum(one.values()) for one in passes])))


def test_a_disturbance_in_one_pass_does_not_change_the_order_of_layers():
    passes = [{"slow": 2.0, "fast": 1.0}] * 4 + [{"slow": 2.0, "fast": 50.0}]
    assert typical_ms(passes) == {"slow": 2.0, "fast": 1.0}


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("Conv2d", "convolution"),
        ("ConvTranspose", "convolution"),
        ("QLinearConv", "convolution"),
        ("aten::_convolution", "convolution"),
        ("convert", "other"),
        ("Linear", "linear"),
        ("NonDynamicallyQuantizableLinear", "linear"),
        ("addmm", "linear"),
        ("QLinearMatMul", "linear"),
        ("DynamicQuantizeMatMul", "linear"),
        ("upsample_bilinear2d", "other"),
        ("MultiheadAttention", "attention"),
        ("TransformerEncoderLayer", "attention"),
        ("aten::_transformer_encoder_layer_fwd", "attention"),
        ("scaled_dot_product_attention", "attention"),
        ("BatchNorm2d", "normalization"),
        ("SkipLayerNormalization", "normalization"),
        ("aten::native_batch_norm", "normalization"),
        ("GELU", "activation"),
        ("relu_", "activation"),
        ("_softmax", "activation"),
        ("AdaptiveAvgPool2d", "pooling"),
        ("GlobalAveragePool", "pooling"),
        ("Embedding", "embedding"),
        ("Gather", "embedding"),
        ("LSTM", "recurrent"),
        ("GRUCell", "recurrent"),
        ("add", "elementwise"),
        ("Mul", "elementwise"),
        ("QLinearAdd", "elementwise"),
        ("QuantizeLinear", "elementwise"),
        ("DynamicQuantizeLinear", "elementwise"),
        ("Dropout", "elementwise"),
        ("Reshape", "other"),
        (OTHER, "other"),
    ],
)
def test_operators_of_all_libraries_have_a_kind(operator, kind):
    assert kind_of(operator) == kind


@pytest.mark.parametrize(
    ("operator", "inputs", "outputs", "flops"),
    [
        ("Conv", [[1, 3, 8, 8], [16, 3, 3, 3], [16]], [[1, 16, 6, 6]], 2 * 16 * 36 * 27),
        ("FusedConv", [[1, 8, 8, 8], [8, 1, 3, 3]], [[1, 8, 6, 6]], 2 * 8 * 36 * 9),  # one channel a group
        ("QLinearConv", [[1, 3, 8, 8], [], [], [16, 3, 3, 3]], [[1, 16, 6, 6]], 2 * 16 * 36 * 27),
        ("ConvTranspose", [[1, 8, 4, 4], [8, 2, 3, 3]], [[1, 2, 6, 6]], 2 * 8 * 16 * 18),
        ("Gemm", [[2, 8], [8, 4], [4]], [[2, 4]], 2 * 2 * 8 * 4),
        ("Gemm", [[2, 8], [4, 8]], [[2, 4]], 2 * 2 * 8 * 4),
        ("MatMul", [[2, 3, 5, 7], [2, 3, 7, 4]], [[2, 3, 5, 4]], 2 * 6 * 5 * 7 * 4),
        ("MatMul", [[2, 5, 7], [7, 4]], [[2, 5, 4]], 2 * 2 * 5 * 7 * 4),
        ("FusedMatMul", [[2, 3, 7, 5], [2, 3, 7, 4]], [[2, 3, 5, 4]], 2 * 6 * 5 * 7 * 4),  # the first is transposed
        ("LSTM", [[5, 1, 16], [1, 32, 16], [1, 32, 8]], [[5, 1, 1, 8]], LSTM_FLOPS),
        ("MultiHeadAttention", [[1, 5, 16], [1, 7, 16], [1, 7, 16]], [[1, 5, 16]], 2 * 5 * 7 * (16 + 16)),
        ("Attention", [[1, 5, 16], [16, 48]], [[1, 5, 16]], 2 * (5 * 16 * 48 + 2 * 5 * 5 * 16)),
        ("Relu", [[1, 8]], [[1, 8]], 0),
        ("Conv", [[1, 3, 8, 8]], [[1, 16, 6, 6]], 0),  # the weight's shape is unknown
        ("MatMul", [], [], 0),
    ],
)
def test_flops_of_onnx_nodes(operator, inputs, outputs, flops):
    assert node_flops(operator, inputs, outputs) == pytest.approx(flops)


# --- modules -------------------------------------------------------------------------------------------------


def test_a_cnn_has_a_row_for_each_layer_with_flops_and_bytes_as_by_hand(bench):
    result = bench.profile(bench.torch("Cnn", IMAGE))
    check_sums(result)
    assert result.flops == CNN_FLOPS
    assert {layer.path for layer in result.layers} == {"conv", "relu", "linear", OTHER}
    assert row(result, "conv").flops == CONV_FLOPS
    assert row(result, "linear").bytes_moved == 4 * (16 + 10 + 16 * 10 + 10)
    assert row(result, "linear").operator == "Linear"
    assert set(result.operators) == {"convolution", "linear", "activation", "other"}
    assert result.share_of_peak == pytest.approx(CNN_FLOPS / (result.forward_ms / 1e3) / 300e9)
    assert row(result, "conv").gflops_per_s == pytest.approx(CONV_FLOPS / row(result, "conv").ms / 1e6)


def test_profiling_leaves_no_hooks_behind(bench):
    bench.profile(bench.torch("Cnn", IMAGE))
    assert not torch.nn.modules.module._global_forward_hooks
    assert not torch.nn.modules.module._global_forward_pre_hooks
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mkldnn.is_available() == torch._C._get_mkldnn_enabled()


def test_a_module_that_is_called_twice_is_one_row(bench):
    result = bench.profile(bench.torch("Twice", SEQUENCE))
    check_sums(result)
    assert [layer.path for layer in result.layers] == ["shared", OTHER]
    assert row(result, "shared").flops == 2 * (2 * 5 * 16 * 16)
    assert row(result, "shared").bytes_moved == 4 * (2 * 2 * 5 * 16 + 16 * 16 + 16)


def test_attention_written_with_functions_is_a_layer(bench):
    result = bench.profile(bench.torch("Attention", SEQUENCE))
    check_sums(result)
    own = row(result, "Attention")
    assert own.flops == 2 * 2 * 5 * 5 * 16
    assert kind_of(own.operator) == "attention"
    assert row(result, "qkv").flops == 2 * 5 * 16 * 48


def test_a_transformer_layer_is_profiled_on_its_fast_path(bench):
    workload = bench.torch("encoder", SEQUENCE)
    result = bench.profile(workload)
    check_sums(result)
    assert result.flops == ENCODER_FLOPS
    assert row(result, "TransformerEncoderLayer").flops == ENCODER_FLOPS
    assert set(result.operators) <= {"attention", "other"}


def test_a_transformer_layer_off_its_fast_path_shows_its_children(bench):
    workload = bench.torch("encoder", SEQUENCE)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        result = bench.profile(workload)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    check_sums(result)
    assert result.flops == ENCODER_FLOPS
    assert row(result, "self_attn").operator == "MultiheadAttention"
    assert row(result, "linear1").flops == 2 * 5 * 16 * 32


def test_multihead_attention_is_not_lost(bench):
    result = bench.profile(bench.torch("multihead", SEQUENCE))
    check_sums(result)
    assert row(result, "attention").flops == result.flops == 2 * 5 * (16 * 48 + 16 * 16) + 2 * 2 * 5 * 5 * 16


def test_an_lstm_has_its_flops(bench):
    result = bench.profile(bench.torch("lstm", SEQUENCE))
    check_sums(result)
    assert row(result, "LSTM").flops == LSTM_FLOPS
    assert "recurrent" in result.operators


def test_inputs_by_name_and_outputs_in_a_dict(bench):
    result = bench.profile(bench.torch("Named", TOKENS))
    check_sums(result)
    assert row(result, "head").flops == 2 * 8 * 4
    # five rows of the table are read and written, not the thousand that it has
    assert row(result, "embedding").bytes_moved == 5 * 8 + 2 * 5 * 8 * 4
    assert result.end_to_end.postprocess_ms > 0


def test_hooks_are_nobodys_time(monkeypatch):
    """With a clock that ticks once a reading, a module's own time is what passes between its two inner readings."""
    ticks = iter(range(1000))
    monkeypatch.setattr(layers_torch.time, "perf_counter_ns", lambda: next(ticks))
    inner = torch.nn.ReLU()
    outer = torch.nn.Sequential(inner)
    with layers_torch._Spans() as spans, torch.inference_mode():
        outer(torch.zeros(1))
    assert spans.own_ns == {inner: 1, outer: 2}
    assert spans.callers == {outer}


# --- programs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factory", "inputs", "flops", "path"),
    [("Cnn", IMAGE, CNN_FLOPS, "conv"), ("lstm", SEQUENCE, LSTM_FLOPS, "LSTM"), ("Named", TOKENS, 64, "embedding")],
)
def test_an_exported_program_has_the_rows_of_its_modules(bench, factory, inputs, flops, path):
    result = bench.profile(bench.exported(ModelFormat.PT2, factory, inputs))
    check_sums(result)
    assert result.flops == flops
    eager = bench.profile(bench.torch(factory, inputs))
    assert row(result, path).operator == row(eager, path).operator
    assert row(result, path).flops == row(eager, path).flops
    assert row(result, path).bytes_moved > 0


def test_functions_of_an_exported_program_are_named_after_their_module(bench):
    result = bench.profile(bench.exported(ModelFormat.PT2, "Twice", SEQUENCE))
    check_sums(result)
    assert row(result, "shared").flops == 2 * (2 * 5 * 16 * 16)
    assert row(result, "add").operator == "add"


def test_torchscript_is_profiled_by_operator(bench):
    result = bench.profile(bench.exported(ModelFormat.TORCHSCRIPT, "Cnn", IMAGE))
    check_sums(result)
    assert result.flops == CNN_FLOPS
    (convolution,) = [layer for layer in result.layers if kind_of(layer.operator) == "convolution"]
    assert convolution.path.startswith("aten::")
    assert convolution.flops == CONV_FLOPS
    assert convolution.bytes_moved == pytest.approx(4 * (3 * 256 + 16 * 256 + 16 * 27 + 16))


def test_an_lstm_in_torchscript_keeps_its_products(bench):
    result = bench.profile(bench.exported(ModelFormat.TORCHSCRIPT, "lstm", SEQUENCE))
    check_sums(result)
    assert row(result, "aten::lstm").flops == LSTM_FLOPS


def test_an_onnx_model_is_profiled_by_node(bench):
    result = bench.profile(bench.exported(ModelFormat.ONNX, "Cnn", IMAGE))
    check_sums(result)
    assert result.flops == pytest.approx(CNN_FLOPS)
    (convolution,) = [layer for layer in result.layers if kind_of(layer.operator) == "convolution"]
    assert convolution.flops == CONV_FLOPS
    (linear,) = [layer for layer in result.layers if kind_of(layer.operator) == "linear"]
    assert linear.flops == pytest.approx(2 * 16 * 10)
    assert linear.bytes_moved == 4 * (16 + 10 + 16 * 10 + 10)  # with weights that the kernel repacks


def test_a_lookup_in_an_onnx_model_moves_the_rows_that_it_returns(bench):
    result = bench.profile(bench.exported(ModelFormat.ONNX, "Named", TOKENS))
    check_sums(result)
    (lookup,) = [layer for layer in result.layers if layer.operator == "Gather"]
    assert lookup.bytes_moved == 5 * 8 + 2 * 5 * 8 * 4


def test_recurrent_onnx_nodes_have_the_flops_of_the_module(bench):
    result = bench.profile(bench.exported(ModelFormat.ONNX, "lstm", SEQUENCE))
    check_sums(result)
    assert result.flops == pytest.approx(LSTM_FLOPS)
    assert "recurrent" in result.operators


@pytest.mark.parametrize("model_format", [ModelFormat.TORCH, ModelFormat.ONNX])
def test_the_trace_can_be_opened(bench, model_format):
    workload = bench.torch("Cnn", IMAGE) if model_format is ModelFormat.TORCH else None
    result = bench.profile(workload or bench.exported(model_format, "Cnn", IMAGE))
    content = json.loads(Path(result.chrome_trace).read_text())
    events = content["traceEvents"] if isinstance(content, dict) else content
    assert any(event.get("ph") == "X" and event.get("dur", 0) > 0 for event in events)


def test_a_program_of_one_batch_size_is_profiled_at_that_size(bench):
    result = bench.profile(bench.exported(ModelFormat.PT2, "Cnn", IMAGE, batch=4))
    assert result.flops == 4 * CNN_FLOPS
    assert any("batches of 4" in note for note in result.end_to_end.notes)


# --- one request ---------------------------------------------------------------------------------------------


def test_without_pre_and_postprocessing_the_notes_say_what_is_missing(bench):
    request = bench.profile(bench.torch("Cnn", IMAGE)).end_to_end
    assert request.preprocess_ms is None
    assert request.transfer_ms > 0
    assert request.postprocess_ms > 0
    assert any("`preprocess`" in note for note in request.notes)
    assert any("argmax" in note for note in request.notes)


def test_preprocessing_is_timed_on_one_raw_item(bench):
    settings = {"preprocess": bench.code("decode"), "raw_evaluation": bench.code("raw")}
    request = bench.profile(bench.torch("Cnn", IMAGE, **settings)).end_to_end
    assert request.preprocess_ms > 0
    assert not any("preprocess`" in note for note in request.notes if "postprocess" not in note)


def test_preprocessing_that_wants_a_batch_gets_one_and_its_time_is_shared(bench):
    settings = {"preprocess": bench.code("decode_four"), "raw_evaluation": bench.code("raw")}
    request = bench.profile(bench.torch("Cnn", IMAGE, **settings)).end_to_end
    assert request.preprocess_ms > 0
    assert any("divided by 4" in note for note in request.notes)


def test_postprocessing_is_the_users_own(bench):
    request = bench.profile(bench.torch("Cnn", IMAGE, postprocess=bench.code("answer"))).end_to_end
    assert request.postprocess_ms > 0
    assert not any("names no `postprocess`" in note for note in request.notes)


def test_preprocessing_that_raises_names_the_users_code(bench):
    from tools.errors import WorkloadError

    settings = {"preprocess": bench.code("broken"), "raw_evaluation": bench.code("raw")}
    with pytest.raises(WorkloadError, match=r"KeyError.*colour.*models\.py"):
        bench.profile(bench.torch("Cnn", IMAGE, **settings))


# --- roofline and bottleneck ---------------------------------------------------------------------------------


@pytest.fixture
def small_roofline(monkeypatch):
    monkeypatch.setattr(roofline_module, "BUDGET_S", 0.0)
    monkeypatch.setattr(roofline_module, "LARGEST", roofline_module.SMALLEST)
    monkeypatch.setattr(roofline_module, "last_level_cache_bytes", lambda: 2**20)


def test_the_roofline_is_measured(small_roofline):
    peaks = roofline_module.roofline(MACHINE, 1)
    assert peaks.fp32_gflops > 0
    assert peaks.memory_gb_per_s > 0
    assert peaks.bf16_gflops is None
    assert any("BF16" in note for note in peaks.notes)


def test_an_accelerator_is_said_not_to_be_in_the_figures(small_roofline):
    accelerated = MACHINE.model_copy(update={"accelerators": ("NVIDIA L4",)})
    assert any("NVIDIA L4" in note for note in roofline_module.roofline(accelerated, 1).notes)


def test_a_large_cache_on_a_small_machine_is_noted(small_roofline, monkeypatch):
    monkeypatch.setattr(roofline_module, "last_level_cache_bytes", lambda: 2**30)
    notes: list[str] = []
    small = MACHINE.model_copy(update={"memory_mb": 500.0})
    assert roofline_module._bandwidth(small, notes) > 0
    assert "25 MB" in notes[0]


@pytest.mark.parametrize("kernel", [roofline_module._torch_int8, lambda a, b: roofline_module._onnx_int8(a, b, 1)])
def test_an_int8_kernel_is_exact_or_says_why_not(kernel):
    fault = roofline_module._int8_fault(kernel, np.random.default_rng(0))
    assert fault is None or fault


def test_an_int8_kernel_that_saturates_is_refused():
    def saturating(left, right):
        return lambda: np.clip(left.astype(np.int32) @ right.astype(np.int32), -32768, 32767)

    assert "differs" in roofline_module._int8_fault(saturating, np.random.default_rng(0))


def test_an_int8_kernel_that_is_missing_says_so():
    def missing(left, right):
        raise RuntimeError("not implemented for 'Char'")

    assert "not implemented" in roofline_module._int8_fault(missing, np.random.default_rng(0))


def one_layer(operator: str, *, ms: float, flops: float, bytes_moved: float) -> tuple[LayerProfile, ...]:
    return layer_profiles(Measured((Layer("a", operator, ms, flops, bytes_moved),), ms / 0.86, flops))


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        # 300 GFLOP/s and 30 GB/s: ridge at 10 FLOPs a byte
        (
            one_layer("Conv2d", ms=10, flops=0.3e9, bytes_moved=1e6),
            ("Convolutions take 86 %", "10 % of", "overhead", "10x", "ONNX Runtime", "INT8"),
        ),
        (one_layer("Linear", ms=10, flops=2.4e9, bytes_moved=1e6), ("Linear layers", "80 % of", "arithmetic", "INT8")),
        (one_layer("Embedding", ms=10, flops=0.0, bytes_moved=2e8), ("Embeddings", "memory traffic", "fewer bytes")),
        (one_layer("LSTM", ms=10, flops=1e9, bytes_moved=2e8), ("Recurrent layers", "33 % of", "memory traffic")),
        (one_layer("Reshape", ms=10, flops=0.0, bytes_moved=0.0), ("outside of the layers", "graph runtime")),
        (one_layer("ReLU", ms=10, flops=0.0, bytes_moved=0.0), ("Activations", "overhead")),
        ((), ("No layer",)),
    ],
)
def test_the_bottleneck_names_what_dominates_what_bounds_it_and_what_to_try(layers, said):
    sentence = bottleneck(layers, PEAKS, MACHINE)
    assert all(part in sentence for part in said), sentence


def test_int8_is_not_proposed_where_the_machine_has_no_instructions_for_it():
    plain = MACHINE.model_copy(update={"flags": ("avx2",)})
    for layer in (
        one_layer("Conv2d", ms=10, flops=0.3e9, bytes_moved=1e6),
        one_layer("Conv2d", ms=10, flops=2.4e9, bytes_moved=1e6),
        one_layer("Conv2d", ms=10, flops=1e9, bytes_moved=2e8),
    ):
        assert "INT8" not in bottleneck(layer, PEAKS, plain)


def test_a_layer_above_the_measured_peak_is_noted(bench, monkeypatch):
    monkeypatch.setattr(profile, "roofline", lambda *_: Roofline(fp32_gflops=1e-6, memory_gb_per_s=1.0))
    result = bench.profile(bench.torch("Cnn", IMAGE))
    assert any("disturbed" in note for note in result.roofline.notes)


# --- the whole, where it runs ---------------------------------------------------------------------------------


def test_a_profile_is_made_by_a_worker(tmp_path):
    bench = Bench(tmp_path)
    workload = bench.torch("Cnn", IMAGE)
    stages = []
    arguments = {
        "workload": workload.model_dump(mode="json"),
        "hardware": MACHINE.model_copy(update={"memory_mb": 500.0}).model_dump(mode="json"),
        "trace_path": str(tmp_path / "trace.json"),
        "threads": 1,
    }
    with Worker(["torch"], tmp_path / "logs") as worker:
        outcome = worker.run(
            "tools.measure.profile:profile_workload",
            arguments,
            label="profile",
            limit_s=60,
            on_event=lambda event: stages.append(event.get("stage")),
        )
    assert isinstance(outcome, Returned), outcome
    result = ProfileResult.model_validate(outcome.value)
    check_sums(result)
    assert result.flops == CNN_FLOPS
    assert result.roofline.fp32_gflops > 0
    assert Path(result.chrome_trace).is_file()
    assert "profiling layers" in stages


def test_a_module_call_runs_under_inference_mode():
    call = ModuleCall(torch.nn.Linear(4, 2), (torch.zeros(1, 4),), {})
    assert call().is_inference()
    assert profile_modules(call, 0.0).flops == 2 * 4 * 2
