"""When each entry is due: APScheduler's jobs, in its SQLAlchemy store.

APScheduler keeps the times, and we look at them with a clock that is passed in. Left to itself it moves a job on before
the job has run, so that a crash loses the run; drops what is more than a second late; and in two processes runs a job
twice. Here a job is moved on once its run is on record, lateness does not matter, and times that were missed together
are one.

A job is a pickle that names `due` and the entry's id, so `schedule.db` is as trusted as the code: it belongs to its
owner alone. The entries are the truth; a job that is missing is made again from its entry.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore  # type: ignore[import-untyped]
from apscheduler.schedulers.base import BaseScheduler  # type: ignore[import-untyped]
from sqlalchemy.exc import SQLAlchemyError

from agent.scheduling.store import SCHEDULE, Entry, unusable
from agent.scheduling.times import CronLine

_BUSY_TIMEOUT_S = 30
_LONGEST_DEFERRAL = dt.timedelta(hours=25)
"""Quiet hours are parts of a day, and a day has at most 25 hours."""


def due(entry: str) -> str:
    """Return the entry that is due: what a job stands for."""
    return entry


class Timetable:
    """The next time of each entry. Use `open_timetable`."""

    def __init__(self, scheduler: BaseScheduler, store: SQLAlchemyJobStore) -> None:
        self._scheduler = scheduler
        self._store = store

    def follow(self, entries: Iterable[Entry], now: dt.datetime) -> None:
        """Make the jobs be those of these entries: new ones from now on, and none for what is gone.

        A job that waits for a time which is further away than its line ever has it was put there before the clock was
        set back, and is made anew.
        """
        wanted = {entry.id: entry for entry in entries if entry.cron is not None}
        for job in self._scheduler.get_jobs():
            entry = wanted.get(job.id)
            if entry is None:
                self._scheduler.remove_job(job.id)
            elif (job.trigger.line, job.trigger.zone.key) == (entry.cron, entry.timezone) and not _is_stray(job, now):
                del wanted[entry.id]
        for entry in wanted.values():
            self.put(entry, now)

    def put(self, entry: Entry, now: dt.datetime) -> None:
        """Have an entry run at the next time that fits its line; one without a line has no times."""
        if entry.cron is None:
            return
        line = CronLine(entry.cron, entry.timezone)
        self._scheduler.add_job(
            due, line, args=(entry.id,), id=entry.id, next_run_time=line.next_after(now), replace_existing=True
        )

    def remove(self, entry: str) -> None:
        """Forget an entry's times, if there are any."""
        if self._scheduler.get_job(entry) is not None:
            self._scheduler.remove_job(entry)

    def due(self, now: dt.datetime) -> list[tuple[str, dt.datetime]]:
        """Return ids of entries that are due and since when, the one that has been for longest first."""
        return [(job.func(*job.args), job.next_run_time) for job in self._store.get_due_jobs(now)]

    def move_on(self, entry: str, now: dt.datetime, *, until: dt.datetime | None = None) -> None:
        """Note that a time is dealt with: next is what fits the line after now, or `until`."""
        job = self._scheduler.get_job(entry)
        if job is not None:  # else: it was removed meanwhile
            job.modify(next_run_time=until or job.trigger.next_after(now))

    def next_of(self, entry: str) -> dt.datetime | None:
        """Return when an entry is due next."""
        job = self._scheduler.get_job(entry)
        moment: dt.datetime | None = None if job is None else job.next_run_time
        return moment

    def next_s(self) -> float | None:
        """Return when any entry is due next, as Unix time."""
        moment: dt.datetime | None = self._store.get_next_run_time()
        return None if moment is None else moment.timestamp()


def _is_stray(job: Any, now: dt.datetime) -> bool:
    """Whether a job waits for longer than its line, and the quiet hours that may have put it off, can tell."""
    following = job.trigger.next_after(now)
    second = None if following is None else job.trigger.next_after(following)
    latest = max(second or now, now + _LONGEST_DEFERRAL)
    return bool(job.next_run_time > latest)


class _Idle(BaseScheduler):  # type: ignore[misc]  # APScheduler has no types
    """A scheduler that keeps jobs and runs none."""

    def wakeup(self) -> None:
        """Do nothing: whoever owns the timetable looks at it."""

    def shutdown(self, wait: bool = True) -> None:  # noqa: FBT001, FBT002  APScheduler's own
        """Close the store."""
        super().shutdown(wait)

    def _create_default_executor(self) -> Any:
        from apscheduler.executors.debug import DebugExecutor  # type: ignore[import-untyped]

        return DebugExecutor()


@contextlib.contextmanager
def open_timetable(home: Path) -> Iterator[Timetable]:
    """Open the timetable of a home directory.

    Raises:
        StorageError: it cannot be used.
    """
    path = home / SCHEDULE
    store = SQLAlchemyJobStore(url=f"sqlite:///{path}", engine_options={"connect_args": {"timeout": _BUSY_TIMEOUT_S}})
    scheduler = _Idle(jobstores={"default": store}, timezone=dt.UTC)
    try:
        scheduler.start(paused=True)
        try:
            yield Timetable(scheduler, store)
        finally:
            scheduler.shutdown()
    except SQLAlchemyError as error:
        store.shutdown()
        raise unusable(path, type(error).__name__) from None
