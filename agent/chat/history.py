"""A chat's threads: conversations by name in `<home>/chat.db`, each open in one process at a time."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tools.errors import InfertuneError, StorageError
from tools.lock import held

if TYPE_CHECKING:
    from langgraph.checkpoint.sqlite import SqliteSaver

DATABASE = "chat.db"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


def thread_name(given: str | None, about: str | None) -> str:
    """Return the name of a thread: the one given, else one made from what the chat is about, else `default`.

    Raises:
        InfertuneError: the one given cannot be a name.
    """
    if given is not None:
        if not _NAME.fullmatch(given):
            raise InfertuneError(
                "is no thread's name: use up to 64 letters, digits, dots, dashes and underscores.",
                where=f"--thread {given[:80]!r}",
            )
        return given
    if about is None:
        return "default"
    # A spec is named by its folder too, since they are all called tuning.yaml.
    path = Path(about)
    plain = "-".join([*path.resolve().parts[-2:-1], path.stem] if path.suffix else [about])
    return re.sub(r"[^A-Za-z0-9._-]", "-", plain).lstrip(".-")[-64:].lstrip(".-") or "default"


@contextlib.contextmanager
def opened(home: Path, thread: str) -> Iterator[SqliteSaver]:
    """Hold a thread alone, and yield the checkpointer that keeps it.

    Raises:
        BusyError: another chat has it open.
        StorageError: the history cannot be read or written.
    """
    from langgraph.checkpoint.sqlite import SqliteSaver

    busy = f"another chat has the thread {thread} open: close it, or name another with --thread."
    path = home / DATABASE
    with held(home / "chat" / f"{thread}.lock", busy=busy):
        try:
            with contextlib.closing(sqlite3.connect(path, check_same_thread=False, timeout=30)) as connection:
                saver = SqliteSaver(connection)
                saver.setup()
                yield saver
        except sqlite3.Error as error:
            raise StorageError(
                f"the history of chats cannot be used ({error}).",
                where=str(path),
                fix="Free some space, move the file away, or point INFERTUNE_HOME to a folder that you can write.",
            ) from error
