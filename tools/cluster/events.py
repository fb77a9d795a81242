"""What can happen to a plan, and in which order: pure rules, without a database and without a cluster."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

EventKind: TypeAlias = Literal[
    "proposed",  # code made the plan
    "approved",  # a person, or the policy within its limits, said yes
    "rejected",  # somebody said no
    "expired",  # nobody carried it out in time
    "applying",  # the intent: on disk before the patch is sent
    "applied",  # the server has it
    "verifying",  # somebody watches
    "verified",  # it was watched for its window, and kept what it promised
    "breached",  # it did not
    "rolling_back",  # the intent to restore what was before: on disk before the patch is sent
    "rolled_back",  # the server has what was before
    "failed",  # nothing was changed, and nothing will be
    "abandoned",  # the object is no longer as we left it: it was not touched again
]
KINDS: tuple[EventKind, ...] = get_args(EventKind)

FOLLOWS: MappingProxyType[EventKind | None, frozenset[EventKind]] = MappingProxyType(
    {
        None: frozenset({"proposed"}),
        "proposed": frozenset({"approved", "rejected", "expired"}),
        "approved": frozenset({"rejected", "expired", "applying", "failed"}),
        # What became of the intent is read from the server: stored, not stored, or not told apart any more.
        "applying": frozenset({"applied", "failed", "abandoned"}),
        "applied": frozenset({"verifying", "rolling_back", "abandoned"}),
        "verifying": frozenset({"verified", "breached", "rolling_back", "abandoned"}),
        "verified": frozenset({"rolling_back", "abandoned"}),
        "breached": frozenset({"rolling_back", "abandoned"}),
        "rolling_back": frozenset({"rolled_back", "abandoned"}),
        "rejected": frozenset(),
        "expired": frozenset(),
        "rolled_back": frozenset(),
        "failed": frozenset(),
        "abandoned": frozenset(),
    }
)
"""Which event may follow which; the key None stands for a plan that nothing has happened to yet.

Every path changes the object at most twice: forward behind `applying`, back behind `rolling_back`.
"""

IN_FLIGHT: frozenset[EventKind] = frozenset({"applying", "applied", "verifying", "breached", "rolling_back"})
"""States of a plan that has begun to change its object and is not settled yet."""

GENESIS = "0" * 64
"""What the first event of a store follows."""


@dataclass(frozen=True)
class Event:
    """One row of the store, as it is there.

    Attributes:
        seq: its number in the store, from 1 without gaps.
        plan: digest of the plan that it is about.
        kind: one of `KINDS`, unless somebody edited the row.
        at: UTC, ISO 8601.
        by: a person's name, `policy`, or `infertune` for what the program did itself.
        detail: more, by kind: reasons, versions that the server returned.
        text: `detail` as the row holds it.
        mac: ties the row to its content and to all rows before it.
    """

    seq: int
    plan: str
    kind: str
    at: str
    by: str
    text: str
    mac: str

    @property
    def detail(self) -> dict[str, Any]:
        """What the row says beyond its kind; empty if it is no JSON any more."""
        try:
            value = json.loads(self.text)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


def seal(key: bytes, before: str, event: Event) -> str:
    """Return the HMAC-SHA256 of an event's content and of the HMAC of the event before it, as hex digits."""
    content = json.dumps([before, event.seq, event.plan, event.kind, event.at, event.by, event.text])
    return hmac.new(key, content.encode(), hashlib.sha256).hexdigest()


def seal_head(key: bytes, seq: int, mac: str) -> str:
    """Return the HMAC of how many events there are and of the last one: it tells that none is missing at the end."""
    return hmac.new(key, json.dumps(["head", seq, mac]).encode(), hashlib.sha256).hexdigest()


def first_flaw(key: bytes, events: Iterable[Event], head: str | None) -> str | None:
    """Return what is wrong with a chain of events, as a sentence that names the row, or None.

    Args:
        key: the store's secret.
        events: all of them, by number.
        head: what `seal_head` gave for the last one; None if nothing was ever written.
    """
    seq, mac = 0, GENESIS
    for event in events:
        if event.seq != seq + 1:
            return f"row {seq + 1} of the events is missing."
        if not hmac.compare_digest(seal(key, mac, event), event.mac):
            return f"row {event.seq} of the events was changed, or was not written by infertune."
        seq, mac = event.seq, event.mac
    expected = seal_head(key, seq, mac) if seq else ""
    if not hmac.compare_digest(expected, head or ""):
        return f"after row {seq} of the events, rows are missing."
    return None


def state_of(events: Iterable[Event]) -> EventKind | None:
    """Return the state of one plan: what its events lead to; None if there are none.

    Raises:
        ValueError: an event cannot follow the one before it.
    """
    state: EventKind | None = None
    for event in events:
        state = follow(state, event.kind)
    return state


def follow(state: EventKind | None, kind: str) -> EventKind:
    """Return the state after an event of this kind.

    Raises:
        ValueError: it cannot happen in this state.
    """
    for allowed in FOLLOWS[state]:
        if kind == allowed:
            return allowed
    raise ValueError(f"a plan that is {state or 'unknown'} cannot be {kind}")


def in_flight(events: Iterable[Event], *, but: str) -> str | None:
    """Return the digest of a plan other than `but` that has begun to change its object and is not settled, or None.

    Args:
        events: of all plans for one object, in order.
        but: digest of the plan that asks.
    """
    last = {event.plan: event.kind for event in events if event.plan != but}
    return next((plan for plan, kind in last.items() if kind in IN_FLIGHT), None)


def last_change(events: Iterable[Event]) -> datetime | None:
    """Return when an object was last patched, forward or back; None if never.

    Args:
        events: of all plans for it, in order.
    """
    times = [event.at for event in events if event.kind in {"applied", "rolled_back"}]
    return datetime.fromisoformat(times[-1]) if times else None
