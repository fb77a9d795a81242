"""MLflow as a mirror of the journal: written after the fact, in a process of its own, exactly once.

The main process never imports mlflow: it runs `record_task` in a worker, or `python -m tools.tracking`.

A session is a run in the experiment `infertune/<workload>`, with a nested run for each candidate and for its challenge,
and a trace of how it went. What is asked most is one query: the best session of a workload that met its objective this
month.

    import datetime as dt
    import mlflow

    month = dt.datetime.now(dt.UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    mlflow.search_runs(
        experiment_names=["infertune/digits-resnet50"],
        filter_string="tags.`infertune.verdict` = 'MET' AND tags.`infertune.complete` = 'true' "
        f"AND attributes.start_time >= {month.timestamp() * 1000:.0f}",
        order_by=["metrics.ratio_cost DESC"],
        max_results=1,
    )
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tools.tracking.challenge import record_challenge
from tools.tracking.errors import TrackingError
from tools.tracking.recording import record
from tools.tracking.session import read_result
from tools.tracking.store import default_tracking_uri
from tools.tracking.ui import serve_ui, ui_command

__all__ = [
    "TrackingError",
    "default_tracking_uri",
    "read_result",
    "record",
    "record_challenge_task",
    "record_task",
    "serve_ui",
    "ui_command",
]


def record_task(*, session_dir: str, example: str, tracking_uri: str | None = None) -> dict[str, Any]:
    """Record the session in `session_dir`, from its `result.json`; a task for `tools.worker.Worker`.

    Args:
        session_dir: `<home>/sessions/<id>`.
        example: `.npz` file with one batch of inputs.
        tracking_uri: default: `MLFLOW_TRACKING_URI`, else the home directory's own store.

    Returns:
        The `MlflowRef`, JSON-ready.

    Raises:
        InfertuneError: as `record`, or the result cannot be read.
    """
    folder = Path(session_dir)
    reference = record(
        read_result(folder / "result.json"),
        session_dir=folder,
        tracking_uri=tracking_uri or default_tracking_uri(folder.resolve().parents[1]),
        example=Path(example),
    )
    return reference.model_dump(mode="json")


def record_challenge_task(*, session_dir: str, example: str, tracking_uri: str) -> dict[str, Any]:
    """Record the challenge in `session_dir`, and first the session if it is not there yet; a task like `record_task`.

    Args:
        session_dir: `<home>/sessions/<id>`, with `challenge.json` and `result.json`.
        example: as for `record_task`.
        tracking_uri: of the store.

    Returns:
        `run_id`: of the challenge's run.

    Raises:
        InfertuneError: as `record` and `record_challenge`.
    """
    session = record_task(session_dir=session_dir, example=example, tracking_uri=tracking_uri)
    return {"run_id": record_challenge(Path(session_dir), tracking_uri=tracking_uri, parent=session["run_id"])}
