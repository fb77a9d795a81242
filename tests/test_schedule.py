"""Scheduled runs: when, why, whether now; and nothing lost or done twice whatever is killed."""

import contextlib
import datetime as dt
import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from prometheus_support import start_prometheus  # noqa: F401 - a fixture
from session_support import QUICK_CLI, USER_CODE, write_spec
from test_notify import Receiver
from typer.testing import CliRunner

import agent.cli_schedule
from agent.schedule import Wishes, add, remove, rows, table
from agent.scheduling import daemon
from agent.scheduling.facts import gather, hourly_means
from agent.scheduling.metrics import serving
from agent.scheduling.processes import NAME, Ended, Processes
from agent.scheduling.store import Run, ScheduleStore
from agent.scheduling.ticks import Ticker
from agent.scheduling.times import CronLine, quiet_until, read_quiet, zone
from agent.scheduling.timetable import open_timetable
from simulations import schedule_week
from simulations.prometheus_week import service_life
from tools.errors import InfertuneError, SpecError, StorageError
from tools.lock import BusyError
from tools.outbox import OUTBOX, Outbox
from tools.reasons import Facts, judge
from tools.traffic.trace import Trace

BERLIN = ZoneInfo("Europe/Berlin")
MONDAY = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
STAND_IN = """\
import json, pathlib, sys, time
home = pathlib.Path(sys.argv[sys.argv.index("--home") + 1])
with (home / "calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + chr(10))
if (home / "journal").exists() and sys.argv[1] == "optimize":  # a session that begins, and does not come to its end
    folder = home / "sessions" / "20260601-000000-abcd"
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").write_text((home / "journal").read_text())
while (home / "hang").exists():
    time.sleep(0.02)
code = int((home / "code").read_text()) if (home / "code").exists() else 0
if code:
    print("infertune: it went wrong.", file=sys.stderr)
    sys.exit(code)
print(json.dumps({"verdict": "MET", "session": "s", "summary": "done", "plan": None}))
"""
"""In place of `infertune`: notes what it was called with."""


# When


def times(line, begin, count, timezone="Europe/Berlin"):
    cron, found = CronLine(line, timezone), []
    for _ in range(count):
        begin = cron.next_after(begin)
        found.append(begin.astimezone(dt.UTC))
    return found


def utc(*parts):
    return dt.datetime(*parts, tzinfo=dt.UTC)


def test_an_hour_that_does_not_exist_is_made_up_for_right_after_it():
    found = times("30 2 * * *", dt.datetime(2026, 3, 28, 12, tzinfo=BERLIN), 2)
    assert found == [utc(2026, 3, 29, 1, 30), utc(2026, 3, 30, 0, 30)]


def test_an_hour_that_comes_twice_runs_a_nightly_line_once_and_an_hourly_one_twice():
    begin = dt.datetime(2026, 10, 24, 23, 30, tzinfo=BERLIN)
    assert times("30 2 * * *", begin, 2) == [utc(2026, 10, 25, 0, 30), utc(2026, 10, 26, 1, 30)]
    assert times("0 * * * *", begin, 5) == [
        utc(2026, 10, 24, 22 + h) if h < 2 else utc(2026, 10, 25, h - 2) for h in range(5)
    ]


def test_weekdays_are_those_of_cron():
    sunday = dt.datetime(2026, 6, 7, 3, tzinfo=dt.UTC)
    for line in ("0 3 * * 0", "0 3 * * 7", "0 3 * * sun"):
        assert times(line, MONDAY, 1, "UTC") == [sunday]
    assert [t.day for t in times("0 3 * * 1-5", MONDAY, 6, "UTC")] == [1, 2, 3, 4, 5, 8]
    assert [t.day for t in times("0 3 * * */2", MONDAY, 4, "UTC")] == [2, 4, 6, 7]


def test_a_day_of_the_month_or_a_weekday_is_enough():
    assert [t.day for t in times("0 3 13 * 5", MONDAY, 4, "UTC")] == [5, 12, 13, 19]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
        ("61 * * * *", "61"),
        ("* * * *", "4 fields"),
        ("@daily", "1 fields"),
        ("0 0 ? * *", "'?' is no day"),
        ("0 0 * * 8", "8"),
        ("0 0 * * 5-1", "ends before it begins"),
        ("0 0 * foo *", "foo"),
        ("*/0 * * * *", "Increment"),
        ("", "0 fields"),
    ],
)
def test_a_line_that_is_none_or_never_comes_is_refused_with_what_is_wrong(line, says):
    with pytest.raises(SpecError) as refused:
        CronLine(line, "UTC")
    assert says in str(refused.value)


def test_a_zone_that_does_not_exist_is_refused():
    with pytest.raises(SpecError, match="Mars"):
        CronLine("0 3 * * *", "Mars/Phobos")


@given(
    minutes=st.integers(0, 366 * 1440), line=st.sampled_from(["7 3 * * *", "*/20 * * * *", "0 4 1 * 1", "30 2 * * 0"])
)
def test_the_next_time_is_later_and_there_is_none_in_between(minutes, line):
    moment = utc(2026, 1, 1) + dt.timedelta(minutes=minutes)
    cron = CronLine(line, "Europe/Berlin")
    following = cron.next_after(moment)
    assert following.timestamp() > moment.timestamp()
    middle = moment + (following - moment) / 2
    assert cron.next_after(middle) == following


def test_quiet_hours_may_cross_midnight_and_follow_each_other():
    quiet = (read_quiet("22:00-06:00"), read_quiet("06:00-08:00"))
    night = dt.datetime(2026, 3, 28, 23, tzinfo=BERLIN)
    assert quiet_until(quiet, night) == dt.datetime(2026, 3, 29, 8, tzinfo=BERLIN)
    assert quiet_until(quiet, dt.datetime(2026, 3, 28, 8, tzinfo=BERLIN)) is None
    with pytest.raises(SpecError, match="no time to run"):
        quiet_until((read_quiet("00:00-12:00"), read_quiet("12:00-00:00")), night)
    for text in ("8-9", "25:00-26:00", "08:00-08:00", ""):
        with pytest.raises(SpecError, match="--quiet"):
            read_quiet(text)


# Whether and why: ticks with a clock that is passed in, and a real store


class CrashError(Exception):
    """The process died here."""


class World:
    """A home, a clock, facts, and sessions that take an hour each."""

    def __init__(self, home):
        self.home = home
        self.now_s = MONDAY.timestamp()
        self.spec = "1"
        self.sessions = []
        self.verdicts = []
        self.plan = None
        self.takes_s = 3600.0
        self.stops = False
        self.crash_after = None
        self.said = []
        self.broken = None

    def look(self, _target, now_s):
        if self.broken is not None:
            raise self.broken
        return Facts(at_s=now_s, spec=self.spec, hardware="h")

    def carry_out(self, entry, run, budget_s):
        self.sessions.append((entry.name, run.id, budget_s))
        if self.stops:
            return None
        self.now_s += self.takes_s
        verdict = self.verdicts.pop(0) if self.verdicts else "MET"
        return Ended(verdict, 0, "s", "done", self.plan)

    def step(self):
        """Count down to a crash."""
        if self.crash_after is not None:
            self.crash_after -= 1
            if self.crash_after < 0:
                raise CrashError

    def tick(self):
        """One look at what is due, by a process that has just started."""
        world = self

        class Store(ScheduleStore):
            def note(self, run):
                world.step()
                noted = super().note(run)
                world.step()
                return noted

        class Box(Outbox):
            def put(self, *arguments):
                world.step()
                return super().put(*arguments)

        with open_timetable(self.home) as timetable:
            ticker = Ticker(
                self.home,
                store=Store(self.home),
                timetable=timetable,
                outbox=Box(self.home / OUTBOX, clock=lambda: self.now_s),
                runs=self,
                look=self.look,
                clock=lambda: self.now_s,
                say=self.said.append,
            )
            done = ticker.tick()
            return done, ticker.next_s()

    def live(self, *, days):
        """Tick whenever something is due."""
        until_s = self.now_s + days * 86_400
        while True:
            _, next_s = self.tick()
            if next_s >= until_s:
                self.now_s = until_s
                return
            self.now_s = max(self.now_s, next_s)

    def add(self, **wishes):
        (entry,) = add(self.home, "digits-tiny", Wishes(**{"cron": "0 3 * * *", **wishes}))
        with open_timetable(self.home) as timetable:  # by the world's clock
            timetable.put(entry, dt.datetime.fromtimestamp(self.now_s, dt.UTC))
        return entry

    def runs(self, state="ended"):
        return ScheduleStore(self.home).runs(state=state)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "home")


@pytest.fixture
def secret(tmp_path):
    (tmp_path / "secret").write_text("s3cret")
    return {"webhook": "http://127.0.0.1:9/hook", "webhook_secret_file": tmp_path / "secret"}


def test_a_week_without_a_change_is_one_run_and_six_times_why_not(world):
    world.add()
    world.live(days=7)
    assert len(world.sessions) == 1
    assert [run.why for run in world.runs("skipped")] == ["Nothing has changed that matters."] * 6
    assert [r.kind for r in world.runs()[0].reasons] == ["first"]


def test_a_change_is_run_for_once_at_the_next_time(world):
    world.add()
    world.live(days=2)
    world.spec = "2"
    world.live(days=3)
    assert [[r.kind for r in run.reasons] for run in world.runs()] == [["first"], ["spec"]]


def test_evidence_is_renewed_when_it_is_old(world):
    world.add(max_age_days=3)
    world.live(days=9)
    assert [run.reasons[0].kind for run in world.runs()] == ["first", "age", "age"]


def test_times_missed_while_it_was_off_are_caught_up_once(world):
    world.add(cron="0 * * * *")
    world.now_s += 5 * 86_400
    world.tick()
    assert len(world.sessions) == 1
    world.tick()
    assert len(world.sessions) == 1
    assert world.runs("skipped") == ()


def test_a_run_longer_than_the_time_between_two_does_not_overlap_itself(world):
    world.takes_s = 5 * 3600
    world.add(cron="*/30 * * * *")
    world.live(days=0.5)
    assert len(world.sessions) == 1


def test_nothing_begins_in_quiet_hours_and_a_run_must_end_before_them(world):
    world.add(cron="0 9 * * *", quiet=("08:00-18:00", "20:00-07:00"), budget_s=36_000)
    world.live(days=1)
    (deferred,) = world.runs("deferred")
    assert "quiet" in deferred.why
    (run,) = world.runs()
    assert dt.datetime.fromtimestamp(run.begun_s, dt.UTC).hour == 18
    assert world.sessions[0][2] == 2 * 3600


def test_the_days_budget_is_kept(world):
    world.add(cron="0 * * * *", daily_budget_s=3600 + 1800, budget_s=5000, max_age_days=0.01)
    world.live(days=1)
    assert [budget for _, _, budget in world.sessions] == [5000, 1800]
    assert "0 s are left" in world.runs("skipped")[0].why
    world.live(days=1)
    assert len(world.sessions) == 4


def test_a_run_that_settles_nothing_is_tried_again_but_not_for_ever(world):
    world.verdicts = ["UNSTABLE"] * 50
    world.add(cron="0 */4 * * *")
    world.live(days=1)
    assert len(world.sessions) == 3
    assert "3 runs in a row" in world.runs("skipped")[0].why
    world.spec = "2"
    world.live(days=0.25)
    assert len(world.sessions) == 4


def test_a_spec_that_broke_is_told_once_a_day_and_the_schedule_goes_on(world, secret):
    world.broken = SpecError("is no spec.", where="tuning.yaml")
    world.add(cron="0 * * * *", **secret)
    world.live(days=1)
    assert world.sessions == []
    assert len(world.runs("skipped")) == 23
    assert Outbox(world.home / OUTBOX).counts().waiting == 1


def test_a_plan_that_waits_is_announced(world, secret):
    world.plan = {"digest": "0123456789abcdef", "state": "proposed"}
    world.add(**secret)
    world.live(days=1)
    assert Outbox(world.home / OUTBOX).counts().waiting == 2
    assert any("infertune plan approve 0123456789abcdef" in line for line in world.said)


def test_an_entry_that_is_removed_meanwhile_is_not_taken_up(world):
    entry = world.add()
    world.stops = True
    world.now_s += 86_400
    assert world.tick()[0] is False
    remove(world.home, entry.id)
    assert world.tick() == (True, None)
    assert world.runs()[0].why == "Its entry was removed."


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


def test_what_was_stopped_is_taken_up_before_anything_else_and_outside_quiet_hours(world):
    world.add(cron="0 7 * * *", quiet=("08:00-18:00",))
    world.now_s += 7 * 3600
    world.stops = True
    assert world.tick()[0] is False
    world.stops = False
    world.now_s += 2 * 3600
    done, next_s = world.tick()
    assert done
    assert dt.datetime.fromtimestamp(next_s, dt.UTC).hour == 18
    world.now_s = next_s
    world.tick()
    assert [run for _, run, _ in world.sessions] == [1, 1]
    assert world.runs()[0].verdict == "MET"


def test_summer_time_begins_and_ends_without_a_run_lost_or_doubled(world):
    world.now_s = dt.datetime(2026, 3, 27, 12, tzinfo=BERLIN).timestamp()
    world.add(cron="30 2 * * *", timezone="Europe/Berlin", max_age_days=0.01)
    world.live(days=4)
    assert len(world.sessions) == 4
    world.now_s = dt.datetime(2026, 10, 23, 12, tzinfo=BERLIN).timestamp()
    world.tick()  # the summer is caught up once
    world.live(days=4)
    assert len(world.sessions) == 4 + 1 + 4


def test_a_job_that_cannot_be_read_is_made_again_from_its_entry(world):
    import sqlite3

    entry = world.add()
    with contextlib.closing(sqlite3.connect(world.home / "schedule.db")) as connection, connection:
        connection.execute("DELETE FROM apscheduler_jobs")
    world.tick()
    with open_timetable(world.home) as timetable:
        assert timetable.next_of(entry.id) is not None


# Fleets, the table, facts


def test_a_folder_is_a_fleet_and_one_bad_spec_adds_none(tmp_path):
    for name in ("one", "two"):
        (tmp_path / "fleet" / name).mkdir(parents=True)
        write_spec(tmp_path / "fleet" / name)
    (tmp_path / "fleet" / "hpa.yaml").write_text("kind: HorizontalPodAutoscaler\n")
    home = tmp_path / "home"
    assert len(add(home, str(tmp_path / "fleet"), Wishes(cron="0 3 * * *"))) == 2
    assert len(add(home, str(tmp_path / "fleet"), Wishes(cron="0 4 * * *"))) == 2
    assert [row["cron"] for row in rows(home)] == ["0 4 * * * UTC"] * 2
    assert all(row["next"].endswith("04:00+00:00") for row in rows(home))
    (tmp_path / "fleet" / "three").mkdir()
    (tmp_path / "fleet" / "three" / "tuning.yaml").write_text("workload: 3")
    with pytest.raises(SpecError, match="three"):
        add(tmp_path / "other", str(tmp_path / "fleet"), Wishes(cron="0 3 * * *"))
    assert not (tmp_path / "other").exists()
    with pytest.raises(SpecError, match="2 entries"):
        remove(home, "small")


def test_the_table_says_what_was_not_done_and_why(world):
    world.add()
    assert table(world.home)[1].split()[1] == "digits-tiny"
    world.live(days=2)
    header, line = table(world.home)
    assert header.split() == ["id", "workload", "cron", "last", "run", "verdict", "why", "next"]
    assert "MET" in line
    assert "skipped: Nothing has changed that matters." in line


def test_hours_are_means_of_what_was_seen_and_an_hour_half_seen_does_not_count():
    trace = Trace(source="t", seconds=tuple(range(0, 9000, 60)), rps=(1.0,) * 60 + (3.0,) * 90, origin_s=86_400.0)
    assert hourly_means(trace) == ((24, 1.0), (25, 3.0))


def test_facts_name_the_users_code_and_change_with_it(tmp_path):
    code = tmp_path / "small.py"
    code.write_text((USER_CODE / "small.py").read_text())
    spec = write_spec(tmp_path, workload={
        "name": "small", "model": {"factory": f"{code}:build"}, "evaluation": {"factory": f"{code}:data"}
    })  # fmt: skip
    before = gather(str(spec), 1.0)
    assert list(before.files) == [str(code)]
    code.write_text(code.read_text() + "\n# another\n")
    assert gather(str(spec), 1.0).files != before.files


def test_traffic_and_p99_are_read_from_prometheus_and_an_outage_is_no_reason(tmp_path, start_prometheus):  # noqa: F811
    begin_s = 1_704_067_200
    rates = [100.0] * (2 * 1440) + [170.0] * (2 * 1440)
    url = start_prometheus(service_life(rates, start_s=begin_s, rps_per_replica=50, max_replicas=3))
    source = {"url": url, "preset": "ray-serve", "window_s": 2 * 86_400, "labels": {"deployment": "model"}}
    spec = write_spec(tmp_path, traffic={"prometheus": source}, objective={"p99_ms": 150})
    before = gather(str(spec), begin_s + 2 * 86_400)
    since = gather(str(spec), begin_s + 4 * 86_400)
    assert len(before.hourly_rps) == 48
    assert before.unknown == since.unknown == ()
    assert before.hourly_rps[20][1] == pytest.approx(100, rel=0.01)
    assert since.p99_ms > 150
    same_days = since.model_copy(update={"hourly_rps": tuple((h + 120, r) for h, r in since.hourly_rps)})
    assert [r.kind for r in judge(before, same_days, max_age_s=1e9).reasons] == ["traffic_level", "slo"]
    spec = write_spec(tmp_path, traffic={"prometheus": {**source, "url": "http://127.0.0.1:9"}})
    away = gather(str(spec), begin_s + 4 * 86_400)
    assert away.hourly_rps == ()
    assert "127.0.0.1:9" in away.unknown[0]


def test_the_simulated_week_runs_once_for_each_thing_that_happens(tmp_path):
    *_, looks, reasons, _, waiting = schedule_week.play(tmp_path)
    assert looks.startswith("21 looks: 8 runs")
    assert reasons == "The reasons: first, first, first, traffic_level, versions, versions, versions, workload."
    assert waiting.startswith("8 events")


# Processes and the daemon, for real


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def command(tmp_path):
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    return [sys.executable, str(tmp_path / "stand_in.py")]


def calls(home):
    return [json.loads(line) for line in (home / "calls").read_text().splitlines()] if (home / "calls").exists() else []


def make_due(home, **wishes):
    (entry,) = add(home, "digits-tiny", Wishes(**{"cron": "0 3 * * *", **wishes}))
    past = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    with open_timetable(home) as timetable:
        timetable.move_on(entry.id, past, until=past)
    return entry


def once(home, command):
    said = []
    daemon.run(home, once=True, metrics_port=None, say=said.append, command=command)
    return said


def until(condition):
    for _ in range(1500):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it did not happen within 30 s")


@contextlib.contextmanager
def running(home, command):
    """The schedule in a process of its own."""
    code = "import sys; from pathlib import Path; from agent.scheduling.daemon import run; "
    code += "run(Path(sys.argv[1]), once=False, metrics_port=None, say=print, command=sys.argv[2:])"
    with subprocess.Popen([sys.executable, "-c", code, home, *command], cwd=Path(__file__).parents[1]) as process:
        try:
            yield process
        finally:
            process.kill()


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
        "created": dt.datetime.now(dt.UTC).isoformat(), "time_budget_s": None, "hardware": hardware, "versions": {},
        "availability": {}, "policy": "1", "protocol": "1",
    }  # fmt: skip
    from tools.journal import Journal

    Journal(home / "journal").append("started", {**started, "created": "2126-01-01T00:00:00+00:00"})
    with running(home, command) as schedule:
        until((home / "sessions").exists)
        schedule.kill()
        schedule.wait()
    import psutil

    for process in psutil.process_iter(["environ"]):
        if NAME in (process.info["environ"] or {}) and str(home) in " ".join(process.cmdline()):
            process.kill()
            psutil.wait_procs([process], timeout=10)
    (home / "hang").unlink()
    once(home, command)
    assert [arguments[0] for arguments in calls(home)] == ["optimize", "resume"]
    assert calls(home)[1][1] == "20260601-000000-abcd"
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


def test_a_real_session_runs_on_schedule_and_the_next_time_nothing_has_changed(home, tmp_path, monkeypatch):
    monkeypatch.setenv("QUICK_RUNTIMES", "onnxruntime")
    spec = write_spec(tmp_path, search={"max_trials": 1})
    (entry,) = add(home, str(spec), Wishes(cron="0 3 * * *", budget_s=60))
    for _ in range(2):
        past = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
        with open_timetable(home) as timetable:
            timetable.move_on(entry.id, past, until=past)
        once(home, [sys.executable, str(QUICK_CLI)])
    done, passed_over = ScheduleStore(home).runs()
    assert done.verdict in ("MET", "INFEASIBLE"), done.why
    assert (home / "sessions" / done.session / "result.json").exists()
    assert passed_over.why.startswith("Nothing has changed")


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


# The commands


def test_commands_add_list_run_and_remove(home):
    runner, where = CliRunner(), ["--home", str(home)]
    app: typer.Typer = agent.cli_schedule.app
    added = runner.invoke(app, ["add", "digits-tiny", "--cron", "17 3 * * *", "--timezone", "Europe/Berlin", *where])
    assert added.exit_code == 0
    assert "17 3 * * * Europe/Berlin" in added.output
    assert runner.invoke(app, ["run", "--once", *where]).exit_code == 0
    listed = json.loads(runner.invoke(app, ["list", "--output", "json", *where]).output)
    assert listed[0]["workload"] == "digits-tiny"
    assert runner.invoke(app, ["remove", "digits-tiny", *where]).exit_code == 0
    assert "Nothing is scheduled" in runner.invoke(app, ["list", *where]).output


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({"quiet": ("8 to 9",)}, "--quiet"),
        ({"auto_approve_within": "min=2"}, "--auto-approve-within"),
        ({"webhook": "nowhere", "webhook_secret_env": "S"}, "--webhook"),
        ({"webhook": "http://h/", "webhook_secret_env": "SURELY_NOT_SET"}, "SURELY_NOT_SET"),
        ({"webhook": "http://h/"}, "exactly one"),
        ({"webhook_secret_env": "S"}, "--webhook"),
        ({"timezone": "Nowhere"}, "--timezone"),
    ],
)
def test_a_wish_that_cannot_be_kept_is_told_when_it_is_made(home, wishes, says):
    with pytest.raises(SpecError) as refused:
        add(home, "digits-tiny", Wishes(**{"cron": "0 3 * * *", **wishes}))
    assert says in str(refused.value)
    assert not (home / "schedule.db").exists()


def test_a_store_that_is_no_database_or_cannot_be_written_is_told(home):
    (home / "schedule.db").write_text("no database at all, but a text that is long enough" * 50)
    with pytest.raises(StorageError, match=r"schedule\.db"):
        add(home, "digits-tiny", Wishes(cron="0 3 * * *"))


def test_the_schedule_belongs_to_its_owner_alone(world):
    world.add()
    assert (world.home / "schedule.db").stat().st_mode & 0o077 == 0
    assert zone("UTC").key == "UTC"
