"""Log the chosen artifact as an MLflow model and register it.

An ONNX file becomes an `onnx` model, so that MLflow's own tools know it. The other formats become a `python_function`
model: their files, `serve.json`, and the one module that runs them (`infertune_served_model.py`). An artifact of format
`torch` has no program in its files, so the source file of its factory is copied along (or, for a factory in a package,
the package is needed where the model is loaded); it runs in eager mode, even if it was measured compiled.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tools.artifacts import model_file
from tools.contracts import ArtifactRef, ModelFormat, Precision, Verdict
from tools.errors import WorkloadError
from tools.result import Configuration, SessionResult
from tools.tracking import infertune_served_model
from tools.tracking.facts import SESSION_TAG
from tools.workloads.pixels import to_pixels

CHAMPION = "champion"
"""Alias of the version that keeps all promises."""
BEST_SO_FAR = "best-so-far"
"""Alias of the version to look at when a session ended without meeting its objective; the champion stays."""

_REQUIREMENTS: dict[ModelFormat, tuple[tuple[str, ...], ...]] = {
    ModelFormat.ONNX: (("onnx",), ("onnxruntime-gpu", "onnxruntime"), ("numpy",)),
    ModelFormat.OPENVINO: (("openvino",), ("numpy",)),
    ModelFormat.PT2: (("torch",), ("numpy",)),
    ModelFormat.TORCHSCRIPT: (("torch",), ("numpy",)),
    ModelFormat.TORCH: (("torch",), ("safetensors",), ("numpy",)),
}
"""For each format what has to be installed, by the names that it may be installed under."""


class RegisteredModel(NamedTuple):
    """A model in MLflow's registry."""

    model_id: str
    name: str
    version: str


def load_example(example: Path | Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return one batch of inputs by name.

    Args:
        example: an `.npz` file, or arrays or nested lists by name. Python's floats have no single precision; lists of
            them are taken for float32, which is what models are fed with.

    Raises:
        WorkloadError: there is no such file, it is no `.npz`, or it holds nothing.
    """
    if isinstance(example, Path):
        try:
            with np.load(example) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except (OSError, ValueError) as error:
            raise WorkloadError(f"is no .npz file with example inputs ({error}).", where=str(example)) from None
    else:
        arrays = {name: _array(value) for name, value in example.items()}
    if not arrays:
        raise WorkloadError("the example holds no inputs.")
    return arrays


def log_model(client: Any, run: Any, result: SessionResult, best: Configuration, example: dict[str, np.ndarray]) -> Any:
    """Log the best configuration's artifact as a model of the run; return MLflow's `ModelInfo`."""
    import mlflow
    import mlflow.onnx
    from mlflow.models import Model

    artifact = best.artifact_ref
    if artifact.pixels is not None:
        example = to_pixels(artifact.pixels, example)
    # Made here and not by `Model.log`, which takes the process's current experiment and not that of the run.
    logged = client.create_logged_model(
        run.info.experiment_id,
        name=result.workload,
        source_run_id=run.info.run_id,
        params={"recipe": best.recipe, "batch_size": str(best.batch_size)},
    )
    common = {
        "model_id": logged.model_id,
        "run_id": run.info.run_id,
        "signature": _signature(example, artifact.fixed_batch),
        "pip_requirements": _pip_requirements(artifact.format),
        "metadata": {
            "infertune_session": result.session,
            "recipe": best.recipe,
            "artifact": artifact.digest,
            "inputs": ", ".join(example),
        },
    }
    if artifact.format is ModelFormat.ONNX:
        import onnx

        gpu = best.runtime == "onnxruntime-cuda"
        return Model.log(
            None,
            mlflow.onnx,
            onnx_model=onnx.load(str(model_file(artifact))),
            save_as_external_data=False,
            onnx_execution_providers=[*(["CUDAExecutionProvider"] if gpu else []), "CPUExecutionProvider"],
            **common,
        )
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        # An example in MLflow is stored as JSON, and the model loaded to try it: the signature says enough.
        warnings.filterwarnings("ignore", message=".*input example was not provided")
        folder = Path(temporary) / "model"
        _collect(best, list(example), folder)
        return Model.log(
            None,
            mlflow.pyfunc,
            loader_module=infertune_served_model.__name__.rpartition(".")[2],
            code_paths=[str(infertune_served_model.__file__)],
            data_path=str(folder),
            **common,
        )


def register_model(client: Any, info: Any, run: Any, result: SessionResult, best: Configuration) -> RegisteredModel:
    """Register a logged model under the workload's name and move the alias that fits the verdict."""
    from mlflow.exceptions import MlflowException

    name = result.workload
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.create_model_version(
        name,
        source=info.model_uri,
        run_id=run.info.run_id,
        model_id=info.model_id,
        description=result.summary,
        tags={
            SESSION_TAG: result.session,
            "verdict": result.verdict.value,
            "recipe": best.recipe,
            "runtime": best.runtime,
            "precision": best.definition.precision.value,
            "batch_size": str(best.batch_size),
        },
    )
    alias = CHAMPION if result.verdict is Verdict.MET else BEST_SO_FAR
    client.set_registered_model_alias(name, alias, made.version)
    return RegisteredModel(info.model_id, name, str(made.version))


def _collect(best: Configuration, inputs: list[str], folder: Path) -> None:
    """Lay out what `infertune_served_model` reads. MLflow copies it, so links to the big files are enough."""
    artifact = best.artifact_ref
    folder.mkdir()
    for file in Path(artifact.directory).iterdir():
        (folder / file.name).symlink_to(file.resolve())
    serve = {
        "format": artifact.format.value,
        "file": model_file(artifact).name,
        "inputs": inputs,
        "precision": artifact.precision.value,
        "inference_precision": best.definition.settings.get("inference_precision", Precision.FP32.value),
        "factory": _copy_factory(artifact, folder),
    }
    (folder / "serve.json").write_text(json.dumps(serve, indent=1))


def _copy_factory(artifact: ArtifactRef, folder: Path) -> str | None:
    if artifact.format is not ModelFormat.TORCH:
        return None
    assert artifact.factory is not None, "an artifact of format torch names its factory"
    source, _, function = artifact.factory.rpartition(":")
    if not source.endswith(".py"):
        return artifact.factory
    shutil.copyfile(source, folder / "factory.py")
    return f"factory.py:{function}"


def _signature(example: Mapping[str, np.ndarray], fixed_batch: int | None) -> Any:
    """Return the input signature. A single input stays without a name, so that a bare array can be passed."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    batch = fixed_batch or -1
    names = list(example) if len(example) > 1 else [None]
    specs = [
        TensorSpec(array.dtype, (batch, *array.shape[1:]), name)
        for name, array in zip(names, example.values(), strict=True)
    ]
    return ModelSignature(inputs=Schema(specs))


def _pip_requirements(model_format: ModelFormat) -> list[str]:
    """Pin what is installed here. Said explicitly, since MLflow would load the model in a subprocess to find out."""
    return [pin for names in (("mlflow",), *_REQUIREMENTS[model_format]) if (pin := _pin(names)) is not None]


def _pin(names: tuple[str, ...]) -> str | None:
    for name in names:
        try:
            return f"{name}=={version(name).partition('+')[0]}"
        except PackageNotFoundError:
            continue
    return None


def _array(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float64 else array
