"""The rows of the store of plans: how they are laid out, written and read within a transaction of the caller's."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from tools.cluster.events import GENESIS, Event, EventKind, seal, seal_head, state_of
from tools.contracts import HpaRef, ScalingPlan
from tools.errors import FenceError, StorageError

# A rollback journal, no WAL: the store is one file that a person can copy, and it is written a few times a day.
SCHEMA = """
CREATE TABLE IF NOT EXISTS plans (digest TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY,
    plan TEXT NOT NULL,
    kind TEXT NOT NULL,
    at TEXT NOT NULL,
    by TEXT NOT NULL,
    detail TEXT NOT NULL,
    mac TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS head (id INTEGER PRIMARY KEY CHECK (id = 1), mac TEXT NOT NULL) STRICT;
CREATE TRIGGER IF NOT EXISTS events_stay BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS events_keep BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS plans_stay BEFORE DELETE ON plans BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS plans_keep BEFORE UPDATE ON plans BEGIN SELECT RAISE(ABORT, 'append-only'); END;
"""


def append_event(
    connection: sqlite3.Connection,
    key: bytes,
    digest: str,
    kind: EventKind,
    *,
    by: str,
    at: datetime,
    detail: Mapping[str, Any],
) -> None:
    """Write an event behind the last one, sealed. The caller has checked that it may follow."""
    last = connection.execute("SELECT seq, mac FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    seq, mac = last or (0, GENESIS)
    text = json.dumps(detail, sort_keys=True, allow_nan=False)
    event = Event(seq + 1, digest, kind, at.astimezone(UTC).isoformat(timespec="milliseconds"), by, text, "")
    sealed = seal(key, mac, event)
    connection.execute(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
        (event.seq, event.plan, event.kind, event.at, event.by, event.text, sealed),
    )
    connection.execute("REPLACE INTO head VALUES (1, ?)", (seal_head(key, event.seq, sealed),))


def all_events(connection: sqlite3.Connection) -> tuple[Event, ...]:
    """Return all events, by number."""
    return tuple(Event(*row) for row in connection.execute("SELECT * FROM events ORDER BY seq"))


def events_of(connection: sqlite3.Connection, digest: str) -> tuple[Event, ...]:
    """Return the events of one plan, by number."""
    rows = connection.execute("SELECT * FROM events WHERE plan = ? ORDER BY seq", (digest,))
    return tuple(Event(*row) for row in rows)


def events_for(connection: sqlite3.Connection, target: HpaRef) -> tuple[Event, ...]:
    """Return the events of all plans for one HPA, by number."""
    rows = connection.execute(
        "SELECT events.* FROM events JOIN plans ON plans.digest = events.plan"
        " WHERE json_extract(body, '$.target.server') = ? AND json_extract(body, '$.target.namespace') = ?"
        " AND json_extract(body, '$.target.name') = ? ORDER BY seq",
        (target.server, target.namespace, target.name),
    )
    return tuple(Event(*row) for row in rows)


def read_state(connection: sqlite3.Connection, digest: str) -> EventKind | None:
    """Return where a plan stands, None if there is no such plan.

    Raises:
        StorageError: its events cannot follow each other.
    """
    try:
        return state_of(events_of(connection, digest))
    except ValueError as error:
        raise StorageError(f"its events are in disorder ({error}).", where=f"plan {digest}") from None


def plans_flaw(connection: sqlite3.Connection, events: tuple[Event, ...]) -> str | None:
    """Return which plan is missing, was changed or was inserted, as a sentence; None if all are as proposed."""
    bodies = dict(connection.execute("SELECT digest, body FROM plans"))
    proposed = {event.plan: event.detail.get("sha256") for event in events if event.kind == "proposed"}
    for digest in sorted(bodies.keys() | proposed.keys()):
        if digest not in bodies:
            return f"plan {digest} is missing."
        if digest not in proposed:
            return f"plan {digest} was not written by infertune."
        if sha256(bodies[digest]) != proposed[digest]:
            return f"plan {digest} was changed."
    return None


def parsed(digest: str, body: str) -> ScalingPlan:
    """Return the plan that a row holds.

    Raises:
        FenceError: it is not the one of this digest.
    """
    with contextlib.suppress(ValidationError):
        plan = ScalingPlan.model_validate_json(body)
        if plan.digest == digest:
            return plan
    raise FenceError(
        "what is stored under this digest is another plan: it was changed by hand.",
        where=f"plan {digest}",
        fix="Make the plan anew, and have that one approved.",
    )


def sha256(text: str) -> str:
    """Return the SHA-256 of a text, as hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()
