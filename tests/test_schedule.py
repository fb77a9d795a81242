"""Scheduled runs: whether now, and why at all; the table, the commands."""

# ruff: noqa: F811  (fixtures are imported, and named as arguments)

import datetime as dt
import json

import pytest
import typer
from schedule_support import MONDAY, World, home, secret, world  # noqa: F401 - fixtures
from session_support import write_spec
from typer.testing import CliRunner

import agent.cli_schedule
from agent.schedule import Wishes, add, remove, rows, table
from agent.scheduling.store import KEEP_RUNS, Run, ScheduleStore
from agent.scheduling.times import zone
from agent.scheduling.timetable import open_timetable
from tools.errors import SpecError
from tools.outbox import OUTBOX, Outbox
from tools.reasons import Facts, Reason


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


def test_a_run_that_settles_nothing_is_tried_again_every_night_even_if_that_is_a_second_early(world):
    world.verdicts = ["UNSTABLE"] * 50
    world.takes_s = 60.0
    entry = world.add()
    for night in range(8):
        world.now_s = MONDAY.timestamp() + (night + 1) * (86_400 - 1)
        with open_timetable(world.home) as timetable:
            timetable.move_on(entry.id, MONDAY, until=dt.datetime.fromtimestamp(world.now_s, dt.UTC))
        world.tick()
    assert len(world.sessions) == 8


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


# Fleets and the table


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


def test_the_schedule_belongs_to_its_owner_alone(world):
    world.add()
    assert (world.home / "schedule.db").stat().st_mode & 0o077 == 0
    assert zone("UTC").key == "UTC"


# What is forgotten


def test_old_runs_are_forgotten_and_stay_counted_apart_from_the_latest_and_what_the_next_is_compared_with(tmp_path):
    store, day_s = ScheduleStore(tmp_path), 86_400.0
    first = Reason(kind="first", text="t")
    facts = Facts(at_s=0, spec="s", hardware="h")

    def note(number, **changes):
        begun_s = number * day_s
        said = {"state": "ended", "verdict": "UNSTABLE", "reasons": (first,), **changes}
        return store.note(Run(entry="e", due_s=begun_s, begun_s=begun_s, ended_s=begun_s + 60, **said))

    settled = note(0, verdict="MET", facts=facts)
    for number in range(1, KEEP_RUNS + 31):
        note(number)
    begun = note(5, state="begun", verdict=None)
    note(6, state="skipped", verdict=None)
    before = store.counts()
    for _ in range(2):
        store.prune((KEEP_RUNS + 20) * day_s)
        assert store.counts() == before == {("MET", "first"): 1, ("UNSTABLE", "first"): KEEP_RUNS + 30}
    left = store.runs()
    assert len(left) == KEEP_RUNS + 2
    assert {settled.id, begun.id} < {run.id for run in left}
    assert store.runs(state="skipped") == ()


# An advisor


@pytest.mark.parametrize(
    ("environment", "lacks"),
    [
        ({}, "INFERTUNE_MODEL is not set."),
        ({"INFERTUNE_MODEL": "m"}, "neither OPENAI_BASE_URL nor OPENAI_API_KEY is set."),
        ({"INFERTUNE_MODEL": "m", "OPENAI_API_KEY": ""}, "neither OPENAI_BASE_URL nor OPENAI_API_KEY is set."),
        ({"OPENAI_API_KEY": "sk-s3cret"}, "INFERTUNE_MODEL is not set."),
        ({"INFERTUNE_MODEL": "m", "OPENAI_BASE_URL": "s3cret.example:v1"}, "OPENAI_BASE_URL is no URL of an endpoint."),
        ({"INFERTUNE_MODEL": "m", "OPENAI_API_KEY": "sk-s3cret"}, None),
        ({"INFERTUNE_MODEL": "m", "OPENAI_BASE_URL": "http://user:s3cret@h/v1"}, None),
    ],
)
def test_a_run_goes_without_an_advisor_where_none_is_set_up_and_says_so(
    world,
    secret,
    monkeypatch,
    environment,
    lacks,
):
    for name in ("INFERTUNE_MODEL", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    world.add(advisor=True, **secret)
    world.live(days=1)
    (run,) = world.runs()
    event = json.loads(Outbox(world.home / OUTBOX, clock=lambda: world.now_s).claim().body)
    assert run.advisor is (lacks is None)
    assert event["notes"] == list(run.notes) == ([] if lacks is None else [f"Without an advisor: {lacks}"])
    assert lacks is None or any(lacks in line for line in world.said)
    assert "s3cret" not in "".join(world.said) + run.model_dump_json()


def test_without_the_wish_nobody_asks_for_an_advisor(world, monkeypatch):
    monkeypatch.setenv("INFERTUNE_MODEL", "m")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    world.add()
    world.live(days=1)
    assert (world.runs()[0].advisor, world.runs()[0].notes) == (False, ())
