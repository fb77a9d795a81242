"""A week of scheduled runs in a second or two: what was run, what was not, and why.

Three services are on a nightly schedule in the week in which summer time begins. The schedule, its store, its timetable
and its outbox are the real ones, on a clock that jumps from one time to the next; the traffic is made up, and a session
is an hour that passes. In that week a model is replaced, a service grows by two thirds, a library is upgraded, the
schedule is killed in the middle of a session, the machine is off for a day, and the webhook is down.

    python -m simulations.schedule_week
"""

from __future__ import annotations

import datetime as dt
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from agent.schedule import Wishes, add
from agent.scheduling.processes import Ended
from agent.scheduling.store import Entry, Run, ScheduleStore
from agent.scheduling.ticks import Ticker
from agent.scheduling.timetable import open_timetable
from tools.contracts import Contract
from tools.outbox import OUTBOX, Outbox
from tools.reasons import HOURS_PER_WEEK, Facts

ZONE = "Europe/Berlin"
BEGIN = dt.datetime(2026, 3, 24, 12, tzinfo=ZoneInfo(ZONE))
"""A Tuesday; on the Sunday after, 02:30 does not exist."""
DAYS = 7
SERVICES = ("classifier", "detector", "ranker")
CRON = "30 2 * * *"
QUIET = "07:00-21:00"
DOWN = "http://127.0.0.1:9/down"
"""A webhook that nobody answers at, all week."""
SESSION_S = 3600.0
NOISE = 0.05
"""Standard deviation of the logarithm of an hour's rate."""


class Happening(Contract):
    """Something that a schedule has to notice."""

    at: dt.datetime
    what: str


HAPPENINGS = {
    "model": Happening(at=BEGIN + dt.timedelta(days=1), what="the detector's model is replaced"),
    "growth": Happening(at=BEGIN + dt.timedelta(days=2), what="the ranker grows by two thirds"),
    "killed": Happening(at=BEGIN + dt.timedelta(days=2), what="the schedule will be killed in its next session"),
    "off": Happening(at=BEGIN + dt.timedelta(days=4), what="the machine is off until Sunday 22:00"),
    "library": Happening(at=BEGIN + dt.timedelta(days=5, hours=6), what="onnxruntime is upgraded"),
}
BACK = dt.datetime(2026, 3, 29, 22, tzinfo=ZoneInfo(ZONE))


class KilledError(Exception):
    """Stands for `kill -9`."""


class World:
    """The week outside of the schedule: a clock, three services, and sessions that take an hour."""

    def __init__(self) -> None:
        self.now_s = BEGIN.timestamp()
        self._to_kill = True

    def happened(self, name: str) -> bool:
        """Whether this is in the past."""
        return self.now_s >= HAPPENINGS[name].at.timestamp()

    def facts(self, service: str) -> Facts:
        """Return what a look at a service would find now."""
        last_hour = int(self.now_s // 3600)
        grown_hour = HAPPENINGS["growth"].at.timestamp() // 3600 if service == "ranker" else math.inf
        hours = range(last_hour - HOURS_PER_WEEK, last_hour)
        return Facts(
            at_s=self.now_s,
            spec="the same all week",
            files={"model.onnx": "new" if service == "detector" and self.happened("model") else "old"},
            hardware="the same all week",
            versions={"onnxruntime": "1.32" if self.happened("library") else "1.31"},
            hourly_rps=tuple((hour, _rate_rps(hour) * (5 / 3 if hour >= grown_hour else 1.0)) for hour in hours),
        )

    def carry_out(self, entry: Entry, run: Run, budget_s: float | None) -> Ended:
        """Let an hour pass; once the schedule is killed in the middle of it."""
        del run, budget_s
        if self._to_kill and self.happened("killed"):
            self._to_kill = False
            self.now_s += SESSION_S / 2
            raise KilledError
        self.now_s += SESSION_S
        return Ended("MET", 0, f"session of {entry.name}", "every promise is kept")


def _rate_rps(hour: int) -> float:
    """Return a service's rate in one hour: a day, a weekend, and noise that is the same whenever it is looked at."""
    weekend = 0.6 if (hour // 24 + 3) % 7 >= 5 else 1.0
    day = 100 + 80 * math.sin(2 * math.pi * (hour % 24 - 9) / 24)
    return weekend * day * math.exp(NOISE * float(np.random.default_rng(hour).standard_normal()))


def play(home: Path) -> Iterator[str]:
    """Play the week, and yield what happens as lines."""
    world, said = World(), list[str]()
    for service in SERVICES:
        _write_service(home / "fleet" / service, service)
    secret = home / "secret"
    secret.write_text("of the simulation")
    wishes = Wishes(cron=CRON, timezone=ZONE, quiet=(QUIET,), webhook=DOWN, webhook_secret_file=secret)
    entries = add(home, str(home / "fleet"), wishes)
    with open_timetable(home) as timetable:
        for entry in entries:
            timetable.put(entry, BEGIN)
    told = dict.fromkeys(HAPPENINGS, False)
    end_s = (BEGIN + dt.timedelta(days=DAYS)).timestamp()
    while world.now_s < end_s:
        for name, happening in HAPPENINGS.items():
            if not told[name] and world.happened(name):
                told[name] = True
                yield f"{happening.at:%a %H:%M}   ~ {happening.what}"
        begun_s, next_s = world.now_s, _tick(home, world, said)
        yield from (f"{_moment(begun_s)}     {line}" for line in said)
        said.clear()
        following = min([next_s, *(h.at.timestamp() for h in HAPPENINGS.values() if h.at.timestamp() > world.now_s)])
        off = world.happened("off") and world.now_s < BACK.timestamp()
        world.now_s = BACK.timestamp() if off else max(world.now_s, following)
    yield ""
    yield from _summary(home)


def _tick(home: Path, world: World, said: list[str]) -> float:
    """Let a process that has just started look at what is due; return when the next should."""
    store, names = ScheduleStore(home), {e.target: e.name for e in ScheduleStore(home).entries().values()}
    with open_timetable(home) as timetable:
        ticker = Ticker(
            home,
            store=store,
            timetable=timetable,
            outbox=Outbox(home / OUTBOX, clock=lambda: world.now_s),
            runs=world,
            look=lambda target, _: world.facts(names[target]),
            clock=lambda: world.now_s,
            say=said.append,
        )
        try:
            ticker.tick()
        except KilledError:
            said.append("killed in the middle of a session; started again")
        next_s = ticker.next_s()
    assert next_s is not None, "three services are scheduled"
    return next_s


def _summary(home: Path) -> Iterator[str]:
    store = ScheduleStore(home)
    ran, skipped, deferred = (store.runs(state=state) for state in ("ended", "skipped", "deferred"))
    kinds = sorted(reason.kind for run in ran for reason in run.reasons)
    looks = len(ran) + len(skipped) + len(deferred)
    yield f"{looks} looks: {len(ran)} runs, {len(skipped)} without a reason, {len(deferred)} put off."
    yield f"The reasons: {', '.join(kinds)}."
    yield f"An hour's session at each look would have been {looks} hours of the machine; it was {len(ran)}."
    yield f"{Outbox(home / OUTBOX).counts().waiting} events wait for the webhook to come back."


def _write_service(folder: Path, name: str) -> None:
    folder.mkdir(parents=True)
    spec = f"workload: {{name: {name}, model: {{onnx: m.onnx}}, evaluation: {{npz: d.npz}}}}\n"
    (folder / "tuning.yaml").write_text(spec + "hardware: {price_per_hour_usd: 0.2}\n")


def _moment(at_s: float) -> str:
    return f"{dt.datetime.fromtimestamp(at_s, ZoneInfo(ZONE)):%a %H:%M}"


def main() -> None:
    """Play the week and print it."""
    with tempfile.TemporaryDirectory() as home:
        for line in play(Path(home)):
            print(line)  # noqa: T201  this is what it is for


if __name__ == "__main__":
    main()
