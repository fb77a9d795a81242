"""The example of a model of one's own: its specs hold, its data fit them, and its model is built."""

import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.loading import check_files
from simulations.mobilenet import data, model, train
from tools.spec import load_spec
from tools.workloads.loading import dry_load

FOLDER = Path(data.__file__).parent
SPECS = ("tuning.yaml", "tuning-onnx.yaml")


@pytest.fixture(autouse=True)
def _fresh_imports():
    """User modules are imported by their plain names: what is seen here must not be seen by other tests."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in ("data", "model"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", SPECS)
def test_specs_hold_and_what_they_name_from_the_checkout_is_there(name):
    spec = load_spec(FOLDER / name)
    check_files(spec)
    for reference in (spec.workload.model.factory, spec.workload.evaluation.factory, spec.workload.calibration.factory):
        if reference is not None:
            assert Path(reference.rpartition(":")[0]).parent == FOLDER


def test_only_the_onnx_spec_names_an_hpa():
    assert [load_spec(FOLDER / name).hpa is None for name in SPECS] == [True, False]


def test_both_specs_ask_for_the_same():
    torch_spec, onnx_spec = (load_spec(FOLDER / name) for name in SPECS)
    for part in ("objective", "hardware", "traffic", "budget"):
        assert getattr(torch_spec, part) == getattr(onnx_spec, part)


@pytest.mark.parametrize(("factory", "items"), [(data.evaluation, 597), (data.calibration, 200), (data.training, 1200)])
def test_data_are_ready_for_the_model(factory, items):
    batches = list(factory())
    assert sum(len(targets) for _, targets in batches) == items
    for inputs, targets in batches:
        assert inputs.shape == (len(targets), 3, 64, 64)
        assert inputs.dtype == np.float32
        assert -1 <= inputs.min() < inputs.max() <= 1
        assert set(targets) <= set(range(model.CLASSES))


def test_what_is_evaluated_was_neither_trained_nor_calibrated_on():
    def seen(factory):
        return {item.tobytes() for inputs, _ in factory() for item in inputs}

    assert not seen(data.evaluation) & seen(data.training)
    assert seen(data.calibration) < seen(data.training)


def test_the_pytorch_spec_loads_and_runs(tmp_path):
    """A stranger's folder: copied away from the checkout, with weights of its own."""
    for file in ("model.py", "data.py", "tuning.yaml"):
        shutil.copy(FOLDER / file, tmp_path)
    train.write_aside(tmp_path / "weights.safetensors", lambda path: _save(model.build(), path))
    facts = dry_load(load_spec(tmp_path / "tuning.yaml").workload.model_dump(mode="json"), str(tmp_path))
    assert facts["inputs"][0]["shape"] == [3, 64, 64]
    assert facts["outputs"][0]["shape"] == [model.CLASSES]
    assert facts["fixed_batch"] is None
    assert facts["parameters"] == sum(p.numel() for p in model.build().parameters())
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == sorted(
        ["model.py", "data.py", "tuning.yaml", "weights.safetensors"]
    )


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    target = tmp_path / "model.onnx"
    target.write_text("old")

    def fails(path):
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.write_aside(target, fails)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert target.read_text() == "old"


def test_training_is_skipped_where_its_files_are(tmp_path, monkeypatch, capsys):
    for name in ("weights.safetensors", "model.onnx"):
        (tmp_path / name).write_text("there")
    monkeypatch.setattr(sys, "argv", ["train.py", str(tmp_path)])
    monkeypatch.setattr(train, "train", lambda: pytest.fail("trained again"))
    train.main()
    assert "there already" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["data", "model"])
def test_what_the_specs_name_stands_alone(name):
    source = (FOLDER / f"{name}.py").read_text()
    assert all(package not in source for package in ("import tools", "from tools", "from simulations", "from agent"))
    assert importlib.util.find_spec(f"simulations.mobilenet.{name}")


def _save(module, path):
    import safetensors.torch

    torch.manual_seed(0)
    safetensors.torch.save_file(module.state_dict(), path)
