"""Scheduled runs as processes: the daemon, its sessions, and what both tell."""

# ruff: noqa: F811  (fixtures are imported, and named as arguments)

import contextlib
import functools
import json
import signal
import subprocess
import sys
import time
import urllib.request

import psutil
import pytest
import typer
from schedule_support import REPOSITORY, calls, command, due_again, home, make_due, once, running, secret, until, world  # noqa: F401
from session_support import QUICK_CLI, write_spec
from test_notify import Receiver

from agent.schedule import Wishes, add, rows
from agent.scheduling import daemon
from agent.scheduling.metrics import serving
from agent.scheduling.processes import NAME, Processes
from agent.scheduling.store import Run, ScheduleStore
from tools.errors import InfertuneError
from tools.lock import BusyError
from tools.outbox import OUTBOX, Outbox


def test_wishes_reach_optimize_and_the_verdict_comes_back(home, command):
    make_due(home, budget_s=600, auto_approve_within="max=5")
    once(home, command)
    (arguments,) = calls(home)
    assert arguments[:2] == ["optimize", "digits-tiny"]
    assert arguments[2:6] == ["--time-budget", "600", "--auto-approve-within", "max=5"]
    (run,) = ScheduleStore(home).runs()
    assert (run.verdict, run.exit_code, run.session, run.why) == ("MET", 0, "s", "done")
    once(home, command)
    assert len(calls(home)) == 1


def test_what_a_run_came_to_reaches_the_webhook(home, command, tmp_path):
    receiver = Receiver()
    (tmp_path / "secret").write_text("s3cret")
    with receiver.listening() as url:
        make_due(home, webhook=url, webhook_secret_file=tmp_path / "secret")
        said = once(home, command)
    ((headers, body, _),) = receiver.got
    event = json.loads(body)
    assert (event["event"], event["verdict"], event["workload"]) == ("run_ended", "MET", "digits-tiny")
    assert headers["X-Infertune-Delivery"] == event["id"]
    assert "s3cret" not in str(said) + str(rows(home)) + body.decode()


def test_a_session_that_fails_is_told_with_its_last_words(home, command):
    (home / "code").write_text("2")
    make_due(home)
    once(home, command)
    (run,) = ScheduleStore(home).runs()
    assert (run.verdict, run.exit_code) == ("FAILED", 2)
    assert run.why.endswith("infertune: it went wrong.")


def test_a_schedule_that_is_killed_finds_its_session_again_and_waits_for_it(home, command):
    (home / "hang").touch()
    make_due(home)
    with running(home, command) as schedule:
        until((home / "calls").exists)
        schedule.kill()
        schedule.wait()
    (home / "hang").unlink()
    once(home, command)
    assert len(calls(home)) == 1
    assert [run.verdict for run in ScheduleStore(home).runs(state="ended")] == ["MET"]


def test_a_session_that_was_killed_too_is_resumed(home, command):
    (home / "hang").touch()
    hardware = {"cpu": "c", "architecture": "a", "cores": 1, "memory_mb": 1, "flags": []}
    make_due(home)
    started = {
        "session": "20260601-000000-abcd", "target": "digits-tiny", "tracking_uri": "x", "fresh": False,
        "created": "2126-01-01T00:00:00+00:00", "time_budget_s": None, "hardware": hardware, "versions": {},
        "availability": {}, "policy": "1", "protocol": "1",
    }  # fmt: skip
    from tools.journal import Journal

    Journal(home / "journal").append("started", started)
    with running(home, command) as schedule:
        until((home / "sessions").exists)
        schedule.kill()
        schedule.wait()
    for process in psutil.process_iter(["environ"]):
        if NAME in (process.info["environ"] or {}) and str(home) in " ".join(process.cmdline()):
            process.kill()
            psutil.wait_procs([process], timeout=10)
    (home / "hang").unlink()
    once(home, command)
    assert [arguments[0] for arguments in calls(home)] == ["optimize", "resume"]
    assert calls(home)[1][1] == "20260601-000000-abcd"
    assert ScheduleStore(home).runs(state="ended")[0].verdict == "MET"


def test_a_run_that_is_taken_up_after_the_advisor_was_taken_away_goes_without_it(home, command, monkeypatch):
    (home / "hang").touch()
    monkeypatch.setenv("INFERTUNE_MODEL", "m")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    make_due(home, advisor=True)
    with running(home, command) as schedule:
        until((home / "calls").exists)
        schedule.send_signal(signal.SIGTERM)
        assert schedule.wait(30) == 0
    monkeypatch.setenv("OPENAI_BASE_URL", "127.0.0.1:9")
    (home / "hang").unlink()
    once(home, command)
    before, after = calls(home)
    assert (before[0], after[0]) == ("optimize", "optimize")
    assert "--advisor" in before
    assert "--advisor" not in after
    assert ScheduleStore(home).runs(state="ended")[0].verdict == "MET"


def test_sigterm_ends_schedule_and_session_and_the_run_is_taken_up(home, command):
    (home / "hang").touch()
    make_due(home)
    with running(home, command) as schedule:
        until((home / "calls").exists)
        schedule.send_signal(signal.SIGTERM)
        assert schedule.wait(30) == 0
    assert [run.state for run in ScheduleStore(home).runs()] == ["begun"]
    (home / "hang").unlink()
    once(home, command)
    assert [run.state for run in ScheduleStore(home).runs()] == ["ended"]


def test_a_schedule_that_sleeps_hears_of_a_new_entry_and_a_second_one_is_refused(home, command):
    with running(home, command):
        until((home / "schedule.lock").exists)
        until((home / OUTBOX).exists)
        time.sleep(0.3)
        with pytest.raises(BusyError, match="runs on this home already"):
            once(home, command)
        make_due(home)
        daemon.call(home)
        until((home / "calls").exists)


def test_a_session_that_hangs_is_ended_with_its_group(home, command, monkeypatch):
    (home / "hang").touch()
    entry = make_due(home)
    monkeypatch.setattr("agent.scheduling.processes.OVERTIME_S", 0.0)
    monkeypatch.setattr("agent.scheduling.processes.GRACE_S", 5.0)
    with daemon.wakeups(home) as pause:
        run = ScheduleStore(home).note(Run(entry=entry.id, state="begun", due_s=0, begun_s=time.time()))
        ended = Processes(home, pause, command=command).carry_out(entry, run, 0.5)
    assert ended.verdict == "FAILED"
    assert ended.exit_code == -signal.SIGINT or ended.exit_code == 1


def test_a_real_session_that_is_killed_with_its_schedule_is_resumed_and_then_nothing_has_changed(
    home, tmp_path, monkeypatch
):
    monkeypatch.setenv("QUICK_RUNTIMES", "onnxruntime")
    spec, quick = write_spec(tmp_path, search={"max_trials": 1}), [sys.executable, str(QUICK_CLI)]
    (entry,) = add(home, str(spec), Wishes(cron="0 3 * * *", budget_s=60))
    due_again(home, entry)
    with running(home, quick) as schedule:
        until(lambda: any((home / "raw").glob("*")))  # something was measured
        family = psutil.Process(schedule.pid).children(recursive=True)
        for process in (schedule, *family):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=10)
    measured = {path.name for path in (home / "raw").iterdir()}
    for _ in range(2):
        due_again(home, entry)
        once(home, quick)
    done, passed_over = ScheduleStore(home).runs()
    assert done.verdict in ("MET", "INFEASIBLE"), done.why
    assert [folder.name for folder in (home / "sessions").iterdir()] == [done.session]
    assert (home / "sessions" / done.session / "result.json").exists()
    assert measured <= {path.name for path in (home / "raw").iterdir()}
    assert passed_over.why.startswith("Nothing has changed")


# A timetable elsewhere: `schedule tick`


@pytest.fixture
def tick(home, command, monkeypatch):
    """Call the command, with the stand-in as the session; return its exit code and what it said."""
    from typer.testing import CliRunner

    import agent.schedule

    monkeypatch.setattr(agent.schedule, "look_once", functools.partial(daemon.look_once, command=command))
    app: typer.Typer = agent.cli_schedule.app

    def call(*arguments, target="digits-tiny"):
        done = CliRunner().invoke(app, ["tick", target, "--home", str(home), *map(str, arguments)])
        if isinstance(done.exception, InfertuneError):
            raise done.exception
        return done.exit_code, done.output

    return call


def test_a_tick_runs_for_a_reason_and_not_again_without_one(home, tick):
    code, said = tick("--budget", 600)
    assert code == 0
    assert "There is no recommendation yet." in said
    assert calls(home)[0][:4] == ["optimize", "digits-tiny", "--time-budget", "600"]
    code, said = tick()
    assert code == 0
    assert "skipped. Nothing has changed that matters." in said
    assert len(calls(home)) == 1
    (row,) = rows(home)
    assert (row["verdict"], row["next"], row["cron"]) == ("MET", None, "when told, by `schedule tick`")


def test_what_a_tick_runs_may_have_an_advisor_where_one_is_set_up(home, tick, monkeypatch):
    monkeypatch.setenv("INFERTUNE_MODEL", "m")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    tick("--advisor", "--budget", 60)
    assert calls(home)[0][2:5] == ["--time-budget", "60", "--advisor"]
    (home / "calls").unlink()
    monkeypatch.delenv("INFERTUNE_MODEL")
    code, said = tick("--advisor", "--max-age-days", 0.01, target=str(write_spec(home)))
    assert code == 0
    assert "--advisor" not in calls(home)[0]
    assert "Without an advisor: INFERTUNE_MODEL is not set." in said


@pytest.mark.parametrize(
    ("verdict", "child", "expected"), [("INFEASIBLE", 3, 3), ("UNSTABLE", 3, 3), (None, 2, 2), (None, 1, 1)]
)
def test_a_tick_ends_as_its_session_did(home, tick, verdict, child, expected):
    (home / "code").write_text(str(child))
    if verdict is not None:
        (home / "verdict").write_text(verdict)
    assert tick()[0] == expected


def test_a_tick_tells_the_webhook_of_its_environment_even_if_the_spec_is_broken(home, tick, tmp_path, monkeypatch):
    receiver = Receiver()
    spec = write_spec(tmp_path)
    monkeypatch.setenv("INFERTUNE_WEBHOOK_SECRET", "s3cret")
    with receiver.listening() as url:
        monkeypatch.setenv("INFERTUNE_WEBHOOK", f"{url}\n")  # as `--from-file` of kubectl has it
        assert tick(target=str(spec))[0] == 0
        spec.write_text("workload: 3")
        code, said = tick(target=str(spec))
    assert code == 2
    assert "workload" in said
    events = [json.loads(body) for _, body, _ in receiver.got]
    assert [event["event"] for event in events] == ["run_ended", "run_failed"]
    assert "s3cret" not in said + str(events)


def test_a_tick_of_a_spec_that_is_not_there_leaves_no_trace(home, tick):
    with pytest.raises(InfertuneError, match="no such file"):
        tick(target="nowhere.yaml")
    assert list(home.iterdir()) == []


def test_a_tick_beside_a_schedule_of_the_same_home_is_refused(home, tick, command):
    make_due(home)
    with pytest.raises(InfertuneError, match=r"on the schedule of this home already \(0 3 \* \* \* UTC\)"):
        tick()
    with running(home, command):
        until((home / OUTBOX).exists)
        until((home / "calls").exists)
        with pytest.raises(BusyError, match="runs on this home already"):
            tick(target=str(write_spec(home)))
    assert len(calls(home)) == 1


def test_a_tick_that_is_stopped_is_taken_up_by_the_next(home, tick, command):
    (home / "hang").touch()
    code = "import sys, agent.scheduling.daemon as d, agent.cli_schedule as c; d.look_once.__kwdefaults__['command'] = "
    code += "sys.argv[3:]; sys.argv[3:] = []; c.app(['tick', 'digits-tiny', '--home', sys.argv[1]])"
    with subprocess.Popen([sys.executable, "-c", code, home, "-", *command], cwd=REPOSITORY) as process:
        until((home / "calls").exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130
    assert [run.state for run in ScheduleStore(home).runs()] == ["begun"]
    (home / "hang").unlink()
    code, said = tick()
    assert code == 0
    assert "taking up what was interrupted" in said
    assert [run.state for run in ScheduleStore(home).runs()] == ["ended"]


def test_metrics_tell_runs_by_verdict_and_reason_and_what_waits(world, secret):
    world.add(**secret)
    world.live(days=2)
    store, outbox = ScheduleStore(world.home), Outbox(world.home / OUTBOX)
    with serving(world.home, store, outbox, 0) as port:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        with pytest.raises(InfertuneError, match="metrics-port"), serving(world.home, store, outbox, port):
            pass
    assert 'infertune_schedule_runs_total{reason="first",verdict="MET"} 1.0' in text
    assert 'infertune_schedule_last_duration_seconds{workload="digits-tiny"} 3600.0' in text
    assert "infertune_schedule_last_success_timestamp_seconds" in text
    assert "infertune_schedule_pending_plans 0.0" in text
    assert 'infertune_schedule_outbox{state="waiting"} 1.0' in text
