"""The evidence store: rows are there whole or not at all, and several processes may write."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from tools.contracts import Evidence, EvidenceKind, Failed, Recipe
from tools.errors import StorageError
from tools.evidence import EvidenceStore


def evidence(identity, reason="no export"):
    return Evidence(
        id=identity,
        kind=EvidenceKind.TRIAL,
        workload="w",
        recipe=Recipe(runtime="eager"),
        parameters={"batch_sizes": [1]},
        hardware="h",
        versions={"torch": "2"},
        outcome=Failed(stage="exporting", reason=reason),
        seconds=1.5,
        created="2026-11-22T00:00:00+00:00",
    )


def test_what_was_put_comes_back(tmp_path):
    store = EvidenceStore(tmp_path / "evidence.db")
    store.put(evidence("a"))
    assert store.get("a") == evidence("a")
    assert store.get("b") is None


def test_the_newer_answer_to_a_question_stands(tmp_path):
    store = EvidenceStore(tmp_path / "evidence.db")
    store.put(evidence("a"))
    store.put(evidence("a", "something else"))
    assert store.get("a").outcome.reason == "something else"


def test_several_writers_at_once_lose_nothing(tmp_path):
    def write(k):
        store = EvidenceStore(tmp_path / "evidence.db")
        for i in range(20):
            store.put(evidence(f"{k}-{i}"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    store = EvidenceStore(tmp_path / "evidence.db")
    assert all(store.get(f"{k}-{i}") is not None for k in range(4) for i in range(20))


def test_a_file_that_is_no_database_is_said(tmp_path):
    path = tmp_path / "evidence.db"
    path.write_bytes(b"these are not the bytes of a database" * 100)
    with pytest.raises(StorageError, match=r"evidence\.db"):
        EvidenceStore(path)


def test_a_home_that_is_a_file_is_said(tmp_path):
    (tmp_path / "home").write_text("")
    with pytest.raises(StorageError, match="INFERTUNE_HOME"):
        EvidenceStore(tmp_path / "home" / "evidence.db")


def test_a_full_disk_is_said_and_the_store_stays_readable(tmp_path):
    path = tmp_path / "evidence.db"
    store = EvidenceStore(path)
    store.put(evidence("kept"))

    class Small(EvidenceStore):
        def _connect(self):
            manager = super()._connect()

            class Limited:
                def __enter__(self):
                    connection = manager.__enter__()
                    pages = connection.execute("PRAGMA page_count").fetchone()[0]
                    connection.execute(f"PRAGMA max_page_count = {pages}")
                    return connection

                def __exit__(self, *error):
                    return manager.__exit__(*error)

            return Limited()

    with pytest.raises(StorageError, match="full"):
        Small(path).put(evidence("too much", "x" * 200_000))
    assert EvidenceStore(path).get("kept") == evidence("kept")
    assert EvidenceStore(path).get("too much") is None
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
