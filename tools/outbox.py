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
GIVE_UP_S = 86_400.0
"""An event that nobody took in a day is kept as `given up`, counted, and not sent any more."""
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
"""


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
        """Return the event that has been due for longest, for this caller alone for a while; None if none is due."""
        now_s = self.clock()
        with self._connect() as connection:
            row = connection.execute(
                "UPDATE outbox SET next_s = ?, attempts = attempts + 1 WHERE id = (SELECT id FROM outbox "
                "WHERE state = 'waiting' AND (next_s <= ? OR next_s > ?) ORDER BY created_s, id LIMIT 1) "
                "RETURNING id, webhook, body, created_s, attempts",
                (now_s + CLAIM_S, now_s, now_s + LONGEST_RETRY_S),  # later than that: the clock was set back
            ).fetchone()
        if row is None:
            return None
        return Waiting(row[0], Webhook.model_validate_json(row[1]), row[2].encode(), row[3], row[4])

    def delivered(self, event: Waiting) -> None:
        """Note that the webhook has it. Whatever else waits for this webhook is due now: it is back."""
        with self._connect() as connection:
            connection.execute("UPDATE outbox SET state = 'delivered', error = '' WHERE id = ?", (event.id,))
            connection.execute(
                "UPDATE outbox SET next_s = MIN(next_s, ?) WHERE state = 'waiting' AND url = ? AND error != ''",
                (self.clock(), event.webhook.url),
            )

    def failed(self, event: Waiting, error: str) -> None:
        """Note that the webhook did not take it, and when to try again; after a day, not again."""
        now_s = self.clock()
        given_up = now_s - event.created_s >= GIVE_UP_S
        with self._connect() as connection:
            connection.execute(
                "UPDATE outbox SET state = ?, error = ?, next_s = ? WHERE id = ? AND state = 'waiting'",
                ("given up" if given_up else "waiting", error, now_s + backoff_s(event.attempts), event.id),
            )

    def next_s(self) -> float | None:
        """Return when something is due next, as Unix time; None if nothing waits."""
        with self._connect() as connection:
            row = connection.execute("SELECT MIN(next_s) FROM outbox WHERE state = 'waiting'").fetchone()
        return None if row[0] is None else float(row[0])

    def counts(self) -> Counts:
        """Return how many events there are in each state."""
        with self._connect() as connection:
            found = dict(connection.execute("SELECT state, COUNT(*) FROM outbox GROUP BY state").fetchall())
        return Counts(found.get("waiting", 0), found.get("delivered", 0), found.get("given up", 0))

    def prune(self, before_s: float) -> None:
        """Forget events that were created before this and wait no longer."""
        with self._connect() as connection:
            connection.execute("DELETE FROM outbox WHERE state != 'waiting' AND created_s < ?", (before_s,))

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
