"""The short version of `make chaos`: one fault of each kind, and a check of the checker."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from agent.sessions import folders
from simulations.chaos import workloads
from simulations.chaos.candidates import MISBEHAVIOURS, misbehaves
from simulations.chaos.checks import kept_in, lost, runs_in
from simulations.chaos.child import Settings, quick
from simulations.chaos.hook.sitecustomize import Point
from simulations.chaos.kills import RAW
from simulations.chaos.lab import Lab, Outcome, killed_at
from tools.evidence import EVIDENCE
from tools.record import JOURNAL, RESULT

SETTINGS = Settings(("onnxruntime",))
DECISION = Point("main", "write", f"sessions/SESSION/{JOURNAL} decision", "half")
RESULT_RENAME = Point("main", "rename", f"sessions/SESSION/{RESULT}", "before")
CHECKPOINT = Point("main", "commit", "checkpoints.db", "half")
BETWEEN_NODES = Point("main", "node", "batch_tuning", "after")
EVIDENCE_COMMIT = Point("main", "commit", EVIDENCE, "half")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """An undisturbed session, in a home where all is measured; sessions of this process are as quick as its."""
    with quick(SETTINGS):
        yield Lab.build(tmp_path_factory.mktemp("undisturbed"), SETTINGS)


@pytest.fixture
def finished(lab, tmp_path):
    """A copy of that home with its latest session."""
    home = tmp_path / "home"
    shutil.copytree(lab.home, home)
    return home, folders(home)[-1]


def killed(lab, folder, point, *, nth=1, victims="self", cold=False):
    home = lab.cold_home(folder) if cold else lab.warm_home(folder)
    expected = None if cold else lab.story
    return killed_at(home, lab.spec, point, nth=nth, victims=victims, settings=lab.settings, expected=expected)


@pytest.mark.parametrize(
    ("point", "nth"),
    [(DECISION, 4), (RESULT_RENAME, 1), (CHECKPOINT, 9), (BETWEEN_NODES, 1)],
    ids=["journal half-written", "before the result's rename", "checkpoint half-committed", "between two nodes"],
)
def test_a_session_that_is_killed_and_resumed_decides_as_if_nothing_had_happened(lab, tmp_path, point, nth):
    assert killed(lab, tmp_path, point, nth=nth) == Outcome(injected=1, lost=())


def test_no_evidence_is_lost_or_measured_twice_when_its_commit_is_cut_in_half(lab, tmp_path):
    assert killed(lab, tmp_path, EVIDENCE_COMMIT, nth=4, cold=True) == Outcome(injected=1, lost=())


def test_a_worker_that_is_killed_during_a_trial_is_replaced(lab, tmp_path):
    assert killed(lab, tmp_path, RAW, nth=2, victims="parent", cold=True) == Outcome(injected=1, lost=())


def test_nan_in_int8_alone_costs_that_candidate_and_nothing_else(lab, tmp_path):
    nan = next(m for m in MISBEHAVIOURS if m.write is workloads.nan_in_int8)
    outcome = misbehaves(nan, tmp_path)
    assert outcome.injected >= 1
    assert outcome.lost == ()


def test_a_point_that_is_never_reached_is_no_success(lab, tmp_path):
    outcome = killed(lab, tmp_path, Point("main", "node", "no_such_node", "before"))
    assert outcome.injected == 0
    assert "nothing was injected" in outcome.lost[0]


def test_the_undisturbed_session_passes_its_own_checks(lab, finished):
    home, session = finished
    assert lost(home, session, before=kept_in(home, session), expected=lab.story) == []


def test_a_decision_that_was_altered_is_noticed(lab, finished):
    home, session = finished
    before = kept_in(home, session)
    journal = session / JOURNAL
    journal.write_text(journal.read_text().replace('"chosen":"batch_tuning"', '"chosen":"confirmation"'))
    complaints = "\n".join(lost(home, session, before=before, expected=lab.story))
    assert "tell of other decisions" in complaints  # than result.json
    assert "undisturbed batch_tuning" in complaints
    assert "What next? chose confirmation" in complaints  # when replayed
    assert "lines that were in the journal" in complaints


def test_evidence_that_was_deleted_is_noticed(lab, finished):
    home, session = finished
    before = kept_in(home, session)
    with closing(sqlite3.connect(home / EVIDENCE)) as connection, connection:
        connection.execute("DELETE FROM findings WHERE rowid = (SELECT MAX(rowid) FROM findings)")
    (complaint,) = lost(home, session, before=before)
    assert "missing or damaged" in complaint


def test_evidence_that_was_altered_is_noticed(lab, finished):
    home, session = finished
    with closing(sqlite3.connect(home / EVIDENCE)) as connection, connection:
        connection.execute("UPDATE findings SET body = replace(body, '\"seconds\":', '\"seconds\":1')")
    assert any("missing or damaged" in complaint for complaint in lost(home, session))


def test_a_question_that_was_measured_twice_is_noticed(lab, finished):
    home, _ = finished
    first = folders(home)[0]  # which measured everything
    assert lost(home, first) == []
    with closing(sqlite3.connect(home / EVIDENCE)) as connection, connection:
        connection.execute("UPDATE findings SET question = (SELECT MIN(question) FROM findings) WHERE kind = 'build'")
    assert any("measured more than once" in complaint for complaint in lost(home, first))


def test_a_damaged_artifact_and_a_damaged_result_are_noticed(lab, finished):
    home, session = finished
    model = next((home / "artifacts").glob("*/model.onnx"))
    model.write_bytes(model.read_bytes()[:-1])
    assert f"artifacts/{model.parent.name} is damaged" in lost(home, session)
    (session / RESULT).write_text("{")
    assert any(RESULT in complaint for complaint in lost(home, session))


def test_only_active_runs_count_and_complete_ones_apart(tmp_path):
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        connection.execute("CREATE TABLE runs (run_uuid TEXT, lifecycle_stage TEXT)")
        connection.execute("CREATE TABLE tags (run_uuid TEXT, key TEXT, value TEXT)")
        connection.executemany("INSERT INTO runs VALUES (?, ?)", [("a", "active"), ("b", "active"), ("c", "deleted")])
        tags = [(run, "infertune.session", "s") for run in "abc"] + [
            (run, "infertune.complete", "true") for run in "ac"
        ]
        connection.executemany("INSERT INTO tags VALUES (?, ?, ?)", tags)
    assert runs_in(tmp_path / "mlflow.db", "s") == (2, 1)
