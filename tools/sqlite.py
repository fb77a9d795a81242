"""SQLite files: how they are opened, and what a person is told where that cannot be done.

Each of them is shared by several processes, and so is opened for one piece of work at a time.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.errors import StorageError

BUSY_TIMEOUT_S = 30.0
"""How long another process's transaction is waited for. Ours take milliseconds; a disk under load, seconds."""

_URI = "sqlite:///"


@dataclass(frozen=True)
class Database:
    """One SQLite file.

    Attributes:
        path: of the file.
        name: what it is, as the subject of a sentence: `the evidence store`.
        if_damaged: what a person can do about a file that is damaged, or is no database, as a sentence.
    """

    path: Path
    name: str
    if_damaged: str

    @contextlib.contextmanager
    def connect(self, *, autocommit: bool = False) -> Iterator[sqlite3.Connection]:
        """Yield a connection, and close it: a transaction that was not committed by then is undone.

        Args:
            autocommit: each statement is a transaction, unless the caller begins one; else Python begins them before
                statements that write (`sqlite3`, "Transaction control").

        Raises:
            sqlite3.Error: see `errors`.
        """
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None if autocommit else "DEFERRED"
        )
        connection.text_factory = _text
        try:
            yield connection
        finally:
            connection.close()

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what SQLite raises within the block into what a person can act on.

        Raises:
            StorageError: in place of a `sqlite3.Error`.
        """
        try:
            yield
        except sqlite3.Error as error:
            raise self.unusable(error) from None

    def unusable(self, error: sqlite3.Error | OSError) -> StorageError:
        """Return what a person is told about an error."""
        fix = "Free some space, or point INFERTUNE_HOME to a folder that you can write."
        if type(error) is sqlite3.DatabaseError:  # SQLite's own words for a file that is none, or is damaged
            fix = self.if_damaged
        return StorageError(f"{self.name} cannot be used ({error}).", where=str(self.path), fix=fix)

    def require_readable(self) -> None:
        """Refuse a file that is no database, or whose tables cannot be listed. One that is not there is fine.

        It takes no longer than a read of the first pages, whatever the size of the file.

        Raises:
            StorageError: it is damaged, or cannot be read.
        """
        if not self.path.exists():
            return
        with self.errors():
            # Not to be made: an empty file in the place of a store that is just being made would be in its way.
            connection = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=rw", uri=True, timeout=BUSY_TIMEOUT_S)
            with contextlib.closing(connection):
                connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()


def path_of_uri(uri: str) -> Path | None:
    """Return the file of an SQLAlchemy URI like `sqlite:////home/ada/.infertune/mlflow.db`, None if it names none."""
    if not uri.startswith(_URI):
        return None
    name = uri.removeprefix(_URI).partition("?")[0]
    return Path(name) if name and name != ":memory:" else None


def _text(stored: bytes) -> str:
    """Read a column. Bytes that are no text any more are damage, which digests and seals tell."""
    return stored.decode(errors="replace")
