"""How far figures of the same model differ from one run to the next: infertune's protocol and two common practices.

One small network is measured many times, each time in a fresh process, by three protocols in turn: infertune's, a
script's ten calls to warm up and twenty that count, and windows until the last three agree within 10 %, as
perf_analyzer does. Then again with another process that runs half of the time, beside a
random third of the repetitions. Run by `python -m simulations.repeatability`; takes about three minutes.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from tools.hardware import detect
from tools.measure.latency import SamplingLimits, sample
from tools.measure.noise import NoiseMeter
from tools.measure.statistics import quantile_interval
from tools.worker import LIGHT_MODULES, Returned, Worker

TIMES = 30
SEED = 0
LIMITS = SamplingLimits(max_s=2.0, quiet_max_s=1.0)
"""Shorter than in a session, so that sixty repetitions take minutes."""
TASK_LIMIT_S = 60.0
DISTURBED_SHARE = 1 / 3
DISTURBER = """
import time
while True:
    ends = time.perf_counter() + 0.1
    while time.perf_counter() < ends:
        pass
    time.sleep(0.1)
"""
CHANNELS, LAYERS, SIDE = 48, 6, 24
_MODULE = "simulations.repeatability"
"""This module's name for the worker, also when it is run as a script."""

Call = Callable[[], object]


@dataclass(frozen=True)
class Figure:
    """What one protocol said about one repetition.

    Attributes:
        typical_ms: what it gives as the usual time: the median, or for the script the mean.
        p99_ms: its 99th percentile.
        seconds: what it took, warming up included.
        low_ms: lower end of the median's interval, where the protocol has one.
        high_ms: upper end.
        disturbed: share of the windows that it threw away.
        stable: whether it stands by the figure.
    """

    typical_ms: float
    p99_ms: float
    seconds: float
    low_ms: float | None = None
    high_ms: float | None = None
    disturbed: float = 0.0
    stable: bool = True


@dataclass(frozen=True)
class Repetition:
    """One process's figures by protocol, and whether the disturber ran beside it."""

    figures: dict[str, Figure]
    disturber: bool


def main() -> None:
    """Print the table."""
    Console(width=180).print(repeatability_table())


def repeatability_table(times: int = TIMES) -> Table:
    """Measure `times` repetitions without a disturber and as many with one beside a third of them.

    Args:
        times: repetitions of each kind.

    Returns:
        A row for each protocol and kind. Spreads are over the figures that the protocol stands by; "interval holds it"
        counts the repetitions whose interval holds the median of all medians. The last columns count repetitions
        that were called UNSTABLE, and that threw windows away, beside the disturber and alone.
    """
    disturbed = random.Random(SEED).sample(range(times), round(times * DISTURBED_SHARE))  # noqa: S311  no secret
    table = Table(box=box.MARKDOWN)
    headings = ("protocol", "disturber", "typical time, max/min (CV)", "p99, max/min (CV)", "s each")
    for heading in (*headings, "interval holds it", "UNSTABLE: beside, alone", "discarded: beside, alone"):
        table.add_column(heading)
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model.onnx"
        model.write_bytes(network())
        with Worker((*LIGHT_MODULES, _MODULE), Path(scratch)) as worker:
            for kind, beside in (("none", set[int]()), (f"beside {len(disturbed)}", set(disturbed))):
                repetitions = [_repetition(worker, model, index, disturber=index in beside) for index in range(times)]
                for protocol in PROTOCOLS:
                    table.add_row(protocol, kind, *_row(repetitions, protocol))
    return table


def measure(model: str, threads: int, index: int) -> dict[str, Any]:
    """Load the network and measure it by each protocol; a worker task.

    Args:
        model: the ONNX file.
        threads: CPU threads.
        index: of the repetition; the protocols take turns in coming first.

    Returns:
        A `Figure` for each protocol, as a dict.
    """
    import onnxruntime as ort

    from tools.runtimes.onnxruntime import session_options

    session = ort.InferenceSession(model, session_options(threads), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((1, 3, SIDE, SIDE), dtype=np.float32)
    names = list(PROTOCOLS)
    first = index % len(names)
    figures = {}
    for name in names[first:] + names[:first]:
        figures[name] = asdict(PROTOCOLS[name](lambda: session.run(None, {"x": image}), threads))
    return figures


def by_infertune(call: Call, threads: int) -> Figure:
    """Measure as a trial does."""
    began = time.perf_counter()
    taken = sample(call, LIMITS, NoiseMeter(threads))
    seconds = time.perf_counter() - began
    p50, p99 = (quantile_interval(taken.samples_ms, q) for q in (0.5, 0.99))
    return Figure(
        typical_ms=p50.value,
        p99_ms=p99.value,
        seconds=seconds,
        low_ms=p50.low,
        high_ms=p50.high,
        disturbed=taken.disturbed,
        stable=taken.stable,
    )


def by_script(call: Call, _threads: int) -> Figure:
    """Ten calls to warm up, twenty that count; their mean, and the 99th percentile of twenty."""
    began = time.perf_counter()
    for _ in range(10):
        call()
    times_ms = [_timed_ms(call) for _ in range(20)]
    seconds = time.perf_counter() - began
    return Figure(float(np.mean(times_ms)), float(np.percentile(times_ms, 99)), seconds)


def by_agreeing_windows(call: Call, _threads: int) -> Figure:
    """Windows of 100 ms until the last three have means within 10 % of theirs, ten at most; the three together."""
    began = time.perf_counter()
    windows: list[list[float]] = []
    while len(windows) < 10:
        ends = time.perf_counter() + 0.1
        window = [_timed_ms(call)]
        while time.perf_counter() < ends:
            window.append(_timed_ms(call))
        windows.append(window)
        means = np.array([np.mean(times_ms) for times_ms in windows[-3:]])
        if len(means) == 3 and (np.abs(means - means.mean()) <= 0.1 * means.mean()).all():
            break
    together = np.concatenate(windows[-3:])
    seconds = time.perf_counter() - began
    return Figure(float(np.median(together)), float(np.percentile(together, 99)), seconds)


PROTOCOLS: dict[str, Callable[[Call, int], Figure]] = {
    "infertune": by_infertune,
    "10 + 20 calls": by_script,
    "windows within 10 %": by_agreeing_windows,
}


def network() -> bytes:
    """Return a convolutional network of about 1 ms as an ONNX file: (1, 3, SIDE, SIDE) float32 in."""
    import onnx

    random_weights = np.random.default_rng(0)
    nodes, weights = [], []
    name, channels = "x", 3
    for layer in range(LAYERS):
        kernel = random_weights.normal(0, 0.05, (CHANNELS, channels, 3, 3)).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(kernel, f"w{layer}"))
        nodes.append(onnx.helper.make_node("Conv", [name, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(onnx.helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        name, channels = f"r{layer}", CHANNELS
    image = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    features = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, CHANNELS, SIDE, SIDE])
    graph = onnx.helper.make_graph(nodes, "repeatability", [image], [features], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    serialized: bytes = model.SerializeToString()
    return serialized


@contextlib.contextmanager
def _disturber(*, running: bool) -> Iterator[None]:
    """Run a process that computes for 100 ms and sleeps for 100 ms, again and again; gone at the end in any case."""
    if not running:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", DISTURBER])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _repetition(worker: Worker, model: Path, index: int, *, disturber: bool) -> Repetition:
    arguments = {"model": str(model), "threads": detect().cores, "index": index}
    with _disturber(running=disturber):
        outcome = worker.run(f"{_MODULE}:measure", arguments, label=f"repetition-{index}", limit_s=TASK_LIMIT_S)
    if not isinstance(outcome, Returned):
        raise RuntimeError(f"repetition {index} gave no figures: {outcome}")  # noqa: TRY004  an outcome, not a mistake
    return Repetition({name: Figure(**figure) for name, figure in outcome.value.items()}, disturber)


def _timed_ms(call: Call) -> float:
    before = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - before) / 1e6


def _row(repetitions: Sequence[Repetition], protocol: str) -> tuple[str, ...]:
    figures = [repetition.figures[protocol] for repetition in repetitions]
    stood_by = [figure for figure in figures if figure.stable]
    seconds = f"{np.mean([figure.seconds for figure in figures]):.2f}"
    spreads = (spread([f.typical_ms for f in stood_by]), spread([f.p99_ms for f in stood_by]))
    if protocol != "infertune":
        return (*spreads, seconds, "none given", "never says", "none")
    median = float(np.median([figure.typical_ms for figure in stood_by])) if stood_by else 0.0
    held = sum(f.low_ms is not None and f.high_ms is not None and f.low_ms <= median <= f.high_ms for f in stood_by)
    unstable = _split(repetitions, lambda figure: not figure.stable)
    discarded = _split(repetitions, lambda figure: figure.disturbed > 0)
    return (*spreads, seconds, f"{held} of {len(stood_by)}", unstable, discarded)


def _split(repetitions: Sequence[Repetition], holds: Callable[[Figure], bool]) -> str:
    """Count what holds for infertune's figures, apart for repetitions with and without the disturber."""
    parts = []
    for beside in (True, False):
        figures = [r.figures["infertune"] for r in repetitions if r.disturber is beside]
        parts.append(f"{sum(map(holds, figures))} of {len(figures)}" if figures else "none")
    return ", ".join(parts)


def spread(values: Sequence[float]) -> str:
    """Return largest over smallest, and the coefficient of variation (sample standard deviation over mean)."""
    if len(values) < 2:
        return "too few"
    return f"{max(values) / min(values):.2f} ({np.std(values, ddof=1) / np.mean(values):.1%})"


if __name__ == "__main__":
    main()
