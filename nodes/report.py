"""Write the result, the report and the record."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

from langgraph.runtime import Runtime

from nodes.context import Context, TuningState
from tools.artifacts import write_file
from tools.contracts import Decision
from tools.result import MlflowRef, ScalingSummary, Seconds, SessionResult
from tools.summary import summarize
from tools.worker import Returned


def report(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Put `result.json` and `report.html` on disk, then mirror the session to MLflow.

    A failing report or an MLflow that is away costs a note in the result, never the result.
    """
    context = runtime.context
    result = _result(state, context)
    result_path = context.session_dir / "result.json"
    context.observer.started("report")
    started = time.monotonic()
    _save(result, result_path)
    context.journal.append("result", result.model_dump(mode="json"))
    notes = [*result.notes, *_render(result, context)]
    reference = _record(context)
    if reference.note:
        notes.append(reference.note)
    result = result.model_copy(
        update={"mlflow": reference, "notes": tuple(notes), "seconds": _seconds(context)},
    )
    if reference.note:  # the page was rendered before, so that MLflow could keep it
        _render(result, context)
    _save(result, result_path)
    context.journal.append("recorded", reference.model_dump(mode="json"))
    context.observer.finished(
        "report", outcome="finished", headline=str(result_path), seconds=time.monotonic() - started
    )
    return {"result": str(result_path)}


def _result(state: TuningState, context: Context) -> SessionResult:
    scaling = state.get("scaling")
    folder = context.session_dir
    return summarize(
        context.view(),
        session=context.session,
        created=context.created,
        versions=context.bench.versions,
        decisions=[Decision.model_validate(d) for d in state.get("decisions", [])],
        scaling=ScalingSummary.model_validate(scaling) if scaling else None,
        seconds=_seconds(context),
        files={
            "result": str(folder / "result.json"),
            "report": str(folder / "report.html"),
            "journal": str(context.journal.path),
            "logs": str(folder / "logs"),
        },
    )


def _seconds(context: Context) -> Seconds:
    total = context.elapsed_s
    trials = context.bench.spent_s
    return Seconds(
        total=total, trials=trials, training=context.training_s, overhead=total - trials - context.training_s
    )


def _save(result: SessionResult, path: Path) -> None:
    write_file(path, result.model_dump_json(indent=1) + "\n")


def _render(result: SessionResult, context: Context) -> list[str]:
    arguments = {"result": result.model_dump(mode="json"), "path": str(context.session_dir / "report.html")}
    outcome = context.bench.background("tools.report.html:render_task", arguments, label="report")
    return [] if isinstance(outcome, Returned) else [f"report.html could not be written: {_why(outcome)}"]


def _record(context: Context) -> MlflowRef:
    import numpy as np

    from tools.workloads.datasets import batch_of

    example = context.session_dir / "example.npz"
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **batch_of(context.bench.workload.evaluation, 2))  # type: ignore[arg-type]
    write_file(example, buffer.getvalue())
    outcome = context.bench.background(
        "tools.tracking:record_task",
        {"session_dir": str(context.session_dir), "example": str(example), "tracking_uri": context.tracking_uri},
        label="mlflow",
    )
    if isinstance(outcome, Returned):
        return MlflowRef.model_validate(outcome.value)
    return MlflowRef(
        tracking_uri=context.tracking_uri,
        run_id=None,
        note=f"MLflow has no record of this session ({_why(outcome)}). The journal has all of it.",
    )


def _why(outcome: object) -> str:
    return str(getattr(outcome, "reason", outcome))
