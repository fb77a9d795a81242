"""The net whose layer `planted` does not survive INT8, loaded as a workload, and a net without that."""

from pathlib import Path

import numpy as np

from simulations.sensitive import data
from tools.artifacts import model_file
from tools.contracts import ModelFormat, Recipe, WorkloadInfo
from tools.runtimes import get_runtime
from tools.spec import load_spec
from tools.transforms.graph_facts import node_counts
from tools.workloads.datasets import load_inputs, write_dataset
from tools.workloads.loading import materialize

SENSITIVE = Path(data.__file__).with_name("tuning.yaml")
RUNTIMES = {ModelFormat.ONNX: "onnxruntime", ModelFormat.OPENVINO: "openvino"}


def load_sensitive(folder, **changes):
    spec = load_spec(SENSITIVE)
    workload = spec.workload.model_copy(update=changes)
    return WorkloadInfo.model_validate(materialize(workload.model_dump(mode="json"), str(folder), limit_calibration=60))


def with_calibration(info, folder, inputs):
    """The same workload with other calibration items."""
    return info.model_copy(update={"calibration": write_dataset(folder, {"input_0": inputs}, None)})


def run(artifact, info, items=100):
    """Outputs for the first held-out items."""
    example = {name: np.ascontiguousarray(array) for name, array in load_inputs(info.evaluation, 0, items).items()}
    recipe = Recipe(runtime=RUNTIMES[artifact.format], precision=artifact.precision)
    return get_runtime(recipe.runtime).load(artifact, recipe, batch_size=items, threads=1, example=example)(example)[0]


def accuracy(artifact, info, items=300):
    labels = np.concatenate([targets for _, targets in data.evaluation()])[:items]
    return float((run(artifact, info, items).argmax(1) == labels).mean())


def kinds(artifact):
    return node_counts(model_file(artifact))
