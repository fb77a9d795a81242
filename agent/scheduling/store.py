"""What is scheduled, and what became of each time that came: rows in `schedule.db`, beside APScheduler's own table."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import Field

from agent.scheduling.times import QuietHours
from tools.contracts import Contract
from tools.errors import StorageError
from tools.outbox import Webhook
from tools.reasons import Facts, Reason

SCHEDULE = "schedule.db"
"""Name of the schedule in a home directory."""
_BUSY_TIMEOUT_S = 30
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    entry TEXT NOT NULL,
    state TEXT NOT NULL,
    begun_s REAL NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS runs_entry ON runs (entry, id);
"""

State: TypeAlias = Literal["begun", "ended", "skipped", "deferred"]


class Entry(Contract):
    """One spec on a schedule."""

    id: str
    """From the target: adding it again replaces the entry."""
    name: str
    """Of the workload."""
    target: str
    """Absolute path of a spec, or a bundled workload."""
    cron: str
    timezone: str
    quiet: tuple[QuietHours, ...] = ()
    budget_s: float | None = Field(None, ge=60)
    """Of one run, in place of the spec's."""
    daily_budget_s: float | None = Field(None, ge=60)
    """Seconds of runs in one day, by the clocks of the zone."""
    max_age_s: float = Field(gt=0)
    """Evidence older than this is renewed."""
    auto_approve_within: str | None = None
    """As `optimize --auto-approve-within` takes it."""
    webhook: Webhook | None = None


class Run(Contract):
    """One time that came, and what became of it. Only `begun` and `ended` ones were sessions."""

    id: int = 0
    entry: str
    state: State
    due_s: float
    begun_s: float
    ended_s: float | None = None
    reasons: tuple[Reason, ...] = ()
    why: str = ""
    """Why nothing was run, or how the run failed, in a sentence."""
    facts: Facts | None = None
    """What the run rests on."""
    session: str | None = None
    verdict: str | None = None
    """The session's, or FAILED."""
    exit_code: int | None = None


class ScheduleStore:
    """Entries by id and runs in order. Several processes may use it at once.

    Args:
        home: `schedule.db` is made in it if absent, readable for its owner alone.

    Raises:
        StorageError: it cannot be made or read.
    """

    def __init__(self, home: Path) -> None:
        self.path = home / SCHEDULE
        try:
            home.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise unusable(self.path, error.strerror or str(error)) from None
        with self._connect() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)

    def put(self, entries: Iterable[Entry]) -> None:
        """Write entries, all or none, in place of those with the same id."""
        rows = [(entry.id, entry.model_dump_json()) for entry in entries]
        with self._connect() as connection:
            connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", rows)

    def remove(self, entry: str) -> None:
        """Take an entry out. Its runs stay on record."""
        with self._connect() as connection:
            connection.execute("DELETE FROM entries WHERE id = ?", (entry,))

    def entries(self) -> dict[str, Entry]:
        """Return all entries by id, in the order of their names."""
        with self._connect() as connection:
            rows = connection.execute("SELECT body FROM entries").fetchall()
        found = sorted((Entry.model_validate_json(body) for (body,) in rows), key=lambda e: (e.name, e.target))
        return {entry.id: entry for entry in found}

    def note(self, run: Run) -> Run:
        """Write a run, and return it with its id; one that has an id already is replaced."""
        with self._connect() as connection:
            row = (run.id or None, run.entry, run.state, run.begun_s, run.model_dump_json(exclude={"id"}))
            done = connection.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?)", row)
        return run.model_copy(update={"id": done.lastrowid})

    def runs(self, *, entry: str | None = None, state: State | None = None, since_s: float = 0.0) -> tuple[Run, ...]:
        """Return runs in the order in which they began."""
        with self._connect() as connection:
            rows = connection.execute(
                "SELECT id, body FROM runs WHERE (?1 IS NULL OR entry = ?1) AND (?2 IS NULL OR state = ?2) "
                "AND begun_s >= ?3 ORDER BY id",
                (entry, state, since_s),
            ).fetchall()
        return tuple(_run(number, body) for number, body in rows)

    def prune(self, before_s: float) -> None:
        """Forget the times before this at which nothing was run."""
        with self._connect() as connection:
            connection.execute("DELETE FROM runs WHERE state IN ('skipped', 'deferred') AND begun_s < ?", (before_s,))

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S)) as connection, connection:
                connection.execute("PRAGMA synchronous=FULL")
                yield connection
        except sqlite3.Error as error:
            raise unusable(self.path, str(error)) from None


def unusable(path: Path, why: str) -> StorageError:
    """Return the error for a schedule that cannot be used."""
    return StorageError(
        f"the schedule cannot be used ({why}).",
        where=str(path),
        fix="Free some space, move the file away, or point INFERTUNE_HOME to a folder that you can write.",
    )


def _run(number: int, body: str) -> Run:
    content: dict[str, Any] = json.loads(body)
    return Run.model_validate({**content, "id": number})
