"""The journal on a real file system."""

from __future__ import annotations

import json
import math
import os
import resource
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tools.contracts import Interval
from tools.errors import StorageError
from tools.journal import KINDS, Entry, Journal

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "sessions" / "s1" / "journal.jsonl"


@pytest.fixture
def journal(path) -> Journal:
    return Journal(path)


def test_what_is_appended_is_read_back_in_order(journal):
    written = [journal.append("started", {"seed": 0}), journal.append("note", {"text": "zwölf\nlines"})]
    assert journal.read() == written
    assert [(e.seq, e.kind) for e in written] == [(1, "started"), (2, "note")]
    assert not journal.cut_off


def test_a_journal_that_was_never_written_is_empty(journal, path):
    assert journal.read() == []
    assert not path.exists()


def test_each_entry_is_one_line_of_json(journal, path):
    journal.append("note", {"text": "a\nb"})
    journal.append("finished", {})
    lines = path.read_text().splitlines()
    assert [list(json.loads(line)) for line in lines] == [["seq", "at", "kind", "payload"]] * 2


def test_the_time_is_utc(journal):
    at = datetime.fromisoformat(journal.append("started", {}).at)
    assert at.utcoffset() == UTC.utcoffset(None)
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60


def test_the_numbering_continues_after_reopening(journal, path):
    journal.append("started", {})
    assert Journal(path).append("resumed", {}).seq == 2
    assert journal.append("note", {}).seq == 3, "another process has written meanwhile"
    assert [e.seq for e in journal.read()] == [1, 2, 3]


def test_a_kind_outside_of_the_closed_set_is_refused_before_anything_is_written(journal, path):
    journal.append("started", {})
    with pytest.raises(ValidationError):
        journal.append("gossip", {})
    assert len(path.read_text().splitlines()) == 1
    assert {"started", "note", "evidence", "decision", "result", "finished"} <= set(KINDS)


def test_an_entry_is_immutable(journal):
    entry = journal.append("started", {})
    with pytest.raises(ValidationError):
        entry.seq = 7
    with pytest.raises(ValidationError):
        Entry.model_validate(entry.model_dump() | {"more": 1})


def test_contracts_and_unbounded_intervals_survive(journal):
    interval = Interval(value=1.5, low=-math.inf, high=math.inf, n=3)
    journal.append("evidence", {"p99": interval.model_dump(mode="json")})
    (entry,) = journal.read()
    assert Interval.model_validate(entry.payload["p99"]) == interval


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_last_line_that_was_cut_off_is_skipped_and_replaced(journal, path, cut):
    first = journal.append("started", {})
    journal.append("evidence", {"id": "lost in the crash"})
    path.write_bytes(path.read_bytes()[:-cut])

    reopened = Journal(path)
    assert reopened.read() == [first]
    assert reopened.cut_off
    again = reopened.append("evidence", {"id": "measured again"})
    assert again.seq == 2
    assert reopened.read() == [first, again]
    assert not reopened.cut_off


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(payloads=st.lists(st.dictionaries(st.text(), JSON), min_size=1, max_size=4), data=st.data())
def test_a_crash_at_any_byte_loses_at_most_the_last_entry(tmp_path, payloads, data):
    path = tmp_path / "journal.jsonl"
    path.unlink(missing_ok=True)
    journal = Journal(path)
    written = [journal.append("note", payload) for payload in payloads]
    content = path.read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    path.write_bytes(content[: data.draw(st.integers(last, len(content) - 1))])
    reopened = Journal(path)
    assert reopened.read() == written[:-1]
    assert reopened.append("note", payloads[-1]).payload == written[-1].payload
    assert len(reopened.read()) == len(written)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: [lines[0], "{}", lines[2]], "line 2 is no journal entry"),
        (lambda lines: [lines[0], "\0" * 20, lines[2]], "line 2 is no journal entry"),
        (lambda lines: [lines[0], lines[2]], "line 2 holds entry 3"),
    ],
)
def test_damage_in_the_middle_is_an_error_that_names_the_line(journal, path, damage, message):
    for _ in range(3):
        journal.append("note", {})
    path.write_text("\n".join(damage(path.read_text().splitlines())) + "\n")
    before = path.read_bytes()
    with pytest.raises(StorageError, match=message) as error:
        journal.read()
    assert str(path) in str(error.value)
    with pytest.raises(StorageError, match=message):
        Journal(path).append("note", {})
    assert path.read_bytes() == before, "nothing is written onto a damaged journal"


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        Journal(tmp_path / "file" / "journal.jsonl").append("started", {})
    with pytest.raises(StorageError, match="cannot be read"):
        Journal(tmp_path / "file" / "journal.jsonl").read()


@pytest.mark.parametrize("room", [0, 40])
def test_a_line_that_does_not_fit_on_the_disk_is_an_error_and_leaves_nothing(journal, path, room):
    first = journal.append("started", {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, before[1]))
    try:
        with pytest.raises(StorageError, match="Free some space"):
            journal.append("evidence", {"id": "abc"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert journal.read() == [first]
    assert not journal.cut_off
    assert journal.append("note", {}).seq == 2


def test_two_processes_do_not_mix_their_lines(path):
    children = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            try:
                journal = Journal(path)
                for _ in range(20):
                    journal.append("note", {"pid": os.getpid(), "text": "x" * 5000})
            finally:
                os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    assert len(Journal(path).read()) == 60
