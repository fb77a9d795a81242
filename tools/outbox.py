"""The outbox: events that somebody is to be told, on disk before anything is sent.

It holds where a webhook's secret is found, never the secret. A URL may be a secret too: only its host is ever shown.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from tools.contracts import Contract
from tools.errors import SpecError, StorageError

OUTBOX = "outbox.db"
"""Name of the outbox in a home directory."""
FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 900.0
"""Waits double up to this: a webhook that is back is tried within a quarter of an hour."""
GIVE_UP_S = 3 * 86_400.0
"""An event that nobody took in three days, a weekend and a night, is kept as `given up`, counted, and not sent any
more. Where a timetable elsewhere starts us once a night, that is a few tries."""
CLAIM_S = 60.0
"""A try that is not over after this belonged to a process that died; far longer than one can take."""
_BUSY_TIMEOUT_S = 30
_FIX = "It must hold the secret that the webhook's events are signed with."
_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    id TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    webhook TEXT NOT NULL,
    body TEXT NOT NULL,
    created_s REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_s REAL NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'given up')),
    error TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX IF NOT EXISTS outbox_next ON outbox (state, next_s);
CREATE TABLE IF NOT EXISTS hooks (
    url TEXT PRIMARY KEY,
    failures INTEGER NOT NULL DEFAULT 0,
    next_s REAL NOT NULL
) STRICT;
"""
_WAITING = "FROM outbox LEFT JOIN hooks ON hooks.url = outbox.url WHERE outbox.state = 'waiting'"
_DUE = "({0} IS NULL OR {0} <= ?1 OR {0} > ?2)"
"""At ?1; what waits until after ?2 was put off before the clock was set back."""


class Webhook(Contract):
    """Where events are posted, and where the secret lies that they are signed with."""

    url: str = Field(repr=False)
    secret_file: str | None = None
    secret_env: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
            usable = usable and parts.username is None and not parts.fragment
        except ValueError:
            usable = False
        if not usable or not self.url.isprintable() or " " in self.url:
            msg = "the webhook's URL must be http://HOST/... or https://HOST/..., without a user name"
            raise ValueError(msg)
        if (self.secret_file is None) == (self.secret_env is None):
            msg = "a webhook needs a secret to sign with: give exactly one of a file and an environment variable"
            raise ValueError(msg)
        return self

    @property
    def shown(self) -> str:
        """What may be shown of the URL."""
        parts = urlsplit(self.url)
        port = "" if parts.port is None else f":{parts.port}"
        return f"{parts.scheme}://{parts.hostname}{port}/..."

    def secret(self) -> bytes:
        """Return the secret as it is now: a file may be replaced at any time.

        Raises:
            SpecError: it is missing or empty.
        """
        if self.secret_env is not None:
            value, where = os.environ.get(self.secret_env, "").strip().encode(), f"variable {self.secret_env}"
        else:
            where = str(self.secret_file)
            try:
                value = Path(where).read_bytes().strip()
            except OSError as error:
                raise SpecError(f"cannot be read ({error.strerror}).", where=where, fix=_FIX) from None
        if not value:
            raise SpecError("is not set, or empty.", where=where, fix=_FIX)
        return value


class Waiting(NamedTuple):
    """One event that is to be sent."""

    id: str
    webhook: Webhook
    body: bytes
    created_s: float
    attempts: int


class Counts(NamedTuple):
    """How many events are in the outbox, by state."""

    waiting: int
    delivered: int
    given_up: int


class Outbox:
    """Events on their way, in SQLite. Several processes may use it at once.

    To one webhook they go one by one, in the order in which they were put: while it is down all of them wait for the
    oldest. An event that it refuses, as one that it cannot read, steps aside for those behind it.

    Args:
        path: the database; made if absent, readable for its owner alone.
        clock: Unix time.

    Raises:
        StorageError: it cannot be made or read.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self.clock = clock
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from None
        with self._connect() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)

    def put(self, identity: str, webhook: Webhook, event: Mapping[str, Any]) -> bool:
        """Write an event down; return False if one of this id is there already, whatever became of it.

        Raises:
            StorageError: the disk is full, or the outbox cannot be written.
        """
        now_s = self.clock()
        body = json.dumps({"id": identity, **event}, sort_keys=True)
        row = (identity, webhook.url, webhook.model_dump_json(), body, now_s, now_s)
        with self._connect() as connection:
            done = connection.execute(
                "INSERT INTO outbox (id, url, webhook, body, created_s, next_s) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO NOTHING",
                row,
            )
            return done.rowcount == 1

    def claim(self) -> Waiting | None:
        """Return the oldest event that is due, with its webhook for this caller alone for a while; None if none is."""
        now_s = self.clock()
        event_due, hook_due = _DUE.format("outbox.next_s"), _DUE.format("hooks.next_s")
        with self._connect() as connection:
            row = connection.execute(
                "UPDATE outbox SET attempts = attempts + 1 WHERE rowid = "  # noqa: S608  constants of this file
                f"(SELECT outbox.rowid {_WAITING} AND {event_due} AND {hook_due} ORDER BY outbox.rowid LIMIT 1) "
                "RETURNING id, webhook, body, created_s, attempts, url",
                (now_s, now_s + LONGEST_RETRY_S),
            ).fetchone()
            if row is None:
                return None
            connection.execute(
                "INSERT INTO hooks (url, next_s) VALUES (?, ?) "
                "ON CONFLICT (url) DO UPDATE SET next_s = excluded.next_s",
                (row[5], now_s + CLAIM_S),
            )
        return Waiting(row[0], Webhook.model_validate_json(row[1]), row[2].encode(), row[3], row[4])

    def delivered(self, event: Waiting) -> None:
        """Note that the webhook has it; the next event for it is due at once."""
        with self._connect() as connection:
            connection.execute("UPDATE outbox SET state = 'delivered', error = '' WHERE id = ?", (event.id,))
            self._answers(connection, event)

    def refused(self, event: Waiting, error: str) -> None:
        """Note that the webhook answers, but does not want this event; it is tried again, and others before."""
        with self._connect() as connection:
            self._put_off(connection, event, error, self.clock() + backoff_s(event.attempts))
            self._answers(connection, event)

    def failed(self, event: Waiting, error: str) -> None:
        """Note that the webhook is down: when to try again, with this event and all that wait for the same."""
        now_s = self.clock()
        with self._connect() as connection:
            self._put_off(connection, event, error, now_s)
            (failures,) = connection.execute(
                "INSERT INTO hooks (url, failures, next_s) VALUES (?, 1, ?) "
                "ON CONFLICT (url) DO UPDATE SET failures = failures + 1 RETURNING failures",
                (event.webhook.url, now_s),
            ).fetchone()
            connection.execute(
                "UPDATE hooks SET next_s = ? WHERE url = ?", (now_s + backoff_s(failures), event.webhook.url)
            )

    def next_s(self) -> float | None:
        """Return when something is due next, as Unix time; None if nothing waits."""
        with self._connect() as connection:
            row = connection.execute(f"SELECT MIN(MAX(outbox.next_s, COALESCE(hooks.next_s, 0))) {_WAITING}").fetchone()
        return None if row[0] is None else float(row[0])

    def counts(self) -> Counts:
        """Return how many events there are in each state."""
        with self._connect() as connection:
            found = dict(connection.execute("SELECT state, COUNT(*) FROM outbox GROUP BY state").fetchall())
        return Counts(found.get("waiting", 0), found.get("delivered", 0), found.get("given up", 0))

    def prune(self, before_s: float) -> None:
        """Forget events that were created before this and wait no longer, and webhooks that nothing waits for."""
        with self._connect() as connection:
            connection.execute("DELETE FROM outbox WHERE state != 'waiting' AND created_s < ?", (before_s,))
            connection.execute("DELETE FROM hooks WHERE url NOT IN (SELECT url FROM outbox WHERE state = 'waiting')")

    def _put_off(self, connection: sqlite3.Connection, event: Waiting, error: str, next_s: float) -> None:
        """Note why an event was not taken; if it waits for too long, it is given up."""
        given_up = self.clock() - event.created_s >= GIVE_UP_S
        connection.execute(
            "UPDATE outbox SET state = ?, error = ?, next_s = ? WHERE id = ? AND state = 'waiting'",
            ("given up" if given_up else "waiting", error, next_s, event.id),
        )

    def _answers(self, connection: sqlite3.Connection, event: Waiting) -> None:
        connection.execute("DELETE FROM hooks WHERE url = ?", (event.webhook.url,))

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            with (
                contextlib.closing(sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_S)) as connection,
                connection,
            ):
                connection.execute("PRAGMA synchronous=FULL")
                yield connection
        except sqlite3.Error as error:
            raise self._unusable(str(error)) from None

    def _unusable(self, why: str) -> StorageError:
        return StorageError(
            f"the outbox cannot be used ({why}).",
            where=str(self._path),
            fix="Free some space, move the file away, or point INFERTUNE_HOME to a folder that you can write.",
        )


def backoff_s(attempts: int) -> float:
    """Return how long to wait after so many failed tries, at least one."""
    return min(FIRST_RETRY_S * 2.0 ** min(attempts - 1, 30), LONGEST_RETRY_S)
