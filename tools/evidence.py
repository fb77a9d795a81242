"""The store of what was measured: immutable rows in SQLite, named by the digest of their content.

Several processes may use one store at once. A row is written in one transaction, so it is there whole or not at all,
and is never changed: asking a question again gives other evidence. What is read back is checked against its name; a
row that was damaged on disk counts as missing.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from tools.contracts import Evidence
from tools.sqlite import Database

EVIDENCE = "evidence.db"
"""Name of the store in a home directory."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS findings (
    id TEXT PRIMARY KEY,
    question TEXT NOT NULL,
    kind TEXT NOT NULL,
    workload TEXT NOT NULL,
    session TEXT NOT NULL,
    created TEXT NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS findings_question ON findings (question);
"""
_PUT = """
INSERT INTO findings VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    question = excluded.question, kind = excluded.kind, workload = excluded.workload, session = excluded.session,
    created = excluded.created, body = excluded.body
"""
"""What is there under the same id is the same, or was damaged: then this repairs it."""
_OF_IDS = "WHERE id IN (SELECT value FROM json_each(?))"
_IF_DAMAGED = "Move the file away: what is missing is measured again, or imported from what was exported."


@dataclass(frozen=True)
class Row:
    """What the store's columns say of an evidence, without reading its body."""

    id: str
    question: str
    kind: str
    workload: str
    """Digest."""
    session: str
    """Which session measured it."""
    created: str
    """UTC, ISO 8601."""


class EvidenceStore:
    """Evidence by id and by question.

    Args:
        path: the database file; made if absent.

    Raises:
        StorageError: it cannot be made or read, or is no database.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, "the evidence store", _IF_DAMAGED)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._database.unusable(error) from None
        with self._transaction() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)

    def put(self, evidence: Evidence) -> None:
        """Write one row; evidence that is there already stays as it is.

        Raises:
            StorageError: the disk is full, or the store cannot be written.
        """
        self.put_all([evidence.body])

    def put_all(self, bodies: Iterable[str]) -> None:
        """Write findings as another store had them, in one transaction: all of them or none.

        Args:
            bodies: JSON texts. They are kept to the byte: the ids are their digests.

        Raises:
            pydantic.ValidationError: one of them is no finding; nothing is written.
            StorageError: the disk is full, or the store cannot be written.
        """
        rows = [_row(body) for body in bodies]
        with self._transaction() as connection:
            connection.executemany(_PUT, rows)

    def delete(self, identities: Iterable[str]) -> None:
        """Delete rows, in one transaction. Ids that are not there are none of its business.

        Raises:
            StorageError: the disk is full, or the store cannot be written.
        """
        with self._transaction() as connection:
            connection.execute(f"DELETE FROM findings {_OF_IDS}", _listed(identities))  # noqa: S608  a constant

    def compact(self) -> None:
        """Give the space of deleted rows back to the disk. A crash leaves the store as it was.

        Raises:
            StorageError: there is no room for the copy that this makes, or another process is in the way.
        """
        with self._transaction() as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def get(self, identity: str) -> Evidence | None:
        """Return the evidence of this id, or None.

        Raises:
            StorageError: the store cannot be read.
        """
        return next(self._read("WHERE id = ?", (identity,)), None)

    def get_all(self, identities: Iterable[str]) -> list[Evidence]:
        """Return the evidence of these ids, in their order; missing ones are left out.

        Raises:
            StorageError: the store cannot be read.
        """
        wanted = list(identities)
        found = {e.id: e for e in self._read(_OF_IDS, _listed(wanted))}
        return [found[identity] for identity in wanted if identity in found]

    def answers(self, question: str) -> list[Evidence]:
        """Return everything that was ever found out about a question, the newest first.

        Raises:
            StorageError: the store cannot be read.
        """
        return list(self._read("WHERE question = ? ORDER BY rowid DESC", (question,)))

    def rows(self) -> list[Row]:
        """Return what the columns say of every row, the oldest first. Damaged rows are among them.

        Raises:
            StorageError: the store cannot be read.
        """
        text = "SELECT id, question, kind, workload, session, created FROM findings ORDER BY created, rowid"
        with self._transaction() as connection:
            return [Row(*columns) for columns in connection.execute(text)]

    def bodies(self, identities: Iterable[str] | None = None) -> Iterator[tuple[str, str]]:
        """Yield id and JSON text of these rows, or of all of them, as they are stored: undamaged or not.

        Raises:
            StorageError: the store cannot be read.
        """
        if identities is None:
            return self._texts("ORDER BY rowid", ())
        return self._texts(_OF_IDS, _listed(identities))

    def _read(self, condition: str, values: tuple[str, ...]) -> Iterator[Evidence]:
        for identity, body in self._texts(condition, values):
            with contextlib.suppress(ValidationError):
                evidence = Evidence.from_body(body)
                if evidence.id == identity:
                    yield evidence

    def _texts(self, condition: str, values: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        with self._transaction() as connection:
            rows = connection.execute(f"SELECT id, body FROM findings {condition}", values).fetchall()  # noqa: S608  conditions are ours
        return iter(rows)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._database.errors(), self._database.connect() as connection, connection:
            connection.execute("PRAGMA synchronous=FULL")
            yield connection


def _row(body: str) -> tuple[str, ...]:
    evidence = Evidence.from_body(body)  # the id is always that of the text that is written
    columns = (evidence.question, evidence.kind, evidence.workload, evidence.session, evidence.created)
    return (evidence.id, *columns, body)


def _listed(identities: Iterable[str]) -> tuple[str]:
    return (json.dumps(list(identities)),)
