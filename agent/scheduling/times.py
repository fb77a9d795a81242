"""When: cron lines in a named time zone, and the quiet hours in which nothing is begun.

The arithmetic is APScheduler's, with three differences that people expect of cron. Weekday 0 and 7 are Sunday (in
APScheduler 3 weekday 0 is Monday, its issue 286). Where both day of month and day of week are restricted, either is
enough. And at the end of summer time, when an hour comes twice, a line with fixed hours runs in the first one only;
a line with `*` hours runs in both, since an hour really passes.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.base import BaseTrigger  # type: ignore[import-untyped]
from apscheduler.triggers.cron import CronTrigger  # type: ignore[import-untyped]

from tools.contracts import Contract
from tools.errors import SpecError

_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FIELDS = ("minute", "hour", "day", "month", "day of week")
_ALLOWED = re.compile(r"[0-9a-z*/,-]+", re.IGNORECASE)
_EXAMPLE = 'Five fields, as in "17 3 * * *": minute, hour, day of month, month, day of week.'
_MINUTES_PER_DAY = 1440
_QUIET = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


def zone(name: str) -> ZoneInfo:
    """Return a time zone by its IANA name.

    Raises:
        SpecError: there is none of this name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SpecError(
            f"there is no time zone {name!r}.", where="--timezone", fix="As Europe/Berlin, or UTC."
        ) from None


class CronLine(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """A cron line as an APScheduler trigger.

    Args:
        line: five fields.
        timezone: IANA name of the zone whose clocks it follows.

    Raises:
        SpecError: it is no cron line, or no moment ever fits it; or there is no such zone.
    """

    def __init__(self, line: str, timezone: str) -> None:
        self.line = " ".join(line.split())
        self.zone = zone(timezone)
        self._triggers = _triggers(self.line, self.zone)
        self._every_hour = self.line.split()[1].startswith("*")
        if self.next_after(dt.datetime(2026, 1, 1, tzinfo=dt.UTC)) is None:
            raise SpecError(
                f"{self.line!r} never comes: no day of the calendar fits.",
                where="--cron",
                fix="Give a day that exists.",
            )

    def next_after(self, moment: dt.datetime) -> dt.datetime | None:
        """Return the first moment later than this that fits; None if there is none before the year 10000."""
        after = moment
        while True:
            # Through UTC: adding to a local time forgets which of the two hours it is in.
            since = (after.astimezone(dt.UTC) + dt.timedelta(microseconds=1)).astimezone(self.zone)
            found = [trigger.get_next_fire_time(None, since) for trigger in self._triggers]
            times: list[dt.datetime] = [time for time in found if time is not None]
            if not times:
                return None
            first = min(times, key=dt.datetime.timestamp)
            if self._every_hour or not first.fold:
                return first
            after = first

    def get_next_fire_time(self, previous_fire_time: dt.datetime | None, now: dt.datetime) -> dt.datetime | None:
        """Return when to run next: however many times were missed, they are made up for by one."""
        del previous_fire_time
        return self.next_after(now)

    def __getstate__(self) -> dict[str, Any]:
        return {"line": self.line, "zone": self.zone.key}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["line"], state["zone"])  # type: ignore[misc]


def _triggers(line: str, timezone: ZoneInfo) -> list[CronTrigger]:
    """Return the triggers of which any may fire: two where day of month and day of week are both restricted."""
    fields = line.lower().split()
    if len(fields) != len(_FIELDS):
        raise SpecError(f"{line!r} has {len(fields)} fields.", where="--cron", fix=_EXAMPLE)
    for name, field in zip(_FIELDS, fields, strict=True):
        if not _ALLOWED.fullmatch(field):
            raise SpecError(
                f"{field!r} is no {name}.", where="--cron", fix="Numbers, names, and * , - / are understood."
            )
    minute, hour, day, month, weekday = fields
    weekday = _named_weekdays(weekday)
    either = [("*", weekday), (day, "*")] if not (day.startswith("*") or weekday.startswith("*")) else [(day, weekday)]
    try:
        return [
            CronTrigger(minute=minute, hour=hour, day=d, month=month, day_of_week=w, timezone=timezone)
            for d, w in either
        ]
    except ValueError as error:
        raise SpecError(f"{line!r} cannot be read: {error}.", where="--cron", fix=_EXAMPLE) from None


def _named_weekdays(field: str) -> str:
    """Return a field of weekdays by name, one by one: cron's numbers begin with Sunday, APScheduler's with Monday."""
    if not re.search(r"\d", field.split("/", maxsplit=1)[0]):
        if "/" not in field:
            return field
        field = "0-6" + field[field.index("/") :] if field.startswith("*/") else field
    days: list[str] = []
    for part in field.split(","):
        found = re.fullmatch(r"([0-7])(?:-([0-7]))?(?:/([1-7]))?", part)
        if found is None:
            days.append(part)  # by name, or wrong: APScheduler says which
            continue
        low, high, step = found.groups()
        last = int(high or (6 if step else low))
        if last < int(low):
            raise SpecError(f"{part!r} ends before it begins.", where="--cron", fix="As 1-5, or 5,6,0.")
        days += [_WEEKDAYS[number] for number in range(int(low), last + 1, int(step or 1))]
    return ",".join(dict.fromkeys(days))


class QuietHours(Contract):
    """A stretch of each day, by the clocks of a zone, in which no run is begun and by whose begin one should end."""

    begin: int
    """Minutes since midnight."""
    end: int
    """Minutes since midnight; the next day's if not after `begin`."""

    def __str__(self) -> str:
        return f"{self.begin // 60:02}:{self.begin % 60:02}-{self.end // 60:02}:{self.end % 60:02}"

    def contains(self, moment: dt.datetime) -> bool:
        """Whether this moment, in its own zone, lies within."""
        minute = moment.hour * 60 + moment.minute
        if self.begin < self.end:
            return self.begin <= minute < self.end
        return minute >= self.begin or minute < self.end

    def end_after(self, moment: dt.datetime) -> dt.datetime:
        """Return when a moment within them is followed by one that is not."""
        return _first_after(moment, lambda later: not self.contains(later))

    def begin_after(self, moment: dt.datetime) -> dt.datetime:
        """Return when a moment outside of them is followed by one within."""
        return _first_after(moment, self.contains)


def read_quiet(text: str) -> QuietHours:
    """Read quiet hours, as `08:00-18:30` or, over midnight, `22:00-06:00`.

    Raises:
        SpecError: they are none, or the whole day.
    """
    found = _QUIET.fullmatch(text.strip())
    if found is None:
        raise SpecError(f"{text!r} are no hours.", where="--quiet", fix="As 08:00-18:30, or 22:00-06:00 over midnight.")
    begin_hour, begin_minute, end_hour, end_minute = map(int, found.groups())
    quiet = QuietHours(begin=begin_hour * 60 + begin_minute, end=end_hour * 60 + end_minute)
    if quiet.begin == quiet.end:
        raise SpecError("would leave no time to run.", where="--quiet", fix="Give an end that is not the beginning.")
    return quiet


def quiet_until(quiet: tuple[QuietHours, ...], moment: dt.datetime) -> dt.datetime | None:
    """Return the end of the quiet hours that this moment lies in, and of those that follow at once; None if in none.

    Raises:
        SpecError: they leave no time of the day.
    """
    until = moment
    for _ in range(len(quiet) + 1):
        inside = next((hours for hours in quiet if hours.contains(until)), None)
        if inside is None:
            return None if until is moment else until
        until = inside.end_after(until)
    raise SpecError("together would leave no time to run.", where="--quiet", fix="Leave a gap between them.")


def loud_s(quiet: tuple[QuietHours, ...], moment: dt.datetime) -> float | None:
    """Return how many seconds are left until quiet hours begin; None without any."""
    begins = [(hours.begin_after(moment) - moment.astimezone(dt.UTC)).total_seconds() for hours in quiet]
    return min(begins, default=None)


def day_begin(moment: dt.datetime) -> dt.datetime:
    """Return the midnight before, by the clocks of the moment's zone."""
    return moment.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)


def _first_after(moment: dt.datetime, fits: Callable[[dt.datetime], bool]) -> dt.datetime:
    """Return the first whole minute after this that fits, by the clocks of its zone.

    Minute by minute, since a minute of the day may come twice, or not at all, on the day when clocks are set.
    """
    at = moment.astimezone(dt.UTC).replace(second=0, microsecond=0)
    for _ in range(2 * _MINUTES_PER_DAY):
        at += dt.timedelta(minutes=1)
        local = at.astimezone(moment.tzinfo)
        if fits(local):
            return local
    raise AssertionError("hours that begin and end come every day")
