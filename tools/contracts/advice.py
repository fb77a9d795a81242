"""What a language model was asked, and what it answered: evidence like any other, so that a replay needs no model."""

from __future__ import annotations

from typing import Literal

from tools.contracts.base import Contract


class Exchange(Contract):
    """The words that went to a model and came back, and what they took."""

    model: str
    """Its name, and the host that it was asked at; never a key."""
    prompt: str
    answer: str
    """As it came, the last try's."""
    tries: int = 1
    tokens_in: int = 0
    tokens_out: int = 0
    """Of all tries."""
    estimated: bool = False
    """Whether the endpoint did not count the tokens, and they were estimated from the characters."""


class AdviceResult(Contract):
    """In which order the advisor would try what the policy leaves."""

    kind: Literal["advice"] = "advice"
    options: tuple[str, ...]
    """Names of what was offered, in the policy's order, the most rewarding a second first."""
    order: tuple[int, ...]
    """Places among the options, counted from 0, the first to be tried first; empty when none is worth it to it."""
    why: str = ""
    """Its reason, as it gave it: a model's words, shown as such and used for nothing."""
    asked_at_s: float
    """Seconds of the time budget that were used when it was asked."""
    exchange: Exchange


class WordingResult(Contract):
    """The advisor's summary of a result. Every figure in it was held against the result."""

    kind: Literal["wording"] = "wording"
    text: str
    exchange: Exchange
