from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from agent.live import HINT, LiveView, PlainLog, describe, observer_for
from tools.observer import Observer, Silent


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def terminal(width: int = 80, height: int = 24) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None, _environ={})


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def busy_view(console: Console, clock: Clock, trials: int = 40) -> LiveView:
    view = LiveView(console, workload="resnet50", clock=clock)
    view.about(objective="lowest cost, " + "x" * 90, budget_s=900)
    for i in range(trials):
        view.started(f"trial {i}")
        view.finished(f"trial {i}", outcome="measured", headline="p50 1.05 ms", seconds=12.0)
        view.finding(f"finding {i} " + "very long " * 20)
    view.started("openvino int8-static " * 8, detail="quantize, then measure", expected_s=40)
    view.event({"stage": "calibrating " * 20})
    return view


def drawn(view: LiveView, console: Console) -> list[str]:
    with console.capture() as captured:
        console.print(view)
    return captured.get().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 12), (200, 50), (20, 5)])
def test_the_view_never_overflows_the_terminal(width, height):
    console = terminal(width, height)
    lines = drawn(busy_view(console, Clock()), console)
    assert len(lines) < height
    assert max(len(line) for line in lines) <= width


def test_the_view_shows_what_runs_what_finished_what_was_found_and_the_time_left():
    console, clock = terminal(), Clock()
    view = LiveView(console, workload="resnet50", clock=clock)
    view.about(objective="lowest cost", budget_s=900)
    view.started("openvino bf16", detail="export", expected_s=20)
    view.event({"event": "point", "batch_size": 8, "p50_ms": 3.9, "throughput_rps": 2000.0})
    view.finished("eager fp32", outcome="measured", headline="p50 13.0 ms", seconds=21)
    view.finished("compiled", outcome="timed_out", headline="killed after 300 s", seconds=300)
    view.finding("Convolutions dominate.")
    view.budget(300, 900)
    clock.now += 60
    text = "\n".join(drawn(view, console))
    for part in (
        "resnet50  lowest cost", "openvino bf16  export", "1 min of about 20 s",
        "batch 8, p50 3.90 ms, throughput 2,000/s",
        "eager fp32  p50 13.0 ms", "timed out  killed after 300 s", "Convolutions dominate.",
        "9 min left of 15 min", HINT,
    ):  # fmt: skip
        assert part in text


def test_the_countdown_begins_after_a_bundled_model_was_trained():
    console, clock = terminal(), Clock()
    view = LiveView(console, workload="w", clock=clock)
    view.started("prepare digits-tiny")
    clock.now += 100
    view.about(objective="lowest cost", budget_s=240)
    clock.now += 10
    assert "3 min 50 s left of 4 min" in "\n".join(drawn(view, console))


def test_what_finished_runs_no_longer():
    console = terminal()
    view = LiveView(console, workload="w", clock=Clock())
    view.started("eager fp32")
    view.finished("eager fp32", outcome="measured", headline="p50 13.0 ms", seconds=21)
    assert "between trials" in "\n".join(drawn(view, console))


def test_a_trial_is_shown_again_when_what_it_builds_is_finished():
    console, clock = terminal(), Clock()
    view = LiveView(console, workload="w", clock=clock)
    view.started("trial: distill small, openvino int8-static")
    clock.now += 5
    view.started("build: distill")
    view.event({"event": "training", "epoch": 3, "epochs": 20, "loss": 0.31})
    clock.now += 60
    building = "\n".join(drawn(view, console))
    assert "build: distill  for trial: distill small, openvino int8-static" in building
    assert "epoch 3 of 20, loss 0.310" in building
    view.finished("build: distill", outcome="measured", headline="torch, 2.9 MB", seconds=60)
    text = "\n".join(drawn(view, console)[:4])
    assert "trial: distill small, openvino int8-static" in text
    assert "1 min 05 s" in text
    assert "epoch" not in text


@pytest.mark.parametrize("width", [80, 100, 120])
def test_long_names_keep_their_ends_and_the_columns_their_place(width):
    console = terminal(width)
    view = LiveView(console, workload="w", clock=Clock())
    for runtime in ("openvino", "onnxruntime"):
        name = f"trial: distill resnet18@width=0.5, {runtime} int8-static"
        view.finished(name, outcome="measured", headline="batch 1: p50 0.45 ms, 2,222/s, 98.16 %", seconds=61)
    rows = [line for line in drawn(view, console) if "trial: distill" in line]
    assert all("int8-static" in row and row.rstrip().endswith("1 min 01 s") for row in rows)
    assert len({row.index("batch 1:") for row in rows}) == 1


def test_the_last_picture_has_no_hint():
    console = terminal()
    with busy_view(console, Clock()) as view:
        pass
    assert HINT not in "\n".join(drawn(view, console))
    assert "trial 39" in written(console)


def test_text_from_outside_is_neither_markup_nor_escape_codes():
    console = terminal()
    view = LiveView(console, workload="w", clock=Clock())
    view.finished("[red]layer", outcome="failed", headline="\x1b[2J[/nonsense] bad\nline", seconds=1)
    text = "\n".join(drawn(view, console))
    assert "[red]layer" in text
    assert "[2J[/nonsense] bad line" in text
    assert "\x1b" not in text


def test_events_may_come_from_other_threads_while_it_draws():
    console = terminal()
    view = LiveView(console, workload="w", clock=Clock())

    def work() -> None:
        for i in range(200):
            view.finished(f"trial {i}", outcome="measured", headline="", seconds=1)

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(20):
        drawn(view, console)
    thread.join()
    assert "the last" in "\n".join(drawn(view, console))


def test_a_pipe_gets_one_line_for_each_finished_thing():
    console = Console(file=io.StringIO(), width=80, _environ={})
    clock = Clock()
    with PlainLog(console, clock=clock) as log:
        log.started("training resnet50", detail="6 epochs", expected_s=60)
        log.started("eager fp32", expected_s=5)
        clock.now += 42.13
        log.event({"stage": "warming up"})
        log.finished("eager fp32", outcome="measured", headline="p50 13.0 ms [12.9, 13.1], " + "y" * 60, seconds=21.4)
        log.finished("tensorrt fp16", outcome="timed_out", headline="", seconds=300)
        log.finding("Convolutions [bold]dominate[/bold].\nStill one line.")
        log.budget(42, 900)
    assert written(console).splitlines() == [
        "[    0.0 s] training resnet50 (6 epochs): started, takes about 1 min",
        f"[   42.1 s] eager fp32: measured, p50 13.0 ms [12.9, 13.1], {'y' * 60} (21 s)",
        "[   42.1 s] tensorrt fp16: timed out (5 min)",
        "[   42.1 s] Convolutions [bold]dominate[/bold]. Still one line.",
    ]


def test_the_console_decides_which_view_it_gets():
    pipe = Console(file=io.StringIO(), _environ={})
    dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(observer_for(terminal(), workload="w"), LiveView)
    assert isinstance(observer_for(pipe, workload="w"), PlainLog)
    assert isinstance(observer_for(dumb, workload="w"), PlainLog)
    assert isinstance(observer_for(terminal(), workload="w", silent=True), Silent)


def test_the_silent_observer_takes_everything_and_says_nothing(capsys):
    watcher: Observer = Silent()
    with watcher as observer:
        observer.started("a", detail="b", expected_s=1)
        observer.event({"stage": "c"})
        observer.finished("a", outcome="measured", headline="", seconds=1)
        observer.finding("d")
        observer.budget(1, 2)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"event": "training", "epoch": 2, "epochs": 6, "loss": 0.3}, "epoch 2 of 6, loss 0.300"),
        ({"stage": "calibrating"}, "calibrating"),
        ({"event": "point", "batch_size": 8, "p50_ms": 3.9}, "batch 8, p50 3.90 ms"),
        ({"event": "warm", "samples": [1, 2]}, "warm"),
        ({}, ""),
    ],
)
def test_events_are_said_in_words(message, words):
    assert describe(message) == words
