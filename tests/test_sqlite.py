"""SQLite files as every store opens them: what damaged them is told in a sentence, at once."""

import contextlib
import sqlite3

import pytest

from tools.errors import StorageError
from tools.sqlite import Database, path_of_uri


@pytest.fixture
def database(tmp_path):
    """A file with a table of some pages."""
    made = Database(tmp_path / "some things.db", "the store of things", "Move it away.")
    with made.connect() as connection, connection:
        connection.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, text TEXT) STRICT")
        connection.executemany("INSERT INTO things (text) VALUES (?)", [("x" * 1000,)] * 50)
    return made


def things(database):
    with database.errors(), database.connect() as connection:
        return connection.execute("SELECT COUNT(*) FROM things").fetchone()[0]


def overwrite(path, start, length):
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xa5" * length)


def truncate(path):
    path.write_bytes(path.read_bytes()[:8000])


DAMAGES = {
    "another file": lambda path: path.write_bytes(b"no database, " * 1000),
    "no header": lambda path: overwrite(path, 0, 100),
    "no schema": lambda path: overwrite(path, 100, 3996),
    "half of it": truncate,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_with_what_can_be_done_about_it(database, damage):
    DAMAGES[damage](database.path)
    with pytest.raises(StorageError) as caught:
        database.require_readable()
    assert str(caught.value).startswith(f"{database.path}: the store of things cannot be used (")
    assert caught.value.fix == "Move it away."


def test_what_is_whole_or_empty_can_be_read_and_what_is_not_there_is_not_made(database, tmp_path):
    database.require_readable()
    assert things(database) == 50
    empty = Database(tmp_path / "empty.db", "it", "")
    empty.path.touch()
    empty.require_readable()
    absent = Database(tmp_path / "absent.db", "it", "")
    absent.require_readable()
    assert not absent.path.exists()


def test_a_file_that_another_process_writes_is_readable(database):
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM things")
        database.require_readable()
        other.execute("ROLLBACK")


def test_what_is_in_the_way_other_than_damage_is_about_the_folder(database):
    database.path.unlink()
    database.path.mkdir()
    with pytest.raises(StorageError, match="INFERTUNE_HOME"):
        things(database)
    with pytest.raises(StorageError, match="INFERTUNE_HOME"):
        database.require_readable()


@pytest.mark.parametrize("autocommit", [False, True])
def test_what_was_not_committed_is_undone(database, autocommit):
    with database.connect(autocommit=autocommit) as connection:
        if autocommit:
            connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM things")
    assert things(database) == 50


def test_bytes_that_are_no_text_are_read_as_damage_and_not_refused(database):
    with database.connect() as connection, connection:
        connection.execute("CREATE TABLE loose (text)")
        connection.execute("INSERT INTO loose VALUES (CAST(X'41FF' AS TEXT))")
    with database.connect() as connection:
        assert connection.execute("SELECT text FROM loose").fetchone() == ("A\N{REPLACEMENT CHARACTER}",)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:////home/ada/mlflow.db", "/home/ada/mlflow.db"),
        ("sqlite:///mlflow.db", "mlflow.db"),
        ("sqlite:////a b/mlflow.db?timeout=3", "/a b/mlflow.db"),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("https://mlflow.example.com", None),
        ("postgresql://ada@db/mlflow", None),
    ],
)
def test_the_file_of_a_uri(uri, path):
    found = path_of_uri(uri)
    assert (None if found is None else str(found)) == path
