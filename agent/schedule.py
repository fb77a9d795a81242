"""The schedule of a home directory: adding specs to it, looking at it, taking them out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from agent.bounds import read_bounds
from agent.loading import read_spec
from agent.scheduling.daemon import call, look_once
from agent.scheduling.store import Entry, Run, ScheduleStore
from agent.scheduling.times import CronLine, quiet_until, read_quiet, zone
from agent.scheduling.timetable import open_timetable
from tools.contracts import digest_of
from tools.errors import InfertuneError, SpecError
from tools.outbox import Webhook
from tools.spec import describe_validation_error
from tools.workloads.bundled import BUNDLED

_DAY_S = 86_400.0
_ID = 8
_COLUMNS = ("id", "workload", "cron", "last run", "verdict", "why", "next")
_WIDEST = 60


@dataclass(frozen=True)
class Wishes:
    """What a person asks for when adding to the schedule."""

    cron: str | None
    """None: a timetable elsewhere says when, by `tick`."""
    timezone: str = "UTC"
    quiet: tuple[str, ...] = ()
    budget_s: float | None = None
    daily_budget_s: float | None = None
    max_age_days: float = 30.0
    auto_approve_within: str | None = None
    advisor: bool = False
    webhook: str | None = None
    webhook_secret_file: Path | None = None
    webhook_secret_env: str | None = None


def add(home: Path, target: str, wishes: Wishes) -> list[Entry]:
    """Put a spec, a bundled workload, or every spec in a folder on the schedule: all of them, or none.

    What is on it already is replaced.

    Raises:
        SpecError: a spec, the cron line, the zone, hours, bounds or the webhook cannot be used.
        StorageError: the schedule cannot be written.
    """
    shared = _shared(wishes)
    targets = specs_in(Path(target)) if Path(target).is_dir() else [target]
    entries = [_entry(one, shared) for one in targets]
    store = ScheduleStore(home)
    store.put(entries)
    now = dt.datetime.now(dt.UTC)
    with open_timetable(home) as timetable:
        for entry in entries:
            timetable.put(entry, now)
    call(home)
    return entries


def tick(home: Path, target: str, wishes: Wishes, say: Callable[[str], None]) -> Run:
    """Look at one spec now, run it if there is a reason, and tell: for a CronJob, a timer, or a cron of one's own.

    A spec that cannot be used is told to the webhook, too; nobody looks at the output of a job in the night.

    Returns:
        What became of it.

    Raises:
        BusyError: a schedule works on this home.
        SpecError: a wish cannot be kept, or the home has this spec on a schedule of its own.
        StorageError: the schedule cannot be used.
    """
    shared = _shared(wishes)
    try:
        entry = _entry(target, shared)
    except InfertuneError:
        if wishes.webhook is None:
            raise
        # Looking at it comes to the same, and tells it.
        place = _place(target)
        entry = Entry(id=_identity(place), name=Path(target).stem, target=place, **shared)
    return look_once(home, entry, say=say)


def specs_in(folder: Path) -> list[str]:
    """Return the specs of a fleet: every `tuning.yaml` below a folder, and other YAML in it that has a `workload`.

    Raises:
        SpecError: there is none.
    """
    found = {path for path in folder.rglob("tuning.yaml") if path.is_file()}
    found |= {path for end in ("*.yaml", "*.yml") for path in folder.glob(end) if _has_workload(path)}
    if not found:
        raise SpecError(
            "holds no spec.", where=str(folder), fix="A fleet is a folder with a `tuning.yaml` in each of its folders."
        )
    return [str(path) for path in sorted(found)]


def remove(home: Path, which: str) -> Entry:
    """Take an entry off the schedule, by its id, the beginning of it, its workload's name or its target.

    A run of it that is under way comes to its end. What it ran stays on record.

    Raises:
        SpecError: there is no such entry, or several.
    """
    store = ScheduleStore(home)
    entries = store.entries().values()
    path = str(Path(which).resolve())
    matching = [e for e in entries if which in (e.id, e.name, e.target) or path == e.target]
    matching = matching or [e for e in entries if e.id.startswith(which)]
    if len(matching) != 1:
        what = f"{len(matching)} entries are" if matching else "no entry is"
        listed = ", ".join(f"{e.id} ({e.name})" for e in (matching or entries)) or "none"
        raise SpecError(f"{what} called {which!r}.", where=str(home), fix=f"There are: {listed}.")
    store.remove(matching[0].id)
    with open_timetable(home) as timetable:
        timetable.remove(matching[0].id)
    call(home)
    return matching[0]


def rows(home: Path) -> list[dict[str, Any]]:
    """Return what `schedule list` shows: a row for each entry, JSON-ready; times are ISO 8601 in the entry's zone."""
    store = ScheduleStore(home)
    with open_timetable(home) as timetable:
        return [
            _row(entry, store.runs(entry=entry.id), timetable.next_of(entry.id)) for entry in store.entries().values()
        ]


def table(home: Path) -> list[str]:
    """Return the same as lines of a table, for people."""
    cells = [[str(row[name] or "-") for name in _COLUMNS] for row in rows(home)]
    if not cells:
        return ["Nothing is scheduled: infertune schedule add tuning.yaml --cron '17 3 * * *'"]
    lines = [list(_COLUMNS), *([_cut(cell) for cell in line] for line in cells)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _row(entry: Entry, runs: tuple[Run, ...], following: dt.datetime | None) -> dict[str, Any]:
    last = next((run for run in reversed(runs) if run.state in ("begun", "ended")), None)
    latest = runs[-1] if runs else None
    passed_over = latest is not None and latest.state in ("skipped", "deferred")
    begun = None if last is None else dt.datetime.fromtimestamp(last.begun_s, zone(entry.timezone))
    why = latest.why if latest is not None and passed_over else _reasons(last)
    return {
        "id": entry.id,
        "workload": entry.name,
        "target": entry.target,
        "cron": "when told, by `schedule tick`" if entry.cron is None else f"{entry.cron} {entry.timezone}",
        "quiet": [str(hours) for hours in entry.quiet],
        "webhook": None if entry.webhook is None else entry.webhook.shown,
        "last run": None if begun is None else begun.isoformat(timespec="minutes"),
        "session": None if last is None else last.session,
        "verdict": None if last is None else last.verdict or "running or interrupted",
        "why": f"{latest.state}: {why}" if latest is not None and passed_over else why,
        "next": following
        and following.astimezone(dt.UTC).astimezone(zone(entry.timezone)).isoformat(timespec="minutes"),
    }


def _reasons(run: Run | None) -> str:
    return "" if run is None else " ".join(reason.text for reason in run.reasons)


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 3] + "..."


def _shared(wishes: Wishes) -> dict[str, Any]:
    """Return the fields that all entries of one command have, checked."""
    line = None if wishes.cron is None else CronLine(wishes.cron, wishes.timezone)
    clocks = zone(wishes.timezone)
    quiet = tuple(read_quiet(text) for text in wishes.quiet)
    quiet_until(quiet, dt.datetime.now(clocks))
    if wishes.auto_approve_within is not None:
        read_bounds(wishes.auto_approve_within)
    return {
        "cron": None if line is None else line.line,
        "timezone": clocks.key,
        "quiet": quiet,
        "budget_s": wishes.budget_s,
        "daily_budget_s": wishes.daily_budget_s,
        "max_age_s": wishes.max_age_days * _DAY_S,
        "auto_approve_within": wishes.auto_approve_within,
        "advisor": wishes.advisor,
        "webhook": _webhook(wishes),
    }


def _webhook(wishes: Wishes) -> Webhook | None:
    file, variable = wishes.webhook_secret_file, wishes.webhook_secret_env
    if wishes.webhook is None:
        if file is not None or variable is not None:
            raise SpecError("a secret without a webhook.", where="--webhook", fix="Give its URL.")
        return None
    try:
        secret_file = None if file is None else str(file.resolve())
        webhook = Webhook(url=wishes.webhook.strip(), secret_file=secret_file, secret_env=variable)
    except ValidationError as error:
        said = describe_validation_error(error, Webhook).removeprefix("the top level: ")
        raise SpecError(f"{said}.", where="--webhook") from None
    webhook.secret()  # a typo is told now, not after the first run
    return webhook


def _entry(target: str, shared: dict[str, Any]) -> Entry:
    spec = read_spec(target)
    place = _place(target)
    return Entry(id=_identity(place), name=spec.workload.name, target=place, **shared)


def _place(target: str) -> str:
    return target if target in BUNDLED and not Path(target).exists() else str(Path(target).resolve())


def _identity(place: str) -> str:
    return digest_of(place)[:_ID]


def _has_workload(path: Path) -> bool:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(raw, dict) and "workload" in raw


def described(entries: Iterable[Entry]) -> list[str]:
    """Return a sentence for each entry that was added."""
    lines = []
    for entry in entries:
        assert entry.cron is not None, "what is added has a line"
        following = CronLine(entry.cron, entry.timezone).next_after(dt.datetime.now(dt.UTC))
        assert following is not None, "a line that never comes is refused"
        lines.append(f"{entry.id}  {entry.name}: {entry.cron} {entry.timezone}, next {following:%Y-%m-%d %H:%M %Z}")
    return lines
