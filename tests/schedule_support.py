"""Schedules for tests: a home whose clock is passed in, and one with real processes and a stand-in for `infertune`."""

import contextlib
import datetime as dt
import json
import subprocess
import sys
import time
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agent.schedule import Wishes, add
from agent.scheduling import daemon
from agent.scheduling.processes import Ended
from agent.scheduling.store import ScheduleStore
from agent.scheduling.ticks import Ticker
from agent.scheduling.timetable import open_timetable
from tools.outbox import OUTBOX, Outbox
from tools.reasons import Facts

REPOSITORY = Path(__file__).parents[1]
BERLIN = ZoneInfo("Europe/Berlin")
MONDAY = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
STAND_IN = """\
import json, os, pathlib, signal, sys, time
home = pathlib.Path(sys.argv[sys.argv.index("--home") + 1])
with (home / "calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + chr(10))
dies = (home / "die").read_text() if (home / "die").exists() else ""
(home / "die").unlink(missing_ok=True)
def die_at(moment):
    if dies == moment:
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
die_at("begin")
if (home / "journal").exists() and sys.argv[1] == "optimize":  # a session that begins, and does not come to its end
    folder = home / "sessions" / "20260601-000000-abcd"
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").write_text((home / "journal").read_text())
while (home / "hang").exists():
    time.sleep(0.02)
code = int((home / "code").read_text()) if (home / "code").exists() else 0
verdict = (home / "verdict").read_text() if (home / "verdict").exists() else "MET"
if code and verdict == "MET":
    print("infertune: it went wrong.", file=sys.stderr)
    sys.exit(code)
die_at("journal")
said = json.dumps({"verdict": verdict, "session": "s", "summary": "done", "plan": None})
print(said[:20], end="")
die_at("half of its result")
print(said[20:])
die_at("after its result")
sys.exit(code)
"""
"""In place of `infertune`: notes what it was called with."""


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
    due_again(home, entry)
    return entry


def due_again(home, entry):
    past = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    with open_timetable(home) as timetable:
        timetable.move_on(entry.id, past, until=past)


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
    with subprocess.Popen([sys.executable, "-c", code, home, *command], cwd=REPOSITORY) as process:
        try:
            yield process
        finally:
            process.kill()
