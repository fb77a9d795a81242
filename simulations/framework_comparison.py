"""infertune's choice beside what each framework gives by hand, timed in turn in one process.

Every contender starts from the same trained model, sees the same calibration items, and is called with the same
batches, numpy in and numpy out. The contenders are written as their own documentation shows, without infertune's
transforms; infertune's is the artifact that `infertune optimize` chose.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tools.contracts import ArtifactRef, Recipe, WorkloadInfo
from tools.measure.comparison import time_block
from tools.measure.dependence import Samples
from tools.measure.latency import warm_up
from tools.measure.statistics import ratio_interval
from tools.runtimes import get_runtime
from tools.worker import emit, stage

BATCH = 32
ROUNDS = 12
BLOCK_S = 0.2
CALIBRATION_ITEMS = 200
CLASSES = 10
EXPERT_EPOCHS = 8

Call = Callable[[np.ndarray], np.ndarray]
"""One batch of images (b, 3, 64, 64) float32 to logits (b, 10)."""
Make = Callable[[np.ndarray], Call]
"""Makes a call for the shape of an example batch."""


def compare_frameworks(workload: dict[str, Any], artifact: dict[str, Any], recipe: dict[str, Any]) -> dict[str, Any]:
    """Compare on a workload with one image input; a worker task.

    Args:
        workload: `WorkloadInfo`, dumped.
        artifact: what infertune chose.
        recipe: how it is run.

    Returns:
        `{"rows": [...]}`: name, seconds to make, p50 ms at batch 1, images per second at `BATCH`, accuracy, and the
        ratios to eager FP32 at batch 1 with their intervals.
    """
    from tools.workloads.datasets import batch_of, load_inputs, load_targets

    info = WorkloadInfo.model_validate(workload)
    name = info.inputs[0].name
    images = np.ascontiguousarray(load_inputs(info.evaluation)[name])
    targets = load_targets(info.evaluation)
    calibration = np.ascontiguousarray(load_inputs(info.calibration, 0, CALIBRATION_ITEMS)[name])
    small, large = batch_of(info.evaluation, 1)[name], batch_of(info.evaluation, BATCH)[name]
    contenders: dict[str, tuple[float, Make]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for title, prepare in _contenders(info, Path(scratch), calibration).items():
            stage(f"preparing {title}")
            started = time.perf_counter()
            make = prepare()
            make(small)
            contenders[title] = (time.perf_counter() - started, make)
        contenders["infertune's choice"] = (0.0, _chosen(artifact, recipe, name))
        accuracy = {title: _accuracy(make, images, targets) for title, (_, make) in contenders.items()}
        stage("timing in turn")
        at_one = _in_turn({title: _bound(make, small) for title, (_, make) in contenders.items()})
        at_many = _in_turn({title: _bound(make, large) for title, (_, make) in contenders.items()})
    rows = []
    for title, (seconds, _) in contenders.items():
        p50 = ratio_interval(at_one["eager FP32"], at_one[title], statistic="median")
        throughput = ratio_interval(at_one["eager FP32"], at_many[title], statistic="mean").scaled(BATCH)
        rows.append(
            {
                "name": title,
                "seconds": seconds,
                "p50_ms": float(np.median(np.concatenate(at_one[title]))),
                "images_per_s": BATCH * 1e3 / float(np.concatenate(at_many[title]).mean()),
                "accuracy": accuracy[title],
                "p50_ratio": [p50.value, p50.low, p50.high],
                "throughput_ratio": [throughput.value, throughput.low, throughput.high],
            }
        )
        emit("row", name=title, p50_ms=rows[-1]["p50_ms"])
    return {"rows": rows, "batch": BATCH, "rounds": ROUNDS}


def _contenders(info: WorkloadInfo, scratch: Path, calibration: np.ndarray) -> dict[str, Callable[[], Make]]:
    """What an engineer would write with each library."""
    import nncf
    import onnxruntime as ort
    import openvino as ov
    import torch
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from tools.workloads.modules import load_module

    module = load_module(info.source)
    onnx_file = scratch / "model.onnx"
    batch = torch.export.Dim("batch", min=1, max=1024)
    torch.onnx.export(
        module,
        (torch.zeros(2, *info.inputs[0].shape),),
        str(onnx_file),
        dynamo=True,
        external_data=False,
        dynamic_shapes=({0: batch},),
        input_names=["x"],
        verbose=False,
    )
    core = ov.Core()

    def eager() -> Make:
        def call(x: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                result: np.ndarray = module(torch.from_numpy(x)).numpy()
                return result

        return lambda _: call

    def onnx_runtime(file: Path) -> Make:
        session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        return lambda _: lambda x: session.run(None, {"x": x})[0]

    def onnx_runtime_int8() -> Make:
        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.batches = iter(np.split(calibration, len(calibration) // 10))

            def get_next(self) -> dict[str, np.ndarray] | None:
                items = next(self.batches, None)
                return None if items is None else {"x": items}

        prepared, quantized = scratch / "prepared.onnx", scratch / "int8.onnx"
        quant_pre_process(str(onnx_file), str(prepared))
        quantize_static(
            str(prepared),
            str(quantized),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx_runtime(quantized)

    def openvino(model: Any) -> Make:
        def make(example: np.ndarray) -> Call:
            shaped = model.clone()
            shaped.reshape(list(example.shape))
            compiled = core.compile_model(shaped, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
            request = compiled.create_infer_request()
            return lambda x: np.array(request.infer({0: x})[0])

        return make

    def nncf_int8() -> Make:
        batches = list(np.split(calibration, len(calibration) // 10))
        return openvino(nncf.quantize(core.read_model(str(onnx_file)), nncf.Dataset(batches), subset_size=len(batches)))

    return {
        "eager FP32": eager,
        "ONNX Runtime FP32": lambda: onnx_runtime(onnx_file),
        "OpenVINO as it comes": lambda: openvino(core.read_model(str(onnx_file))),
        "ONNX Runtime INT8 static": onnx_runtime_int8,
        "NNCF INT8 (OpenVINO)": nncf_int8,
        "a ResNet-18 by hand, NNCF INT8": lambda: openvino(_small_by_hand(info, calibration)),
    }


def _small_by_hand(info: WorkloadInfo, calibration: np.ndarray) -> Any:
    """Train a ResNet-18 on the labels and quantize it: what an expert would do who has the training data."""
    import nncf
    import openvino as ov
    import torch
    import torchvision

    from tools.workloads.bundled.training import TrainingPlan, train
    from tools.workloads.datasets import load_inputs, load_targets

    assert info.training is not None
    labels = load_targets(info.training)
    assert labels is not None
    trained = train(
        lambda: torchvision.models.resnet18(num_classes=CLASSES),
        np.ascontiguousarray(load_inputs(info.training)[info.inputs[0].name]),
        labels,
        TrainingPlan(epochs=EXPERT_EPOCHS),
        lambda epoch, loss: emit("training", epoch=epoch, epochs=EXPERT_EPOCHS, loss=loss),
    )
    shape = info.inputs[0].shape
    model = ov.convert_model(trained, example_input=torch.zeros(2, *shape), input=[ov.PartialShape([-1, *shape])])
    batches = list(np.split(calibration, len(calibration) // 10))
    return nncf.quantize(model, nncf.Dataset(batches), subset_size=len(batches))


def _chosen(artifact: dict[str, Any], recipe: dict[str, Any], name: str) -> Make:
    made, parsed = ArtifactRef.model_validate(artifact), Recipe.model_validate(recipe)
    runtime = get_runtime(parsed.runtime)

    def make(example: np.ndarray) -> Call:
        import torch

        runner = runtime.load(
            made, parsed, batch_size=len(example), threads=torch.get_num_threads(), example={name: example}
        )
        return lambda x: runner({name: x})[0]

    return make


def _accuracy(make: Make, images: np.ndarray, targets: np.ndarray | None) -> float:
    assert targets is not None
    call = make(images[:BATCH])
    full = len(images) // BATCH * BATCH
    answers = [call(np.ascontiguousarray(images[i : i + BATCH])).argmax(1) for i in range(0, full, BATCH)]
    return float((np.concatenate(answers) == targets[:full]).mean())


def _bound(make: Make, batch: np.ndarray) -> Callable[[], np.ndarray]:
    call = make(batch)
    return lambda: call(batch)


def _in_turn(calls: dict[str, Callable[[], np.ndarray]]) -> dict[str, list[Samples]]:
    """Time each call in blocks, forth and back, so that a slow stretch of the machine falls on all of them."""
    for call in calls.values():
        warm_up(call, 2.0)
    blocks: dict[str, list[Samples]] = {title: [] for title in calls}
    for index in range(ROUNDS):
        titles = list(calls) if index % 2 == 0 else list(reversed(calls))
        for title in titles:
            blocks[title].append(time_block(calls[title], BLOCK_S))
    return blocks
