"""The store of what was measured: one immutable row for each question, in SQLite.

Several processes may use one store at once. A row is written in one transaction, so it is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from tools.contracts import Evidence
from tools.errors import StorageError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS evidence (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    workload TEXT NOT NULL,
    created TEXT NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS evidence_workload ON evidence (workload, created);
"""
_BUSY_TIMEOUT_S = 30


class EvidenceStore:
    """Evidence by id.

    Args:
        path: the database file; made if absent.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._connect() as connection:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise self._error(error) from None

    def get(self, identity: str) -> Evidence | None:
        """Return the evidence of this id, or None.

        Raises:
            StorageError: the store cannot be read.
        """
        try:
            with self._connect() as connection:
                row = connection.execute("SELECT body FROM evidence WHERE id = ?", (identity,)).fetchone()
        except sqlite3.Error as error:
            raise self._error(error) from None
        return None if row is None else Evidence.model_validate_json(row[0])

    def put(self, evidence: Evidence) -> None:
        """Write one row. A row of the same id is replaced: the newer answer to the same question.

        Raises:
            StorageError: the disk is full, or the store cannot be written.
        """
        row = (evidence.id, evidence.kind, evidence.workload, evidence.created, evidence.model_dump_json())
        try:
            with self._connect() as connection:
                connection.execute("INSERT OR REPLACE INTO evidence VALUES (?, ?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            raise self._error(error) from None

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_S)
        try:
            connection.execute("PRAGMA synchronous=FULL")
            with connection:
                yield connection
        finally:
            connection.close()

    def _error(self, error: Exception) -> StorageError:
        return StorageError(
            f"the evidence store cannot be used ({error}).",
            where=str(self._path),
            fix="Free some space, or point INFERTUNE_HOME to a folder that you can write.",
        )
