"""Loading models and data that are as they should be."""

import json
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tools.contracts import ArtifactRef, ModelFormat, Precision, WorkloadInfo
from tools.errors import SpecError, WorkloadError
from tools.spec import DataSpec, WorkloadSpec
from tools.worker import Returned, Worker
from tools.workloads import code, metrics, modules
from tools.workloads.batches import raw_batches, read_items
from tools.workloads.bundled import BUNDLED, bundled_spec, prepare, weights_path
from tools.workloads.datasets import batch_of, load_inputs, load_targets, write_dataset
from tools.workloads.loading import dry_load, materialize

LINEAR = str(Path(__file__).parent / "workload_factories" / "linear.py")


@pytest.fixture(autouse=True)
def _fresh_imports():
    """User modules are imported by name: what one test imports, the next must not see."""
    path, loaded = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - loaded:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and "site-packages" not in file and "workload" not in name:
            del sys.modules[name]
    for name in ("linear", "helper_of_linear"):
        sys.modules.pop(name, None)


def spec(**changes):
    fields = {
        "name": "linear",
        "model": {"factory": f"{LINEAR}:build"},
        "evaluation": {"factory": f"{LINEAR}:batches"},
        **changes,
    }
    return WorkloadSpec.model_validate(fields).model_dump(mode="json")


def load(tmp_path, **changes):
    return WorkloadInfo.model_validate(materialize(spec(**changes), str(tmp_path)))


def run_torch(info):
    return modules.call_module(modules.load_module(info.source), load_inputs(info.evaluation))


def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return code.resolve(f"{LINEAR}:build")().eval()


def export_onnx(path, module=None, *, batch="b", external=False, **kwargs):
    module = module or net()
    shapes = ({0: batch},) if isinstance(batch, str) else None
    size = batch if isinstance(batch, int) else 2
    with warnings.catch_warnings():  # the exporter's own deprecations
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.randn(size, 4),),
            str(path),
            dynamo=True,
            external_data=external,
            dynamic_shapes=shapes,
            input_names=["x"],
            output_names=["logits"],
            verbose=False,
            **kwargs,
        )


def export_pt2(path, module, args=(), kwargs=None, *, dynamic=True):
    batch = torch.export.Dim("batch")
    shapes = None
    if dynamic:
        shapes = {k: {0: batch} for k in kwargs} if kwargs else tuple({0: batch} for _ in args)
    torch.export.save(torch.export.export(module, args, kwargs or {}, dynamic_shapes=shapes), path)


def export_torchscript(path, module):
    with warnings.catch_warnings():  # TorchScript is deprecated, and people have it
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(module, torch.randn(2, 4)), str(path))


# --- factories -----------------------------------------------------------------------------------------------


def test_a_factory_workload_is_written_once_and_runs_without_the_users_data_code(tmp_path):
    info = load(tmp_path)
    assert info.source.format is ModelFormat.TORCH
    assert info.source.fixed_batch is None
    assert [(i.name, i.dtype, i.shape) for i in info.inputs] == [("input_0", "float32", (4,))]
    assert [(o.name, o.shape) for o in info.outputs] == [("output_0", (3,))]
    assert info.parameters == 4 * 8 + 8 + 8 * 3 + 3
    assert (info.calibration.n, info.evaluation.n) == (10, 30)
    assert "held out" in " ".join(info.notes)
    (outputs,) = run_torch(info)
    assert outputs.shape == (30, 3)
    assert metrics.score("top1", (outputs,), load_targets(info.evaluation)).shape == (30,)


def test_loading_the_same_workload_twice_gives_the_same_digests(tmp_path):
    assert load(tmp_path / "a").digest == load(tmp_path / "b").digest


def test_the_digest_changes_with_the_code_of_the_model_and_of_the_metric(tmp_path):
    for name in ("linear.py", "helper_of_linear.py"):
        shutil.copy(Path(LINEAR).with_name(name), tmp_path / name)
    reference = f"{tmp_path}/linear.py:build"
    before = code.source_digest(reference)
    (tmp_path / "helper_of_linear.py").write_text("CLASSES = 4\n")
    assert code.source_digest(reference) != before


def test_the_digest_changes_with_the_packages_that_a_module_lies_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    inner = tmp_path / "outer_of_digest" / "inner"
    inner.mkdir(parents=True)
    (inner.parent / "__init__.py").write_text("from outer_of_digest import settings\n")
    (inner.parent / "settings.py").write_text("CLASSES = 3\n")
    (inner / "factory.py").write_text("def build(): ...\n")  # `inner` itself has no __init__.py, as is allowed
    reference = "outer_of_digest.inner.factory:build"
    digests = {code.source_digest(reference)}
    (inner.parent / "settings.py").write_text("CLASSES = 4\n")
    digests.add(code.source_digest(reference))
    (inner / "__init__.py").write_text("")
    digests.add(code.source_digest(reference))
    assert len(digests) == 3


def test_evaluation_and_calibration_share_no_item_when_they_are_split(tmp_path):
    info = load(tmp_path)
    held_out = {row.tobytes() for row in load_inputs(info.evaluation)["input_0"]}
    calibrating = {row.tobytes() for row in load_inputs(info.calibration)["input_0"]}
    assert not held_out & calibrating


def test_given_calibration_data_are_limited_and_leave_the_evaluation_whole(tmp_path):
    info = load(tmp_path, calibration={"factory": f"{LINEAR}:other_items"})
    assert (info.evaluation.n, info.calibration.n) == (40, 300)
    assert not info.calibration.has_targets


def test_calibration_items_that_are_evaluation_items_are_noted(tmp_path):
    info = load(tmp_path, calibration={"factory": f"{LINEAR}:batches", "limit": 7})
    assert "7 calibration items are evaluation items too" in " ".join(info.notes)


def test_weights_of_a_safetensors_file_are_used(tmp_path):
    module = net()
    file = tmp_path / "w.safetensors"
    modules_weights(module, file)
    info = load(tmp_path, model={"factory": f"{LINEAR}:build", "weights": str(file)})
    inputs = load_inputs(info.evaluation)
    with torch.inference_mode():
        expected = module(torch.from_numpy(inputs["input_0"].copy())).numpy()
    np.testing.assert_allclose(run_torch(info)[0], expected, rtol=1e-6)


def modules_weights(module, file):
    from tools.workloads.weights import save_weights

    save_weights(module, file)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"epoch": 3, "state_dict": s}])
def test_weights_of_a_pt_file_are_used_also_out_of_a_checkpoint(tmp_path, wrap):
    module = net()
    torch.save(wrap(module.state_dict()), tmp_path / "w.pt")
    info = load(tmp_path, model={"factory": f"{LINEAR}:build", "weights": str(tmp_path / "w.pt")})
    loaded = modules.load_module(info.source).state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in module.state_dict().items())


def test_a_bf16_model_stays_bf16_and_answers_in_float32(tmp_path):
    info = load(tmp_path, model={"factory": f"{LINEAR}:build_bf16"})
    assert info.source.precision is Precision.BF16
    assert {p.dtype for p in modules.load_module(info.source).parameters()} == {torch.bfloat16}
    assert run_torch(info)[0].dtype == np.float32


def test_an_artifact_of_half_precision_converts_the_module_that_its_factory_builds(tmp_path):
    info = load(tmp_path)
    half = info.source.model_copy(update={"precision": Precision.BF16})
    module = modules.load_module(half)
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())


def test_named_inputs_are_keywords_tied_weights_are_stored_once_and_dict_outputs_keep_their_names(tmp_path):
    info = load(tmp_path, model={"factory": f"{LINEAR}:build_two"}, evaluation={"factory": f"{LINEAR}:named_batches"})
    assert {i.name: i.dtype for i in info.inputs} == {"ids": "int64", "mask": "float32"}
    assert [(o.name, o.shape) for o in info.outputs] == [("logits", (10,)), ("pooled", (6,))]
    assert info.source.size_mb < 2 * 10 * 6 * 4 / 1e6 + 500 / 1e6
    module = modules.load_module(info.source)
    assert module.tied.weight.data_ptr() == module.embedding.weight.data_ptr()
    assert [o.shape for o in run_torch(info)] == [(12, 10), (12, 6)]


# --- other sources -------------------------------------------------------------------------------------------


def test_an_onnx_model_takes_positional_data_under_its_own_names(tmp_path):
    export_onnx(tmp_path / "m.onnx")
    info = load(tmp_path, model={"onnx": str(tmp_path / "m.onnx")})
    assert info.source.format is ModelFormat.ONNX
    assert (info.inputs[0].name, info.outputs[0].name) == ("x", "logits")
    assert info.parameters == 67
    assert info.source.fixed_batch is None


def test_external_onnx_weights_end_up_in_one_file(tmp_path):
    import onnx

    (tmp_path / "given").mkdir()
    big = torch.nn.Sequential(torch.nn.Linear(4, 600), torch.nn.Linear(600, 3)).eval()
    export_onnx(tmp_path / "given" / "m.onnx", big)
    onnx.save(
        onnx.load(tmp_path / "given" / "m.onnx"),
        str(tmp_path / "given" / "e.onnx"),
        save_as_external_data=True,
        size_threshold=0,
    )
    info = load(tmp_path / "home", model={"onnx": str(tmp_path / "given" / "e.onnx")})
    shutil.rmtree(tmp_path / "given")
    assert sorted(p.name for p in Path(info.source.directory).iterdir()) == ["artifact.json", "model.onnx"]
    loaded = onnx.load(str(Path(info.source.directory) / "model.onnx"))
    assert all(t.data_location != onnx.TensorProto.EXTERNAL for t in loaded.graph.initializer)


def test_an_onnx_model_with_a_written_in_batch_size_is_run_with_it(tmp_path):
    export_onnx(tmp_path / "m.onnx", batch=4)
    info = load(tmp_path, model={"onnx": str(tmp_path / "m.onnx")})
    assert info.source.fixed_batch == 4
    assert "batches of 4 only" in " ".join(info.notes)


def test_an_exported_program_is_loaded_with_its_own_way_of_calling(tmp_path):
    export_pt2(tmp_path / "m.pt2", net(), (torch.randn(2, 4),))
    info = load(tmp_path, model={"pt2": str(tmp_path / "m.pt2")})
    assert info.source.fixed_batch is None
    assert info.inputs[0].name == "input_0"
    assert run_torch(info)[0].shape == (30, 3)


def test_named_data_reach_a_program_that_was_exported_by_position(tmp_path):
    module = code.resolve(f"{LINEAR}:build_two")().eval()
    args = (torch.zeros(2, 5, dtype=torch.long), torch.ones(2, 5))
    export_pt2(tmp_path / "m.pt2", module, args)
    info = load(tmp_path, model={"pt2": str(tmp_path / "m.pt2")}, evaluation={"factory": f"{LINEAR}:named_batches"})
    assert [(i.name, i.dtype) for i in info.inputs] == [("input_0", "int64"), ("input_1", "float32")]
    assert [o.shape for o in run_torch(info)] == [(12, 10), (12, 6)]


def test_named_data_reach_a_program_that_was_exported_by_keyword(tmp_path):
    module = code.resolve(f"{LINEAR}:build_two")().eval()
    kwargs = {"ids": torch.zeros(2, 5, dtype=torch.long), "mask": torch.ones(2, 5)}
    export_pt2(tmp_path / "m.pt2", module, kwargs=kwargs)
    info = load(tmp_path, model={"pt2": str(tmp_path / "m.pt2")}, evaluation={"factory": f"{LINEAR}:named_batches"})
    assert [i.name for i in info.inputs] == ["ids", "mask"]
    assert [o.shape for o in run_torch(info)] == [(12, 10), (12, 6)]


def test_a_program_exported_for_one_item_has_a_fixed_batch_of_one(tmp_path):
    export_pt2(tmp_path / "m.pt2", net(), (torch.randn(1, 4),), dynamic=False)
    assert load(tmp_path, model={"pt2": str(tmp_path / "m.pt2")}).source.fixed_batch == 1


def test_a_torchscript_file_is_loaded(tmp_path):
    export_torchscript(tmp_path / "m.ts", net())
    info = load(tmp_path, model={"torchscript": str(tmp_path / "m.ts")})
    assert info.source.format is ModelFormat.TORCHSCRIPT
    assert run_torch(info)[0].shape == (30, 3)


def test_a_format_that_is_not_pytorchs_is_refused_by_load_module(tmp_path):
    export_onnx(tmp_path / "m.onnx")
    info = load(tmp_path, model={"onnx": str(tmp_path / "m.onnx")})
    with pytest.raises(ValueError, match="not PyTorch modules"):
        modules.load_module(info.source)


# --- data ----------------------------------------------------------------------------------------------------


def test_an_npz_with_inputs_and_targets_is_read(tmp_path):
    np.savez(tmp_path / "d.npz", inputs=np.ones((100, 4), np.float32), targets=np.arange(100) % 3)
    info = load(tmp_path, evaluation={"npz": str(tmp_path / "d.npz")})
    assert (info.evaluation.n, info.calibration.n) == (75, 25)
    assert info.inputs[0].name == "input_0"


def test_an_npz_may_name_its_inputs(tmp_path):
    np.savez(
        tmp_path / "d.npz", ids=np.zeros((9, 5), np.int64), mask=np.ones((9, 5), np.float32), targets=np.zeros(9, int)
    )
    info = load(tmp_path, model={"factory": f"{LINEAR}:build_two"}, evaluation={"npz": str(tmp_path / "d.npz")})
    assert [i.name for i in info.inputs] == ["ids", "mask"]


def test_float64_becomes_float32_and_is_noted(tmp_path):
    info = load(tmp_path, evaluation={"factory": f"{LINEAR}:doubles"})
    assert info.inputs[0].dtype == "float32"
    assert "float64" in " ".join(info.notes)


@pytest.mark.parametrize(("function", "n"), [("loader", 20), ("one_pair", 5), ("batches", 40)])
def test_a_data_factory_may_be_a_generator_a_loader_or_one_pair(function, n):
    assert read_items(DataSpec(factory=f"{LINEAR}:{function}")).n == n


def test_a_limit_ends_an_endless_factory():
    assert read_items(DataSpec(factory=f"{LINEAR}:endless", limit=20)).n == 20


def test_raw_items_are_preprocessed_and_their_factory_is_kept_for_timing(tmp_path):
    info = load(
        tmp_path,
        evaluation={"factory": f"{LINEAR}:raw"},
        preprocess=f"{LINEAR}:decode",
        postprocess=f"{LINEAR}:label",
    )
    assert info.raw_evaluation == f"{LINEAR}:raw"
    assert info.inputs[0].shape == (4,)
    inputs, targets = next(raw_batches(info.raw_evaluation))
    assert inputs[0] == b"\x01\x02\x03\x04"
    assert len(targets) == 6


def test_a_raw_npz_is_preprocessed_in_chunks(tmp_path):
    np.savez(tmp_path / "d.npz", inputs=np.ones((100, 4), np.uint8), targets=np.zeros(100, int))
    info = load(tmp_path, evaluation={"npz": str(tmp_path / "d.npz")}, preprocess=f"{LINEAR}:decode")
    assert info.inputs[0].dtype == "float32"
    assert [len(x) for x, _ in raw_batches(info.raw_evaluation)] == [64, 36]


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 9),
    size=st.integers(1, 30),
    start=st.integers(0, 8),
    count=st.integers(1, 9),
)
def test_what_was_written_is_read_back_and_batches_repeat_the_items(tmp_path_factory, n, size, start, count):
    root = tmp_path_factory.mktemp("data")
    values = np.arange(n * 3, dtype=np.float32).reshape(n, 3)
    ref = write_dataset(root, {"a/b:0": values}, None)
    assert load_targets(ref) is None
    np.testing.assert_array_equal(load_inputs(ref, start, count)["a/b:0"], values[start : start + count])
    batch = batch_of(ref, size)["a/b:0"]
    np.testing.assert_array_equal(batch, values[np.arange(size) % n])
    assert batch.flags.writeable
    assert batch.flags.c_contiguous


# --- metrics -------------------------------------------------------------------------------------------------

FINITE = st.floats(-100, 100, width=32)


@settings(max_examples=50, deadline=None)
@given(
    outputs=hnp.arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(5, 9)), elements=FINITE),
    seed=st.integers(0, 99),
)
def test_top_k_agrees_with_a_stable_sort(outputs, seed):
    targets = np.random.default_rng(seed).integers(0, outputs.shape[1], len(outputs))
    order = np.argsort(-outputs, axis=1, kind="stable")
    for metric, k in (("top1", 1), ("top5", 5)):
        expected = (order[:, :k] == targets[:, None]).any(axis=1)
        np.testing.assert_array_equal(metrics.score(metric, (outputs,), targets), expected)


@settings(max_examples=50, deadline=None)
@given(outputs=hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=FINITE))
def test_a_model_is_perfectly_faithful_to_itself(outputs):
    np.testing.assert_array_equal(metrics.score("mse", (outputs,), None, baseline=(outputs,)), 0)
    np.testing.assert_allclose(metrics.score("cosine", (outputs,), None, baseline=(outputs,)), 1, atol=1e-6)


def test_mse_and_cosine_compare_with_targets_item_by_item():
    outputs = (np.array([[1.0, 0.0], [0.0, 2.0]], np.float32),)
    targets = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    np.testing.assert_allclose(metrics.score("mse", outputs, targets), [0.0, 2.5])
    np.testing.assert_allclose(metrics.score("cosine", outputs, targets), [1.0, 0.0])


def test_cosine_of_a_zero_output_is_zero_unless_the_target_is_zero_too():
    outputs = (np.zeros((2, 3), np.float32),)
    np.testing.assert_array_equal(metrics.score("cosine", outputs, np.array([[0, 0, 0], [1, 0, 0]], "f4")), [1, 0])


def test_metrics_know_which_way_they_point():
    assert metrics.higher_is_better("top1", None)
    assert not metrics.higher_is_better("mse", None)
    assert metrics.higher_is_better("m.py:f", None)
    assert not metrics.higher_is_better("m.py:f", declared=False)


def test_a_metric_of_the_users_own_scores_item_by_item(tmp_path):
    info = load(tmp_path, metric=f"{LINEAR}:margin", higher_is_better=True)
    scores = metrics.score(info.metric, run_torch(info), load_targets(info.evaluation))
    assert metrics.is_per_item(scores, 30)


def test_a_metric_that_returns_one_number_is_noted_as_not_comparable_in_pairs(tmp_path):
    info = load(tmp_path, metric=f"{LINEAR}:mean_margin")
    assert "cannot be compared in pairs" in " ".join(info.notes)
    assert not metrics.is_per_item(metrics.score(info.metric, run_torch(info), load_targets(info.evaluation)), 30)


def test_without_targets_the_metric_is_fidelity(tmp_path):
    info = load(tmp_path, evaluation={"factory": f"{LINEAR}:other_items"}, metric="cosine")
    assert "compares with the outputs of the model as given" in " ".join(info.notes)


def test_flattening_keeps_the_order_and_leaves_out_what_is_none():
    a, b, c = (torch.tensor([float(i)]) for i in range(3))
    named = modules.named_outputs({"x": a, "rest": (b, None, [c])})
    assert list(named) == ["x", "rest.0", "rest.2.0"]
    assert modules.flatten_outputs((a, b)) == [a, b]


# --- tasks ---------------------------------------------------------------------------------------------------


def test_a_dry_load_tells_facts_and_writes_nothing(tmp_path):
    facts = dry_load(spec(), str(tmp_path / "home"))
    assert facts["parameters"] == 67
    assert facts["items_seen"] == 16
    assert facts["inputs"] == [{"name": "input_0", "dtype": "float32", "shape": [4]}]
    assert 0 <= facts["metric"] <= 1
    json.dumps(facts)
    assert not (tmp_path / "home").exists()


def test_a_worker_materializes_and_says_what_it_is_doing(tmp_path):
    stages = []
    with Worker(["torch"], tmp_path / "logs") as worker:
        outcome = worker.run(
            "tools.workloads.loading:materialize",
            {"spec": spec(), "home": str(tmp_path)},
            label="load",
            limit_s=100,
            on_event=lambda event: stages.append(event.get("stage")),
        )
    assert isinstance(outcome, Returned), outcome
    assert WorkloadInfo.model_validate(outcome.value).evaluation.n == 30
    assert stages[:2] == ["loading the model", "loading the data"]


# --- bundled -------------------------------------------------------------------------------------------------


def test_the_tiny_bundled_workload_trains_once_to_its_accuracy_and_loads(tmp_path):
    weights = Path(prepare("digits-tiny", str(tmp_path)))
    written = weights.stat().st_mtime_ns
    assert prepare("digits-tiny", str(tmp_path)) == str(weights)
    assert weights.stat().st_mtime_ns == written
    workload = bundled_spec("digits-tiny", weights).workload
    info = WorkloadInfo.model_validate(materialize(workload.model_dump(mode="json"), str(tmp_path)))
    assert (info.evaluation.n, info.calibration.n) == (597, 200)
    assert info.notes == ()
    assert metrics.score("top1", run_torch(info), load_targets(info.evaluation)).mean() > 0.93


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_spec_is_valid_and_gets_its_weights(name, tmp_path):
    loaded = bundled_spec(name, weights_path(name, tmp_path))
    assert loaded.workload.name == name
    assert loaded.workload.model.weights.endswith("weights.safetensors")
    assert Path(loaded.traffic.trace).is_file()
    assert Path(loaded.hpa.file).is_file()


def test_the_reference_workload_has_the_items_that_its_description_promises():
    from tools.workloads.bundled import digits_resnet50 as workload

    sizes = [sum(len(y) for _, y in f()) for f in (workload.training, workload.evaluation, workload.calibration)]
    assert sizes == [1200, 597, 200]
    raw, _ = next(iter(workload.evaluation()))
    assert (raw.dtype, raw.shape[1:]) == (np.uint8, (8, 8))
    inputs = workload.preprocess(raw)
    assert (inputs.dtype, inputs.shape) == (np.float32, (100, 3, 64, 64))
    assert (inputs.min(), inputs.max()) == (-1.0, 1.0)
    answers = workload.postprocess(np.eye(10, dtype=np.float32))
    assert [a["digit"] for a in answers] == list(range(10))


def test_an_unknown_bundled_workload_gets_a_suggestion():
    with pytest.raises(SpecError, match="digits-tiny"):
        bundled_spec("digits-tny", Path("w"))


def test_a_missing_artifact_file_is_an_error_a_person_can_read(tmp_path):
    ref = ArtifactRef(
        digest="d",
        directory=str(tmp_path),
        format=ModelFormat.PT2,
        precision=Precision.FP32,
        size_mb=0,
    )
    with pytest.raises(WorkloadError, match="no such file"):
        modules.load_module(ref)
