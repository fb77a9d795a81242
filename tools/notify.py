"""Telling somebody: events go into an outbox on disk first, then to a webhook, until it has taken them.

Delivered at least once, in order, and not again once the webhook said so. Between its answer and our note of it a
crash can come: so each event has an id, and a receiver that has seen it may ignore it. Who receives can check that it
is ours:

    X-Infertune-Delivery: <id>
    X-Infertune-Timestamp: <Unix seconds, of this try>
    X-Infertune-Signature: sha256=<hex HMAC-SHA256 of `timestamp.body` with the shared secret>
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Any, NamedTuple, Self

from tools.errors import SpecError, StorageError
from tools.outbox import Outbox, Waiting

TIMEOUT_S = 10.0
"""Of one try."""
_PASSING = frozenset({408, 425, 429})
"""HTTP statuses below 500 that say `later`. The others from 400 on say that this very event is not wanted."""
LONGEST_SLEEP_S = 300.0
"""A sleep is measured by a clock that does not see the wall clock being set: look at least this often."""


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """Return the value of `X-Infertune-Signature`."""
    return "sha256=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def send_due(outbox: Outbox) -> int:
    """Try everything that is due once; return how many events were taken.

    Raises:
        StorageError: the outbox cannot be used.
    """
    taken = 0
    while (event := outbox.claim()) is not None:
        problem = _post(event, outbox.clock())
        if problem is None:
            outbox.delivered(event)
            taken += 1
        elif problem.is_refusal:
            outbox.refused(event, problem.text)
        else:
            outbox.failed(event, problem.text)
    return taken


def send_for(outbox: Outbox, wait: Callable[[float], bool]) -> None:
    """Try until nothing waits any more, or there is no more time.

    Args:
        outbox: what is sent.
        wait: waits for so many seconds, or for less; returns whether to go on.

    Raises:
        StorageError: the outbox cannot be used.
    """
    while True:
        send_due(outbox)
        next_s = outbox.next_s()
        if next_s is None or not wait(max(next_s - outbox.clock(), 0.0)):
            return


class _Problem(NamedTuple):
    """Why an event was not taken, without anything secret."""

    text: str
    is_refusal: bool = False
    """Whether the webhook answered, and does not want this event."""


class Courier:
    """A thread that sends what is due and sleeps until something is. A context manager."""

    def __init__(self, outbox: Outbox, *, failed: Callable[[str], None]) -> None:
        """Prepare it.

        Args:
            outbox: what it sends.
            failed: is told, in a sentence, when the outbox itself cannot be used; it is tried again later.
        """
        self._outbox = outbox
        self._failed = failed
        self._awake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="infertune-courier", daemon=True)

    def wake(self) -> None:
        """Look now: something was put into the outbox."""
        self._awake.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._awake.set()
        self._thread.join(2 * TIMEOUT_S)

    def _work(self) -> None:
        while not self._closing:
            self._awake.clear()
            wait_s = LONGEST_SLEEP_S
            try:
                send_due(self._outbox)
                next_s = self._outbox.next_s()
            except StorageError as error:
                self._failed(str(error))
            else:
                if next_s is not None:
                    wait_s = min(max(next_s - self._outbox.clock(), 0.0), wait_s)
            self._awake.wait(wait_s)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the event to a place that nobody named."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


def _post(event: Waiting, now_s: float) -> _Problem | None:
    """Send an event once; return why it was not taken, or None."""
    timestamp = str(int(now_s))
    try:
        signed = signature(event.webhook.secret(), timestamp, event.body)
    except SpecError as error:
        return _Problem(str(error))
    request = urllib.request.Request(  # noqa: S310  the scheme is http or https: Webhook checks it
        event.webhook.url,
        data=event.body,
        method="POST",
        headers={
            "Content-Type": "application/json",
            "User-Agent": "infertune",
            "X-Infertune-Delivery": event.id,
            "X-Infertune-Timestamp": timestamp,
            "X-Infertune-Signature": signed,
        },
    )
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_S):
            return None
    except urllib.error.HTTPError as error:
        error.close()
        return _Problem(f"HTTP {error.code}", is_refusal=400 <= error.code < 500 and error.code not in _PASSING)
    except urllib.error.URLError as error:
        return _Problem(f"cannot be reached ({type(error.reason).__name__})")  # its text may quote the URL
    except (OSError, HTTPException, ValueError) as error:
        return _Problem(f"did not answer ({type(error).__name__})")
