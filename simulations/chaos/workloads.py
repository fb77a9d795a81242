"""The workloads that faults are injected into: a small ONNX classifier, and models that misbehave in one candidate.

An ONNX file and arrays need no PyTorch, so a session on them takes a second where everything is measured already.
The models that misbehave are PyTorch factories, since it takes code to misbehave. They do it while they are exported,
which only one candidate's build does: the model as given is well.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

if TYPE_CHECKING:
    pass

ITEMS, CHANNELS, SIDE, CLASSES = 300, 3, 16, 5
PRINTED_BYTES = 1_000_000_000
"""What the model that prints writes."""


def write_spec(folder: Path, model: dict[str, str], evaluation: dict[str, str], **budget: float) -> Path:
    """Write `tuning.yaml` for a model and data.

    Args:
        folder: where to.
        model: the spec's `workload.model`.
        evaluation: the spec's `workload.evaluation`.
        budget: the spec's `budget`.
    """
    spec = {
        "workload": {"name": "chaos", "model": model, "evaluation": evaluation},
        "objective": {"p99_ms": 500, "max_accuracy_drop": 0.2},
        "hardware": {"price_per_hour_usd": 0.1, "threads": 1},
        "traffic": {"rate_rps": 1000},
    }
    if budget:
        spec["budget"] = budget
    path = folder / "tuning.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


def classifier(folder: Path) -> Path:
    """Write a small convolutional network as an ONNX file, its data, and a spec; returns the spec."""
    _save(folder, _classifier_nodes(), ["w", "v"], {"w": (8, CHANNELS, 3, 3), "v": (8, CLASSES)})
    return write_spec(folder, {"onnx": "model.onnx"}, {"npz": "data.npz"})


def nan_in_int8(folder: Path) -> Path:
    """Write a network that divides by a value which INT8 rounds to zero, its data, and a spec; returns the spec.

    One of the hidden features is a million times larger than the others. On one INT8 scale for all of them, the others are zero, and
    so is their root mean square, by which they are divided as in any RMS norm that lacks its epsilon.
    """
    _save(folder, _norm_nodes(), ["w", "v"], {"w": (CHANNELS * SIDE * SIDE, 8), "v": (7, CLASSES)}, spread=1e6)
    return write_spec(folder, {"onnx": "model.onnx"}, {"npz": "data.npz"})


def misbehaving(folder: Path, factory: str, **budget: float) -> Path:
    """Write a spec for one of this module's factories; returns the spec."""
    here = Path(__file__).resolve()
    return write_spec(folder, {"factory": f"{here}:{factory}"}, {"factory": f"{here}:items"}, **budget)


# --- ONNX ----------------------------------------------------------------------------------------------------------


def _classifier_nodes() -> list[Any]:
    from onnx import helper

    return [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalMaxPool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]


def _norm_nodes() -> list[Any]:
    from onnx import helper

    return [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["hidden"]),
        helper.make_node("Split", ["hidden", "parts"], ["large", "small"], axis=1),
        helper.make_node("Mul", ["small", "small"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "axis"], ["sum"], keepdims=1),
        helper.make_node("Sqrt", ["sum"], ["root"]),
        helper.make_node("Div", ["small", "root"], ["normed"]),
        helper.make_node("MatMul", ["normed", "v"], ["y"]),
    ]


def _save(
    folder: Path, nodes: list[Any], names: list[str], shapes: dict[str, tuple[int, ...]], spread: float = 1.0
) -> None:
    """Write `model.onnx` and `data.npz`; the labels are what the model itself says, so its accuracy is 1."""
    import onnx
    import onnxruntime as ort
    from onnx import numpy_helper

    generator = np.random.default_rng(0)
    weights = {name: generator.normal(0, 0.3, shapes[name]).astype(np.float32) for name in names}
    if spread > 1:
        weights["w"][:, 0] *= spread
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    if spread > 1:
        initializers += [
            numpy_helper.from_array(np.array([1, 7]), "parts"),
            numpy_helper.from_array(np.array([1]), "axis"),
        ]
    given = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", CHANNELS, SIDE, SIDE])
    answer = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", CLASSES])
    graph = onnx.helper.make_graph(nodes, "chaos", [given], [answer], initializers)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    inputs = generator.normal(size=(ITEMS, CHANNELS, SIDE, SIDE)).astype(np.float32)
    (outputs,) = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": inputs}
    )
    np.savez(folder / "data.npz", inputs=inputs, targets=outputs.argmax(1))
