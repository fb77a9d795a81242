"""What a running session tells the person who watches: the vocabulary between the work and the view.

The work calls an `Observer` and never asks it anything, so a view cannot change a result.
"""

from __future__ import annotations

from typing import Any, Protocol, Self


class Observer(Protocol):
    """Someone who watches a session. Methods may be called from any thread, and must return at once."""

    def __enter__(self) -> Self:
        """Start watching."""

    def __exit__(self, *_: object) -> None:
        """Stop watching, however the session ended."""

    def about(self, *, objective: str, budget_s: float) -> None:
        """Say what the session is about, once the spec is read.

        Args:
            objective: what was asked for, in words.
            budget_s: the session's time budget, in seconds.
        """

    def started(self, what: str, *, detail: str = "", expected_s: float | None = None) -> None:
        """Something began: a trial, the profile, a training.

        Args:
            what: its name, the same that `finished` gets.
            detail: what is special about it, in a few words.
            expected_s: how long it usually takes, in seconds, when that is known.
        """

    def event(self, message: dict[str, Any]) -> None:
        """The running task said something: `{"stage": name}`, or `{"event": kind, ...}` with JSON-ready details."""

    def finished(self, what: str, *, outcome: str, headline: str, seconds: float) -> None:
        """Something ended.

        Args:
            what: its name.
            outcome: `measured`, `failed`, `timed_out`, ...
            headline: the one number or reason that a person wants to see.
            seconds: how long it took.
        """

    def finding(self, sentence: str) -> None:
        """Something was learned or decided."""

    def budget(self, elapsed_s: float, limit_s: float) -> None:
        """So much of the session's time budget is used."""


class Silent:
    """An observer that shows nothing: for machine-readable output, and for tests."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def about(self, *, objective: str, budget_s: float) -> None:
        """Show nothing."""

    def started(self, what: str, *, detail: str = "", expected_s: float | None = None) -> None:
        """Show nothing."""

    def event(self, message: dict[str, Any]) -> None:
        """Show nothing."""

    def finished(self, what: str, *, outcome: str, headline: str, seconds: float) -> None:
        """Show nothing."""

    def finding(self, sentence: str) -> None:
        """Show nothing."""

    def budget(self, elapsed_s: float, limit_s: float) -> None:
        """Show nothing."""
