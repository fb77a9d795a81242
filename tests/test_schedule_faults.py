"""Faults of a schedule: clocks that jump, specs that vanish, disks that fail, webhooks that are down."""

# ruff: noqa: F811  (fixtures are imported, and named as arguments)

import contextlib
import datetime as dt
import itertools
import subprocess
import sys

import pytest
from schedule_support import BERLIN, REPOSITORY, calls, command, home, make_due, once, secret, world  # noqa: F401
from session_support import write_spec
from typer.testing import CliRunner

import agent.cli_schedule
from agent.schedule import Wishes, add
from agent.scheduling.facts import gather
from agent.scheduling.store import ScheduleStore
from agent.scheduling.times import CronLine
from agent.scheduling.timetable import open_timetable
from tools.errors import SpecError, StorageError
from tools.outbox import OUTBOX, Outbox


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


def test_a_store_that_is_no_database_or_cannot_be_written_is_told(home):
    (home / "schedule.db").write_text("no database at all, but a text that is long enough" * 50)
    with pytest.raises(StorageError, match=r"schedule\.db"):
        add(home, "digits-tiny", Wishes(cron="0 3 * * *"))


# Clocks


@pytest.mark.parametrize("line", ["30 2 * * *", "0 3 * * *", "0 * * * *", "*/30 2 * * *", "15 1-3 * * *"])
@pytest.mark.parametrize(("year", "month", "day"), [(2026, 3, 28), (2026, 10, 24)])
def test_each_time_of_a_line_is_looked_at_once_whatever_the_clocks_do(world, line, year, month, day):
    world.now_s = dt.datetime(year, month, day, 12, tzinfo=BERLIN).timestamp()
    world.add(cron=line, timezone="Europe/Berlin")
    world.takes_s = 1.0
    world.live(days=2)
    runs = sorted((*world.runs(), *world.runs("skipped")), key=lambda run: run.due_s)
    times = [run.due_s for run in runs]
    assert len(set(times)) == len(times)
    cron, moment, expected = CronLine(line, "Europe/Berlin"), dt.datetime(year, month, day, 12, tzinfo=BERLIN), []
    while (moment := cron.next_after(moment)).timestamp() < world.now_s:
        expected.append(moment.timestamp())
    assert times == expected
    if line == "0 * * * *":
        assert len(times) == 47, "each hour that passes"
        assert {after - before for before, after in itertools.pairwise(times)} == {3600.0}
    if line == "30 2 * * *":
        assert len(times) == 2, "each night"


@pytest.mark.parametrize(("month", "day"), [(3, 28), (10, 24)])
def test_quiet_hours_are_kept_and_left_at_a_change_of_the_clocks(world, month, day):
    world.now_s = dt.datetime(2026, month, day, 12, tzinfo=BERLIN).timestamp()
    world.add(cron="20 * * * *", timezone="Europe/Berlin", quiet=("02:15-02:45",), max_age_days=0.01)
    world.takes_s = 60.0
    world.live(days=2)
    begun = [dt.datetime.fromtimestamp(run.begun_s, BERLIN) for run in world.runs()]
    assert not [moment for moment in begun if moment.hour == 2 and 15 <= moment.minute < 45]
    assert len(begun) == 48, "what was put off for minutes is run, and not a day later"
    waits_s = [run.begun_s - run.due_s for run in world.runs()]
    assert max(waits_s) < 60.0, "what is put off is due when the quiet hours end"


def test_a_clock_that_is_set_back_an_hour_repeats_nothing_and_loses_nothing(world):
    world.add()
    world.live(days=1.3)
    world.now_s -= 3600
    world.live(days=2)
    nights = [run.due_s for run in (*world.runs(), *world.runs("skipped"))]
    assert len(world.sessions) == 1
    assert len(nights) == len(set(nights)) == 4


def test_a_clock_that_is_set_back_right_after_a_run_does_not_run_its_time_again(world):
    world.add(max_age_days=0.01)
    world.now_s += 3 * 3600
    world.tick()
    world.now_s -= 3600 + 1800  # it shows half past two again
    world.live(days=0.5)
    assert len(world.sessions) == 1


def test_a_clock_that_is_set_forward_a_day_is_caught_up_with_once(world):
    world.add(cron="0 * * * *")
    world.live(days=1)
    before = len(world.runs("skipped"))
    world.now_s += 86_400
    world.tick()
    assert len(world.runs("skipped")) == before + 1
    world.tick()
    assert len(world.runs("skipped")) == before + 1


def test_a_clock_that_was_years_ahead_stops_no_schedule(world):
    world.add(daily_budget_s=3600.0)
    right_s, world.now_s = world.now_s, world.now_s + 10 * 365 * 86_400
    world.tick()
    assert len(world.sessions) == 1
    world.now_s = right_s
    world.live(days=3)
    ended = world.runs()
    assert [reason.kind for run in ended for reason in run.reasons] == ["first", "age"]
    assert "days ahead" in ended[1].reasons[0].text
    night = dt.datetime.fromtimestamp(ended[1].due_s, dt.UTC)
    assert (night.year, night.day, night.hour) == (2026, 2, 3)
    assert len(world.runs("skipped")) == 1


def test_quiet_hours_that_put_off_are_not_taken_for_a_clock_that_was_set_back(world):
    world.add(cron="*/5 * * * *", quiet=("00:00-23:00",))
    world.live(days=0.9)
    assert len(world.runs("deferred")) == 1
    assert world.sessions == []


# Specs


@pytest.mark.parametrize("text", [None, "workload: 3\n", "workload: {name: [\n", "\x00"])
def test_a_spec_that_vanished_or_broke_is_told_once_a_day_and_run_again_when_it_is_back(world, tmp_path, secret, text):
    spec = write_spec(tmp_path)
    good = spec.read_text()
    (entry,) = add(world.home, str(spec), Wishes(cron="0 * * * *", **secret))
    with open_timetable(world.home) as timetable:
        timetable.put(entry, dt.datetime.fromtimestamp(world.now_s, dt.UTC))
    world.look = gather
    world.live(days=0.5)
    assert len(world.sessions) == 1
    if text is None:
        spec.unlink()
    else:
        spec.write_text(text)
    world.live(days=0.4)
    broken = [run for run in world.runs("skipped") if run.exit_code == 2]
    assert len(broken) > 5
    assert "tuning.yaml" in broken[0].why
    waiting = Outbox(world.home / OUTBOX, clock=lambda: world.now_s).counts().waiting
    assert waiting == 2, "the run, and the broken spec once"
    spec.write_text(good.replace("p99_ms: 10000", "p99_ms: 10001"))
    world.live(days=0.1)
    assert [reason.kind for reason in world.runs()[-1].reasons] == ["spec"]


# Disks


def test_a_home_that_cannot_be_written_is_told_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    where = tmp_path / "file" / "home"
    add_it = ["add", "digits-tiny", "--cron", "0 3 * * *"]
    for arguments in (add_it, ["run", "--once"], ["tick", "digits-tiny"], ["list"], ["remove", "digits-tiny"]):
        done = CliRunner().invoke(agent.cli_schedule.app, [*arguments, "--home", str(where)])
        assert isinstance(done.exception, StorageError)
        assert str(where) in str(done.exception)
        assert "INFERTUNE_HOME" in str(done.exception)
    code = "import sys, agent.cli; agent.cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "schedule", *add_it, "--home", where],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert str(where) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("largest_kb", [1, 4, 12, 20])
def test_a_disk_that_is_full_loses_nothing(home, command, largest_kb):
    make_due(home)
    code = "import sys; from pathlib import Path; from agent.scheduling.daemon import run; "
    code += "run(Path(sys.argv[1]), once=True, metrics_port=None, say=print, command=sys.argv[2:])"
    full = f'ulimit -f {largest_kb}; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", full, "-", sys.executable, "-c", code, home, *command],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "StorageError" in done.stderr
    once(home, command)
    (run,) = ScheduleStore(home).runs()
    assert (run.state, run.verdict) == ("ended", "MET")
    assert len(calls(home)) == 1


# The command line's refusals


@pytest.mark.parametrize(("line", "says"), [("0 3 31 2 *", "never comes"), ("0 3 31 4,6,9,11 *", "never comes")])
def test_a_line_that_never_fires_is_refused_when_it_is_added_and_nothing_is_written(tmp_path, line, says):
    home = tmp_path / "home"
    done = CliRunner().invoke(agent.cli_schedule.app, ["add", "digits-tiny", "--cron", line, "--home", str(home)])
    assert isinstance(done.exception, SpecError)
    assert says in str(done.exception)
    assert line in str(done.exception)
    assert not home.exists()
