"""The trace that goes with a session's run: the same session seen as a tree of what was asked, when, and how long."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tools.contracts import Evidence
from tools.errors import StorageError
from tools.evidence import EVIDENCE, EvidenceStore
from tools.journal import Entry, Journal
from tools.record import JOURNAL
from tools.result import SessionResult
from tools.tracking.spans import write_trace
from tools.tracking.timeline import session_trace


def write_session_trace(
    result: SessionResult, session_dir: Path, tracking_uri: str, *, experiment: str, run_id: str
) -> str:
    """Write the trace of a session beside its run.

    It is named by the run, so it is there once, however often it is written, and goes when the run is recorded anew. A
    journal or a store of evidence that cannot be read costs details of the trace, and never the trace.

    Args:
        result: of the session.
        session_dir: `<home>/sessions/<id>`.
        tracking_uri: of the store.
        experiment: id of the run's experiment.
        run_id: of the run that the session became.

    Returns:
        The trace's id.

    Raises:
        MlflowException, NotImplementedError: as `write_trace`.
    """
    from mlflow.tracing.constant import TraceMetadataKey

    entries = _journal(session_dir)
    used = [str(entry.payload.get("id")) for entry in entries if entry.kind == "evidence"]
    trace = session_trace(result, entries, _evidence(session_dir.resolve().parents[1], used))
    return write_trace(tracking_uri, experiment, run_id, replace(trace, metadata={TraceMetadataKey.SOURCE_RUN: run_id}))


def _journal(session_dir: Path) -> list[Entry]:
    try:
        return Journal(session_dir / JOURNAL).read()
    except StorageError:
        return []


def _evidence(home: Path, identities: list[str]) -> dict[str, Evidence]:
    store = home / EVIDENCE
    if not store.exists():  # opening it would make it
        return {}
    try:
        return {evidence.id: evidence for evidence in EvidenceStore(store).get_all(identities)}
    except StorageError:
        return {}
