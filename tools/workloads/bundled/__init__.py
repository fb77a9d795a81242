"""The workloads that infertune brings along: complete, trained on this machine when first used, no download."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.metadata
from pathlib import Path

from tools.artifacts import write_file
from tools.contracts import digest_of
from tools.errors import SpecError
from tools.spec import TuningSpec, load_spec
from tools.worker import emit, stage

_FOLDER = Path(__file__).resolve().parent

BUNDLED: dict[str, Path] = {
    "digits-resnet50": _FOLDER / "digits-resnet50.yaml",
    "digits-tiny": _FOLDER / "digits-tiny.yaml",
}
"""Name of each bundled workload, and its spec."""

_LIBRARIES = ("torch", "torchvision", "scikit-learn")


def bundled_spec(name: str, weights: Path) -> TuningSpec:
    """Load a bundled spec, with the trained weights in it.

    Raises:
        SpecError: there is no bundled workload of that name.
    """
    spec = load_spec(_spec_path(name))
    model = spec.workload.model.model_copy(update={"weights": str(weights)})
    return spec.model_copy(update={"workload": spec.workload.model_copy(update={"model": model})})


def weights_path(name: str, home: Path) -> Path:
    """Return where the trained weights are, or will be: named by all that the training depends on.

    Raises:
        SpecError: there is no bundled workload of that name.
    """
    files = [_FOLDER / "digits.py", _FOLDER / "training.py", _spec_path(name).with_name(_module_name(name) + ".py")]
    digest = digest_of(
        {
            "name": name,
            "sources": [hashlib.sha256(file.read_bytes()).hexdigest() for file in files],
            "versions": {library: importlib.metadata.version(library) for library in _LIBRARIES},
        }
    )
    return home / "workloads" / digest / "weights.safetensors"


def prepare(name: str, home: str) -> str:
    """Train a bundled workload unless that was done before. A worker task: it emits `training` events.

    Returns:
        The path of the weights.

    Raises:
        SpecError: there is no bundled workload of that name.
        StorageError: `home` cannot be written.
    """
    path = weights_path(name, Path(home))
    if path.is_file():
        return str(path)
    import safetensors.torch

    from tools.workloads.bundled import digits, training

    workload = importlib.import_module(f"tools.workloads.bundled.{_module_name(name)}")
    plan: training.TrainingPlan = workload.PLAN
    stage(f"training {name}")
    images, labels = digits.training_items()
    trained = training.train(
        workload.build,
        workload.preprocess(images),
        labels,
        plan,
        lambda epoch, loss: emit("training", epoch=epoch, epochs=plan.epochs, loss=loss),
    )
    write_file(path, safetensors.torch.save(trained.state_dict()))
    return str(path)


def _spec_path(name: str) -> Path:
    if name not in BUNDLED:
        close = difflib.get_close_matches(name, BUNDLED, n=1)
        raise SpecError(
            f"there is no bundled workload {name!r}.",
            fix=f"Did you mean `{close[0]}`?" if close else f"There are: {', '.join(BUNDLED)}.",
        )
    return BUNDLED[name]


def _module_name(name: str) -> str:
    return name.replace("-", "_")
