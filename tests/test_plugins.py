"""Transforms and runtimes of other distributions: found, loaded late, fenced off when they fail, and used."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tools import plugins
from tools.artifacts import model_file, write_artifact
from tools.contracts import BuildResult, DatasetRef, ModelFormat, Precision, Recipe, Step, TensorSpec, WorkloadInfo
from tools.errors import TransformError, UnavailableError
from tools.hardware import detect
from tools.runtimes import RUNTIME_NAMES, RUNTIMES, availabilities, get_runtime
from tools.transforms import TRANSFORM_NAMES, TRANSFORMS, check_order, get_transform
from tools.worker import LIGHT_MODULES, Returned, Worker

EXAMPLE = Path(__file__).parents[1] / "simulations" / "plugin_example"
HALF = Step(transform="half-weights", settings={"weights": "fp16"})
RUNTIME = """
from tools.contracts import Availability, ModelFormat, Recipe, Step

class Slow:
    name = "slow"
    formats = frozenset({ModelFormat.ONNX})
    needs_torch = False
    compiles_per_batch = False
    device = "cpu"
    settings = frozenset()

    @classmethod
    def availability(cls, hardware):
        return Availability(name="slow", available=True, version="1")

    def load(self, artifact, recipe, *, batch_size, threads, example):
        raise NotImplementedError

    def recipes(self, workload, hardware):
        return RECIPES
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that makes a distribution as pip leaves it behind: a module, and a folder that describes it."""

    def add(distribution, entry_points, modules=(), version="1.0"):
        folder = tmp_path / distribution
        described = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        described.mkdir(parents=True)
        (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (described / "entry_points.txt").write_text(entry_points)
        for name, source in dict(modules).items():
            (folder / f"{name}.py").write_text(source)
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(folder)
        return folder

    return add


@pytest.fixture
def half_weights(install):
    """The example, installed."""
    return install(
        "infertune-half-weights",
        "[infertune.transforms]\nhalf-weights = infertune_half_weights:HalfWeights\n",
        {"infertune_half_weights": (EXAMPLE / "infertune_half_weights.py").read_text()},
    )


@pytest.fixture
def workload(tmp_path):
    spec = TensorSpec(name="x", dtype="float32", shape=(64,))
    data = DatasetRef(digest="d", directory=str(tmp_path), n=1, inputs=(spec,), has_targets=False)
    source = onnx_model(tmp_path)
    return WorkloadInfo(
        name="w",
        digest="w",
        source=source,
        inputs=(spec,),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(64,)),),
        evaluation=data,
        calibration=data,
        metric="accuracy",
        higher_is_better=True,
        parameters=64 * 64,
    )


def onnx_model(root, scale=1.0):
    weights = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32) * scale
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["m"]), onnx.helper.make_node("Add", ["m", "b"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 64])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 64])],
        [onnx.numpy_helper.from_array(weights, "w"), onnx.numpy_helper.from_array(np.ones(64, np.float32), "b")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    return write_artifact(
        root / "artifacts", ModelFormat.ONNX, Precision.FP32, lambda f: onnx.save(model, str(f / "model.onnx"))
    )


def test_without_plugins_there_is_what_infertune_brings():
    assert TRANSFORMS.names() == TRANSFORM_NAMES
    assert RUNTIMES.names() == RUNTIME_NAMES
    assert plugins.versions() == {}
    assert plugins.examine() == ()
    plugins.check()


def test_a_plugin_comes_after_infertunes_own_and_its_version_is_known(half_weights):
    assert TRANSFORMS.names() == (*TRANSFORM_NAMES, "half-weights")
    assert plugins.versions() == {"infertune-half-weights": "1.0"}
    assert check_order(ModelFormat.TORCH, (Step(transform="export-onnx"), HALF)) is ModelFormat.ONNX


def test_names_are_listed_without_importing_a_plugin(half_weights):
    program = (
        "import sys; from tools import plugins; from tools.transforms import TRANSFORMS, get_transform; "
        "assert 'half-weights' in TRANSFORMS.names(); plugins.versions(); plugins.check(); get_transform('cast'); "
        "assert 'infertune_half_weights' not in sys.modules; get_transform('half-weights'); "
        "assert 'infertune_half_weights' in sys.modules; assert 'torch' not in sys.modules"
    )
    environment = {"PYTHONPATH": f"{half_weights}:{EXAMPLE.parents[1]}"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_the_name_of_one_of_infertunes_own_cannot_be_taken(install):
    install("acme-tools", "[infertune.transforms]\ncast = acme:Cast\n")
    said = "'cast' is provided by infertune itself and by acme-tools 1.0: remove one.*pip uninstall acme-tools"
    with pytest.raises(UnavailableError, match=said):
        plugins.check()
    assert TRANSFORMS.names() == TRANSFORM_NAMES
    assert type(get_transform("cast")).__module__ == "tools.transforms.cast"
    assert [(a.name, a.available) for a in plugins.examine()] == [("transform cast", False)]


def test_two_plugins_of_one_name_are_both_refused_by_their_names(install):
    for distribution in ("acme-tools", "other-tools"):
        install(distribution, "[infertune.runtimes]\nfast = acme:Fast\n", version="2.1")
    assert RUNTIMES.names() == RUNTIME_NAMES
    with pytest.raises(UnavailableError, match=r"acme-tools 2\.1 and by other-tools 2\.1"):
        get_runtime("fast")
    with pytest.raises(UnavailableError, match=r"acme-tools 2\.1 and by other-tools 2\.1"):
        plugins.check()


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import no_such_library", "cannot be loaded .ModuleNotFoundError: No module named 'no_such_library'"),
        ("class Part: name = 'part'", "has no apply, consumes, needs_calibration.*every transform must have"),
        ("Part = 3", "cannot be loaded .TypeError"),
    ],
)
def test_a_plugin_that_does_not_work_is_reported_and_stops_nothing(install, workload, source, why):
    install("acme-tools", "[infertune.transforms]\npart = acme_part:Part\n", {"acme_part": source})
    (found,) = plugins.examine()
    assert (found.name, found.available, found.version) == ("transform part", False, "acme-tools 1.0")
    with pytest.raises(TransformError, match=why):
        get_transform("part")
    notes = []
    assert plugins.proposals(workload, detect(), note=notes.append) == ()
    assert len(notes) == 1
    assert notes[0].startswith("The transform part of acme-tools 1.0 proposes nothing: ")
    assert found.reason in notes[0]


def test_a_plugin_under_another_name_than_its_own_is_refused(install, half_weights):
    install("acme-tools", "[infertune.transforms]\nhalved = infertune_half_weights:HalfWeights\n")
    with pytest.raises(TransformError, match="calls itself 'half-weights'; its entry point must have the same name"):
        get_transform("halved")


def test_a_runtime_that_cannot_be_loaded_is_unavailable_like_any_other(install):
    install(
        "acme-tools", "[infertune.runtimes]\nfast = acme_fast:Fast\n", {"acme_fast": "raise RuntimeError('no licence')"}
    )
    found = availabilities(detect())
    assert list(found) == [*RUNTIME_NAMES, "fast"]
    assert not found["fast"].available
    assert "no licence" in found["fast"].reason


def test_what_a_runtime_proposes_is_kept_where_it_can_be_begun_and_the_rest_is_noted(install, workload):
    recipes = """RECIPES = (
        Recipe(runtime="slow"),
        Recipe(runtime="slow"),
        Recipe(runtime="slow", steps=(Step(transform="convert-openvino"),)),
        Recipe(runtime="slow", steps=(Step(transform="no-such"),)),
        Recipe(runtime="no-such"),
        "openvino",
    )"""
    install("acme-slow", "[infertune.runtimes]\nslow = acme_slow:Slow\n", {"acme_slow": f"{RUNTIME}\n{recipes}"})
    notes = []
    assert plugins.proposals(workload, detect(), note=notes.append) == (Recipe(runtime="slow"),)
    assert availabilities(detect())["slow"].available
    assert [
        note.removeprefix("What the runtime slow of acme-slow 1.0 proposes is left out: ")[:36] for note in notes
    ] == [
        "slow cannot load openvino.",
        "there is no transform 'no-such'. Kno",
        "there is no runtime 'no-such'. Known",
        "'openvino' is no Recipe.",
    ]


def test_the_example_proposes_a_recipe_for_what_can_be_onnx(half_weights, workload):
    assert plugins.proposals(workload, detect()) == (Recipe(runtime="onnxruntime", steps=(HALF,)),)
    script = workload.source.model_copy(update={"format": ModelFormat.TORCHSCRIPT})
    assert plugins.proposals(workload.model_copy(update={"source": script}), detect()) == ()


@pytest.mark.parametrize("weights", ["fp16", "bf16"])
def test_the_example_halves_the_file_and_hardly_changes_what_comes_out(half_weights, workload, tmp_path, weights):
    made = get_transform("half-weights").apply(workload.source, workload, {"weights": weights}, tmp_path / "artifacts")
    assert made.facts == {"narrowed_weights": 64 * 64}
    assert made.artifact.precision is Precision.FP32
    assert made.artifact.size_mb < 0.55 * workload.source.size_mb
    x = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)
    outputs = []
    for artifact in (workload.source, made.artifact):
        onnx.checker.check_model(str(model_file(artifact)), full_check=True)
        session = onnxruntime.InferenceSession(str(model_file(artifact)), providers=["CPUExecutionProvider"])
        outputs.append(session.run(None, {"x": x})[0])
    difference = np.abs(outputs[0] - outputs[1]).max() / outputs[0].std()
    assert 0 < difference < (0.002 if weights == "fp16" else 0.02)


def test_a_worker_finds_a_plugin_where_its_own_process_does(half_weights, workload, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(half_weights))
    arguments = {
        "artifact": workload.source.model_dump(mode="json"),
        "workload": workload.model_dump(mode="json"),
        "step": HALF.model_dump(mode="json"),
        "root": str(tmp_path / "artifacts"),
    }
    with Worker(LIGHT_MODULES, tmp_path / "logs") as worker:
        made = worker.run("tools.transforms:apply_step", arguments, label="half", limit_s=30)
    assert isinstance(made, Returned), made
    assert BuildResult.model_validate(made.value).artifact.size_mb < 0.55 * workload.source.size_mb


def test_the_example_refuses_what_does_not_fit(half_weights, workload, tmp_path):
    large = onnx_model(tmp_path, scale=1e5)
    with pytest.raises(TransformError, match=r"weight w is beyond the range of fp16\. Use weights=bf16"):
        get_transform("half-weights").apply(large, workload, {}, tmp_path)
    with pytest.raises(TransformError, match="knows no weights 'fp4'"):
        get_transform("half-weights").apply(large, workload, {"weights": "fp4"}, tmp_path)


def test_the_examples_own_description_names_the_entry_point():
    text = (EXAMPLE / "pyproject.toml").read_text()
    assert '[project.entry-points."infertune.transforms"]\nhalf-weights = "infertune_half_weights:HalfWeights"' in text
