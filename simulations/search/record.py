"""Recording the grid: every cell is built and measured once on this machine, with infertune's own tools."""

from __future__ import annotations

import datetime as dt
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from agent.loading import TRAINING_LIMIT_S
from agent.running import run_or_raise
from simulations.search.grid import Accuracy, MeasuringProtocol, Provenance, Recording, Timing, save_grid
from simulations.search.space import (
    BASELINE,
    BATCHES,
    FORMATS,
    STUDENTS,
    TEACHER,
    THREADS,
    Cell,
    all_cells,
    cell_of,
    recipe_of,
    step_of,
)
from tools.artifacts import write_file
from tools.contracts import ArtifactRef, BuildResult, Contract, WorkloadInfo, digest_of
from tools.hardware import detect, library_versions
from tools.machine import run_task
from tools.observer import Silent
from tools.outcomes import reason
from tools.runtimes import get_runtime
from tools.spec import TuningSpec
from tools.worker import LIGHT_MODULES, TORCH_MODULES, Returned, Worker
from tools.workloads.bundled import bundled_spec

WORKLOAD = "digits-resnet50"
TASK_LIMIT_S = 600.0

Say = Callable[[str], None]


class Progress(Contract):
    """What was recorded so far: what a recording that goes on begins with."""

    flops: dict[str, float] = Field(default_factory=dict)
    parts_s: dict[str, float] = Field(default_factory=dict)
    artifacts: dict[str, ArtifactRef] = Field(default_factory=dict)
    """By the name of the build that made it."""
    accuracy: dict[str, Accuracy] = Field(default_factory=dict)
    cells: dict[str, Timing] = Field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Progress:
        """Return what a file says was recorded; nothing where there is no file."""
        return cls.model_validate_json(file.read_text()) if file.is_file() else cls()


class TaskFailedError(Exception):
    """A part or a group of cells could not be had; the message is one line for a person."""


@dataclass
class Recorder:
    """Builds, judges and times, and writes down each result before the next is asked for.

    Attributes:
        workload: what is recorded.
        protocol: how long things may take.
        folder: artifacts, and what was recorded so far.
        workers: the warm processes, by whether they have torch.
        progress: what was recorded so far.
        file: where that is kept.
    """

    workload: WorkloadInfo
    protocol: MeasuringProtocol
    folder: Path
    workers: dict[bool, Worker]
    progress: Progress
    file: Path

    def artifact(self, cell: Cell) -> ArtifactRef:
        """Return what a cell runs, built now unless it was built before.

        Raises:
            TaskFailedError: a step failed.
        """
        made = self.workload.source
        for part in cell.builds:
            if part not in self.progress.artifacts:
                step = step_of(part, distill_s=self.protocol.distill_s, seed=self.protocol.seed)
                arguments = {"artifact": _dumped(made), "step": _dumped(step), "root": str(self.folder / "artifacts")}
                value, seconds = self._run("tools.transforms:apply_step", arguments, needs_torch=True)
                self.progress.artifacts[part] = BuildResult.model_validate(value).artifact
                self._paid(part, seconds)
            made = self.progress.artifacts[part]
        return made

    def judge(self, cell: Cell, made: ArtifactRef) -> None:
        """Judge the accuracy of a cell's format, unless that was done before.

        Raises:
            TaskFailedError: it does not run.
        """
        if cell.judgement in self.progress.accuracy:
            return
        arguments = {
            **self._arguments(cell, made),
            "reference": str(self.folder / "reference.npz"),
            "is_baseline": cell.judgement == BASELINE.judgement,
        }
        needs_torch = get_runtime(cell.runtime).needs_torch
        value, seconds = self._run("simulations.search.tasks:judge", arguments, needs_torch=needs_torch)
        self.progress.accuracy[cell.judgement] = Accuracy.model_validate(value)
        self._paid(cell.judgement, seconds)

    def time(self, cells: list[Cell], made: ArtifactRef) -> None:
        """Time cells that differ in their batch size only, but for those that were timed before.

        Raises:
            TaskFailedError: one of them does not run.
        """
        by_batch = {str(cell.batch): cell for cell in cells if cell.key not in self.progress.cells}
        if not by_batch:
            return
        first = next(iter(by_batch.values()))
        arguments = {
            **self._arguments(first, made),
            "batches": [cell.batch for cell in by_batch.values()],
            "cell_s": self.protocol.cell_s,
        }
        needs_torch = get_runtime(first.runtime).needs_torch
        value, _ = self._run("simulations.search.tasks:time_cells", arguments, needs_torch=needs_torch)
        for batch, timing in value.items():
            self.progress.cells[by_batch[batch].key] = Timing.model_validate(timing)
        self._save()

    def count_flops(self, student: str) -> None:
        """Count a student's FLOPs, unless that was done before.

        Raises:
            TaskFailedError: it cannot be built, or does not run.
        """
        if student not in self.progress.flops:
            made = self.artifact(cell_of(student=student, form=FORMATS[0], threads=THREADS[0], batch=BATCHES[0]))
            arguments = {"artifact": _dumped(made)}
            value, _ = self._run("simulations.search.tasks:flops_of", arguments, needs_torch=True)
            self.progress.flops[student] = value
            self._save()

    def _arguments(self, cell: Cell, made: ArtifactRef) -> dict[str, Any]:
        recipe = recipe_of(cell, distill_s=self.protocol.distill_s)
        return {"artifact": _dumped(made), "recipe": _dumped(recipe), "threads": cell.threads}

    def _run(self, task: str, arguments: dict[str, Any], *, needs_torch: bool) -> tuple[Any, float]:
        started = time.perf_counter()
        outcome = run_task(
            self.workers[needs_torch],
            task,
            {"workload": _dumped(self.workload), **arguments},
            label="record",
            limit_s=TASK_LIMIT_S,
            observer=Silent(),
        )
        if not isinstance(outcome, Returned):
            raise TaskFailedError(reason(outcome))
        return outcome.value, time.perf_counter() - started

    def _paid(self, part: str, seconds: float) -> None:
        self.progress.parts_s[part] = round(seconds, 3)
        self._save()

    def _save(self) -> None:
        write_file(self.file, self.progress.model_dump_json())


def record(home: Path, output: Path, protocol: MeasuringProtocol, *, only: str = "", say: Say = print) -> Recording:
    """Record the grid. What an interrupted recording with the same protocol has on disk is not measured again.

    Args:
        home: where the model, the artifacts and what was recorded so far are kept.
        output: the grid's file.
        protocol: how long things may take.
        only: record those cells only whose names contain this, and the model as given.
        say: is told what was recorded.

    Raises:
        InfertuneError: the workload cannot be loaded, or a folder cannot be written.
    """
    hardware, versions = detect(), library_versions()
    with ExitStack() as stack:
        workers = {
            torch: stack.enter_context(Worker(TORCH_MODULES if torch else LIGHT_MODULES, home / "logs"))
            for torch in (True, False)
        }
        spec, workload = _load(home, workers[True])
        surroundings = {
            "workload": workload.digest,
            "hardware": hardware.digest,
            "versions": versions,
            "protocol": _dumped(protocol),
        }
        folder = home / "search" / digest_of(surroundings)
        file = folder / "progress.json"
        recorder = Recorder(workload, protocol, folder, workers, Progress.read(file), file)
        failures = record_cells(recorder, [c for c in all_cells() if only in c.key or c == BASELINE], say)
    progress, objective = recorder.progress, spec.objective
    assert objective.p99_ms is not None, "the bundled workload promises a p99"
    recording = Recording(
        provenance=Provenance(
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            hardware=hardware,
            versions=versions,
            workload=WORKLOAD,
            protocol=protocol,
            price_per_hour_usd=spec.hardware.price_per_hour_usd,
            p99_ms=objective.p99_ms,
            max_accuracy_drop=objective.max_accuracy_drop,
        ),
        flops=progress.flops,
        parts_s=progress.parts_s,
        accuracy=progress.accuracy,
        cells=progress.cells,
        failures=failures,
    )
    save_grid(recording, output)
    return recording


def record_cells(recorder: Recorder, cells: list[Cell], say: Say) -> dict[str, str]:
    """Record cells group by group, but for those that were recorded before.

    Args:
        recorder: does it.
        cells: what is wanted.
        say: is told a line for each group.

    Returns:
        Why a group is missing, for each that could not be had.
    """
    failures = {}
    groups = list(_groups(cells))
    started = time.perf_counter()
    for number, group in enumerate(groups, 1):
        first = group[0]
        name = f"{first.student} {first.format} threads={first.threads}"
        try:
            recorder.count_flops(first.student)
            made = recorder.artifact(first)
            recorder.judge(first, made)
            recorder.time(group, made)
        except TaskFailedError as error:
            failures[name] = str(error)
            said = f"FAILED: {error}"
        else:
            drop = recorder.progress.accuracy[first.judgement].drop
            timings = [(cell.batch, recorder.progress.cells[cell.key]) for cell in group]
            rps = max(batch * 1e6 / sorted(t.samples_us)[len(t.samples_us) // 2] for batch, t in timings)
            noisy = sum(t.disturbed > 0 for _, t in timings)
            said = f"up to {rps:,.0f}/s, accuracy drop {drop:+.2%}, disturbed {noisy} of {len(group)}"
        say(f"[{number}/{len(groups)}, {time.perf_counter() - started:.0f} s] {name}: {said}")
    return failures


def _groups(cells: list[Cell]) -> Iterator[list[Cell]]:
    """Yield cells that differ in their batch size only, the model as given first."""
    for student, form, threads in itertools.product(STUDENTS, FORMATS, reversed(THREADS)):
        group = [c for c in cells if (c.student, c.format, c.threads) == (student, form, threads)]
        if group:
            yield group


def _load(home: Path, worker: Worker) -> tuple[TuningSpec, WorkloadInfo]:
    """Train the workload's model unless that was done before, and load it with its students."""
    arguments: dict[str, Any] = {"name": WORKLOAD, "home": str(home)}
    weights = run_or_raise(
        worker,
        "tools.workloads.bundled:prepare",
        arguments,
        label="prepare",
        limit_s=TRAINING_LIMIT_S,
        observer=Silent(),
    )
    spec = bundled_spec(WORKLOAD, Path(weights))
    arguments = {
        "spec": _dumped(spec.workload),
        "home": str(home),
        "students": [f"torchvision.models:{student}" for student in STUDENTS if student != TEACHER],
    }
    value = run_or_raise(
        worker,
        "tools.workloads.loading:materialize",
        arguments,
        label="load",
        limit_s=TASK_LIMIT_S,
        observer=Silent(),
    )
    return spec, WorkloadInfo.model_validate(value)


def _dumped(contract: Contract) -> dict[str, Any]:
    return contract.model_dump(mode="json")
