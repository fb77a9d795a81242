"""The short version of `make chaos`: one fault of each kind, and a check of the checker."""

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
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


def warm(point, nth=1):
    """Kill the main process of a session that finds every answer; it must decide as an undisturbed one."""

    def inject(lab, folder):
        home = lab.warm_home(folder)
        return killed_at(home, lab.spec, point, nth=nth, victims="self", settings=SETTINGS, expected=lab.story)

    return inject


def cold(point, nth, victims):
    """Kill a process of a session that measures."""

    def inject(lab, folder):
        home = lab.cold_home(folder)
        return killed_at(home, lab.spec, point, nth=nth, victims=victims, settings=SETTINGS, expected=None)

    return inject


KILLS = {
    "evidence half-committed": cold(Point("main", "commit", EVIDENCE, "half"), 4, "self"),
    "worker killed during a trial": cold(RAW, 2, "parent"),
    "journal half-written": warm(Point("main", "write", f"sessions/SESSION/{JOURNAL} decision", "half"), 4),
    "before the result's rename": warm(Point("main", "rename", f"sessions/SESSION/{RESULT}", "before")),
    "checkpoint half-committed": warm(Point("main", "commit", "checkpoints.db", "half"), 9),
    "between two nodes": warm(Point("main", "node", "batch_tuning", "after")),
}


@pytest.fixture(scope="module")
def pool():
    """Two sessions at once: one for each core."""
    with ThreadPoolExecutor(2) as running:
        yield running


@pytest.fixture(scope="module")
def nan_in_int8(pool, tmp_path_factory):
    """What becomes of a candidate that gives NaN; begun first, since it takes as long as the undisturbed session."""
    nan = next(m for m in MISBEHAVIOURS if m.write is workloads.nan_in_int8)
    return pool.submit(misbehaves, nan, tmp_path_factory.mktemp("nan"))


@pytest.fixture(scope="module")
def lab(nan_in_int8, tmp_path_factory):
    """An undisturbed session, in a home where all is measured; sessions of this process are as quick as its."""
    with quick(SETTINGS):
        yield Lab.build(tmp_path_factory.mktemp("undisturbed"), SETTINGS)


@pytest.fixture(scope="module")
def killed(lab, pool, tmp_path_factory):
    """What becomes of each session that is killed; all of them are under way from the beginning."""
    return {name: pool.submit(inject, lab, tmp_path_factory.mktemp("killed")) for name, inject in KILLS.items()}


@pytest.fixture
def finished(lab, tmp_path):
    """A copy of that home with its latest session."""
    home = tmp_path / "home"
    shutil.copytree(lab.home, home)
    return home, folders(home)[-1]


@pytest.mark.parametrize("name", KILLS)
def test_a_session_that_is_hit_loses_nothing(killed, name):
    assert killed[name].result() == Outcome(injected=1, lost=())


def test_nan_in_int8_alone_costs_that_candidate_and_nothing_else(lab, nan_in_int8):
    outcome = nan_in_int8.result()
    assert outcome.injected >= 1
    assert outcome.lost == ()


def test_a_point_that_is_never_reached_is_no_success(lab, tmp_path):
    outcome = warm(Point("main", "node", "no_such_node", "before"))(lab, tmp_path)
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
