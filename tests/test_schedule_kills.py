"""Scheduled runs that are killed, at every step: each comes to one end and is told once."""

# ruff: noqa: F811  (fixtures are imported, and named as arguments)

import contextlib
import hashlib
import hmac
import json
import multiprocessing
import signal

import pytest
from schedule_child import run
from schedule_support import CrashError, calls, command, due_again, home, make_due, once, secret, world  # noqa: F401
from test_notify import Receiver

from agent.scheduling.store import ScheduleStore
from tools.outbox import OUTBOX, Outbox

SECRET = "s3cret"
# One server process imports everything; each schedule is a fork of it. It has no threads, other than this process.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["schedule_child", "agent.scheduling.facts", "sqlalchemy.dialects.sqlite", "psutil"])


@pytest.fixture
def receiver():
    return Receiver()


@pytest.fixture
def due(home, tmp_path, receiver):
    """An entry that is due, and a webhook that listens."""
    (tmp_path / "secret").write_text(SECRET)
    with receiver.listening() as url:
        yield make_due(home, webhook=url, webhook_secret_file=tmp_path / "secret")


@pytest.fixture
def until_step(home, command, tmp_path):
    """Run a schedule up to a step; return how many there were, or None if it was killed."""

    def until(last):
        result = tmp_path / "result"
        result.unlink(missing_ok=True)
        process = FORKS.Process(target=run, args=(str(home), command, last, str(result)))
        process.start()
        process.join()
        code = process.exitcode
        process.close()
        if code == 0:
            return int(result.read_text())
        assert code == -signal.SIGKILL
        return None

    return until


def delivered(receiver):
    """Return the events as a receiver sees them that checks the signature and knows what it has seen."""
    seen = {}
    for headers, body, _ in receiver.got:
        signed = headers["X-Infertune-Timestamp"].encode() + b"." + body
        expected = "sha256=" + hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(headers["X-Infertune-Signature"], expected)
        event = json.loads(body)
        assert seen.setdefault(event["id"], event) == event, "one id, one event"
    return list(seen.values())


def wipe(home):
    """Leave the home as it was before anything ran."""
    for path in [*home.glob("schedule/*"), home / "calls", *home.glob("*.db*")]:
        path.unlink(missing_ok=True)


def test_a_schedule_that_is_killed_at_any_step_runs_everything_once_and_tells_it_once(
    home, tmp_path, receiver, due, until_step
):
    steps, sent_twice = 0, 0
    while True:
        steps += 1
        lived = until_step(steps)
        if lived is not None:
            break
        assert until_step(0) is not None, "the next one finishes"
        (done,) = ScheduleStore(home).runs()
        assert (done.state, done.verdict) == ("ended", "MET"), f"killed at step {steps}"
        assert len(calls(home)) == 1, f"killed at step {steps}"
        (event,) = delivered(receiver)
        assert (event["event"], event["verdict"]) == ("run_ended", "MET")
        sent_twice += len(receiver.got) - 1
        assert until_step(0) is not None
        assert len(ScheduleStore(home).runs()) == 1, "and there is nothing more to do"
        assert Outbox(home / OUTBOX).counts() == (0, 1, 0)
        receiver.got.clear()
        wipe(home)
        make_due(home, webhook=due.webhook.url, webhook_secret_file=tmp_path / "secret")
    assert lived + 1 == steps > 20
    assert 0 < sent_twice < 4, "between the webhook's answer and our note of it"


@pytest.mark.parametrize(
    ("moment", "verdict"),
    [("begin", "FAILED"), ("journal", "FAILED"), ("half of its result", "FAILED"), ("after its result", "MET")],
)
def test_a_session_that_is_killed_at_any_step_ends_its_run_and_the_next_time_tries_again(
    home, command, receiver, due, moment, verdict
):
    (home / "die").write_text(moment)
    once(home, command)
    assert [run.verdict for run in ScheduleStore(home).runs()] == [verdict]
    due_again(home, due)
    once(home, command)
    runs = ScheduleStore(home).runs()
    assert [run.state for run in runs] == ["ended", "skipped" if verdict == "MET" else "ended"]
    assert [event["verdict"] for event in delivered(receiver)] == [verdict] + ["MET"] * (verdict == "FAILED")
    assert [arguments[0] for arguments in calls(home)] == ["optimize"] * len(delivered(receiver))
    if verdict == "FAILED":
        assert "-9" in runs[0].why


@pytest.mark.parametrize("step", range(8))
def test_killed_at_any_step_every_run_comes_to_one_end_and_is_told_once(world, secret, step):
    world.add(**secret)
    world.now_s += 86_400
    world.crash_after = step
    with contextlib.suppress(CrashError):
        world.tick()
    world.crash_after = None
    world.tick()
    assert len(world.runs()) == 1
    assert world.runs("begun") == ()
    assert len({run for _, run, _ in world.sessions}) == 1
    assert Outbox(world.home / OUTBOX).counts().waiting == 1
    world.live(days=3)
    assert len(world.runs()) == 1


def test_a_run_that_settled_nothing_and_was_noted_before_the_kill_is_not_run_again_for_the_same_time(world, secret):
    world.verdicts = ["UNSTABLE"]
    world.add(**secret)
    world.now_s += 86_400
    world.crash_after = 4  # after the run's end is noted, before its next time is
    with pytest.raises(CrashError):
        world.tick()
    world.crash_after = None
    world.tick()
    assert [run.verdict for run in world.runs()] == ["UNSTABLE"]
    assert len(world.sessions) == 1
    world.live(days=1)
    assert [run.verdict for run in world.runs()] == ["UNSTABLE", "MET"]
