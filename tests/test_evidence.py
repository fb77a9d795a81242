"""The evidence store: rows are there whole or not at all, and several processes may write."""

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from evidence_support import finding, trial
from pydantic import ValidationError

from tools.contracts import Failed, Finding
from tools.errors import StorageError
from tools.evidence import EvidenceStore

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "evidence.db"


@pytest.fixture
def store(path):
    return EvidenceStore(path)


def python(code, *arguments):
    """Start a process that has this repository on its path."""
    prelude = f"import sys; sys.path[:0] = [{str(REPOSITORY)!r}, {str(REPOSITORY / 'tests')!r}]\n"
    return subprocess.Popen(
        [sys.executable, "-c", prelude + code, *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )


def damage(path, identity):
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE findings SET body = replace(body, 'eager', 'eager2') WHERE id = ?", (identity,))
    connection.close()


def test_what_was_put_comes_back_under_the_digest_of_its_content(store):
    one = trial("q")
    store.put(one)
    assert store.get(one.id) == one
    assert store.get("0123456789abcdef") is None


def test_answers_to_one_question_stand_side_by_side_the_newest_first(store):
    first, second = finding("q"), finding("q", Failed(stage="exporting", reason="something else"))
    store.put(first)
    store.put(second)
    store.put(first)
    assert store.answers("q") == [second, first]
    assert store.answers("another") == []


def test_evidence_comes_in_the_order_that_is_asked_for(store):
    many = [finding(f"q{i}") for i in range(2000)]
    store.put_all(e.body for e in many)
    backwards = [e.id for e in reversed(many)]
    assert [e.id for e in store.get_all([*backwards, "missing"])] == backwards
    assert store.get_all([]) == []


def test_rows_are_summed_up_from_their_columns_the_oldest_first(store):
    older = finding("q1").model_copy(update={"created": "2025-01-01T00:00:00+00:00"})
    for one in (finding("q2", session="s2"), older.of(Finding(**older.model_dump(exclude={"id"})))):
        store.put(one)
    assert [(row.question, row.session, row.kind) for row in store.rows()] == [
        ("q1", "s1", "trial"),
        ("q2", "s2", "trial"),
    ]


def test_deleted_rows_are_gone_and_the_others_stay(store, path):
    many = [finding(f"q{i}", Failed(stage="s", reason="x" * 5000)) for i in range(100)]
    store.put_all(e.body for e in many)
    before = path.stat().st_size
    store.delete(e.id for e in many[1:])
    store.compact()
    assert store.get_all(e.id for e in many) == many[:1]
    assert path.stat().st_size < before / 5


def test_findings_of_another_store_keep_their_bytes(store):
    text = finding("q").body.replace('"seconds":1.5', '"seconds": 1.50')
    store.put_all([text])
    (row,) = store.rows()
    assert dict(store.bodies([row.id])) == {row.id: text}
    known = store.get(row.id)
    assert known.seconds == 1.5
    store.put(known)  # its text is not quite the stored one
    assert store.get(row.id) == known


def test_one_text_that_is_no_finding_keeps_all_of_them_out(store):
    with pytest.raises(ValidationError):
        store.put_all([finding("q").body, "{}"])
    assert store.rows() == []


def test_a_damaged_row_counts_as_missing_is_listed_and_is_repaired_by_putting_it_again(store, path):
    one, other = finding("q"), finding("q2")
    store.put(one)
    store.put(other)
    damage(path, one.id)
    assert store.get(one.id) is None
    assert store.get_all([one.id, other.id]) == [other]
    assert store.answers("q") == []
    assert {row.id for row in store.rows()} == {one.id, other.id}
    store.put(one)
    assert store.get(one.id) == one


def test_bytes_that_are_no_text_count_as_damage(store, path):
    one = finding("q")
    store.put(one)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE findings SET body = CAST(x'ff' || CAST(body AS BLOB) AS TEXT)")
    connection.close()
    assert store.get(one.id) is None


def test_several_processes_write_while_another_deletes_and_nothing_else_is_lost(path):
    EvidenceStore(path)
    write = (
        "from evidence_support import finding; from tools.evidence import EvidenceStore; from pathlib import Path\n"
        "store = EvidenceStore(Path(sys.argv[1]))\n"
        "for i in range(15): store.put(finding(f'{sys.argv[2]} {i}'))\n"
    )
    delete = (
        "import time; from tools.evidence import EvidenceStore; from pathlib import Path\n"
        "store, gone, end = EvidenceStore(Path(sys.argv[1])), set(), time.monotonic() + 60\n"
        "while len(gone) < 30 and time.monotonic() < end:\n"
        "    old = [r.id for r in store.rows() if r.question[0] in 'ab']\n"
        "    store.delete(old); gone |= set(old)\n"
    )
    processes = [python(write, path, name) for name in "abcd"] + [python(delete, path)]
    assert [p.communicate(timeout=60)[1] for p in processes] == [""] * 5
    assert sorted(r.question for r in EvidenceStore(path).rows()) == sorted(f"{k} {i}" for k in "cd" for i in range(15))


def test_a_reader_sees_all_of_a_transaction_or_none(path):
    EvidenceStore(path)
    write = (
        "from evidence_support import finding; from tools.evidence import EvidenceStore; from pathlib import Path\n"
        "EvidenceStore(Path(sys.argv[1])).put_all([finding(f'q{i}').body for i in range(3000)])\n"
    )
    writer = python(write, path)
    store = EvidenceStore(path)
    deadline = time.monotonic() + 60
    while not (seen := len(store.rows())):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert seen == 3000
    assert writer.communicate(timeout=60)[1] == ""


def test_a_disk_that_fills_leaves_the_store_readable_and_without_part_of_it(store, path):
    kept = finding("kept")
    store.put(kept)
    fill = (
        "import resource, signal; from evidence_support import finding; from tools.contracts import Failed\n"
        "from tools.errors import StorageError; from tools.evidence import EvidenceStore; from pathlib import Path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))\n"
        "big = [finding(f'q{i}', Failed(stage='s', reason='x' * 100_000)).body for i in range(20)]\n"
        "try: EvidenceStore(Path(sys.argv[1])).put_all(big)\n"
        "except StorageError as error: print(error, file=sys.stderr)\n"
    )
    said = python(fill, path).communicate(timeout=60)[1]
    assert "evidence.db: the evidence store cannot be used" in said
    assert "Traceback" not in said
    assert [row.question for row in EvidenceStore(path).rows()] == ["kept"]
    assert EvidenceStore(path).get(kept.id) == kept
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_file_that_is_no_database_is_said(path):
    path.write_bytes(b"these are not the bytes of a database" * 100)
    with pytest.raises(StorageError, match=r"evidence\.db: .*not a database.* Move the file away"):
        EvidenceStore(path)


def test_a_store_whose_pages_were_damaged_is_said_whatever_is_asked(store, path):
    one = finding("q", Failed(stage="s", reason="x" * 20_000))
    store.put(one)
    pages = path.read_bytes()
    path.write_bytes(pages[:4096] + b"\xa5" * (len(pages) - 4096))
    for ask in (lambda: store.get(one.id), store.rows, lambda: store.delete([one.id]), lambda: store.put(one)):
        with pytest.raises(StorageError, match=r"evidence\.db"):
            ask()


def test_a_home_that_is_a_file_is_said(tmp_path):
    (tmp_path / "home").write_text("")
    with pytest.raises(StorageError, match="INFERTUNE_HOME"):
        EvidenceStore(tmp_path / "home" / "evidence.db")
