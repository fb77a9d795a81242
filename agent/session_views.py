"""Sessions as a person looks back at them: a table of all, or one as it ended."""

from __future__ import annotations

import datetime as dt
import textwrap
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from agent.sessions import folders, is_running
from tools.contracts import Decision, Interval, Verdict
from tools.errors import InfertuneError, StorageError
from tools.record import JOURNAL, RESULT, SessionRecord, State, read_record
from tools.report import format as fmt
from tools.report import rows as report_rows
from tools.result import SessionResult
from tools.tracking.session import read_result

if TYPE_CHECKING:
    from tools.contracts import ScalingPlan

_DAY_S = 86_400.0
_BELOW = "    "
"""What stands below a row begins so."""
_STYLES = {Verdict.MET.value: "green", Verdict.INFEASIBLE.value: "red", "running": "bold"}


@dataclass(frozen=True)
class Row:
    """One session in the table.

    Attributes:
        session: its id.
        workload: its name, or what was asked for where it was never loaded; empty when nobody knows.
        state: its verdict, or how far it came: `running`, `unfinished`, `interrupted`, `failed`, `never began`,
            `unreadable`.
        verdict: of its result, None when there is none.
        created: UTC, ISO 8601; None when nobody knows.
        p50_ratio: baseline over best, one request alone; above 1 is better.
        throughput_ratio: best over baseline.
        summary: of the result, or why there is none.
        to_do: what is left to be done about it, with the command that does it; empty when nothing is.
    """

    session: str
    workload: str = ""
    state: str = "never began"
    verdict: str | None = None
    created: str | None = None
    p50_ratio: Interval | None = None
    throughput_ratio: Interval | None = None
    summary: str = ""
    to_do: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the row as JSON-ready values."""
        ratios = {name: getattr(self, name) for name in ("p50_ratio", "throughput_ratio")}
        return asdict(self) | {name: ratio and ratio.model_dump(mode="json") for name, ratio in ratios.items()}


def rows(
    home: Path, now: dt.datetime, *, workload: str | None = None, verdict: Verdict | None = None
) -> tuple[Row, ...]:
    """Return the sessions of a home directory, the oldest first. One that cannot be read is told, and stops nothing.

    Args:
        home: where to look.
        now: decides which plans still wait for an answer; with a time zone.
        workload: only sessions of this one, by name.
        verdict: only sessions that ended so.
    """
    waiting = _waiting(home, now)
    found = (_row(folder, waiting.get(folder.name)) for folder in folders(home))
    return tuple(
        row for row in found if workload in (None, row.workload) and (verdict is None or row.verdict == verdict.value)
    )


def print_rows(found: tuple[Row, ...], console: Console, now: dt.datetime) -> None:
    """Print the table, 80 columns wide where there are no more, and below each row what is to be done about it.

    Args:
        found: what `rows` gave.
        console: where to.
        now: for the age of a session; with a time zone.
    """
    widths = [max(map(len, column)) for column in zip(_HEADS, *(_cells(row, now) for row in found), strict=True)]
    room = console.width - sum(widths) - 2 * (len(widths) - 1)
    widths[_WORKLOAD] = max(widths[_WORKLOAD] + min(room, 0), len(_HEADS[_WORKLOAD]))
    console.print(_line(_HEADS, widths, "bold"), soft_wrap=True)
    for row in found:
        console.print(_line(_cells(row, now), widths, _STYLES.get(row.state, "")), soft_wrap=True)
        for line in textwrap.wrap(row.to_do, console.width - len(_BELOW), break_on_hyphens=False):
            console.print(Text(_BELOW + line, style="yellow"), soft_wrap=True)


def print_session(folder: Path, console: Console, now: dt.datetime) -> None:
    """Print a session: its result as `optimize` shows it at its end, every decision in a line, and what is left to do.

    Args:
        folder: `<home>/sessions/<id>`.
        console: where to.
        now: for its age; with a time zone.

    Raises:
        StorageError: neither its journal nor a result can be read.
    """
    from agent.console import print_summary

    row = _row(folder, _waiting(folder.parents[1], now).get(folder.name))
    record = _record(folder)
    try:
        result = read_result(folder / RESULT) if (folder / RESULT).exists() else None
    except StorageError:
        if record is None:
            raise
        result = None  # the row says so, and the journal has the decisions
    if result is None and record is None:
        raise StorageError(
            "nothing of this session can be read: it never began, or its journal is damaged.",
            where=str(folder),
            fix=f"To be rid of it: infertune sessions delete {folder.name}",
        )
    age = "" if row.created is None else f", {ago(row.created, now)}"
    _say(console, f"Session {row.session}, {row.workload or 'of an unknown workload'}{age}")
    if result is not None:
        print_summary(result, console)
    else:
        without = "" if (folder / RESULT).exists() else f"there is no result. {row.summary}"
        _say(console, f"{row.state}: {without or 'these are the decisions that the journal has.'}".strip())
    decisions = result.decisions if result is not None else ()
    _print_decisions(row.session, decisions if record is None else record.decisions, console)
    if row.to_do:
        console.print()
        _say(console, f"To do: {row.to_do}")


def ago(moment: str, now: dt.datetime) -> str:
    """Return how long ago something was, short: `40 s ago`, `3 h ago`, `12 d ago`.

    Args:
        moment: ISO 8601, with a time zone.
        now: likewise with one.
    """
    seconds = max((now - dt.datetime.fromisoformat(moment)).total_seconds(), 0.0)
    for unit, length_s in (("d", _DAY_S), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length_s:
            return f"{seconds // length_s:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


_HEADS = ("session", "workload", "verdict", "p50", "rate", "when")
_WORKLOAD = _HEADS.index("workload")
_RIGHT = frozenset({_HEADS.index("p50"), _HEADS.index("rate")})


def _cells(row: Row, now: dt.datetime) -> tuple[str, ...]:
    ratios = (row.p50_ratio, row.throughput_ratio)
    return (
        row.session,
        row.workload,
        row.state,
        *("" if ratio is None else f"{fmt.number(ratio.value)}x" for ratio in ratios),
        "" if row.created is None else ago(row.created, now),
    )


def _line(cells: tuple[str, ...], widths: list[int], style: str) -> Text:
    shown = [fmt.squeeze(cell, width) for cell, width in zip(cells, widths, strict=True)]
    padded = [
        cell.rjust(width) if place in _RIGHT else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(shown, widths, strict=True))
    ]
    return Text("  ".join(padded).rstrip(), style=style)


def _print_decisions(session: str, decisions: tuple[Decision, ...], console: Console) -> None:
    """Print a line for each decision; a terminal has no room for the reasons."""
    if not decisions:
        return
    console.print()
    console.print(Text(f"All decisions (infertune explain {session} ID)", style="bold"), soft_wrap=True)
    for decision in decisions:
        chosen, reason = report_rows.answer(decision)
        head = f"  {decision.id}  {fmt.clean(decision.node)}: {fmt.clean(decision.question)} {chosen}"
        if console.is_terminal:
            console.print(Text(head.rstrip(":")), no_wrap=True, overflow="ellipsis")
        else:
            console.print(Text(f"{head} {reason}".rstrip()), soft_wrap=True)


def _say(console: Console, text: str) -> None:
    console.print(Text(fmt.clean(text)), soft_wrap=not console.is_terminal)


def _row(folder: Path, plan: ScalingPlan | None) -> Row:
    """Return what a session came to: its result, and what is left to be done about it."""
    row = Row(session=folder.name)
    try:
        if (folder / RESULT).exists():
            row = _with_result(row, read_result(folder / RESULT))
    except InfertuneError as error:
        row = replace(row, state="unreadable", to_do=fmt.clean(f"result.json cannot be read: {error.what}"))
    try:
        if (folder / JOURNAL).exists():
            row = _with_record(row, read_record(folder))
    except InfertuneError as error:
        if row.verdict is None:
            row = replace(row, state="unreadable", to_do=fmt.clean(f"cannot be read: {error.what}"))
    if plan is not None and not row.to_do:
        row = replace(row, to_do=f"a plan waits for a person: infertune plan show {plan.digest}")
    return row


def _with_result(row: Row, result: SessionResult) -> Row:
    return replace(
        row,
        workload=fmt.clean(result.workload),
        state=result.verdict.value,
        verdict=result.verdict.value,
        created=result.created,
        p50_ratio=None if result.ratio is None else result.ratio.p50,
        throughput_ratio=None if result.ratio is None else result.ratio.throughput,
        summary=fmt.clean(result.summary),
    )


def _with_record(row: Row, record: SessionRecord) -> Row:
    """Return a row with what the journal knows beside the result, or in its place."""
    loaded = record.loaded
    named = Path(record.started.target).name if loaded is None else loaded.workload.name
    row = replace(row, workload=row.workload or fmt.clean(named), created=row.created or record.started.created)
    resume = f"infertune resume {row.session}"
    match record.state:
        case State.FINISHED if record.recorded.get("run_id") is None and not row.to_do:
            return replace(row, to_do=f"not in MLflow yet: infertune sync {row.session}")
        case State.FINISHED:
            return row
        case State.FAILED:
            why = fmt.clean(f"could not be loaded: {record.failure}")
            return replace(row, state="failed", summary=why, to_do=why)
        case State.INTERRUPTED:
            return replace(row, state=row.verdict or "interrupted", to_do=f"interrupted: {resume}")
        case State.UNFINISHED if is_running(record.folder):
            return replace(row, state="running")
        case State.UNFINISHED:
            return replace(row, state=row.verdict or "unfinished", to_do=f"did not end: {resume}")


def _record(folder: Path) -> SessionRecord | None:
    try:
        return read_record(folder)
    except InfertuneError:
        return None


def _waiting(home: Path, now: dt.datetime) -> dict[str, ScalingPlan]:
    """Return the plans that wait for a person, by session; none where the store of plans cannot be read."""
    from tools.cluster.plans import pending
    from tools.cluster.store import PLANS, PlanStore

    if not (home / PLANS).is_file():
        return {}
    try:
        return {plan.session: plan for plan in pending(PlanStore(home), now=now)}
    except InfertuneError:  # `infertune plan list` says what is wrong with it
        return {}
