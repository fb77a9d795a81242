"""Complete the record in MLflow of sessions that ended while it was away, or whose record was lost since."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.session import alone, read_result
from tools.errors import InfertuneError
from tools.journal import Journal
from tools.machine import Machine
from tools.mirror import EXAMPLE, mirror, render, save
from tools.observer import Silent
from tools.record import JOURNAL, State, read_record
from tools.tracking.store import local_store, local_tracking_uri, with_account
from tools.worker import LIGHT_MODULES, Worker


def sync(folders: list[Path], tracking_uri: str | None) -> Iterator[tuple[str, bool]]:
    """Record each finished session that MLflow does not have.

    Of the home directory's own store it is looked up whether it still has what was recorded; others are believed.

    Args:
        folders: of the sessions.
        tracking_uri: where to; None for where each session was to go.

    Yields:
        A sentence about each session that needed it, and whether it is recorded now.
    """
    for folder in folders:
        try:
            record = read_record(folder)
        except InfertuneError:
            continue  # made by an earlier version, or damaged: `sessions` says so
        if record.state is State.FINISHED and not _is_there(folder, record.recorded):
            yield _sync(folder, tracking_uri or with_account(record.started.tracking_uri))


def _is_there(folder: Path, recorded: Mapping[str, Any]) -> bool:
    """Return whether what was recorded is in MLflow, as far as that can be told; deleted by a person, it is."""
    if recorded.get("run_id") is None:
        return False
    home = folder.parents[1]
    if recorded["tracking_uri"] != local_tracking_uri(home) or not (folder / EXAMPLE).exists():
        return True  # without the example it was imported: its own home has the record
    try:
        with contextlib.closing(sqlite3.connect(f"{local_store(home).as_uri()}?mode=ro", uri=True)) as store:
            found = store.execute("SELECT 1 FROM runs WHERE run_uuid = ?", [recorded["run_id"]]).fetchone()
    except sqlite3.Error:  # the file is gone, or damaged, or was made anew
        return False
    return found is not None


def _sync(folder: Path, tracking_uri: str) -> tuple[str, bool]:
    with alone(folder.parents[1], folder), Worker(LIGHT_MODULES, folder / "logs") as worker:
        machine = Machine(worker, worker, Silent(), limit_s=0.0)
        reference = mirror(folder, tracking_uri, machine)
        Journal(folder / JOURNAL).append("recorded", reference.model_dump(mode="json"))
        if reference.run_id is None:
            return f"{folder.name}  {reference.note}", False
        result = read_result(folder).model_copy(update={"mlflow": reference})
        save(result, folder)
        render(result, folder, machine)
        return f"{folder.name}  recorded as run {reference.run_id} in {reference.tracking_uri}", True
