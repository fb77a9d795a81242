"""Where the person is: a terminal, or a pipe."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Callable

from agent.chat.plain import clean

YES = ("y", "yes")


class Terminal:
    """Where the person is: lines in, text out. Nothing that acts on a terminal gets through.

    Args:
        read: asks with a prompt, and returns a line without its end; None at the end of the input.
        write: takes text.
    """

    def __init__(self, read: Callable[[str], str | None], write: Callable[[str], None]) -> None:
        self.read = read
        self._write = write
        self._within_line = False

    def say(self, line: str) -> None:
        """Write one line."""
        self.end_line()
        self._write(f"{clean(line)}\n")

    def show(self, text: str) -> None:
        """Write a piece of an answer."""
        if text:
            self._write(clean(text))
            self._within_line = not text.endswith("\n")

    def confirm(self, question: str) -> bool:
        """Ask the person a question, and return whether they said yes: nothing else is."""
        self.end_line()
        answer = self.read(f"{clean(question)} (yes or no) ")
        return answer is not None and answer.strip().lower() in YES

    def end_line(self) -> None:
        """End the line, if an answer stopped within one."""
        if self._within_line:
            self._write("\n")
            self._within_line = False


def standard_terminal() -> Terminal:
    """Return the terminal, or pipe, that the command was started in."""
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):  # not every Python is built with it
            importlib.import_module("readline")  # gives `input` the arrow keys
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="replace"
            )  # what a terminal cannot show, or a pipe got wrong, ends no conversation

    def read(prompt: str) -> str | None:
        try:
            line = input(prompt)
        except EOFError:
            return None
        if not sys.stdin.isatty():
            print(line)  # noqa: T201 so that what was piped in shows in what comes out
        return line

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    return Terminal(read, write)
