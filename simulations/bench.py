"""`make bench`: the figures that the README quotes, all from one run on this machine."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from agent.home import home_directory
from agent.live import observer_for
from agent.questions import explain, what_if
from agent.recorded import loaded_of
from agent.replay import replay
from agent.session import Options, optimize
from simulations.coverage import coverage_tables
from simulations.repeatability import repeatability_table
from tools.contracts import Evidence, EvidenceKind, Failed, Finding, Recipe
from tools.evidence import EVIDENCE, EvidenceStore
from tools.hardware import detect, library_versions
from tools.journal import Journal
from tools.record import read_record
from tools.result import SessionResult
from tools.worker import LIGHT_MODULES, TORCH_MODULES, Returned, Worker

WORKLOAD = "digits-resnet50"
TIME_BUDGET_S = 600.0
"""From a trained model to the choice."""
COMPARISON_LIMIT_S = 600.0


def main() -> None:
    """Print every table."""
    for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # a machine's own tuning must not colour the figures
        os.environ.pop(variable, None)
    console = Console(width=130)
    hardware = detect()
    versions = ", ".join(f"{k} {v}" for k, v in library_versions().items())
    console.print(f"{hardware.cpu}, {hardware.cores} cores; {versions}\n", highlight=False)
    _overheads(console)
    home = home_directory()
    with observer_for(console, workload=WORKLOAD) as observer:
        result = optimize(WORKLOAD, Options(home=home, time_budget_s=TIME_BUDGET_S), observer)
    _frameworks(console, result, home)
    _looking_back(console, home / "sessions" / result.session)
    console.print(repeatability_table())
    for part in coverage_tables():
        console.print(part)
    for module in (
        "simulations.search",
        "simulations.evaluation",
        "simulations.injection",
        "simulations.accuracy_control",
        "simulations.scaling_search",
    ):
        subprocess.run([sys.executable, "-P", "-m", module], check=True)


def _overheads(console: Console) -> None:
    """What infertune itself costs: starting, isolating, recording."""
    table = Table(title="What infertune itself costs (median)", title_justify="left", box=box.MARKDOWN)
    table.add_column("")
    table.add_column("ms", justify="right")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        helped = [sys.executable, "-P", "-m", "agent.cli", "--help"]
        table.add_row("infertune --help", _ms(lambda: subprocess.run(helped, check=True, capture_output=True), 7))
        with Worker(LIGHT_MODULES, home) as worker:
            table.add_row("a task in a warm worker", _ms(lambda: _echo(worker), 50))
        started = time.perf_counter()
        with Worker(TORCH_MODULES, home) as worker:
            _echo(worker)
            table.add_row("starting the worker that has torch (once)", f"{(time.perf_counter() - started) * 1e3:,.1f}")
            table.add_row("a task in it", _ms(lambda: _echo(worker), 50))
        journal = Journal(home / "journal.jsonl")
        table.add_row("a journal entry, on disk", _ms(lambda: journal.append("note", {"text": "x" * 500}), 50))
        store = EvidenceStore(home / EVIDENCE)
        numbers = iter(range(1000))
        table.add_row("an evidence row, on disk", _ms(lambda: store.put(_evidence(next(numbers))), 50))
    console.print(table)


def _looking_back(console: Console, session: Path) -> None:
    """What it takes to replay a session, and to ask it what if: from its evidence alone."""
    asked = ["what-if", session.name, "--p99-ms", "30", "--max-accuracy-drop", "0.02", "--price-per-hour", "1.20"]
    table = Table(title="Looking back at that session (median of 5)", title_justify="left", box=box.MARKDOWN)
    for column in ("", "ms", "whole command, ms"):
        table.add_column(column, justify="left" if not column else "right")
    changes = {"p99_ms": "30", "max_accuracy_drop": "0.02", "price_per_hour_usd": "1.20"}
    home = str(session.parents[1])
    for name, call, command in (
        ("replay", lambda: replay(session), ["replay", session.name]),
        ("what-if", lambda: what_if(session, changes), asked),
        ("explain", lambda: explain(session, None), ["explain", session.name]),
    ):
        line = [sys.executable, "-P", "-m", "agent.cli", *command, "--home", home]
        whole = _ms(lambda line=line: subprocess.run(line, check=True, capture_output=True), 5)  # type: ignore[misc]
        table.add_row(name, _ms(call, 5), whole)
    console.print(table)


def _frameworks(console: Console, result: SessionResult, home: Path) -> None:
    """Put infertune's choice beside the frameworks by hand."""
    if result.best is None:
        console.print(f"{result.verdict.value}: {result.summary}")
        return
    rows = _compare(result, home)
    table = Table(
        title=f"{WORKLOAD}: timed in turn in one process; ratios to eager FP32 at batch 1, with 95 % intervals",
        title_justify="left",
        box=box.MARKDOWN,
    )
    for column in ("", "p50 ms", "p50 ratio", f"images/s at {rows['batch']}", "ratio", "accuracy", "made in s"):
        table.add_column(column, justify="left" if not column else "right")
    for row in rows["rows"]:
        spent = sum(b.seconds for b in result.builds) + sum(t.seconds for t in result.trials)
        made = spent if row["name"].startswith("infertune") else row["seconds"]
        table.add_row(
            row["name"] + (f" ({result.best.recipe})" if row["name"].startswith("infertune") else ""),
            f"{row['p50_ms']:.2f}",
            _interval(row["p50_ratio"]),
            f"{row['images_per_s']:,.0f}",
            _interval(row["throughput_ratio"]),
            f"{row['accuracy']:.2%}",
            f"{made:.1f}",
        )
    console.print(table)
    console.print(
        f"Made in: for infertune, all its {len(result.trials)} candidates built and measured, whenever that was. This "
        f"session took {result.seconds.total:.0f} s, since what an earlier one measured is not repeated."
    )


def _compare(result: SessionResult, home: Path) -> Any:
    assert result.best is not None
    workload = loaded_of(read_record(home / "sessions" / result.session)).workload.model_dump(mode="json")
    with Worker(TORCH_MODULES, home / "logs") as worker:
        outcome = worker.run(
            "simulations.framework_comparison:compare_frameworks",
            {
                "workload": workload,
                "artifact": result.best.artifact_ref.model_dump(mode="json"),
                "recipe": result.best.definition.model_dump(mode="json"),
            },
            label="framework_comparison",
            limit_s=COMPARISON_LIMIT_S,
        )
    if not isinstance(outcome, Returned):
        sys.exit(f"the comparison did not come to an end: {outcome}")
    return outcome.value


def _echo(worker: Worker) -> None:
    outcome = worker.run("tools.contracts:digest_of", {"value": "x"}, label="echo", limit_s=10)
    assert isinstance(outcome, Returned), outcome


def _evidence(number: int) -> Evidence:
    return Evidence.of(
        Finding(
            question=f"{number:016d}",
            session="bench",
            kind=EvidenceKind.TRIAL,
            workload="bench",
            recipe=Recipe(runtime="eager"),
            parameters={},
            hardware="bench",
            versions={},
            outcome=Failed(stage="none", reason="x" * 2000),
            seconds=1.0,
            created="2026-01-01T00:00:00+00:00",
        )
    )


def _ms(call: Callable[[], object], times: int) -> str:
    call()
    taken = []
    for _ in range(times):
        before = time.perf_counter()
        call()
        taken.append((time.perf_counter() - before) * 1e3)
    return f"{statistics.median(taken):,.1f}"


def _interval(values: list[float]) -> str:
    return f"{values[0]:.1f}x [{values[1]:.1f}, {values[2]:.1f}]"


if __name__ == "__main__":
    main()
