"""Models of every common kind go through the exports and runtimes, or say why they cannot."""

import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from tools.contracts import EdgeCaseResult, Recipe, TrialResult, WorkloadInfo
from tools.errors import TransformError, WorkloadError
from tools.measure.edge_cases import run_edge_cases
from tools.measure.end_to_end import Stages, end_to_end
from tools.measure.trial import evaluate, run_trial
from tools.runtimes import get_runtime
from tools.spec import DataSpec, ModelSpec, SequenceSpec, WorkloadSpec
from tools.transforms import get_transform
from tools.workloads.batches import raw_batches, read_items
from tools.workloads.loading import materialize
from tools.workloads.metrics import score
from tools.workloads.probing import probe
from tools.workloads.sequences import describe_sequence
from tools.workloads.sources import open_source

KINDS = Path(__file__).parent / "workload_factories" / "kinds.py"
OWN_CODE = ("preprocess", "metric")
FLOAT_PATHS = {
    "onnxruntime": ("export-onnx",),
    "openvino": ("export-onnx", "convert-openvino"),
    "torchscript": ("script",),
}


@pytest.fixture(autouse=True)
def _fresh_imports():
    path = list(sys.path)
    yield
    sys.path[:] = path
    sys.modules.pop("kinds", None)


@pytest.fixture(autouse=True)
def _quiet_libraries():
    with warnings.catch_warnings():  # torch's exporter and nncf warn about their own internals
        warnings.simplefilter("ignore")
        yield


def load(home, model, data, *, sequence=None, **changes):
    """Materialize a workload of `kinds.py`, copied so that each home has its own."""
    home.mkdir(exist_ok=True)
    file = shutil.copy(KINDS, home / "kinds.py")
    spec = WorkloadSpec(
        name="kind",
        model=ModelSpec(factory=f"{file}:{model}"),
        evaluation=DataSpec(factory=f"{file}:{data}"),
        calibration=DataSpec(factory=f"{file}:{data}"),
        **{name: f"{file}:{value}" if name in OWN_CODE else value for name, value in changes.items()},
    )
    info = WorkloadInfo.model_validate(materialize(spec.model_dump(mode="json"), str(home)))
    if sequence is None:
        return info
    items = read_items(spec.evaluation, preprocess=spec.preprocess)
    described = describe_sequence(sequence, items.inputs, data)
    return info.model_copy(update={"sequence": probe(open_source(spec.model), items, described).sequence})


class Kinds:
    """Workloads and artifacts, each made once for all tests."""

    def __init__(self, folder):
        self._folder = folder
        self._workloads, self._artifacts = {}, {}

    def workload(self, model, data):
        sequence = SequenceSpec(mask="attention_mask") if data == "texts" else None
        if model not in self._workloads:
            self._workloads[model] = load(self._folder / model, model, data, sequence=sequence)
        return self._workloads[model]

    def artifact(self, model, transforms):
        info = self._workloads[model]
        if not transforms:
            return info.source
        if (model, transforms) not in self._artifacts:
            before = self.artifact(model, transforms[:-1])
            made = get_transform(transforms[-1]).apply(before, info, {}, self._folder / "artifacts")
            self._artifacts[model, transforms] = made.artifact
        return self._artifacts[model, transforms]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    return Kinds(tmp_path_factory.mktemp("kinds"))


def run(info, artifact, runtime, size=4, **settings):
    recipe = Recipe(runtime=runtime, settings=settings)
    return evaluate(get_runtime(runtime), artifact, recipe, info, size, 1)


def masked(info):
    """Outputs of each token are anything where there is none: compare the others."""
    mask = np.load(Path(info.evaluation.directory) / "attention_mask.npy")

    def apply(outputs):
        return [o * mask[..., None] if o.shape[:2] == mask.shape else o for o in outputs]

    return apply


def assert_same(expected, found):
    assert len(expected) == len(found)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "data"), [("convolutional", "images"), ("transformer", "images"), ("recurrent", "steps")]
)
def test_models_of_one_shape_run_on_every_runtime_at_any_batch(kinds, model, data):
    info = kinds.workload(model, data)
    expected = run(info, info.source, "eager")
    for runtime, transforms in FLOAT_PATHS.items():
        artifact = kinds.artifact(model, transforms)
        assert artifact.fixed_batch is None
        assert_same(expected, run(info, artifact, runtime, size=5))


@pytest.mark.parametrize("model", ["encoder", "layers"])
def test_text_encoders_run_on_every_runtime_at_any_length(kinds, model):
    info = kinds.workload(model, "texts")
    apply = masked(info)
    expected = apply(run(info, info.source, "eager"))
    for runtime, transforms in FLOAT_PATHS.items():
        artifact = kinds.artifact(model, transforms)
        assert (artifact.fixed_batch, artifact.fixed_length) == (None, None)
        assert_same(expected, apply(run(info, artifact, runtime, size=5)))
        assert_same(expected, apply(run(info, artifact, runtime, size=5, buckets="6,12")))


def test_which_outputs_are_as_long_as_the_batch_is_found_by_running(kinds):
    info = kinds.workload("encoder", "texts")
    assert info.sequence.outputs == ("tags",)
    logits, tags = run(info, info.source, "eager")
    assert (logits.shape, tags.shape) == ((24, 4), (24, 12, 3))


def test_a_loop_over_steps_is_exported_at_one_length_and_batches_are_padded_to_it(kinds, tmp_path):
    info = kinds.workload("looped", "texts")
    expected = run(info, info.source, "eager")
    for runtime in ("onnxruntime", "torchscript"):
        artifact = kinds.artifact("looped", FLOAT_PATHS[runtime])
        assert artifact.fixed_length == 12
        assert_same(expected, run(info, artifact, runtime))
    note = get_transform("script").apply(info.source, info, {}, tmp_path / "artifacts").notes
    assert "sequences of 12 only" in note[0]


@pytest.mark.parametrize(("model", "data"), [("recurrent", "steps"), ("encoder", "texts")])
def test_dynamic_int8_runs_where_a_model_is_linear_layers_and_recurrences(kinds, model, data):
    info = kinds.workload(model, data)
    artifact = kinds.artifact(model, ("export-onnx", "quantize-dynamic"))
    expected, found = run(info, info.source, "eager")[0], run(info, artifact, "onnxruntime")[0]
    assert np.abs(expected - found).max() < 0.3 * expected.std()


def test_a_model_that_branches_on_its_data_is_refused_by_the_exporter_and_runs_in_eager_mode(kinds):
    info = kinds.workload("branching", "steps")
    with pytest.raises(TransformError, match=r"torch\.export cannot follow the model"):
        kinds.artifact("branching", ("export-onnx",))
    (outputs,) = run(info, info.source, "eager", size=1)
    assert outputs.shape == (24, 4)
    kinds.artifact("branching", ("script",))  # one branch is frozen; what that costs is measured


def trial_of(info, raw, **asked):
    """Measure a workload as it is on PyTorch."""
    common = {"batch_sizes": [1], "threads": 1, "reference": None, "with_accuracy": True, "build_s": 0.0}
    told = run_trial(
        **{
            "workload": info.model_dump(mode="json"),
            "artifact": info.source.model_dump(mode="json"),
            "recipe": Recipe(runtime="eager").model_dump(mode="json"),
            "raw": str(raw),
            "tolerate_noise": True,
            **common,
            **asked,
        }
    )
    return TrialResult.model_validate(told)


def test_a_trial_of_sequences_times_batches_of_many_lengths(kinds, tmp_path):
    info = kinds.workload("encoder", "texts")
    shorter = Recipe(runtime="eager", settings={"max_length": 6}).model_dump(mode="json")
    parsed = trial_of(info, tmp_path / "raw.npz", recipe=shorter, point_max_s=0.05)
    assert parsed.points[0].latency_ms.p50.n >= 10
    assert parsed.accuracy.value.n == 24
    assert np.load(tmp_path / "raw.npz")["output_1"].shape == (24, 12, 3)


def test_what_is_clearly_slower_is_given_up_unless_it_is_wanted_to_the_end(kinds, tmp_path):
    info, raw, reference = kinds.workload("encoder", "texts"), tmp_path / "raw.npz", str(tmp_path / "baseline.npz")
    limits = {"point_max_s": 60.0, "enough_s": 0.1}
    trial_of(info, raw, **limits)
    np.savez(reference, **dict(np.load(raw)) | {"latency_ms_1": np.full(300, 1e-6)})
    abandoned = trial_of(info, raw, reference=reference, **limits)
    whole = trial_of(info, raw, reference=reference, to_the_end=True, **limits)
    assert "its median is clearly above 1e-06 ms: it was timed with" in abandoned.given_up
    assert whole.given_up is None
    assert whole.points[0].latency_ms.p99.n >= 300


def test_edge_cases_of_sequences_vary_the_length_and_leave_the_mask_alone(kinds):
    info = kinds.workload("encoder", "texts")
    found = EdgeCaseResult.model_validate(
        run_edge_cases(
            info.model_dump(mode="json"),
            info.source.model_dump(mode="json"),
            Recipe(runtime="eager").model_dump(mode="json"),
            [1, 8],
            1,
        )
    )
    cases = {case.name: case for case in found.cases}
    assert all(case.passed for case in found.cases), found
    assert {"one token", "the longest sequence (12)", "largest batch (8)", "all zeros"} <= set(cases)
    assert cases["odd shape"].detail.startswith("refused")  # there are 12 places


def test_a_model_of_one_length_is_told_to_go_without_a_sequence(tmp_path):
    file = tmp_path / "fixed.py"
    file.write_text(
        KINDS.read_text() + "\n\nclass Fixed(Encoder):\n    def forward(self, input_ids, attention_mask):\n"
        "        return super().forward(input_ids.view(-1, LONGEST), attention_mask)['logits']\n"
        "\n\ndef fixed():\n    return Fixed()\n"
    )
    items = read_items(DataSpec(factory=f"{file}:texts"))
    items.inputs["input_ids"][0, 5:] = items.inputs["attention_mask"][0, 5:] = 0  # the shortest is no divisor of 12
    described = describe_sequence(SequenceSpec(mask="attention_mask"), items.inputs, "texts")
    chosen = items.take(np.array([0, 3]))
    with pytest.raises(WorkloadError, match=r"was cut from 12 to its longest item, 5.*leave `sequence` out"):
        probe(open_source(ModelSpec(factory=f"{file}:fixed")), chosen, described)


def test_a_mask_that_the_model_ignores_is_noted(tmp_path):
    file = tmp_path / "ignoring.py"
    file.write_text(
        KINDS.read_text() + "\n\nclass Ignoring(Encoder):\n    def forward(self, input_ids, attention_mask):\n"
        "        return super().forward(input_ids, torch.ones_like(attention_mask))['logits']\n"
        "\n\ndef ignoring():\n    return Ignoring()\n"
    )
    items = read_items(DataSpec(factory=f"{file}:texts"))
    described = describe_sequence(SequenceSpec(mask="attention_mask"), items.inputs, "texts")
    found = probe(open_source(ModelSpec(factory=f"{file}:ignoring")), items, described)
    assert "depends on how far it is padded" in found.notes[-1]


def test_strings_are_raw_items_for_a_preprocessing(tmp_path):
    info = load(tmp_path, "encoder", "sentences", preprocess="tokenize")
    assert [spec.name for spec in info.inputs] == ["input_ids", "attention_mask"]
    outputs = run(info, info.source, "eager")
    figures = end_to_end(info, Stages(transfer=lambda: None, forward_ms=1.0, read_out=lambda: outputs))
    assert figures.preprocess_ms > 0
    assert not any("takes no single item" in note for note in figures.notes)


def test_strings_in_an_npz_are_raw_items_too(tmp_path):
    shutil.copy(KINDS, tmp_path / "kinds.py")
    strings, labels = np.array(["abc", "de", "f"]), np.array([1, 0, 2])
    np.savez(tmp_path / "raw.npz", inputs=strings, targets=labels)
    data = DataSpec(npz=str(tmp_path / "raw.npz"))
    (raw, _), *_ = raw_batches(data.npz)
    assert raw.tolist() == ["abc", "de", "f"]
    assert read_items(data, preprocess=f"{tmp_path / 'kinds.py'}:tokenize").inputs["input_ids"].shape == (3, 12)
    with pytest.raises(WorkloadError, match="name a `preprocess`"):
        read_items(data)


def test_targets_may_be_sequences_and_a_metric_may_use_several_outputs(tmp_path):
    info = load(tmp_path, "encoder", "tagged", metric="tagging")
    file = tmp_path / "kinds.py"
    targets = np.load(Path(info.evaluation.directory) / "targets.npy")
    outputs = run(info, info.source, "eager")
    scores = score(f"{file}:tagging", outputs, targets)
    assert scores.shape == (24,)
    perfect = np.eye(3)[np.maximum(targets, 0)]
    assert (score(f"{file}:tagging", (outputs[0], perfect), targets) == 1).all()
