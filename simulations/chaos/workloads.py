"""The workloads that faults are injected into.

An ONNX file and arrays need no PyTorch, whose import takes seconds: where everything is measured already, a session on
them takes a second or two.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

ITEMS, CHANNELS, SIDE, CLASSES = 300, 3, 16, 5
HIDDEN = 8
LARGE = 1e6
TRIAL_S = 20.0
"""Far more than a trial takes. What noise left unsettled is measured for half of it, so it must not be long either."""
USER_CODE = Path(__file__).resolve().parent / "user_code.py"


def classifier(folder: Path, metric: str | None = None, **budget: float) -> Path:
    """Write a small convolutional network as an ONNX file, its data, and a spec.

    Args:
        folder: where to.
        metric: one of `user_code`'s, whose targets are the model's outputs; default: top1, against its classes.
        budget: the spec's `budget`.

    Returns:
        The spec.
    """
    from onnx import helper

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalMaxPool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    weights = {"w": _random(HIDDEN, CHANNELS, 3, 3), "v": _random(HIDDEN, CLASSES)}
    _save(folder, nodes, weights, labels=metric is None)
    more = {} if metric is None else {"metric": f"{USER_CODE}:{metric}"}
    return _write_spec(folder, {"onnx": "model.onnx"}, {"npz": "data.npz"}, budget, **more)


def nan_in_int8(folder: Path) -> Path:
    """Write a network that divides by what INT8 rounds to zero, its data, and a spec; returns the spec.

    One hidden feature is a million times as large as the others. On one INT8 scale for all of them the others are
    zero, and so is their root mean square, by which they are divided, as in an RMS norm that lacks its epsilon.
    """
    from onnx import helper

    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["hidden"]),
        helper.make_node("Split", ["hidden", "parts"], ["large", "small"], axis=1),
        helper.make_node("Mul", ["small", "small"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Sqrt", ["mean"], ["root"]),
        helper.make_node("Div", ["small", "root"], ["normed"]),
        helper.make_node("MatMul", ["normed", "v"], ["y"]),
    ]
    hidden = _random(CHANNELS * SIDE * SIDE, HIDDEN)
    hidden[:, 0] *= LARGE
    weights = {"w": hidden, "v": _random(HIDDEN - 1, CLASSES), "parts": np.array([1, HIDDEN - 1])}
    _save(folder, nodes, weights, labels=True)
    return _write_spec(folder, {"onnx": "model.onnx"}, {"npz": "data.npz"}, {})


def without_export(folder: Path) -> Path:
    """Write a spec for a PyTorch model that cannot be exported; returns the spec."""
    return _write_spec(folder, {"factory": f"{USER_CODE}:without_export"}, {"factory": f"{USER_CODE}:items"}, {})


def _write_spec(
    folder: Path, model: dict[str, str], evaluation: dict[str, str], budget: dict[str, float], **more: str
) -> Path:
    spec = {
        "workload": {"name": "chaos", "model": model, "evaluation": evaluation, **more},
        "objective": {"max_accuracy_drop": 0.2},
        "hardware": {"price_per_hour_usd": 0.1, "threads": 1},
        "traffic": {"rate_rps": 1000},
        "budget": {"tolerate_noise": True, "trial_s": TRIAL_S, **budget},
    }
    path = folder / "tuning.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(0, 0.3, shape).astype(np.float32)


def _save(folder: Path, nodes: list[Any], weights: dict[str, np.ndarray], *, labels: bool) -> None:
    """Write `model.onnx` and `data.npz`; the targets are what the model itself says, so nothing is better than it."""
    import onnx
    import onnxruntime as ort

    initializers = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    given = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", CHANNELS, SIDE, SIDE])
    answer = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", CLASSES])
    graph = onnx.helper.make_graph(nodes, "chaos", [given], [answer], initializers)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    inputs = np.random.default_rng(0).normal(size=(ITEMS, CHANNELS, SIDE, SIDE)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {"x": inputs})
    np.savez(folder / "data.npz", inputs=inputs, targets=outputs.argmax(1) if labels else outputs)
