"""The person of the transcript: types what is planned, and what is typed is marked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from agent.chat.terminal import Terminal

MARK = "»"
"""Stands before each line on which the person typed."""

Line: TypeAlias = "str | Callable[[], str]"
"""What is typed, or what does something else first and returns what is typed then."""


class Person:
    """Types one line after the other.

    Args:
        lines: what is typed.
        write: takes the transcript's text.
    """

    def __init__(self, lines: Iterable[Line], write: Callable[[str], None]) -> None:
        self._lines = iter(lines)
        self.terminal = Terminal(self._read, write)
        self._write = write

    def _read(self, prompt: str) -> str | None:
        line = next(self._lines, None)
        typed = line() if callable(line) else line
        if typed is not None:
            self._write(f"\n{MARK} {prompt}{typed or '(Enter)'}\n")
        return typed
