"""The chosen model in a real MLflow registry: it answers as it was measured."""

# ruff: noqa: F811  # a fixture that is imported, and then asked for by name

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from tracking_support import (  # noqa: F401
    BATCH,
    WARNINGS,
    active_runs,
    artifact,
    champion_version,
    client,
    configuration,
    empty_store,
    no_tracking_uri_from_outside,
    onnx_artifact,
    recorded,
    session_dir,
    session_result,
    tracking_uri,
)

from tools.contracts import (
    ArtifactRef,
    ModelFormat,
    Verdict,
)
from tools.tracking import record

pytestmark = WARNINGS


def champion_outputs(client_uri: str, x: object) -> dict[str, np.ndarray]:
    import mlflow

    mlflow.set_tracking_uri(client_uri)
    return mlflow.pyfunc.load_model("models:/digits@champion").predict(x)


def onnx_outputs(onnx_artifact: ArtifactRef, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(f"{onnx_artifact.directory}/model.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_the_champion_is_the_onnx_file_that_was_measured(recorded, tracking_uri, onnx_artifact, client):
    outputs = champion_outputs(tracking_uri, BATCH)
    np.testing.assert_array_equal(outputs["y"], onnx_outputs(onnx_artifact, BATCH))
    version = client.get_model_version_by_alias("digits", "champion")
    assert (recorded.model_name, recorded.model_version, recorded.note) == ("digits", str(version.version), None)
    assert version.run_id == recorded.run_id
    assert version.tags["recipe"] == "onnxruntime int8-static"


def test_the_signature_has_the_example_s_types_and_any_batch(recorded, tracking_uri):
    import mlflow

    mlflow.set_tracking_uri(tracking_uri)
    (spec,) = mlflow.models.get_model_info("models:/digits@champion").signature.inputs.inputs
    assert (spec.type, spec.shape) == (np.dtype("float32"), (-1, 4))


def test_the_requirements_name_what_is_installed(recorded, tracking_uri):
    import mlflow
    import onnx

    mlflow.set_tracking_uri(tracking_uri)
    file = mlflow.artifacts.download_artifacts("models:/digits@champion/requirements.txt")
    lines = Path(file).read_text().split()
    assert f"onnx=={onnx.__version__}" in lines
    assert any(line.startswith("onnxruntime") for line in lines)


def test_the_metrics_of_the_session_belong_to_the_model(recorded, client):
    experiment = client.get_run(recorded.run_id).info.experiment_id
    (model,) = client.search_logged_models([experiment])
    assert model.source_run_id == recorded.run_id
    assert "/home/mlartifacts/infertune-digits/models/" in model.artifact_location
    assert {"best_p99_ms", "ratio_cost"} <= {m.key for m in model.metrics}


def test_a_session_that_missed_its_objective_leaves_the_champion_alone(
    onnx_artifact, session_dir, tracking_uri, client, recorded
):
    best = configuration(onnx_artifact, "onnxruntime")
    later = session_result(best, session="later", verdict=Verdict.INFEASIBLE, trials=())
    ref = record(later, session_dir=session_dir, tracking_uri=tracking_uri, example={"x": BATCH})
    assert champion_version(client) == recorded.model_version
    assert champion_version(client, "best-so-far") == ref.model_version


def test_an_openvino_model_runs_at_the_precision_that_was_measured(tmp_path, onnx_artifact, session_dir, tracking_uri):
    import openvino as ov

    model = ov.convert_model(f"{onnx_artifact.directory}/model.onnx")
    ov.save_model(model, str(tmp_path / "model.xml"), compress_to_fp16=False)
    best = configuration(artifact(tmp_path, ModelFormat.OPENVINO), "openvino", {"inference_precision": "fp32"})
    record(session_result(best, trials=()), session_dir=session_dir, tracking_uri=tracking_uri, example={"x": BATCH})
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_array_equal(champion_outputs(tracking_uri, BATCH)["y"], compiled({"x": BATCH})[0])


FACTORY = """
import torch

class Scores(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x).relu()

def build():
    return Scores()
"""


@pytest.mark.parametrize("model_format", [ModelFormat.TORCH, ModelFormat.PT2, ModelFormat.TORCHSCRIPT])
def test_a_torch_model_runs_without_the_files_that_it_came_from(tmp_path, session_dir, tracking_uri, model_format):
    import torch
    from safetensors.torch import save_file

    source, folder = tmp_path / "source", tmp_path / "artifact"
    source.mkdir()
    folder.mkdir()
    (source / "scores.py").write_text(FACTORY)
    scope: dict = {}
    exec(FACTORY, scope)
    module = scope["build"]().eval()
    x = torch.from_numpy(BATCH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript
        if model_format is ModelFormat.TORCH:
            save_file(module.state_dict(), folder / "weights.safetensors")
        elif model_format is ModelFormat.PT2:
            shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
            torch.export.save(torch.export.export(module, (x,), dynamic_shapes=shapes), folder / "model.pt2")
        else:
            torch.jit.trace(module, x).save(str(folder / "model.ts"))
    factory = f"{source}/scores.py:build" if model_format is ModelFormat.TORCH else None
    best = configuration(artifact(folder, model_format, factory=factory), "eager")
    ref = record(
        session_result(best, trials=()), session_dir=session_dir, tracking_uri=tracking_uri, example={"x": BATCH}
    )
    assert ref.note is None
    for file in [*source.iterdir(), *folder.iterdir()]:
        file.unlink()
    with torch.inference_mode():
        expected = module(x).numpy()
    np.testing.assert_allclose(champion_outputs(tracking_uri, BATCH)["output_0"], expected, rtol=1e-6)


def test_several_inputs_are_passed_by_name(tmp_path, session_dir, tracking_uri):
    import torch

    class Sum(torch.nn.Module):
        def forward(self, left, right):
            return left - right

    arguments = (torch.zeros(2, 4), torch.zeros(2, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript
        torch.jit.trace(Sum(), arguments).save(str(tmp_path / "model.ts"))
    best = configuration(artifact(tmp_path, ModelFormat.TORCHSCRIPT), "torchscript")
    example = {"left": BATCH, "right": BATCH}
    record(session_result(best, trials=()), session_dir=session_dir, tracking_uri=tracking_uri, example=example)
    outputs = champion_outputs(tracking_uri, {"right": BATCH, "left": 3 * BATCH})
    np.testing.assert_array_equal(outputs["output_0"], 3 * BATCH - BATCH)


def test_a_model_that_cannot_be_logged_leaves_a_note_and_a_complete_record(tmp_path, session_dir, tracking_uri, client):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    best = configuration(artifact(tmp_path, ModelFormat.ONNX), "onnxruntime")
    ref = record(session_result(best), session_dir=session_dir, tracking_uri=tracking_uri, example={"x": BATCH})
    assert ref.model_version is None
    assert "could not be logged" in ref.note
    assert len(active_runs(client)) == 4
