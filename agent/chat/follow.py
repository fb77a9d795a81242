"""Tells what a session finds while it runs, from its journal."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from agent.sessions import is_running
from tools.journal import Entry, Journal
from tools.record import JOURNAL

_LOOK_S = 0.5


def follow(folder: Path, say: Callable[[str], None]) -> None:
    """Say a line for each thing that a session measures and decides from now on, until it ends.

    Args:
        folder: the session's.
        say: takes a line.

    Raises:
        StorageError: the journal cannot be read.
    """
    journal = Journal(folder / JOURNAL)
    told = len(journal.read())
    while True:
        running = is_running(folder)  # asked before reading: nothing is written after its end
        entries = journal.read()
        for found in map(describe, entries[told:]):
            if found is not None:
                say(f"  {found}")
        told = len(entries)
        if not running:
            return
        time.sleep(_LOOK_S)


def describe(entry: Entry) -> str | None:
    """Return a journal's entry as a line for a person, None if it is of no interest while a session runs."""
    told = entry.payload
    match entry.kind:
        case "evidence":
            kind = told["kind"].replace("_", " ")
            what = (
                kind if kind in ("build", "advice") else f"{kind} of {told['recipe']}"
            )  # their recipes name no runtime
        case "decision":
            what = f"{told['id']}: {told['question']} {told['chosen'] or 'none of the options'}"
        case "plan":
            what = "a plan is offered"
        case "result":
            what = f"{told['verdict']}: {told['summary']}"
        case "note":
            what = told["text"]
        case "failed" | "interrupted":
            what = entry.kind
        case _:
            return None
    return f"{entry.at[11:19]}  {what}"
