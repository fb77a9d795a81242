"""What happens when an entry is due: whether now, why at all, and then a run; each on record before it is acted on."""

from __future__ import annotations

import datetime as dt
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from agent.endpoint import lacking
from agent.scheduling.processes import FAILED, USER_ERROR, Ended
from agent.scheduling.store import SETTLED, Entry, Run, ScheduleStore, State
from agent.scheduling.times import day_begin, loud_s, quiet_until, zone
from agent.scheduling.timetable import Timetable
from tools.contracts import digest_of
from tools.errors import InfertuneError
from tools.outbox import Outbox
from tools.reasons import Facts, Judgement, judge

MAX_FAILURES = 3
"""Runs in a row that settle nothing, before the next waits until something changes, or a day has passed."""
AFTER_FAILURES_S = 72_000.0
"""Less than a day: from one nightly look to the next it is a second less than 24 hours now and then."""
SHORTEST_RUN_S = 60.0
"""Less time than this is not worth a start."""
KEEP_S = 90 * 86_400.0
"""How long it is remembered that nothing was run, and all of an entry's runs but the latest."""


class CarriesOut(Protocol):
    """Brings a run to its end."""

    def carry_out(self, entry: Entry, run: Run, budget_s: float | None) -> Ended | None:
        """Return what it came to; None when asked to stop before that."""


class Ticker:
    """Looks at what is due. Nothing here waits, apart from the runs themselves, which never overlap.

    Args:
        home: the home directory.
        store: entries and runs.
        timetable: when they are due.
        outbox: for what somebody is to be told.
        runs: carries a run out.
        look: returns the facts of a target, at a Unix time.
        clock: Unix time.
        say: is told, in a sentence, what was done and what was not.
    """

    def __init__(
        self,
        home: Path,
        *,
        store: ScheduleStore,
        timetable: Timetable,
        outbox: Outbox,
        runs: CarriesOut,
        look: Callable[[str, float], Facts],
        clock: Callable[[], float],
        say: Callable[[str], None],
    ) -> None:
        self._home = home
        self._store = store
        self._timetable = timetable
        self._outbox = outbox
        self._runs = runs
        self._look = look
        self._clock = clock
        self._say = say

    def tick(self) -> bool:
        """Finish what was begun, then look at all that is due; return False when asked to stop meanwhile.

        Raises:
            StorageError: the schedule or the outbox cannot be used.
        """
        entries = self._store.entries()
        self._timetable.follow(entries.values(), self._now("UTC"))
        for run in self._store.runs(state="begun"):
            if not self._take_up(entries.get(run.entry), run):
                return False
        for identity, due in self._timetable.due(self._now("UTC")):
            entry = self._store.entries().get(identity)  # it may have been removed during the run before
            if entry is not None and not self._look_at(entry, due):
                return False
        self._forget()
        return True

    def tick_one(self, entry: Entry) -> bool:
        """Finish what was begun of one entry; else look at it as if it were due now. False when asked to stop.

        Raises:
            StorageError: the schedule or the outbox cannot be used.
        """
        begun = self._store.runs(entry=entry.id, state="begun")
        for run in begun:
            if not self._take_up(entry, run):
                return False
        if not begun and not self._look_at(entry, self._now("UTC")):
            return False
        self._forget()
        return True

    def next_s(self) -> float | None:
        """Return when there is something to do next, as Unix time; None if nothing is scheduled."""
        entries = self._store.entries()
        waiting = [entries[run.entry] for run in self._store.runs(state="begun") if run.entry in entries]
        ends = [quiet_until(entry.quiet, self._now(entry.timezone)) for entry in waiting]
        times = [self._timetable.next_s(), *(self._clock() if end is None else end.timestamp() for end in ends)]
        return min((time for time in times if time is not None), default=None)

    def _forget(self) -> None:
        before_s = self._clock() - KEEP_S
        self._store.prune(before_s)
        self._outbox.prune(before_s)

    def _now(self, timezone: str) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock(), zone(timezone))

    def _take_up(self, entry: Entry | None, run: Run) -> bool:
        """Go on with a run that a crash or a stop interrupted, unless these are quiet hours."""
        if entry is None:
            gone = {"state": "ended", "verdict": FAILED, "ended_s": self._clock(), "why": "Its entry was removed."}
            self._store.note(run.model_copy(update=gone))
            return True
        now = self._now(entry.timezone)
        if quiet_until(entry.quiet, now) is not None:
            return True
        self._say(f"{entry.name}: taking up what was interrupted.")
        return self._carry_out(entry, run, _least(entry.budget_s, loud_s(entry.quiet, now)))

    def _look_at(self, entry: Entry, due: dt.datetime) -> bool:
        """Deal with one entry that is due; return False when asked to stop."""
        now = self._now(entry.timezone)
        latest = self._store.latest(entry.id)
        if latest is not None and latest.state in ("ended", "skipped") and latest.due_s == due.timestamp():
            self._timetable.move_on(entry.id, now)  # killed before it could: this time is dealt with
            return True
        until = quiet_until(entry.quiet, now)
        if until is not None:
            self._pass_over(entry, due, "deferred", f"These are quiet hours, until {until:%H:%M}.", until=until)
            return True
        budget_s = self._budget_s(entry, now)
        if budget_s is not None and budget_s < SHORTEST_RUN_S:
            self._pass_over(
                entry, due, "skipped", f"{max(budget_s, 0):.0f} s are left of the day or until quiet hours."
            )
            return True
        try:
            facts = self._look(entry.target, now.timestamp())
        except InfertuneError as error:
            told = f"{entry.id}-{digest_of(str(error))}-{now:%Y%m%d}"  # once a day, not at each tick
            self._announce(entry, told, "run_failed", {"why": str(error)})
            self._pass_over(entry, due, "skipped", str(error), is_mistake=True)
            return True
        judgement, refusal = self._judge(entry, facts)
        if not judgement.reasons or refusal is not None:
            why = refusal or " ".join(("Nothing has changed that matters.", *judgement.notes))
            self._pass_over(entry, due, "skipped", why)
            return True
        without = lacking(os.environ) if entry.advisor else None
        notes = () if without is None else (f"Without an advisor: {without}",)
        self._say(f"{entry.name}: running. {' '.join((*(reason.text for reason in judgement.reasons), *notes))}")
        run = self._store.note(
            Run(
                entry=entry.id,
                state="begun",
                due_s=due.timestamp(),
                begun_s=now.timestamp(),
                reasons=judgement.reasons,
                facts=judgement.known,
                advisor=entry.advisor and without is None,
                notes=notes,
            )
        )
        return self._carry_out(entry, run, budget_s)

    def _judge(self, entry: Entry, facts: Facts) -> tuple[Judgement, str | None]:
        """Return the reasons to run, and why not to in spite of them."""
        ended = self._store.runs(entry=entry.id, state="ended")
        settled = max((i for i, run in enumerate(ended) if run.verdict in SETTLED and run.facts), default=None)
        last = None if settled is None else ended[settled].facts
        judgement = judge(last, facts, max_age_s=entry.max_age_s)
        unsettled = ended[0 if settled is None else settled + 1 :]
        if len(unsettled) < MAX_FAILURES or unsettled[-1].facts is None:
            return judgement, None
        if judge(unsettled[-1].facts, facts, max_age_s=AFTER_FAILURES_S).reasons:
            return judgement, None
        return judgement, f"{len(unsettled)} runs in a row settled nothing, and nothing has changed since the last."

    def _budget_s(self, entry: Entry, now: dt.datetime) -> float | None:
        """Return how long a run may take: its budget, what is left of the day's, and until quiet hours begin."""
        left_s = None
        if entry.daily_budget_s is not None:
            begin_s = day_begin(now).timestamp()
            end_s = day_begin(now + dt.timedelta(days=1)).timestamp()  # later ones: the clock was set back
            runs = self._store.runs(entry=entry.id, state="ended", since_s=begin_s)
            today = [(run.ended_s or run.begun_s) - run.begun_s for run in runs if run.begun_s < end_s]
            left_s = entry.daily_budget_s - sum(max(run_s, 0.0) for run_s in today)
        return _least(entry.budget_s, left_s, loud_s(entry.quiet, now))

    def _carry_out(self, entry: Entry, run: Run, budget_s: float | None) -> bool:
        ended = self._runs.carry_out(entry, run, budget_s)
        if ended is None:
            self._say(f"{entry.name}: stopped; the run is taken up at the next start.")
            return False
        event = {
            "verdict": ended.verdict,
            "summary": ended.summary,
            "session": ended.session,
            "reasons": [reason.model_dump() for reason in run.reasons],
            "notes": list(run.notes),
            "plan": ended.plan,
        }
        # Told before it is noted: after a crash in between it is told again under the same id, which is not a second.
        name = f"{digest_of(str(self._home))}-{run.id}"
        self._announce(entry, f"{name}-ended", "run_failed" if ended.verdict == FAILED else "run_ended", event)
        plan = ended.plan
        if plan is not None and plan.get("state") == "proposed":
            approve = f"infertune plan approve {plan['digest']} --by NAME"
            self._announce(entry, f"{name}-plan", "plan_waiting", {**event, "approve": approve})
            self._say(f"{entry.name}: a plan waits for a person: {approve}")
        outcome = {
            "state": "ended",
            "ended_s": self._clock(),
            "verdict": ended.verdict,
            "session": ended.session,
            "exit_code": ended.exit_code,
            "why": ended.summary,
        }
        self._store.note(run.model_copy(update=outcome))
        self._timetable.move_on(entry.id, self._now("UTC"))
        self._say(f"{entry.name}: {ended.verdict}. {ended.summary}")
        return True

    def _pass_over(
        self,
        entry: Entry,
        due: dt.datetime,
        state: State,
        why: str,
        *,
        until: dt.datetime | None = None,
        is_mistake: bool = False,
    ) -> None:
        now_s = self._clock()
        code = USER_ERROR if is_mistake else None
        self._store.note(
            Run(entry=entry.id, state=state, due_s=due.timestamp(), begun_s=now_s, why=why, exit_code=code)
        )
        self._timetable.move_on(entry.id, self._now("UTC"), until=until)
        self._say(f"{entry.name}: {state}. {why}")

    def _announce(self, entry: Entry, identity: str, event: str, content: dict[str, Any]) -> None:
        if entry.webhook is not None:
            said = {"event": event, "at": self._now("UTC").isoformat(timespec="seconds"), "workload": entry.name}
            self._outbox.put(identity, entry.webhook, {**said, "target": entry.target, **content})


def _least(*limits: float | None) -> float | None:
    least = min((limit for limit in limits if limit is not None), default=math.inf)
    return None if math.isinf(least) else least
