"""Tidying up: nothing that a session needs is deleted, whenever the deleting is killed."""

import datetime as dt
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from evidence_support import (
    everything_in,
    finding,
    trial,
    write_folder,
    write_raw,
    write_session,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.contracts import EvidenceKind
from tools.errors import StorageError
from tools.evidence import EVIDENCE, EvidenceStore
from tools.lock import BusyError, held
from tools.record import JOURNAL, LOCK, read_record
from tools.retention import KEEP_OUTPUT_DAYS, KEEP_OUTPUTS, alone, delete, find_garbage

REPOSITORY = Path(__file__).parents[1]
NOW = dt.datetime.now(dt.UTC)
LATER = NOW + dt.timedelta(days=40)
MONTH = dt.timedelta(days=30)


@pytest.fixture
def home(tmp_path):
    """Two sessions that share evidence, and something of each kind that nobody needs."""
    home = tmp_path / "home"
    used = trial("q1", session="s1", raw="q1-aa.npz", made="aaaaaaaaaaaaaaaa")
    shared = trial("q2", session="s1", raw="q2-bb.npz", made="bbbbbbbbbbbbbbbb")
    stray = trial("q3", session="gone", raw="q3-cc.npz", made="cccccccccccccccc")
    for name in ("q1-aa.npz", "q2-bb.npz", "q3-cc.npz", "q4-of-nobody.npz"):
        write_raw(home, name)
    (home / "raw" / ".q5.npz-cut-off").write_bytes(b"half")
    for digest in "abc":
        write_folder(home, "artifacts", digest * 16)
    for name in ("source", ".making-x", ".damaged-source-y"):
        write_folder(home, "artifacts", name)
    for name in ("d", "eeeeeeeeeeeeeeee", ".making-z"):
        write_folder(home, "data", name)
    write_session(home, "s1", [used, shared])
    write_session(home, "s2", [shared])
    write_folder(home, "sessions", ".importing-s3-x")
    for untouched in ("traces", "cache", "workloads", "mlartifacts"):
        write_folder(home, untouched, "thing")
    EvidenceStore(home / EVIDENCE).put(stray)
    return home


def tidy(home, **arguments):
    with alone(home):
        garbage = find_garbage(home, LATER, **arguments)
        assert delete(garbage) is None
    return {part.kind: part.count for part in garbage.parts}


def questions(home):
    return [row.question for row in EvidenceStore(home / EVIDENCE).rows()]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_no_session_needs_goes_and_all_else_stays(home):
    assert tidy(home) == {"rows": 1, "raw files": 3, "artifacts": 1, "data": 1, "leftovers": 4}
    assert questions(home) == ["q1", "q2"]
    assert names(home / "raw") == ["q1-aa.npz", "q2-bb.npz"]
    assert names(home / "artifacts") == ["aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "source"]
    assert names(home / "data") == ["d"]
    assert names(home / "sessions") == ["s1", "s2"]
    assert all((home / name / "thing" / "file").exists() for name in ("traces", "cache", "workloads", "mlartifacts"))
    assert tidy(home) == {}


def test_looking_changes_nothing_and_says_what_it_would_free(home):
    before = everything_in(home)
    garbage = find_garbage(home, LATER, MONTH)
    assert {part.kind for part in garbage.parts} > {"sessions", "rows"}
    assert garbage.size_mb == pytest.approx(sum(part.size_mb for part in garbage.parts))
    assert next(part for part in garbage.parts if part.kind == "data").size_mb == pytest.approx(0.002)
    assert everything_in(home) == before


def test_old_sessions_go_with_what_only_they_needed(home):
    os.utime(home / "sessions" / "s2", (0, 0))  # how old a session is stands in its journal
    assert tidy(home, older_than=dt.timedelta(days=50)) == {
        "rows": 1,
        "raw files": 3,
        "artifacts": 1,
        "data": 1,
        "leftovers": 4,
    }
    assert tidy(home, older_than=MONTH) == {"sessions": 2, "rows": 2, "raw files": 2, "artifacts": 3, "data": 1}
    assert names(home / "sessions") == names(home / "raw") == names(home / "artifacts") == []


@pytest.mark.parametrize("end", [None, "interrupted"])
def test_a_session_that_can_go_on_never_goes_nor_does_what_it_measured(home, end):
    mine, lost = finding("q6", session="s4"), finding("q7", session="s4")
    write_session(home, "s4", [mine], end=end)
    EvidenceStore(home / EVIDENCE).put(lost)  # killed between the store and the journal
    tidy(home, older_than=MONTH)
    assert names(home / "sessions") == ["s4"]
    assert questions(home) == ["q6", "q7"]


def test_a_session_that_somebody_works_on_stays(home):
    with held(home / "sessions" / "s1" / LOCK, busy=""):
        tidy(home, older_than=MONTH)
    assert names(home / "sessions") == ["s1"]
    assert questions(home) == ["q1", "q2"]


def test_nothing_is_looked_for_beside_a_running_session(home):
    with held(home / LOCK, busy="", shared=True), pytest.raises(BusyError, match="is running"), alone(home):
        pytest.fail("a session runs")


@pytest.mark.parametrize("damage", ["{}\n", "not even JSON\n", '{"seq": 1, "at": "", "kind": "note", "payload": {}}\n'])
def test_a_journal_that_cannot_be_read_keeps_everything(home, damage):
    (home / "sessions" / "s1" / JOURNAL).write_text(damage)
    with pytest.raises(
        StorageError, match=r"session s1 cannot be read.*nothing was deleted.*move the session's folder"
    ):
        find_garbage(home, LATER, MONTH)


def test_a_session_that_never_began_needs_nothing_and_stays(home):
    (home / "sessions" / "s0").mkdir()
    tidy(home, older_than=MONTH)
    assert names(home / "sessions") == ["s0"]


def test_a_journal_whose_last_line_was_cut_off_is_as_good_as_before(home):
    with (home / "sessions" / "s1" / JOURNAL).open("a") as stream:
        stream.write('{"seq": 9, "kind": "evid')
    tidy(home)
    assert questions(home) == ["q1", "q2"]


def test_damaged_rows_stay_while_a_session_needs_them(home):
    with sqlite3.connect(home / EVIDENCE) as connection:
        connection.execute("UPDATE findings SET body = replace(body, 'eager', 'eager2')")
    connection.close()
    tidy(home)
    assert questions(home) == ["q1", "q2"]
    assert names(home / "raw") == ["q1-aa.npz", "q2-bb.npz"]


def test_a_home_without_anything_has_nothing_to_delete(tmp_path):
    assert find_garbage(tmp_path, NOW).parts == ()
    assert list(tmp_path.iterdir()) == []


def test_outputs_of_scheduled_runs_go_when_they_are_old_and_many_came_since(home):
    folder = home / "schedule"
    folder.mkdir()
    for run in range(1, KEEP_OUTPUTS + 21):
        for end in ("json", "log"):
            path = folder / f"{run}.{end}"
            path.write_text("x")
            age_days = 0 if run > KEEP_OUTPUTS + 10 else KEEP_OUTPUT_DAYS
            written_s = (LATER - dt.timedelta(days=age_days, seconds=1)).timestamp()
            os.utime(path, (written_s, written_s))
    (folder / "1.log").touch()  # it was written to lately
    (folder / "notes.txt").write_text("a person's")
    assert tidy(home)["run files"] == 2 * 20 - 1
    left = {path.name for path in folder.iterdir()}
    assert left == {
        "notes.txt", "1.log", *(f"{run}.{end}" for run in range(21, KEEP_OUTPUTS + 21) for end in ("json", "log"))
    }  # fmt: skip
    assert "run files" not in tidy(home)


def test_space_that_cannot_be_given_back_is_said_and_the_rest_is_deleted(home, monkeypatch):
    def full(store):
        raise StorageError("the disk is full.")

    monkeypatch.setattr(EvidenceStore, "compact", full)
    with alone(home):
        assert "stays with the store" in delete(find_garbage(home, NOW))
    assert questions(home) == ["q1", "q2"]


def test_a_file_that_cannot_be_deleted_is_said(home, monkeypatch):
    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StorageError, match=r"\.q5\.npz-cut-off: cannot be deleted \(Permission denied\)"):
        delete(find_garbage(home, NOW))


KILLED = """
import os, signal, sys
sys.path[:0] = [{root!r}]
import datetime as dt, shutil
from pathlib import Path
from tools import retention
from tools.evidence import EvidenceStore
left = int(sys.argv[2])
def dying(function):
    def step(*arguments, **named):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return function(*arguments, **named)
    return step
Path.rename, Path.unlink, shutil.rmtree = dying(Path.rename), dying(Path.unlink), dying(shutil.rmtree)
EvidenceStore.delete, EvidenceStore.compact = dying(EvidenceStore.delete), dying(EvidenceStore.compact)
garbage = retention.find_garbage(Path(sys.argv[1]), dt.datetime.now(dt.UTC), dt.timedelta(0))
with retention.alone(Path(sys.argv[1])):
    retention.delete(garbage)
print(left)
"""


def killed_after(home, steps):
    """Delete in a process that is killed before its next step; returns whether it was."""
    code = KILLED.format(root=str(REPOSITORY))
    done = subprocess.run([sys.executable, "-c", code, home, str(steps)], capture_output=True, text=True, check=False)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode == -9


def check_whole(home):
    """What is left refers to nothing that is missing."""
    store = EvidenceStore(home / EVIDENCE)
    for folder in home.glob("sessions/s*"):
        record = read_record(folder)
        found = store.get_all(record.evidence)
        assert len(found) == len(record.evidence)
        if record.evidence:
            assert (home / "artifacts" / "source").is_dir()
    for row in store.rows():
        one = store.get(row.id)
        assert (home / "raw" / one.raw).is_file()
        assert len(list((home / "artifacts" / one.outcome.result.artifact.digest).iterdir())) == 1


def test_killed_at_any_step_it_leaves_nothing_half_and_the_next_call_finishes(home, tmp_path):
    write_session(home, "s5", [trial("q9", session="s5", raw="q9-99.npz", made="9999999999999999")], end="interrupted")
    write_raw(home, "q9-99.npz")
    write_folder(home, "artifacts", "9" * 16)
    for steps in (0, 3, 5, 6, 7, 8, 10, 13, 17):
        copy = tmp_path / "copy"
        shutil.copytree(home, copy)
        assert killed_after(copy, steps)
        check_whole(copy)
        tidy(copy, older_than=dt.timedelta(0))
        assert questions(copy) == ["q9"]
        assert names(copy / "raw") == ["q9-99.npz"]
        assert names(copy / "artifacts") == ["9999999999999999", "source"]
        assert names(copy / "sessions") == ["s5"]
        shutil.rmtree(copy)


@settings(max_examples=20)  # every journal entry waits for the disk
@given(used=st.lists(st.sets(st.integers(0, 7)), max_size=3), rows=st.sets(st.integers(0, 7)))
def test_rows_stay_if_and_only_if_a_session_used_them(tmp_path_factory, used, rows):
    home = tmp_path_factory.mktemp("home")
    evidence = {i: finding(f"q{i}", session="gone", kind=EvidenceKind.COMPARISON) for i in range(8)}
    EvidenceStore(home / EVIDENCE).put_all(evidence[i].body for i in rows)
    for number, ids in enumerate(used):
        write_session(home, f"s{number}", [evidence[i] for i in ids])
    needed = set().union(*used)
    assert set(find_garbage(home, NOW).rows) == {evidence[i].id for i in rows - needed}
