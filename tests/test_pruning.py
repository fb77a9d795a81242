"""The transforms that prune: what they write, what they tell, and what they refuse."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from tools.artifacts import model_file, model_file_name, write_artifact
from tools.contracts import ArtifactRef, ModelFormat, Precision, TensorSpec, WorkloadInfo
from tools.errors import TransformError
from tools.measure.flops_torch import count_flops, structure_facts
from tools.transforms.export_onnx import ExportOnnx
from tools.transforms.prune_channels import PruneChannels
from tools.transforms.prune_iteratively import PruneIteratively
from tools.transforms.prune_weights import PruneWeights, two_of_four
from tools.workloads.datasets import batch_of, write_dataset
from tools.workloads.modules import build_module, call_module, load_module
from tools.workloads.shrink import shrink
from tools.workloads.weights import save_weights

TINY = "tools.workloads.bundled.digits_tiny:build"
RESNET = "torchvision.models:resnet18"


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def workload(root, factory, shape, *, training=False, fixed_batch=None):
    """A workload of a model with random weights, and random items."""
    module = build_module(factory, num_classes=10 if factory == RESNET else None)
    source = write_artifact(
        root / "artifacts",
        ModelFormat.TORCH,
        Precision.FP32,
        lambda folder: save_weights(module, folder / model_file_name(ModelFormat.TORCH)),
        factory=factory,
        num_classes=10 if factory == RESNET else None,
        fixed_batch=fixed_batch,
    )
    random = np.random.default_rng(0)
    items = random.normal(size=(32, *shape)).astype(np.float32)
    data = write_dataset(root / "data", {"input_0": items}, random.integers(0, 10, 32))
    return WorkloadInfo(
        name="w",
        digest="w",
        source=source,
        inputs=(TensorSpec(name="input_0", dtype="float32", shape=shape),),
        outputs=(TensorSpec(name="output_0", dtype="float32", shape=(10,)),),
        evaluation=data,
        calibration=data,
        metric="top1",
        higher_is_better=True,
        parameters=sum(value.numel() for value in module.parameters()),
        training=data if training else None,
    )


def tiny(root, **keywords):
    return workload(root, TINY, (1, 16, 16), **keywords)


def apply(transform, info, root, artifact=None, **settings):
    return transform().apply(artifact or info.source, info, settings, root / "artifacts")


def test_half_of_the_channels_make_a_quarter_of_the_work(tmp_path):
    info = workload(tmp_path, RESNET, (3, 32, 32))
    made = apply(PruneChannels, info, tmp_path)
    facts = made.facts

    assert made.artifact.reshaped
    assert made.artifact.size_mb < 0.3 * info.source.size_mb
    assert facts["parameters_before"] == info.parameters
    assert 0.2 < facts["parameters"] / facts["parameters_before"] < 0.3
    assert 0.2 < facts["flops"] / facts["flops_before"] < 0.35
    assert facts["nonzero_parameters"] <= facts["parameters"]


def test_a_pruned_artifact_is_loaded_from_its_weights_alone_and_exported(tmp_path):
    info = workload(tmp_path, RESNET, (3, 32, 32))
    made = apply(PruneChannels, info, tmp_path, ratio=0.75, scope="global")
    module = load_module(ArtifactRef.model_validate_json(made.artifact.model_dump_json()))
    batch = torch.from_numpy(batch_of(info.calibration, 4)["input_0"])

    with torch.no_grad():
        dynamic = ({0: torch.export.Dim("batch", min=1, max=64)},)
        program = torch.export.export(module, (batch[:2],), dynamic_shapes=dynamic).module()
        assert torch.allclose(program(batch), module(batch), atol=1e-5)


def test_a_pruned_model_runs_in_onnxruntime(tmp_path):
    import onnxruntime

    info = tiny(tmp_path)
    pruned = apply(PruneChannels, info, tmp_path).artifact
    exported = apply(ExportOnnx, info, tmp_path, pruned).artifact
    batch = batch_of(info.calibration, 3)
    session = onnxruntime.InferenceSession(model_file(exported), providers=["CPUExecutionProvider"])

    assert np.allclose(session.run(None, batch)[0], call_module(load_module(pruned), batch)[0], atol=1e-4)


def test_what_was_pruned_can_be_pruned_again(tmp_path):
    info = tiny(tmp_path)
    once = apply(PruneChannels, info, tmp_path, ratio=0.25)
    twice = apply(PruneChannels, info, tmp_path, once.artifact, ratio=0.5)

    assert twice.facts["parameters_before"] == once.facts["parameters"] > twice.facts["parameters"]
    widths = [layer.out_channels for layer in load_module(twice.artifact) if isinstance(layer, nn.Conv2d)]
    assert widths == [8, 16, 24]


def test_pruning_twice_makes_the_same_artifact(tmp_path):
    info = tiny(tmp_path)
    for transform in (PruneChannels, PruneWeights):
        assert apply(transform, info, tmp_path).artifact == apply(transform, info, tmp_path).artifact


@pytest.mark.parametrize("factory", ["Transformer", "Tied"])
def test_a_smaller_model_is_loaded_from_its_file(tmp_path, factory):
    """Blocks that were left out, and tied weights, are not in the file."""
    module = build_module(f"test_structure:{factory}")
    tokens = torch.arange(12).reshape(2, 6)
    smaller = shrink(module, ((tokens,), {}), width=0.5, depth=0.5 if factory == "Transformer" else 1)
    artifact = write_artifact(
        tmp_path,
        ModelFormat.TORCH,
        Precision.FP32,
        lambda folder: save_weights(smaller, folder / model_file_name(ModelFormat.TORCH)),
        factory=f"test_structure:{factory}",
        reshaped=True,
    )

    with torch.no_grad():
        assert torch.equal(load_module(artifact)(tokens), smaller(tokens))


def test_a_fixed_batch_is_kept(tmp_path):
    info = tiny(tmp_path, fixed_batch=1)
    assert apply(PruneChannels, info, tmp_path).artifact.fixed_batch == 1


@pytest.mark.parametrize(
    ("transform", "settings", "message"),
    [
        (PruneChannels, {"ratio": 1.0}, "ratio"),
        (PruneChannels, {"scope": "layer"}, "scope"),
        (PruneChannels, {"steps": 2}, "steps"),
        (PruneWeights, {"ratio": 0.0}, "ratio"),
        (PruneWeights, {"pattern": "1:2"}, "pattern"),
        (PruneWeights, {"pattern": "2:4", "ratio": 0.5}, "leaves no choice of `ratio`"),
        (PruneIteratively, {"steps": 1}, "steps"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, transform, settings, message):
    with pytest.raises(TransformError, match=message):
        apply(transform, tiny(tmp_path, training=True), tmp_path, **settings)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_smallest_weights_become_zero_and_the_others_stay(tmp_path, scope):
    info = tiny(tmp_path)
    made = apply(PruneWeights, info, tmp_path, ratio=0.5, scope=scope)
    before, after = load_module(info.source), load_module(made.artifact)
    pairs = [
        (old.weight, new.weight)
        for old, new in zip(before, after, strict=True)
        if isinstance(old, nn.Conv2d | nn.Linear)
    ]
    zeros = [float((new == 0).float().mean()) for _, new in pairs]

    assert sum(int((new == 0).sum()) for _, new in pairs) == pytest.approx(sum(o.numel() for o, _ in pairs) / 2, abs=2)
    assert (max(zeros) - min(zeros) < 0.01) == (scope == "layer")
    assert all(torch.equal(new[new != 0], old[new != 0]) for old, new in pairs)
    largest_gone = [float(old[new == 0].abs().max()) for old, new in pairs if bool((new == 0).any())]
    smallest_kept = [float(new[new != 0].abs().min()) for _, new in pairs]
    if scope == "global":
        assert max(largest_gone) <= min(smallest_kept)
    else:
        assert all(gone <= kept for gone, kept in zip(largest_gone, smallest_kept, strict=True))


def test_zeros_change_neither_size_nor_work_and_that_is_said(tmp_path):
    info = tiny(tmp_path)
    made = apply(PruneWeights, info, tmp_path, ratio=0.4)

    assert made.facts["flops"] == made.facts["flops_before"]
    assert made.facts["parameters"] == made.facts["parameters_before"] == info.parameters
    assert made.facts["sparsity"] == pytest.approx(1 - made.facts["nonzero_parameters"] / info.parameters)
    assert made.facts["sparsity"] > 0.39
    assert made.artifact.size_mb == info.source.size_mb
    assert not made.artifact.reshaped
    assert "size and speed usually stay what they were" in made.notes[0]


def test_two_of_four_leaves_out_layers_whose_inputs_do_not_come_by_fours(tmp_path):
    info = tiny(tmp_path)
    made = apply(PruneWeights, info, tmp_path, pattern="2:4")
    first, second = [layer.weight for layer in load_module(made.artifact) if isinstance(layer, nn.Conv2d)][:2]

    assert bool((first != 0).all())
    fours = second.movedim(1, -1).reshape(-1, 4)
    assert bool(((fours != 0).sum(1) == 2).all())
    assert "in 3 of 4 layers" in made.notes[0]


def test_zeros_survive_in_a_narrowed_model(tmp_path):
    info = tiny(tmp_path)
    narrow = apply(PruneChannels, info, tmp_path).artifact
    made = apply(PruneWeights, info, tmp_path, narrow, ratio=0.5)

    assert made.artifact.reshaped
    assert structure_facts(load_module(made.artifact), batch_of(info.calibration, 2))["sparsity"] > 0.45


def test_iterative_pruning_trains_after_each_step(tmp_path, capsys):
    info = tiny(tmp_path, training=True)
    made = apply(PruneIteratively, info, tmp_path, ratio=0.5, steps=2, epochs=1, max_s=20)
    at_once = apply(PruneChannels, info, tmp_path, ratio=0.5)

    assert made.facts["parameters"] == at_once.facts["parameters"]
    assert made.facts["epochs"] == 2
    assert capsys.readouterr().out.count("planned: 1 epochs") == 2
    assert made.artifact.digest != at_once.artifact.digest


def test_rounding_in_small_steps_adds_up_to_what_one_step_takes(tmp_path):
    """A layer of 16 channels loses none in the first steps: they would be less than eight."""
    info = tiny(tmp_path, training=True)
    made = apply(PruneIteratively, info, tmp_path, ratio=0.55, steps=5, epochs=1, max_s=20)
    at_once = apply(PruneChannels, info, tmp_path, ratio=0.55)

    assert made.facts["parameters"] == at_once.facts["parameters"]


def test_iterative_pruning_needs_training_items(tmp_path):
    with pytest.raises(TransformError, match="the workload has no training items"):
        apply(PruneIteratively, tiny(tmp_path), tmp_path)


def test_a_workload_that_trains_says_so():
    assert (PruneChannels.needs_training, PruneWeights.needs_training, PruneIteratively.needs_training) == (
        False,
        False,
        True,
    )


def test_the_transforms_are_imported_without_torch():
    names = ", ".join(f"tools.transforms.prune_{name}" for name in ("channels", "weights", "iteratively"))
    code = f"import sys, {names}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_flops_are_those_of_one_item():
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    assert count_flops(module, {"input_0": np.zeros((5, 8), np.float32)}) == 2 * (8 * 16 + 16 * 2)


@given(
    weight=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.sampled_from([4, 8, 12]), st.integers(1, 3)),
        elements=st.floats(-2, 2, width=32),
    )
)
def test_two_of_four_keeps_the_two_largest_of_each_four(weight):
    tensor = torch.from_numpy(weight)
    mask = two_of_four(tensor, 1)
    fours, kept = (t.movedim(1, -1).reshape(-1, 4) for t in (tensor.abs(), mask.bool()))

    assert mask.shape == tensor.shape
    assert bool((kept.sum(1) == 2).all())
    assert bool((fours.masked_fill(~kept, 9).amin(1) >= fours.masked_fill(kept, -1).amax(1)).all())
