"""What is scheduled, and what became of each time that came: rows in `schedule.db`, beside APScheduler's own table."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import Field

from agent.scheduling.times import QuietHours
from tools.contracts import Contract, Verdict
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
CREATE TABLE IF NOT EXISTS forgotten (
    verdict TEXT NOT NULL,
    reason TEXT NOT NULL,
    runs INTEGER NOT NULL,
    PRIMARY KEY (verdict, reason)
) STRICT;
"""
KEEP_RUNS = 100
"""Of each entry, the latest: they stay however old they are."""

SETTLED = frozenset({Verdict.MET.value, Verdict.INFEASIBLE.value})
"""Verdicts that stand until something changes. A noisy machine or a failure settles nothing."""

State: TypeAlias = Literal["begun", "ended", "skipped", "deferred"]


class Entry(Contract):
    """One spec on a schedule."""

    id: str
    """From the target: adding it again replaces the entry."""
    name: str
    """Of the workload."""
    target: str
    """Absolute path of a spec, or a bundled workload."""
    cron: str | None
    """None: a timetable elsewhere says when, by `schedule tick`."""
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
    advisor: bool = False
    """Whether a language model is to be asked, as by `optimize --advisor`."""
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
    advisor: bool = False
    """Whether the session is begun with an advisor: decided once, when the run begins."""
    notes: tuple[str, ...] = ()
    """What the run had to do without, in sentences."""
    facts: Facts | None = None
    """What the run rests on."""
    session: str | None = None
    verdict: str | None = None
    """The session's, or FAILED."""
    exit_code: int | None = None
    """Of the session; that of a mistake where the spec could not even be looked at."""


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

    def latest(self, entry: str) -> Run | None:
        """Return what became of the last time that came for an entry."""
        with self._connect() as connection:
            row = connection.execute(
                "SELECT id, body FROM runs WHERE entry = ? ORDER BY id DESC LIMIT 1", (entry,)
            ).fetchone()
        return None if row is None else _run(*row)

    def prune(self, before_s: float) -> None:
        """Forget what lies before this: times at which nothing was run, and runs that came to their end.

        Of each entry the latest runs stay, with the last that settled something. What is forgotten stays counted.
        """
        with self._connect() as connection:
            # It takes the write lock even if it finds nothing: so no run is counted twice by two that prune.
            connection.execute("DELETE FROM runs WHERE state IN ('skipped', 'deferred') AND begun_s < ?", (before_s,))
            rows = connection.execute("SELECT id, body FROM runs WHERE state = 'ended' AND begun_s < ?", (before_s,))
            old = [_run(number, body) for number, body in rows.fetchall()]
            if not old:
                return
            kept = self._kept(connection)
            for run in old:
                if run.id not in kept and connection.execute("DELETE FROM runs WHERE id = ?", (run.id,)).rowcount:
                    connection.executemany(
                        "INSERT INTO forgotten VALUES (?, ?, 1) "
                        "ON CONFLICT (verdict, reason) DO UPDATE SET runs = runs + 1",
                        [(run.verdict or "", reason.kind) for reason in run.reasons],
                    )

    def counts(self) -> dict[tuple[str, str], int]:
        """Return how many runs ended, by verdict and reason: one that had several counts for each of them."""
        with self._connect() as connection:
            counted = Counter({(v, r): n for v, r, n in connection.execute("SELECT * FROM forgotten").fetchall()})
            bodies = connection.execute("SELECT id, body FROM runs WHERE state = 'ended'").fetchall()
        ended = (_run(number, body) for number, body in bodies)
        counted.update((run.verdict or "", reason.kind) for run in ended for reason in run.reasons)
        return dict(counted)

    @staticmethod
    def _kept(connection: sqlite3.Connection) -> set[int]:
        """Return the runs that stay whatever their age: next time is compared with them."""
        latest = connection.execute(
            "SELECT id FROM (SELECT id, ROW_NUMBER() OVER (PARTITION BY entry ORDER BY id DESC) AS place FROM runs "
            "WHERE state = 'ended') WHERE place <= ?",
            (KEEP_RUNS,),
        )
        settled = connection.execute(
            "SELECT MAX(id) FROM runs WHERE state = 'ended' AND json_extract(body, '$.facts') IS NOT NULL "
            "AND json_extract(body, '$.verdict') IN (SELECT value FROM json_each(?)) GROUP BY entry",
            (json.dumps(sorted(SETTLED)),),
        )
        return {number for (number,) in (*latest.fetchall(), *settled.fetchall())}

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
