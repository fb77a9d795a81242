"""What follows a session's result: the file itself, the page that shows it, and the record in MLflow.

All of it can be done again later, from the session's folder alone.
"""

from __future__ import annotations

import io
from pathlib import Path

from tools.artifacts import write_file
from tools.contracts import Failed, WorkloadInfo
from tools.machine import Machine
from tools.outcomes import from_task, reason
from tools.record import RESULT
from tools.result import MlflowRef, SessionResult
from tools.tracking.errors import public_uri
from tools.worker import Returned, TaskOutcome

REPORT_LIMIT_S = 120.0
RECORD_LIMIT_S = 300.0
"""An MLflow server that does not answer costs minutes, and then a note: `infertune sync` completes the record."""
EXAMPLE = "example.npz"
"""Two items of the data, in the folder of a session that ran on this machine: no export has them."""


def save(result: SessionResult, folder: Path) -> None:
    """Write `result.json`.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    write_file(folder / RESULT, result.model_dump_json(indent=1) + "\n")


def write_example(workload: WorkloadInfo, folder: Path) -> None:
    """Write two items beside the result: MLflow needs them for the model's signature, now or at a later `sync`."""
    import numpy as np

    from tools.workloads.datasets import batch_of

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **batch_of(workload.evaluation, 2))  # type: ignore[arg-type]
    write_file(folder / EXAMPLE, buffer.getvalue())


def render(result: SessionResult, folder: Path, machine: Machine) -> str | None:
    """Write `report.html`; returns why that was not possible, if it was not."""
    arguments = {"result": result.model_dump(mode="json"), "path": str(folder / "report.html")}
    outcome = machine.background("tools.report.html:render_task", arguments, label="report", limit_s=REPORT_LIMIT_S)
    return None if isinstance(outcome, Returned) else f"report.html could not be written: {_why(outcome)}"


def mirror(folder: Path, tracking_uri: str, machine: Machine) -> MlflowRef:
    """Record a finished session in MLflow, unless it is there already; says why where that fails."""
    outcome = _write("tools.tracking:record_task", folder, tracking_uri, machine)
    if isinstance(outcome, Returned):
        return MlflowRef.model_validate(outcome.value)
    return MlflowRef(
        tracking_uri=public_uri(tracking_uri),
        run_id=None,
        note=f"MLflow has no record of this session yet ({_why(outcome)}). The journal has all of it: "
        f"`infertune sync` completes the record.",
    )


def mirror_challenge(folder: Path, tracking_uri: str, machine: Machine) -> str | None:
    """Record a session's challenge in MLflow; returns why that was not possible, if it was not."""
    outcome = _write("tools.tracking:record_challenge_task", folder, tracking_uri, machine)
    if isinstance(outcome, Returned):
        return None
    return f"MLflow has no record of this challenge ({_why(outcome)}). The same command again completes it."


def _write(task: str, folder: Path, tracking_uri: str, machine: Machine) -> TaskOutcome:
    """Have a worker write to MLflow what a session's folder holds."""
    arguments = {"session_dir": str(folder), "example": str(folder / EXAMPLE), "tracking_uri": tracking_uri}
    return machine.background(task, arguments, label="mlflow", limit_s=RECORD_LIMIT_S)


def _why(outcome: TaskOutcome) -> str:
    return outcome.reason if isinstance(outcome, Failed) else reason(from_task(outcome))
