"""A session as it was recorded, for whoever looks back at it: its workload, its evidence, and what both show."""

from __future__ import annotations

from pathlib import Path

from tools.contracts import Evidence
from tools.errors import StorageError
from tools.evidence import EVIDENCE, EvidenceStore
from tools.record import Loaded, SessionRecord
from tools.view import SessionView


def evidence_of(record: SessionRecord, home: Path) -> list[Evidence]:
    """Return what a session used, in the order of its first use.

    Raises:
        StorageError: some of it is missing from the store, or was damaged there.
    """
    found = EvidenceStore(home / EVIDENCE).get_all(record.evidence)
    there = {evidence.id for evidence in found}
    missing = [identity for identity in record.evidence if identity not in there]
    if missing:
        raise StorageError(
            f"{len(missing)} of {len(record.evidence)} pieces of evidence of session {record.session} are "
            f"missing or damaged ({', '.join(missing[:3])}).",
            where=str(home / EVIDENCE),
            fix="Import them from an export, or resume or repeat the session: what is missing is measured again.",
        )
    return found


def loaded_of(record: SessionRecord) -> Loaded:
    """Return a session's workload.

    Raises:
        StorageError: it was never loaded.
    """
    if record.loaded is None:
        raise StorageError(
            "the session ended before its workload was loaded: nothing was measured or decided.",
            where=str(record.folder),
        )
    return record.loaded


def view_of(record: SessionRecord, home: Path) -> SessionView:
    """Return all that a session knows, with none of its time used: the policy may still ask for anything.

    Raises:
        StorageError: it was never loaded, or its evidence is missing.
    """
    loaded = loaded_of(record)
    return SessionView(
        spec=loaded.spec,
        workload=loaded.workload,
        hardware=record.started.hardware,
        availability=record.started.availability,
        evidence=tuple(evidence_of(record, home)),
    )
