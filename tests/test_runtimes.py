"""Runtimes: one model in each of them gives the same answers, however it is told to run."""

import subprocess
import sys
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests_support import hardware

from tools.contracts import Availability, ModelFormat, Precision, Recipe, WorkloadInfo
from tools.errors import TransformError, UnavailableError
from tools.runtimes import RUNTIME_NAMES, get_runtime
from tools.runtimes.availability import tensorrt_library
from tools.runtimes.onnxruntime_cuda import BoundRunner
from tools.runtimes.onnxruntime_tensorrt import engine_options
from tools.runtimes.settings import RuntimeSettings, read_settings
from tools.runtimes.streams import ParallelRunner, divide, slices_of
from tools.spec import WorkloadSpec
from tools.transforms import get_transform
from tools.workloads.datasets import batch_of
from tools.workloads.loading import materialize

NET = """
import numpy as np
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = torch.nn.BatchNorm2d(8)
        self.second = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.bn(self.first(x)))
        x = torch.relu(self.second(x) + x)
        return self.head(x.mean((2, 3))), x


class Choosy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(12, 4)

    def forward(self, x):
        if x.sum() > 0:
            return self.head(x)
        return self.head(-x)


def net():
    return Net()


def choosy():
    return Choosy()


def images():
    yield np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32), np.arange(16) % 4


def rows():
    yield np.random.default_rng(0).standard_normal((16, 12)).astype(np.float32), np.arange(16) % 4
"""

FORMAT = {"onnxruntime": ModelFormat.ONNX, "openvino": ModelFormat.OPENVINO, "torchscript": ModelFormat.TORCHSCRIPT}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runtimes")
    (folder / "net.py").write_text(NET)
    return folder


def load(folder, model, data):
    spec = WorkloadSpec.model_validate(
        {
            "name": "small",
            "model": {"factory": f"{folder}/net.py:{model}"},
            "evaluation": {"factory": f"{folder}/net.py:{data}"},
        }
    )
    return WorkloadInfo.model_validate(materialize(spec.model_dump(mode="json"), str(folder)))


@pytest.fixture(scope="module")
def net(folder):
    return load(folder, "net", "images")


@pytest.fixture(scope="module")
def artifacts(net, folder):
    """The same model in every format."""

    def made(name, artifact):
        return get_transform(name).apply(artifact, net, {}, folder / "artifacts").artifact

    onnx = made("export-onnx", net.source)
    return {
        ModelFormat.TORCH: net.source,
        ModelFormat.ONNX: onnx,
        ModelFormat.OPENVINO: made("convert-openvino", onnx),
        ModelFormat.TORCHSCRIPT: made("script", net.source),
    }


def run(net, artifacts, name, *, batch=5, threads=2, precision=Precision.FP32, **settings):
    recipe = Recipe(runtime=name, precision=precision, settings=settings)
    example = batch_of(net.evaluation, batch)
    runner = get_runtime(name).load(
        artifacts[FORMAT.get(name, ModelFormat.TORCH)], recipe, batch_size=batch, threads=threads, example=example
    )
    return runner, example


def check(net, artifacts, name, **options):
    """What it answers is what eager PyTorch answers, and stays that when the runner is called again."""
    expected, example = run(net, artifacts, "eager", **{k: v for k, v in options.items() if k == "batch"})
    runner, _ = run(net, artifacts, name, **options)
    answers = runner(example)
    runner({key: value[::-1].copy() for key, value in example.items()})
    for answer, right in zip(answers, expected(example), strict=True):
        assert answer.shape == right.shape
        np.testing.assert_allclose(answer, right, atol=1e-4)


# --- settings -----------------------------------------------------------------------------------------------------

EVERYTHING = frozenset(RuntimeSettings.model_fields)


def read(available, **settings):
    return read_settings(Recipe(runtime="r", settings=settings), EVERYTHING, threads=available)


def test_without_settings_a_runtime_uses_the_threads_of_the_replica_and_nothing_else():
    assert read(3) == RuntimeSettings(threads=3)


def test_settings_of_the_recipe_are_taken():
    settings = read(4, streams=2, arena=False, level="basic")
    assert (settings.threads, settings.streams, settings.arena, settings.level) == (4, 2, False, "basic")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"colour": 1}, "no setting 'colour'"),
        ({"threads": 0}, "threads=0"),
        ({"threads": 3}, "more than the 2"),
        ({"threads": "two"}, "threads='two'"),
        ({"streams": 3}, "needs as many threads"),
        ({"streams": True}, "streams=True"),
        ({"arena": 1}, "arena=1"),
        ({"level": "most"}, "level='most'"),
        ({"execution": "parallel", "threads": 1}, "two threads"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_in_a_sentence(settings, message):
    with pytest.raises(TransformError, match=message):
        read(2, **settings)


def test_a_setting_of_another_runtime_is_refused_and_the_known_ones_are_named():
    with pytest.raises(TransformError, match=r"eager has no setting 'streams'\. Known: channels_last, fuse, threads"):
        read_settings(Recipe(runtime="eager", settings={"streams": 2}), get_runtime("eager").settings, threads=2)


@pytest.mark.parametrize("name", RUNTIME_NAMES)
def test_every_runtime_understands_threads_and_knows_no_setting_that_does_not_exist(name):
    assert {"threads"} <= get_runtime(name).settings <= EVERYTHING


# --- parts of a batch ---------------------------------------------------------------------------------------------


@given(total=st.integers(1, 500), parts=st.integers(1, 40))
def test_parts_are_nearly_equal_and_lose_nothing(total, parts):
    sizes = divide(total, parts)
    assert len(sizes) == parts
    assert sum(sizes) == total
    assert max(sizes) - min(sizes) <= 1
    batch = np.arange(total)
    assert np.array_equal(np.concatenate([batch[part] for part in slices_of(sizes)]), batch)


@given(sizes=st.lists(st.integers(1, 5), min_size=2, max_size=5))
def test_outputs_of_parts_come_back_in_the_order_of_the_items(sizes):
    runner = ParallelRunner([lambda inputs: (inputs["x"] * 2, inputs["x"].sum(1))] * len(sizes), sizes)
    x = np.arange(sum(sizes) * 3.0).reshape(-1, 3)
    doubled, total = runner({"x": x})
    assert np.array_equal(doubled, x * 2)
    assert np.array_equal(total, x.sum(1))


def test_an_error_in_one_part_is_an_error_of_the_batch():
    def fail(_):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        ParallelRunner([fail, lambda inputs: (inputs["x"],)], [1, 1])({"x": np.ones((2, 1))})


# --- the same answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("eager", {"channels_last": True}),
        ("eager", {"fuse": True, "threads": 1}),
        ("torchscript", {}),
        ("onnxruntime", {}),
        ("onnxruntime", {"arena": False, "spinning": False, "level": "basic"}),
        ("onnxruntime", {"execution": "parallel", "level": "disabled"}),
        ("onnxruntime", {"streams": 2}),
        ("openvino", {}),
        ("openvino", {"threads": 1}),
        ("openvino", {"streams": 2}),
    ],
)
@pytest.mark.parametrize("batch", [1, 5])
def test_settings_change_how_a_model_runs_and_not_what_it_answers(net, artifacts, name, settings, batch):
    check(net, artifacts, name, batch=batch, **settings)


# torch keeps a trace of a global hook with keywords after it was removed: a profile in this process leaves one
@pytest.mark.filterwarnings("ignore:Using `torch.compile")
def test_a_compiled_model_answers_the_same_with_channels_last_and_fused(net, artifacts):
    check(net, artifacts, "compiled", batch=2, channels_last=True, fuse=True)


def test_threads_of_the_recipe_are_the_threads_of_torch(net, artifacts):
    before = torch.get_num_threads()
    try:
        run(net, artifacts, "eager", threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_read_only_items_that_are_not_contiguous_are_taken(net, artifacts, name):
    runner, example = run(net, artifacts, name, batch=4)
    expected = runner(example)
    twisted = {key: np.asfortranarray(value) for key, value in example.items()}
    for value in twisted.values():
        value.flags.writeable = False
    for answer, right in zip(runner(twisted), expected, strict=True):
        np.testing.assert_allclose(answer, right, atol=1e-6)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_model_for_one_batch_size_cannot_run_in_parts(net, artifacts, name):
    fixed = {key: value.model_copy(update={"fixed_batch": 4}) for key, value in artifacts.items()}
    with pytest.raises(TransformError, match="exported for batch 4 only"):
        run(net, fixed, name, batch=4, streams=2)


def test_a_model_that_cannot_be_traced_cannot_be_fused(folder):
    choosy = load(folder, "choosy", "rows")
    with pytest.raises(TransformError, match=r"torch\.fx can trace"):
        run(choosy, {ModelFormat.TORCH: choosy.source}, "eager", fuse=True)


def test_channels_last_is_refused_without_images(folder):
    choosy = load(folder, "choosy", "rows")
    with pytest.raises(TransformError, match="channels_last"):
        run(choosy, {ModelFormat.TORCH: choosy.source}, "eager", channels_last=True)


# --- accelerators -------------------------------------------------------------------------------------------------

ON_GPU = [name for name in RUNTIME_NAMES if get_runtime(name).device == "cuda"]


@pytest.mark.parametrize("name", ON_GPU)
def test_without_a_gpu_its_runtimes_say_so_and_what_would_help(name):
    found = get_runtime(name).availability(hardware())
    assert not found.available
    assert found.reason
    assert found.enable


@pytest.mark.skipif(torch.version.cuda is None, reason="this torch was built without CUDA")
@pytest.mark.parametrize("name", ["eager-cuda", "compiled-cuda"])
def test_with_a_gpu_and_a_cuda_build_of_torch_its_runtimes_are_available(name):
    with_gpu = hardware().model_copy(update={"accelerators": ("NVIDIA H100 80GB HBM3, 81559 MiB, 570.1",)})
    assert get_runtime(name).availability(with_gpu).available


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_fp8_says_what_it_needs():
    from tools.runtimes.torch_runner import in_fp8

    with pytest.raises(TransformError, match="has none"):
        in_fp8(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)))
    with pytest.raises(TransformError, match="FP8 cannot run here"):
        in_fp8(torch.nn.Sequential(torch.nn.Linear(16, 16)))


@pytest.mark.parametrize("name", [name for name in RUNTIME_NAMES if name not in ON_GPU])
def test_runtimes_of_the_cpu_do_not_ask_for_a_gpu(name):
    assert get_runtime(name).availability(hardware()).available


def test_availability_is_told_without_importing_the_libraries():
    script = (
        "import sys; from tools.hardware import detect; from tools.runtimes import availabilities; "
        "availabilities(detect()); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'onnxruntime', 'openvino', 'tensorrt_libs')))"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[1], check=False).returncode == 0


@pytest.mark.skipif(
    find_library("nvinfer") is not None or find_spec("tensorrt_libs") is not None, reason="TensorRT is here"
)
def test_tensorrt_needs_its_own_library_besides_the_gpu():
    found = tensorrt_library(Availability(name="onnxruntime-tensorrt", available=True))
    assert not found.available
    assert found.enable == "pip install tensorrt"


def test_a_library_that_is_missing_for_another_reason_keeps_that_reason():
    found = Availability(name="onnxruntime-tensorrt", available=False, reason="no GPU")
    assert tensorrt_library(found) == found


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("name", ON_GPU)
def test_asking_for_a_gpu_that_is_not_there_is_an_error_and_no_slow_run(net, artifacts, name):
    needed = ModelFormat.ONNX if name.startswith("onnxruntime") else ModelFormat.TORCH
    with pytest.raises(UnavailableError):
        get_runtime(name).load(
            artifacts[needed],
            Recipe(runtime=name),
            batch_size=2,
            threads=1,
            example=batch_of(net.evaluation, 2),
        )


def test_bound_buffers_give_the_answers_of_a_plain_run_and_leave_earlier_ones_alone(net, artifacts):
    from tools.runtimes.onnxruntime import CPU, create_session

    session = create_session(artifacts[ModelFormat.ONNX], 1, [CPU])
    example = batch_of(net.evaluation, 3)
    other = {key: value[::-1] for key, value in example.items()}
    runner = BoundRunner(session, example, device="cpu")
    first = runner(example)
    runner(other)
    fewer = {key: value[:2] for key, value in example.items()}
    for inputs, answers in ((example, first), (fewer, runner(fewer))):
        for answer, right in zip(answers, session.run(None, inputs), strict=True):
            assert np.array_equal(answer, right)


def test_tensorrt_builds_one_engine_for_the_batch_in_use():
    example = {"a": np.zeros((4, 3, 8, 8), np.float32), "b": np.zeros((4, 7), np.int64)}
    options = engine_options(Precision.FP16, Path("/cache"), example, fixed=False)
    assert options["trt_fp16_enable"] == "True"
    assert "trt_int8_enable" not in options
    assert {options[f"trt_profile_{bound}_shapes"] for bound in ("min", "opt", "max")} == {"a:4x3x8x8,b:4x7"}
    assert not any("profile" in key for key in engine_options(Precision.FP32, Path("/cache"), example, fixed=True))
