"""NNCF's accuracy control and infertune's mixed precision, on the same model, data and budget, in turn in one process.

Both get the float model, the calibration items and the same items to judge by, and the same budget for the metric.
NNCF quantizes, ranks all layers, and reverts one after another by accuracy; infertune tries full INT8 first, and then
mixed precision by accuracy per millisecond. Accuracy in the table is that of the held-out items, which neither saw.
Run by `python -m simulations.accuracy_control`; takes a few minutes, most of them to train the ResNet-50 once.
"""

from __future__ import annotations

import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tools.artifacts import model_file
from tools.contracts import ArtifactRef, Precision, Recipe, WorkloadInfo
from tools.hardware import detect
from tools.measure.comparison import time_block
from tools.measure.latency import warm_up
from tools.runtimes import get_runtime
from tools.spec import load_spec
from tools.transforms.convert_openvino import ConvertOpenVino, save_openvino
from tools.transforms.export_onnx import ExportOnnx
from tools.transforms.quantize_mixed import QuantizeMixed
from tools.transforms.quantize_nncf import QuantizeNncf
from tools.transforms.quantize_static import calibration_batches
from tools.transforms.sensitivity.batching import JUDGING_BATCH, run_all
from tools.transforms.sensitivity.judge import Items, Judge, Outputs, read_items
from tools.workloads.bundled import bundled_spec, prepare
from tools.workloads.datasets import batch_of, load_inputs, load_targets
from tools.workloads.loading import materialize
from tools.workloads.metrics import score

MAX_DROP = 0.01
PLANTED = "digits-resnet50 with a planted sensitive layer"
ROUNDS = 20
BLOCK_S = 0.2
_HOME = Path(".infertune")
"""Where the trained ResNet-50 is kept, and found again."""


@dataclass(frozen=True)
class Contender:
    """What one approach made.

    Attributes:
        name: what the table calls it.
        artifact: the model, for OpenVINO.
        seconds: from the float model in OpenVINO's format to this one.
    """

    name: str
    artifact: ArtifactRef
    seconds: float


def main() -> None:
    """Compare on both workloads, and print a table of each."""
    say(
        f"{detect().cpu}, {detect().cores} cores; Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("nncf", "openvino", "torch"))
    )
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(prepare("digits-resnet50", str(_HOME)))
        planted = bundled_spec("digits-resnet50", _planted(weights, Path(scratch) / "planted.safetensors"))
        specs = {
            "digits-resnet50": bundled_spec("digits-resnet50", weights),
            PLANTED: planted,
            "sensitive": load_spec(Path(__file__).parent / "sensitive" / "tuning.yaml"),
        }
        for name, spec in specs.items():
            home = Path(scratch) / name.replace(" ", "-")
            workload = WorkloadInfo.model_validate(
                materialize(spec.workload.model_dump(mode="json"), str(home), limit_calibration=200)
            )
            say(f"\n## {name}: {workload.metric} may drop by {MAX_DROP:g}\n")
            say("\n".join(table(workload, compare(workload, home / "artifacts", control=name != PLANTED))))


def compare(workload: WorkloadInfo, root: Path, *, control: bool) -> list[Contender]:
    """Make the float model, and what each approach makes of it.

    Args:
        workload: the model and its data.
        root: where artifacts go.
        control: whether NNCF's accuracy control takes part; for a large sensitive model it takes many minutes.
    """
    onnx = ExportOnnx().apply(workload.source, workload, {}, root).artifact
    source = ConvertOpenVino().apply(onnx, workload, {}, root).artifact
    items = read_items(workload)
    judge = Judge(workload, items, _outputs(source, items))
    contenders = [Contender("float", source, 0.0)]
    makers: dict[str, Callable[[], ArtifactRef]] = {
        "full INT8": lambda: QuantizeNncf().apply(source, workload, {}, root).artifact,
        "NNCF's accuracy control": lambda: _accuracy_control(source, workload, items, judge, root),
        "infertune": lambda: _ours(source, workload, items, judge, root),
    }
    if not control:
        del makers["NNCF's accuracy control"]
    for name, make in makers.items():
        started = time.perf_counter()
        artifact = make()
        contenders.append(Contender(name, artifact, time.perf_counter() - started))
    return contenders


def table(workload: WorkloadInfo, contenders: list[Contender]) -> list[str]:
    """Time the contenders in turn, score them on the held-out items, and return the lines of a markdown table."""
    held_out = Items(
        {name: np.ascontiguousarray(array) for name, array in load_inputs(workload.evaluation).items()},
        load_targets(workload.evaluation),
    )
    blocks = _in_turn([_caller(contender.artifact, workload) for contender in contenders])
    lines = ["| | seconds to make | p50 ms, batch 1 | accuracy, held out |", "|---|---|---|---|"]
    for contender, times in zip(contenders, blocks, strict=True):
        scores = score(workload.metric, _outputs(contender.artifact, held_out), held_out.targets)
        lines.append(f"| {contender.name} | {contender.seconds:.1f} | {np.median(times):.3f} | {scores.mean():.2%} |")
    return lines


def say(text: str) -> None:
    """Write to standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _planted(weights: Path, made: Path) -> Path:
    """Write weights that compute the same in float and that INT8 ruins: what the stem gives out spans four decades.

    Each channel of the stem is multiplied by a factor, and the two convolutions that read it divide by it: a ReLU and a
    maximum let positive factors through. One scale for all channels, as INT8 has for activations, then keeps next to
    nothing of the small ones.
    """
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    channels = len(tensors["bn1.weight"])
    factors = torch.logspace(-2, 2, channels)[torch.randperm(channels, generator=torch.Generator().manual_seed(0))]
    for name in ("bn1.weight", "bn1.bias"):
        tensors[name] = tensors[name] * factors
    for name in ("layer1.0.conv1.weight", "layer1.0.downsample.0.weight"):
        tensors[name] = tensors[name] / factors[None, :, None, None]
    save_file(tensors, made)
    return made


def _ours(source: ArtifactRef, workload: WorkloadInfo, items: Items, judge: Judge, root: Path) -> ArtifactRef:
    made = QuantizeNncf().apply(source, workload, {}, root).artifact
    if judge.drop(_outputs(made, items)) <= MAX_DROP:
        return made
    return QuantizeMixed().apply(source, workload, {"max_drop": MAX_DROP}, root).artifact


def _accuracy_control(
    source: ArtifactRef, workload: WorkloadInfo, items: Items, judge: Judge, root: Path
) -> ArtifactRef:
    """As NNCF's documentation shows it, with batches of ten: else its bookkeeping takes most of the time."""
    import nncf
    import openvino as ov

    batches = list(calibration_batches(workload, source))

    def validate(model: Any, parts: Any) -> tuple[float, None]:
        found = [np.array(model(part)[0]) for part in parts]
        return 1 - judge.drop((np.concatenate(found),)), None  # NNCF 3.4 divides by the float model's metric

    parts = [
        {name: np.ascontiguousarray(array[start : start + JUDGING_BATCH]) for name, array in items.inputs.items()}
        for start in range(0, items.n, JUDGING_BATCH)
    ]
    model = nncf.quantize_with_accuracy_control(
        ov.Core().read_model(str(model_file(source))),
        nncf.Dataset(batches),
        nncf.Dataset(parts),
        validate,
        max_drop=MAX_DROP,
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(batches),
    )
    return save_openvino(model, root, Precision.INT8_MIXED, source.fixed_batch)


def _runner(artifact: ArtifactRef, example: dict[str, np.ndarray]) -> Callable[[Any], Outputs]:
    recipe = Recipe(runtime="openvino", precision=artifact.precision)
    size = len(next(iter(example.values())))
    return get_runtime("openvino").load(artifact, recipe, batch_size=size, threads=detect().cores, example=example)


def _outputs(artifact: ArtifactRef, items: Items) -> Outputs:
    example = {name: np.ascontiguousarray(array[:JUDGING_BATCH]) for name, array in items.inputs.items()}
    return run_all(_runner(artifact, example), items.inputs, JUDGING_BATCH)


def _caller(artifact: ArtifactRef, workload: WorkloadInfo) -> Callable[[], Outputs]:
    example = batch_of(workload.evaluation, 1)
    run = _runner(artifact, example)
    return lambda: run(example)


def _in_turn(calls: list[Callable[[], Outputs]]) -> list[np.ndarray]:
    """Time each call in blocks, forth and back, so that a slow stretch of the machine falls on all of them."""
    for call in calls:
        warm_up(call, 1.0)
    blocks: list[list[np.ndarray]] = [[] for _ in calls]
    for index in range(ROUNDS):
        order = range(len(calls)) if index % 2 == 0 else reversed(range(len(calls)))
        for place in order:
            blocks[place].append(np.asarray(time_block(calls[place], BLOCK_S)))
    return [np.concatenate(found) for found in blocks]


if __name__ == "__main__":
    main()
