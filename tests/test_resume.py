"""Sessions that were killed, stopped, cut off from MLflow, replayed: real ones, each in a home of its own."""

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import Counter

import pytest
from quick_cli import quicken
from session_support import QUICK_CLI, USER_CODE, with_traffic, write_spec

import agent.policy
import agent.replay
from tools.artifacts import is_intact
from tools.evidence import EvidenceStore
from tools.journal import Journal
from tools.lock import held
from tools.record import read_record
from tools.result import SessionResult

RUNTIMES = ("eager", "onnxruntime")


@pytest.fixture
def infertune(commands, capsys, monkeypatch):
    commands.install(monkeypatch)
    quicken(RUNTIMES, monkeypatch.setattr)
    return lambda *arguments: commands.run(capsys, monkeypatch, *arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A home with one session that came to its end while MLflow was away, and its spec."""
    folder = tmp_path_factory.mktemp("finished")
    with refusing() as uri:
        done = run(folder, "optimize", write_spec(folder, **with_traffic(folder)), "--tracking-uri", uri)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


@pytest.fixture
def home(finished, tmp_path):
    """A copy of that home, to be altered."""
    shutil.copytree(finished / "home", tmp_path / "home")
    return tmp_path / "home"


def run(folder, *arguments, extra=None, **options):
    return subprocess.run(
        [sys.executable, QUICK_CLI, *arguments, "--home", folder / "home"],
        cwd=folder,
        env={**os.environ, "QUICK_RUNTIMES": ",".join(RUNTIMES), **(extra or {})},
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


@contextlib.contextmanager
def refusing():
    """An address that refuses connections: bound, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def session_in(home):
    (folder,) = (home / "sessions").iterdir()
    return folder


def asked(home):
    """How often each question was answered, by session."""
    with contextlib.closing(sqlite3.connect(home / "evidence.db")) as connection:
        return Counter(connection.execute("SELECT session, question FROM findings").fetchall())


# --- interrupted, then resumed ---------------------------------------------------------------------------------


def start_and_wait_for(folder, text):
    process = subprocess.Popen(
        [sys.executable, QUICK_CLI, "optimize", write_spec(folder, **with_traffic(folder)), "--home", folder / "home"],
        cwd=folder,
        env={**os.environ, "QUICK_RUNTIMES": ",".join(RUNTIMES)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert any(text in line for line in process.stdout), "it ended before"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_a_session_goes_on_where_it_was_and_decides_as_if_nothing_had_been(infertune, monkeypatch, tmp_path, number):
    monkeypatch.setattr("tools.inquiry.is_lasting", lambda _: True)  # else what was unstable is asked by the next one
    process = start_and_wait_for(tmp_path, "trial: onnxruntime fp32: ")
    os.killpg(process.pid, number)
    process.communicate(timeout=60)
    home = tmp_path / "home"
    folder = session_in(home)
    before = read_record(folder)
    measured = asked(home)
    assert f"infertune resume {folder.name}" in infertune("sessions", "--home", home).out

    answer = infertune("resume", "--home", home, "--output", "json")
    assert answer.exit_code == 0
    result = SessionResult.model_validate_json(answer.out)
    assert result.verdict == "MET"
    after = read_record(folder)
    standing = before.decisions[: before.undecided_from]
    assert after.decisions[: len(standing)] == standing
    assert list(after.decisions) == list(result.decisions)
    assert after.evidence[: len(before.evidence)] == before.evidence
    assert asked(home).items() >= measured.items()
    assert set(asked(home).values()) == {1}, "nothing was measured twice"
    assert "all the same" in infertune("replay", "--home", home).out

    undisturbed = infertune("optimize", tmp_path / "tuning.yaml", "--home", home, "--output", "json")
    assert SessionResult.model_validate_json(undisturbed.out).decisions == result.decisions


def test_a_finished_session_is_only_read(infertune, home):
    folder = session_in(home)
    journal = (folder / "journal.jsonl").read_bytes()
    answer = infertune("resume", folder.name[:12], "--home", home, "--output", "json")
    assert answer.exit_code == 0
    assert json.loads(answer.out) == json.loads((folder / "result.json").read_text())
    assert (folder / "journal.jsonl").read_bytes() == journal


def test_nothing_to_resume_is_said(infertune, home, tmp_path):
    assert "no session is waiting to be resumed" in infertune("resume", "--home", home).err
    assert "there are no sessions" in infertune("resume", "--home", tmp_path / "empty").err
    answer = infertune("resume", "2001", "--home", home)
    assert (answer.exit_code, answer.out) == (2, "")
    assert session_in(home).name in answer.err


def cut_after(folder, kind, count=1):
    """Leave of a journal what was there after so many entries of a kind: as a kill would have."""
    journal = folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    of_kind = [i for i, line in enumerate(lines) if json.loads(line)["kind"] == kind]
    journal.write_bytes(b"".join(lines[: of_kind[count - 1] + 1]))


def test_a_session_that_runs_is_not_taken_up(infertune, home):
    folder = session_in(home)
    cut_after(folder, "decision", 3)
    with held(folder / ".lock", busy=""):
        answer = infertune("resume", folder.name, "--home", home)
        assert "running" in infertune("sessions", "--home", home).out
    assert answer.exit_code == 2
    assert "another process is working on session" in answer.err


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("versions", "torch"), "1.0", "torch was 1.0 and is"),
        (("hardware", "cpu"), "another CPU", "this machine's cpu was another CPU and is"),
        (("policy",), "0", "the policy was 0 and is"),
        (("protocol",), "1", "the measuring protocol was 1 and is"),
    ],
    ids=["library", "machine", "policy", "protocol"],
)
def test_numbers_that_do_not_compare_are_not_mixed(infertune, home, path, value, said):
    folder = session_in(home)
    cut_after(folder, "decision", 3)
    journal = folder / "journal.jsonl"
    first, rest = journal.read_text().split("\n", 1)
    entry = json.loads(first)
    target = entry["payload"]
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = value
    journal.write_text(json.dumps(entry) + "\n" + rest)
    before = journal.read_bytes()
    answer = infertune("resume", "--home", home)
    assert answer.exit_code == 2
    assert said in answer.err
    assert "infertune optimize" in answer.err
    assert journal.read_bytes() == before


def test_a_workload_whose_code_changed_is_not_taken_up(infertune, tmp_path):
    shutil.copy(USER_CODE / "small.py", tmp_path / "small.py")
    factory = {"factory": "small.py:build"}
    write_spec(tmp_path, workload={"name": "w", "model": factory, "evaluation": {"factory": "small.py:data"}})
    answer = infertune("optimize", tmp_path / "tuning.yaml", "--home", tmp_path / "home", "--time-budget", "1")
    assert answer.exit_code in (0, 3), answer.err
    cut_after(session_in(tmp_path / "home"), "loaded")
    with (tmp_path / "small.py").open("a") as file:
        file.write("\n# another thought\n")
    answer = infertune("resume", "--home", tmp_path / "home")
    assert answer.exit_code == 2
    assert "the workload changed since the session began (model)" in answer.err


def test_a_moved_home_and_a_lost_artifact_do_not_matter(infertune, home):
    folder = session_in(home)
    best = SessionResult.model_validate_json((folder / "result.json").read_text()).best
    cut_after(folder, "decision", 7)  # everything is known but the comparison
    shutil.rmtree(home / "artifacts" / best.artifact_ref.digest)
    with contextlib.closing(sqlite3.connect(home / "evidence.db")) as connection:
        connection.execute("DELETE FROM findings WHERE kind IN ('comparison', 'edge_cases')")
        connection.commit()
    answer = infertune("resume", "--home", home, "--output", "json")
    assert answer.exit_code == 0, answer.err
    assert SessionResult.model_validate_json(answer.out).verdict == "MET"
    assert (home / "artifacts" / best.artifact_ref.digest).is_dir()


# --- replay ----------------------------------------------------------------------------------------------------


def test_a_replay_comes_to_the_same_decisions_and_writes_nothing(infertune, home):
    before = {p: p.stat().st_mtime_ns for p in home.rglob("*") if p.is_file() and p.name != "evidence.db-shm"}
    answer = infertune("replay", "--home", home)
    assert answer.exit_code == 0
    count = len(read_record(session_in(home)).decisions)
    assert answer.out.startswith(f"Replayed {count} decisions of session {session_in(home).name}, policy version ")
    assert answer.out.endswith(": all the same.\n")
    after = {p: p.stat().st_mtime_ns for p in home.rglob("*") if p.is_file() and p.name != "evidence.db-shm"}
    assert after == before


def test_a_replay_does_not_need_the_files_that_were_read(infertune, finished, home, tmp_path):
    (tmp_path / "unused").mkdir()
    for name in ("artifacts", "data", "raw"):
        shutil.rmtree(home / name)
    assert "all the same" in infertune("replay", "--home", home).out


def test_a_decision_that_was_altered_is_found(infertune, home):
    journal = session_in(home) / "journal.jsonl"
    lines = journal.read_text().splitlines()
    for number, line in enumerate(lines):
        entry = json.loads(line)
        if entry["kind"] == "decision" and entry["payload"]["node"] == "batch_tuning":
            entry["payload"]["chosen"] = "something else"
            lines[number] = json.dumps(entry)
    journal.write_text("\n".join(lines) + "\n")
    answer = infertune("replay", "--home", home)
    assert answer.exit_code == 3
    assert "1 differ" in answer.out
    assert "Which batch size? chose something else" in answer.out


def test_a_changed_policy_shows_where_it_parts(infertune, home, monkeypatch):
    monkeypatch.setattr(agent.policy, "SHOWN", 1)
    monkeypatch.setattr(agent.replay, "POLICY_VERSION", "next")
    answer = infertune("replay", "--home", home)
    assert answer.exit_code == 3
    assert "policy version next; the session was decided by version" in answer.out
    assert "among other options" in answer.out


def test_a_policy_that_wants_what_was_never_measured_ends_the_replay_there(infertune, home, monkeypatch):
    monkeypatch.setattr(agent.policy, "BATCH_SIZES", (1, 2, 3))
    answer = infertune("replay", "--home", home)
    assert answer.exit_code == 3
    assert "It could not go on: the sweep of" in answer.out


def test_evidence_that_is_missing_is_named(infertune, home):
    with contextlib.closing(sqlite3.connect(home / "evidence.db")) as connection:
        connection.execute("DELETE FROM findings WHERE kind = 'comparison'")
        connection.commit()
    answer = infertune("replay", "--home", home)
    assert answer.exit_code == 2
    assert "1 of " in answer.err
    assert "missing or damaged" in answer.err


# --- sync ------------------------------------------------------------------------------------------------------


def test_a_session_that_mlflow_missed_is_recorded_later_exactly_once(infertune, home):
    folder = session_in(home)
    result = SessionResult.model_validate_json((folder / "result.json").read_text())
    assert result.mlflow.run_id is None
    assert f"not in MLflow yet: infertune sync {folder.name}" in infertune("sessions", "--home", home).out
    with refusing() as uri:
        answer = infertune("sync", "--home", home, "--tracking-uri", uri)
    assert answer.exit_code == 3
    store = f"sqlite:///{home / 'mlflow.db'}"
    answer = infertune("sync", "--home", home, "--tracking-uri", store)
    assert answer.exit_code == 0
    recorded = SessionResult.model_validate_json((folder / "result.json").read_text())
    assert f"recorded as run {recorded.mlflow.run_id}" in answer.out
    assert recorded.model_copy(update={"mlflow": None}) == result.model_copy(update={"mlflow": None})
    assert recorded.mlflow.run_id in (folder / "report.html").read_text()
    again = infertune("sync", "--home", home, "--tracking-uri", store)
    assert again.out == "Nothing to do: MLflow has every finished session.\n"
    # and if the journal had lost that it was recorded
    entries = Journal(folder / "journal.jsonl").read()
    assert [e.kind for e in entries[-2:]] == ["recorded", "recorded"]
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:-1]))
    infertune("sync", "--home", home, "--tracking-uri", store)
    with contextlib.closing(sqlite3.connect(home / "mlflow.db")) as connection:
        query = "SELECT count(*) FROM tags WHERE key = 'infertune.complete' AND value = 'true'"
        assert connection.execute(query).fetchone() == (1,)
    # and if the database was lost, or moved away because it was damaged
    for file in home.glob("mlflow.db*"):
        file.rename(file.with_name(f"lost-{file.name}"))
    answer = infertune("sync", "--home", home, "--tracking-uri", store)
    assert f"{folder.name}  recorded as run " in answer.out
    assert recorded.mlflow.run_id not in answer.out
    again = infertune("sync", "--home", home, "--tracking-uri", store)
    assert again.out == "Nothing to do: MLflow has every finished session.\n"
    # but not a session that somebody exported, whose data are elsewhere, as its record is
    (home / "mlflow.db").unlink()
    example = (folder / "example.npz").rename(home / "example.npz")
    again = infertune("sync", "--home", home, "--tracking-uri", store)
    example.rename(folder / "example.npz")
    assert again.out == "Nothing to do: MLflow has every finished session.\n"
    assert not (home / "mlflow.db").exists()


def test_what_a_session_rests_on_is_in_the_store(home):
    record = read_record(session_in(home))
    found = EvidenceStore(home / "evidence.db").get_all(record.evidence)
    assert tuple(e.id for e in found) == record.evidence
    assert {e.session for e in found} == {record.session}


def test_what_is_recommended_is_whole_even_when_every_answer_was_known(infertune, monkeypatch, finished, home):
    monkeypatch.setattr("tools.inquiry.is_lasting", lambda _: True)
    result = SessionResult.model_validate_json((session_in(home) / "result.json").read_text())
    folder = home / "artifacts" / result.best.artifact_ref.digest
    (model,) = folder.glob("model.*")
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    answer = infertune("optimize", finished / "tuning.yaml", "--home", home, "--output", "json")
    again = SessionResult.model_validate_json(answer.out)
    assert again.best.artifact == str(folder)
    assert is_intact(folder, again.best.artifact_ref.digest)
    assert set(asked(home).values()) == {1}


def test_a_password_for_mlflow_stays_in_the_environment(tmp_path):
    with refusing() as uri:
        secret = uri.replace("http://", "http://me:hunter2secret@")
        asked = write_spec(tmp_path, search={"max_trials": 1})
        visible = run(tmp_path, "optimize", asked, "--tracking-uri", secret)
        assert (visible.returncode, (tmp_path / "home").exists()) == (2, False)
        assert "MLFLOW_TRACKING_URI" in visible.stderr
        done = run(tmp_path, "optimize", asked, extra={"MLFLOW_TRACKING_URI": secret})
    assert done.returncode == 0, done.stderr
    written = b"".join(p.read_bytes() for p in (tmp_path / "home").rglob("*") if p.is_file())
    assert b"hunter2secret" not in written + done.stdout.encode() + done.stderr.encode()
    assert b"***@127.0.0.1" in written
