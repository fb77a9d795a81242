"""A week of scheduled runs in a second or two: what was run, what was not, and why.

Three services are on a nightly schedule in the week in which summer time begins. The schedule, its store, its
timetable, its outbox and the webhook are the real ones, on a clock that jumps from one time to the next; the traffic is
made up, and a session is an hour that passes. In that week a model is replaced, a service grows by two thirds, a
library is upgraded, a spec is broken for a night, the schedule is killed in the middle of a session, the machine is off
for a day, and the webhook is down at first.

    python -m simulations.schedule_week
"""

from __future__ import annotations

import contextlib
import datetime as dt
import http.server
import json
import math
import tempfile
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from agent.schedule import Wishes, add
from agent.scheduling.processes import Ended
from agent.scheduling.store import Entry, Run, ScheduleStore
from agent.scheduling.ticks import Ticker
from agent.scheduling.timetable import open_timetable
from tools.contracts import Contract
from tools.errors import SpecError
from tools.notify import send_due, signature
from tools.outbox import OUTBOX, Outbox
from tools.reasons import HOURS_PER_WEEK, Facts

ZONE = "Europe/Berlin"
BEGIN = dt.datetime(2026, 3, 24, 12, tzinfo=ZoneInfo(ZONE))
"""A Tuesday; on the Sunday after, 02:30 does not exist."""
DAYS = 7
SERVICES = ("classifier", "detector", "ranker")
CRON = "30 2 * * *"
QUIET = "07:00-21:00"
SECRET = "of the simulation"  # noqa: S105  it signs what is sent to ourselves
SESSION_S = 3600.0
NOISE = 0.05
"""Standard deviation of the logarithm of an hour's rate."""
WIDTH = 118
_DOES = {"ended": "ran", "skipped": "did not run", "deferred": "put off"}


class Happening(Contract):
    """Something that a schedule has to notice, or to live with."""

    at: dt.datetime
    what: str


HAPPENINGS = {
    "model": Happening(at=BEGIN + dt.timedelta(days=1), what="the detector's model is replaced"),
    "growth": Happening(at=BEGIN + dt.timedelta(days=2), what="the ranker grows by two thirds"),
    "killed": Happening(at=BEGIN + dt.timedelta(days=2), what="the schedule will be killed in its next session"),
    "webhook": Happening(at=BEGIN + dt.timedelta(days=2), what="the webhook, which was down, answers"),
    "off": Happening(at=BEGIN + dt.timedelta(days=4), what="the machine is switched off"),
    "library": Happening(at=BEGIN + dt.timedelta(days=5, hours=6), what="onnxruntime is upgraded"),
    "on": Happening(
        at=dt.datetime(2026, 3, 29, 19, tzinfo=ZoneInfo(ZONE)), what="the machine is on again, in quiet hours"
    ),
    "typo": Happening(at=dt.datetime(2026, 3, 30, 1, tzinfo=ZoneInfo(ZONE)), what="the classifier's spec gets a typo"),
    "mended": Happening(at=BEGIN + dt.timedelta(days=6), what="the typo is mended"),
}


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
        """Return what a look at a service would find now.

        Raises:
            SpecError: somebody broke its spec.
        """
        if service == "classifier" and self.happened("typo") and not self.happened("mended"):
            raise SpecError("`p99_sm` is no field.", where="tuning.yaml: objective", fix="Did you mean `p99_ms`?")
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
            raise KilledError(entry.name)
        self.now_s += SESSION_S
        return Ended("MET", 0, f"session of {entry.name}", "Every promise is kept.")


def _rate_rps(hour: int) -> float:
    """Return a service's rate in one hour: a day, a weekend, and noise that is the same whenever it is looked at."""
    weekend = 0.6 if (hour // 24 + 3) % 7 >= 5 else 1.0
    day = 100 + 80 * math.sin(2 * math.pi * (hour % 24 - 9) / 24)
    return weekend * day * math.exp(NOISE * float(np.random.default_rng(hour).standard_normal()))


@dataclass
class Webhook:
    """Who is told, and what: it checks each signature, and refuses everything while it is down."""

    world: World
    refused: int = 0
    seen: list[str] = field(default_factory=list)
    """Ids of events, as they came."""

    def take(self, body: bytes, timestamp: str, signed: str) -> int:
        """Return the HTTP status of the answer."""
        if not self.world.happened("webhook"):
            self.refused += 1
            return 503
        if signed != signature(SECRET.encode(), timestamp, body):
            return 401
        self.seen.append(json.loads(body)["id"])
        return 200

    @contextlib.contextmanager
    def listening(self) -> Iterator[str]:
        """Listen on loopback; yield the URL."""
        take = self.take

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = (self.headers[f"X-Infertune-{name}"] for name in ("Timestamp", "Signature"))
                self.send_response(take(body, *headers))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/told"
            finally:
                server.shutdown()
                thread.join()


def play(home: Path) -> Iterator[str]:
    """Play the week, and yield what happens as lines."""
    world = World()
    webhook = Webhook(world)
    with webhook.listening() as url:
        entries = _schedule(home, url)
        yield f"{len(entries)} services: {', '.join(SERVICES)}. Each is looked at every night ({CRON} {ZONE});"
        yield f"no session runs in quiet hours ({QUIET}). A session takes an hour, a look a moment."
        yield ""
        yield from _week(home, world, {entry.id: entry.name for entry in entries})
        yield ""
        yield from _summary(home, webhook)


def _schedule(home: Path, url: str) -> list[Entry]:
    for service in SERVICES:
        _write_service(home / "fleet" / service, service)
    secret = home / "secret"
    secret.write_text(SECRET)
    wishes = Wishes(cron=CRON, timezone=ZONE, quiet=(QUIET,), webhook=url, webhook_secret_file=secret)
    entries = add(home, str(home / "fleet"), wishes)
    with open_timetable(home) as timetable:
        for entry in entries:
            timetable.put(entry, BEGIN)
    return entries


def _week(home: Path, world: World, names: dict[str, str]) -> Iterator[str]:
    coming = sorted(HAPPENINGS.values(), key=lambda happening: happening.at)
    store, told, look_s = ScheduleStore(home), 0, world.now_s
    outbox = Outbox(home / OUTBOX, clock=lambda: world.now_s)
    end_s = (BEGIN + dt.timedelta(days=DAYS)).timestamp()
    while world.now_s < end_s:
        while coming and coming[0].at.timestamp() <= world.now_s:
            yield f"{_moment(coming[0].at.timestamp())}  ~ {coming.pop(0).what}"
        next_s = coming[0].at.timestamp() if coming else end_s
        if not world.happened("off") or world.happened("on"):
            if look_s <= world.now_s:
                try:
                    look_s = _tick(home, world, outbox, names)
                except KilledError as killed:
                    yield f"{_moment(world.now_s)}  ~ killed in the session of the {killed}, and started again"
                    look_s = world.now_s
            for run in store.runs():
                if run.id > told and run.state != "begun":
                    yield from _line(run, names[run.entry])
                    told = run.id
            send_due(outbox)
            next_s = min(next_s, look_s, outbox.next_s() or next_s)
        world.now_s = max(world.now_s, next_s)


def _tick(home: Path, world: World, outbox: Outbox, names: dict[str, str]) -> float:
    """Let a process that has just started look at what is due; return when the next should."""
    store = ScheduleStore(home)
    by_target = {entry.target: names[entry.id] for entry in store.entries().values()}
    with open_timetable(home) as timetable:
        ticker = Ticker(
            home,
            store=store,
            timetable=timetable,
            outbox=outbox,
            runs=world,
            look=lambda target, _: world.facts(by_target[target]),
            clock=lambda: world.now_s,
            say=lambda _: None,  # it is told from what is on record
        )
        ticker.tick()
        next_s = ticker.next_s()
    assert next_s is not None, "three services are scheduled"
    return next_s


def _line(run: Run, name: str) -> Iterator[str]:
    """Yield what became of one look: what was done, and for which reason."""
    reasons = " ".join(reason.text for reason in run.reasons)
    minutes = ((run.ended_s or run.begun_s) - run.begun_s) / 60
    text = f"{reasons} {run.verdict} after {minutes:.0f} minutes." if run.state == "ended" else run.why
    begin = f"{_moment(run.begun_s)}  {name:<10}  {_DOES[run.state]:<11}  "
    yield from textwrap.wrap(text, WIDTH, initial_indent=begin, subsequent_indent=" " * len(begin))


def _summary(home: Path, webhook: Webhook) -> Iterator[str]:
    store = ScheduleStore(home)
    ran, skipped, deferred = (store.runs(state=state) for state in ("ended", "skipped", "deferred"))
    kinds = Counter(reason.kind for run in ran for reason in run.reasons)
    broken = sum(run.exit_code is not None for run in skipped)
    looks = len(ran) + len(skipped) + len(deferred)
    yield (
        f"{looks} looks: {len(ran)} runs, {len(skipped) - broken} without a reason, {broken} at a broken spec, "
        f"{len(deferred)} put off."
    )
    yield f"The reasons: {', '.join(f'{kind} {count}' for kind, count in sorted(kinds.items()))}."
    yield f"{len(ran)} hours of the machine, where a session every night would have taken {len(SERVICES) * DAYS}."
    yield (
        f"The webhook was told {len(webhook.seen)} events, {len(set(webhook.seen))} of them different, after it had "
        f"refused {webhook.refused} tries; {Outbox(home / OUTBOX).counts().waiting} wait."
    )


def _write_service(folder: Path, name: str) -> None:
    folder.mkdir(parents=True)
    spec = f"workload: {{name: {name}, model: {{onnx: m.onnx}}, evaluation: {{npz: d.npz}}}}\n"
    (folder / "tuning.yaml").write_text(spec + "hardware: {price_per_hour_usd: 0.2}\n")


def _moment(at_s: float) -> str:
    return f"{dt.datetime.fromtimestamp(at_s, ZoneInfo(ZONE)):%a %d %H:%M}"


def main() -> None:
    """Play the week and print it."""
    with tempfile.TemporaryDirectory() as home:
        for line in play(Path(home)):
            print(line)  # noqa: T201  this is what it is for


if __name__ == "__main__":
    main()
