"""`infertune sessions`: listing, showing, comparing and deleting what was run, whatever state it is in."""

import datetime as dt
import itertools
import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from evidence_support import loaded, started
from sample_result import empty_result, sample_result
from session_support import names_in

from tools.cluster.store import PlanStore
from tools.contracts import Bounds, HpaRef, ScalingPlan, Verdict
from tools.journal import Journal
from tools.lock import held

A, B, C = "20261120-000000-aaaa", "20261121-000000-bbbb", "20261122-000000-cccc"
NOW = dt.datetime.now(dt.UTC)
ROOT = Path(__file__).parents[1]


@pytest.fixture
def infertune(commands, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INFERTUNE_HOME", "home")
    monkeypatch.setenv("COLUMNS", "80")
    return lambda *arguments: commands.run(capsys, monkeypatch, *arguments)


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def write(
    home, session, *, end="finished", result=True, recorded=True, policy="1", protocol="2", threads=None, **updates
):
    """Write a session as a run leaves it behind, and return its folder."""
    folder = home / "sessions" / session
    journal = Journal(folder / "journal.jsonl")
    hardware = loaded().spec.hardware.model_copy(update={"threads": threads})
    begun = started(session).model_copy(update={"policy": policy, "protocol": protocol})
    journal.append("started", begun.model_dump(mode="json"))
    journal.append("loaded", loaded(hardware=hardware).model_dump(mode="json"))
    if result:
        whole = sample_result(session=session, **{"workload": "shop", **updates})
        (folder / "result.json").write_text(whole.model_dump_json(indent=1))
        for decision in whole.decisions:
            journal.append("decision", decision.model_dump(mode="json"))
    if recorded:
        journal.append("recorded", {"run_id": "r1"})
    if end is not None:
        journal.append(
            end, {"interrupted": {"decisions": 0}, "failed": {"reason": "no such\x1b[31m file"}}.get(end, {})
        )
    return folder


def refused(answer, *expected):
    assert answer.exit_code == 2, answer
    assert answer.err.startswith("infertune: ")
    assert answer.err.count("\n") == 1
    for text in expected:
        assert text in answer.err


# --- list ------------------------------------------------------------------------------------------------------


def test_the_table_fits_80_columns_and_says_below_each_session_what_is_to_be_done(infertune, home):
    write(home, A, workload="a workload with a name that is far too long for a table")
    write(home, B, recorded=False)
    write(home, C, end="interrupted", verdict=Verdict.INTERRUPTED, ratio=None)
    write(home, "20261122-000001-dddd", end="failed", result=False)
    write(home, "20261122-000002-eeee", end=None, result=False)
    (home / "sessions" / "20261122-000003-ffff").mkdir()
    answer = infertune("sessions")
    assert (answer.exit_code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "\x1b" not in answer.out
    assert lines[0].split() == ["session", "workload", "verdict", "p50", "rate", "when"]
    rows = {line.split()[0]: line for line in lines[1:] if not line.startswith(" ")}
    assert [*rows] == [A, B, C, *(f"20261122-00000{i}-{4 * c}" for i, c in enumerate("def", start=1))]
    assert "…" in rows[A]
    assert rows[B].split()[1:5] == ["shop", "MET", "12.4x", "29.9x"]
    assert rows[C].split()[1:3] == ["shop", "INTERRUPTED"]
    below = dict(itertools.pairwise(lines))
    assert below[rows[B]].strip() == f"not in MLflow yet: infertune sync {B}"
    assert below[rows[C]].strip() == f"interrupted: infertune resume {C}"
    assert "could not be loaded: no such[31m file" in answer.out
    assert "did not end: infertune resume 20261122-000002-eeee" in answer.out
    assert rows["20261122-000003-ffff"].split("  ")[-1].strip() == "never began"


def test_a_running_session_is_told(infertune, home):
    folder = write(home, A, end=None, result=False)
    with held(folder / ".lock", busy=""):
        assert "running" in infertune("sessions").out


def test_a_plan_that_waits_for_a_person_is_to_be_done(infertune, home):
    write(home, A)
    plan = offer(home, A)
    assert f"a plan waits for a person: infertune plan show {plan.digest}" in infertune("sessions").out


def test_options_work_with_and_without_the_word_list(infertune, home):
    write(home, A, workload="one")
    write(home, B, workload="two", verdict=Verdict.INFEASIBLE)
    for words in (("sessions",), ("sessions", "list")):
        both = json.loads(infertune(*words, "--output", "json").out)
        assert [row["session"] for row in both] == [A, B]
        assert both[0]["p50_ratio"] == {"value": 12.4, "low": 12.1, "high": 12.7, "n": 60}
        one = json.loads(infertune(*words, "--workload", "one", "--output", "json").out)
        assert [row["session"] for row in one] == [A]
        missed = json.loads(infertune(*words, "--verdict", "infeasible", "--output", "json").out)
        assert [row["session"] for row in missed] == [B]
    assert "no such sessions in" in infertune("sessions", "--workload", "three").out


def test_a_home_that_is_empty_or_no_folder_lists_nothing(infertune, tmp_path):
    assert infertune("sessions").out.startswith(f"no sessions in {tmp_path / 'home'} yet")
    assert not (tmp_path / "home").exists()
    (tmp_path / "home").write_text("a file")
    assert infertune("sessions").exit_code == 0
    assert infertune("sessions", "list", "--output", "json").out == "[]\n"


# --- show ------------------------------------------------------------------------------------------------------


def test_a_session_is_shown_as_it_ended_with_every_decision_in_a_line(infertune, home):
    write(home, A)
    answer = infertune("sessions", "show", A[:10])
    assert (answer.exit_code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0].startswith(f"Session {A}, shop, ")
    assert any(line.startswith("MET  openvino int8-static") for line in lines)
    for text in ("report.html", "mlflow.db, run 5f2c0d9a7b1e4c3f8a6d2e1b0c9f8e7d"):
        assert text in answer.out
    start = lines.index(f"All decisions (infertune explain {A} ID)")
    told = lines[start + 1 :]
    assert [line.split()[0] for line in told] == [d.id for d in sample_result().decisions]
    assert told[2].startswith("  d2  quantization_evaluation: Which precision? openvino int8-static: ")


def test_json_is_the_stored_result_as_it_is(infertune, home):
    folder = write(home, A)
    assert infertune("sessions", "show", "--output", "json").out == (folder / "result.json").read_text()


def test_a_session_without_a_result_shows_what_there_is(infertune, home):
    write(home, A, end="interrupted", result=False)
    answer = infertune("sessions", "show")
    assert answer.exit_code == 0
    assert "interrupted: there is no result." in answer.out
    assert f"To do: interrupted: infertune resume {A}" in answer.out
    refused(infertune("sessions", "show", "--output", "json"), f"{A}: has no result.")
    (home / "sessions" / B).mkdir()
    refused(infertune("sessions", "show"), B, "it never began", f"infertune sessions delete {B}")


# --- compare ---------------------------------------------------------------------------------------------------


def test_the_two_latest_of_one_workload_are_compared(infertune, home):
    write(home, A)
    write(home, B)
    write(home, C, workload="another")
    answer = infertune("sessions", "compare")
    assert (answer.exit_code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0].split() == [A, B]
    assert all(len(line) <= 80 for line in lines[: lines.index("") - 1])
    rows = {line[:18].strip(): line[18:] for line in lines}
    assert rows["verdict"].split() == ["MET", "MET"]
    assert rows["batch"].split() == ["16", "16"]
    assert rows["took"].split() == ["9", "min", "08", "s"] * 2
    assert "12.4x [12.1, 12.7]" in rows["p50 ratio"]
    assert "  Nothing: the same question, price, machine, libraries, policy and protocol." in lines
    assert "do not compare" not in answer.out


def test_what_differs_is_said_and_which_figures_do_not_compare(infertune, home):
    first = sample_result()
    write(home, A)
    write(
        home,
        B,
        protocol="3",
        policy="9",
        threads=2,
        price_per_hour_usd=0.5,
        hardware=first.hardware.model_copy(update={"cpu": "Another"}),
        versions={**first.versions, "torch": "2.15.0", "ray": "2.49.0"},
        objective=first.objective.model_copy(update={"p99_ms": 10.0}),
    )
    out = infertune("sessions", "compare", A, B).out
    for text in (
        "They ran on different machines",
        "They were measured by different protocols.",
        "A replica had another number of threads.",
        "  threads of a replica: all that the machine offers | 2",
        "cost / 1,000: An hour of the machine was priced differently.",
        "  cpu: AMD EPYC 9R14 | Another",
        "  policy: 1 | 9",
        "  torch: 2.14.1 | 2.15.0",
        "  ray: not there | 2.49.0",
        "p99 at most 25.0 ms, accuracy",
    ):
        assert text in out
    assert "workload digest" not in out
    told = json.loads(infertune("sessions", "compare", A, B, "--output", "json").out)
    assert [one["session"] for one in told["sessions"]] == [A, B]
    assert told["sessions"][0]["best"]["p99_ms"]["high"] == first.best.latency_ms.p99.high
    assert told["differences"]["torch"] == ["2.14.1", "2.15.0"]
    assert {figure for one in told["do_not_compare"] for figure in one["figures"]} >= {"p50_ms", "accuracy_drop"}


def test_three_sessions_one_of_which_found_nothing_and_one_without_a_journal(infertune, home):
    for session in (A, B):
        write(home, session)
    folder = write(home, C)
    (folder / "result.json").write_text(
        empty_result().model_copy(update={"session": C, "workload": "shop"}).model_dump_json()
    )
    (folder / "journal.jsonl").write_text("damaged\n")
    answer = infertune("sessions", "compare", A, B, C)
    assert answer.exit_code == 0
    assert C in answer.out
    assert "INTERRUPTED" in answer.out
    assert "a journal cannot be read" in answer.out


def test_of_a_damaged_result_the_decisions_are_still_shown(infertune, home):
    folder = write(home, A)
    (folder / "result.json").write_text('{"version": 1, "sess')
    answer = infertune("sessions", "show", A)
    assert (answer.exit_code, answer.err) == (0, "")
    assert "unreadable: these are the decisions that the journal has." in answer.out
    assert all(decision.id in answer.out for decision in sample_result().decisions)
    assert "To do: result.json cannot be read: is no result of a session" in " ".join(answer.out.split())
    (folder / "journal.jsonl").write_text("damaged\n")
    refused(infertune("sessions", "show", A), "result.json", "is no result of a session")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "no workload has two sessions with results"),
        ((A,), f"no session with a result, before {A}, is of its workload"),
        ((A, A[:12]), "a session is named twice"),
        ((A, B), f"{B}: has no result to compare"),
        ((A, "2027"), "there is no session '2027'"),
    ],
)
def test_what_cannot_be_compared_is_refused(infertune, home, arguments, expected):
    write(home, A)
    write(home, B, result=False)
    refused(infertune("sessions", "compare", *arguments), expected)


# --- delete ----------------------------------------------------------------------------------------------------


def offer(home, session, *, expires_s=3600.0, then=()):
    """Put a plan of a session into a home's store, have these things happen to it, and return it."""
    metric = {"type": "Pods", "pods": {"metric": {"name": "queue"}, "target": {"type": "AverageValue"}}}
    server = {"server": "https://127.0.0.1:1", "context": "prod", "uid": "u", "resource_version": "7"}
    plan = ScalingPlan(
        session=session,
        target=HpaRef(namespace="shop", name="hpa", **server),
        before={"minReplicas": 6, "maxReplicas": 40, "metrics": [metric]},
        after={"minReplicas": 2, "maxReplicas": 8, "metrics": [metric]},
        why="It keeps the SLO with fewer replicas.",
        bounds=Bounds(),
        verify_s=600.0,
        created=NOW.isoformat(timespec="seconds"),
        expires=(NOW + dt.timedelta(seconds=expires_s)).isoformat(timespec="seconds"),
    )
    store = PlanStore(home)
    store.propose(plan, by="infertune", at=NOW)
    for kind in then:
        store.append(plan.digest, kind, by="ada", at=NOW)
    return plan


def checkpoint(home, *sessions):
    """Write checkpoints of these sessions, as the graph leaves them."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    with SqliteSaver.from_conn_string(str(home / "checkpoints.db")) as saver:
        saver.setup()
        for session in sessions:
            saver.conn.execute(
                "INSERT INTO checkpoints VALUES (?, '', 'c1', NULL, 'msgpack', ?, '{}')", (session, b"x" * 50_000)
            )
            saver.conn.execute(
                "INSERT INTO writes VALUES (?, '', 'c1', 't1', '', 0, 'ch', 'msgpack', ?)", (session, b"x" * 50_000)
            )
        saver.conn.commit()


def sessions_in(home):
    """Names of all that is left in the folder of sessions."""
    return [name for name in names_in(home / "sessions") if name != ".lock"]


def threads(home):
    """Sessions that have checkpoints."""
    with sqlite3.connect(home / "checkpoints.db") as connection:
        found = connection.execute("SELECT thread_id FROM checkpoints UNION SELECT thread_id FROM writes ORDER BY 1")
        names = [name for (name,) in found]
    connection.close()
    return names


def test_what_goes_and_what_stays_is_said_before_it_is_deleted(infertune, home):
    folder = write(home, A)
    (folder / "inputs").mkdir()
    (folder / "inputs" / "traffic.csv").write_bytes(b"1" * 200_000)
    Journal(folder / "journal.jsonl").append("evidence", {"id": "e1", "question": "q", "kind": "trial", "recipe": "r"})
    write(home, B)
    checkpoint(home, A, B)
    (home / "evidence.db").write_bytes(b"shared")
    plan = offer(home, A, then=("approved", "applying", "applied", "verifying", "verified"))
    answer = infertune("sessions", "delete", "--yes", A[:10])
    assert (answer.exit_code, answer.err) == (0, "")
    for text in (
        f"{A} goes:",
        f"{folder}: 4 files, ",
        "0.200 MB of it copies of its inputs",
        "its checkpoints: 0.100 MB",
        "stays: 1 piece of evidence",
        "stays: MLflow run 5f2c0d9a7b1e4c3f8a6d2e1b0c9f8e7d",
        f"no command takes back what plan {plan.digest} changed",
        "infertune evidence gc",
    ):
        assert text in answer.out
    assert sessions_in(home) == [B]
    assert threads(home) == [B]
    assert (home / "evidence.db").read_bytes() == b"shared"
    assert PlanStore(home).state(plan.digest) == "verified"


def test_without_a_terminal_nobody_is_asked_and_nothing_is_deleted(infertune, home, monkeypatch):
    write(home, A)
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        refused(infertune("sessions", "delete", A), "there is nobody to ask. Say --yes")
    assert sessions_in(home) == [A]


@pytest.mark.parametrize(("said", "left"), [("n", [A]), ("", [A]), ("y", [])])
def test_a_person_at_a_terminal_is_asked(home, said, left):
    write(home, A)
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-m", "agent.cli", "sessions", "delete", A, "--home", str(home)]
        with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, text=True, cwd=ROOT) as asked:
            os.write(ours, f"{said}\n".encode())
            out, _ = asked.communicate()
    finally:
        os.close(ours)
        os.close(theirs)
    assert asked.returncode == 0
    assert "Delete? [y/N]" in out
    assert ("Nothing was deleted." in out) is bool(left)
    assert sessions_in(home) == left


def test_a_session_that_runs_is_refused_and_so_are_all_that_were_named_with_it(infertune, home):
    write(home, A)
    folder = write(home, B, end=None)
    checkpoint(home, A, B)
    with held(folder / ".lock", busy=""):
        refused(infertune("sessions", "delete", "--yes", A, B), B, "this session is running", "Nothing was deleted")
    assert sessions_in(home) == [A, B]
    assert threads(home) == [A, B]
    assert infertune("sessions", "delete", "--yes", A, B).exit_code == 0


def test_evidence_that_is_being_tidied_away_is_waited_for(infertune, home):
    write(home, A)
    with held(home / ".lock", busy=""):
        refused(infertune("sessions", "delete", "--yes", A), "try again in a moment")
    assert sessions_in(home) == [A]


def test_two_deletions_do_not_get_into_each_others_way(infertune, home):
    write(home, A)
    with held(home / "sessions" / ".lock", busy=""):
        refused(infertune("sessions", "delete", "--yes", A), "being deleted or imported right now")
    assert sessions_in(home) == [A]


@pytest.mark.parametrize(
    ("then", "expires_s", "why"),
    [
        ((), 3600, "is proposed, and good until"),
        (("approved",), 3600, "is approved, and good until"),
        (("approved", "applying"), -5, "is not settled"),
        (("approved", "applying", "applied"), -5, "is not settled"),
        (("approved", "applying", "applied", "verifying"), -5, "is not settled"),
        (("approved", "applying", "applied", "verifying", "breached"), -5, "is not settled"),
        ((), -5, None),
        (("approved",), -5, None),
        (("rejected",), 3600, None),
        (("approved", "applying", "failed"), 3600, None),
        (("approved", "applying", "applied", "verifying", "verified"), 3600, None),
    ],
    ids=lambda value: None if isinstance(value, int) else " ".join(value or ("free",)) if value else "none",
)
def test_a_session_whose_plan_is_open_is_refused(infertune, home, then, expires_s, why):
    write(home, A)
    write(home, B)
    plan = offer(home, B, expires_s=expires_s, then=then)
    answer = infertune("sessions", "delete", "--yes", A, B)
    if why is None:
        assert answer.exit_code == 0
        assert sessions_in(home) == []
    else:
        refused(answer, f"session {B}", f"its plan {plan.digest} {why}", f"infertune plan show {plan.digest}")
        assert sessions_in(home) == [A, B]


def test_a_session_that_nobody_can_read_can_go(infertune, home):
    folder = write(home, A)
    (folder / "journal.jsonl").write_text("damaged\n")
    (folder / "result.json").write_text("{")
    (home / "sessions" / B).mkdir()
    assert infertune("sessions", "delete", "--yes", A, B).exit_code == 0
    assert sessions_in(home) == []


KILLS = {
    "between two folders": "pathlib.Path.rename = killing(pathlib.Path.rename, 2)",
    "before the checkpoints": "deletion.forget_threads = killing(deletion.forget_threads, 2)",
    "before the files": "shutil.rmtree = killing(shutil.rmtree, 1)",
    "among the files": "os.unlink = killing(os.unlink, 2)",
    "before the second folder's files": "shutil.rmtree = killing(shutil.rmtree, 2)",
}
PROGRAM = """
import os, pathlib, shutil, signal, sys
import agent.cli, agent.session_deletion as deletion

def killing(real, at):
    calls = []
    def call(*args, **kwargs):
        calls.append(args)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call

{kill}
agent.cli.main()
"""


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS)
def test_a_deletion_that_is_killed_leaves_nothing_half_readable_and_is_completed(infertune, home, kill):
    for session in (A, B, C):
        write(home, session)
    checkpoint(home, A, B, C)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(kill=kill), "sessions", "delete", "--yes", A, B, "--home", str(home)],
        cwd=ROOT,
        check=False,
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done
    listed = json.loads(infertune("sessions", "list", "--output", "json").out)
    assert {row["session"] for row in listed} <= {A, B, C}
    assert [row["state"] for row in listed] == ["MET"] * len(listed)
    again = infertune("sessions", "delete", "--yes", A, B)
    assert (again.exit_code, again.err) == (0, "")
    assert "its deletion was begun, and is completed." in again.out
    assert sessions_in(home) == [C]
    assert threads(home) == [C]


def test_another_deletion_completes_one_that_was_killed_even_if_the_session_came_back(infertune, home):
    write(home, A).rename(home / "sessions" / f".deleting-{A}")
    write(home, A)
    answer = infertune("sessions", "delete", "--yes", A)
    assert answer.exit_code == 0
    assert sessions_in(home) == []


def test_what_cannot_be_deleted_is_named_and_stays_whole(infertune, home):
    write(home, A)
    (home / "checkpoints.db").write_text("no database" * 1000)
    refused(infertune("sessions", "delete", "--yes", A), "cannot be deleted", "give the same command again")
    assert sessions_in(home) == [f".deleting-{A}"]
    (home / "checkpoints.db").unlink()
    assert infertune("sessions", "delete", "--yes", A).exit_code == 0
    assert sessions_in(home) == []
