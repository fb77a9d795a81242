"""The store of plans and of all that happened to them: append-only, sealed, shared by several processes.

One SQLite file, one transaction an event. It is on disk before anything relies on it (`synchronous=EXTRA`), and each
row carries an HMAC over itself and the row before it. A row that was edited, removed or inserted by hand is
recognised; from then on the store can be shown, but nothing is written to it, and so nothing is applied.

Who can read `plans.key` can forge a store, and so can who replaces both files: the seal tells accidents and edits,
not a thief with the rights of the person who runs infertune.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tools.cluster.events import Event, EventKind, first_flaw, follow, state_of
from tools.cluster.key import make_key, read_key
from tools.cluster.rows import (
    SCHEMA,
    all_events,
    append_event,
    events_for,
    events_of,
    parsed,
    plans_flaw,
    read_state,
    sha256,
)
from tools.contracts import HpaRef, ScalingPlan
from tools.errors import FenceError, StorageError
from tools.sqlite import Database

PLANS = "plans.db"
"""Name of the store in a home directory."""
KEY = "plans.key"
"""Name of the store's secret, beside it."""
_IF_DAMAGED = f"Move {PLANS} and {KEY} away: plans are made and approved anew. Look at the HPA first."
_PREFIX = 8
"""A digest may be shortened to so many hex digits."""


class PlanStore:
    """Plans by digest, and their events in order.

    Args:
        home: `plans.db` and `plans.key` are made in it if absent.

    Raises:
        StorageError: it cannot be made or read, is no database, or holds events without the key that seals them.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._path = home / PLANS
        self._database = Database(self._path, "the store of plans", _IF_DAMAGED)
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._database.unusable(error) from None
        with self._reading() as connection:
            connection.executescript(SCHEMA)

    def propose(self, plan: ScalingPlan, *, by: str, at: datetime, detail: Mapping[str, Any] | None = None) -> str:
        """Write a plan down and return its digest. The same plan again is the same, and stays as it is.

        Args:
            plan: the plan.
            by: who made it.
            at: when.
            detail: what it is offered with beyond its content, JSON-ready.

        Raises:
            StorageError: the store cannot be written, or was tampered with.
        """
        body = json.dumps(plan.model_dump(mode="json"), separators=(",", ":"))
        with self._changing() as (connection, key):
            if read_state(connection, plan.digest) is None:
                connection.execute("INSERT INTO plans VALUES (?, ?)", (plan.digest, body))
                sealed = {**(detail or {}), "session": plan.session, "sha256": sha256(body)}
                append_event(connection, key, plan.digest, "proposed", by=by, at=at, detail=sealed)
        return plan.digest

    def append(
        self,
        digest: str,
        kind: EventKind,
        *,
        by: str,
        at: datetime,
        detail: Mapping[str, Any] | None = None,
        guard: Callable[[tuple[Event, ...]], None] | None = None,
    ) -> None:
        """Write that something happened to a plan. It is on disk when this returns.

        Args:
            digest: of the plan.
            kind: must be allowed to follow what happened before (`tools.cluster.events.FOLLOWS`).
            by: who did it.
            at: when.
            detail: more, JSON-ready.
            guard: called with the plan's events within the transaction, before anything is written: what it raises
                is raised, and nothing is written. So two processes cannot both pass the same check.

        Raises:
            FenceError: it cannot happen now: somebody else was faster, or the plan does not exist.
            StorageError: the store cannot be written, or was tampered with.
        """
        with self._changing() as (connection, key):
            events = events_of(connection, digest)
            if guard is not None:
                guard(events)
            try:
                follow(state_of(events), kind)
            except ValueError as error:
                raise FenceError(f"{error}.", where=f"plan {digest}") from None
            append_event(connection, key, digest, kind, by=by, at=at, detail=detail or {})

    def get(self, digest: str) -> ScalingPlan:
        """Return the plan of a digest, or of at least its first 8 hex digits.

        Raises:
            FenceError: there is none, there are several, or what is stored has another digest.
            StorageError: the store cannot be read.
        """
        wanted = digest.strip().lower()
        if len(wanted) < _PREFIX or not set(wanted) <= set("0123456789abcdef"):
            raise FenceError(
                "a plan is named by its digest, or by at least the first 8 hex digits of it.",
                where=f"plan {digest[:40]!r}",
            )
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT digest, body FROM plans WHERE substr(digest, 1, ?) = ?", (len(wanted), wanted)
            ).fetchall()
        if len(rows) != 1:
            what = "there is no such plan." if not rows else f"{len(rows)} plans begin so: give more digits."
            raise FenceError(what, where=f"plan {wanted}")
        return parsed(*rows[0])

    def plans(self) -> tuple[ScalingPlan, ...]:
        """Return all plans, the oldest first. One that was damaged is left out; `flaw` names it.

        Raises:
            StorageError: the store cannot be read.
        """
        with self._reading() as connection:
            rows = connection.execute("SELECT digest, body FROM plans ORDER BY rowid").fetchall()
        found = []
        for digest, body in rows:
            with contextlib.suppress(FenceError):
                found.append(parsed(digest, body))
        return tuple(found)

    def events(self, digest: str | None = None) -> tuple[Event, ...]:
        """Return what happened to a plan, or to all of them, in order; as it is stored, intact or not.

        Raises:
            StorageError: the store cannot be read.
        """
        with self._reading() as connection:
            return all_events(connection) if digest is None else events_of(connection, digest)

    def state(self, digest: str) -> EventKind | None:
        """Return where a plan stands, None if there is no such plan.

        Raises:
            StorageError: the store cannot be read, or its events cannot follow each other.
        """
        with self._reading() as connection:
            return read_state(connection, digest)

    def history(self, target: HpaRef) -> tuple[Event, ...]:
        """Return what happened to all plans for one HPA, in order, whatever its uid was.

        Raises:
            StorageError: the store cannot be read.
        """
        with self._reading() as connection:
            return events_for(connection, target)

    def flaw(self) -> str | None:
        """Return what is wrong with the store, as a sentence that names the row; None if it is intact.

        Raises:
            StorageError: the store, or its key, cannot be read.
        """
        with self._reading() as connection:
            return self._flaw(connection, read_key(self.home / KEY))

    def require_intact(self) -> None:
        """Refuse to go on with a store that was tampered with.

        Raises:
            StorageError: it was; or it cannot be read.
        """
        flaw = self.flaw()
        if flaw is not None:
            raise self._tampered(flaw)

    def _flaw(self, connection: sqlite3.Connection, key: bytes | None) -> str | None:
        events = all_events(connection)
        if key is None:
            return f"{KEY}, the key to its events, is missing." if events else None
        head = connection.execute("SELECT mac FROM head").fetchone()
        return first_flaw(key, events, head[0] if head else None) or plans_flaw(connection, events)

    def _tampered(self, flaw: str) -> StorageError:
        return StorageError(
            f"was changed by hand: {flaw} Nothing is applied from it.",
            where=str(self._path),
            fix=f"Look at it with `infertune plan list`, then move {PLANS} and {KEY} away: plans are made and approved "
            "anew.",
        )

    @contextlib.contextmanager
    def _changing(self) -> Iterator[tuple[sqlite3.Connection, bytes]]:
        """Hold the store alone, once it is known to be intact; what is written is written whole or not at all."""
        with self._reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            key = read_key(self.home / KEY)
            flaw = self._flaw(connection, key)
            if flaw is not None:
                raise self._tampered(flaw)
            yield connection, key if key is not None else make_key(self.home / KEY)
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._database.errors(), self._connect() as connection:
            yield connection

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        with self._database.connect(autocommit=True) as connection:
            connection.execute("PRAGMA synchronous=EXTRA")
            yield connection
