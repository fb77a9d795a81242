"""Decisions in words: what was asked, what could have been chosen, by which numbers it was, and what they rest on."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence

from pydantic_core import to_json
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agent.questions import Explained
from tools.contracts import Decision, Evidence, Interval, JsonScalar, Option
from tools.cost import cost_per_1000_usd
from tools.errors import InfertuneError
from tools.outcomes import describe, trial_result
from tools.record import RESULT, SessionRecord, State
from tools.report import format as fmt
from tools.report import rows
from tools.tracking.session import read_result

SHORT = 10
"""Characters of an evidence id that are shown: enough to be the only one that begins so."""
_CHOSEN, _REJECTED, _OTHER = "*", "x", " "
_DAY_S = 86_400.0
_COLUMNS = ("p50_ms", "p99_high_ms", "throughput_rps", "cost_per_1000_usd", "accuracy_drop", "size_mb")
_HEADS = {"p99_high_ms": "p99\nup to", "throughput_rps": "rate", "cost_per_1000_usd": "cost\nper 1,000"}


def print_explained(explained: Explained, console: Console, now: dt.datetime) -> None:
    """Print decisions: all of them in a few lines each and how it ended, or those asked for in full.

    On a terminal options with the same facts stand in a table; elsewhere every fact has its own line.

    Args:
        explained: what was found.
        console: where to.
        now: for the age of evidence; with a time zone.
    """
    if explained.in_full:
        for place, decision in enumerate(explained.decisions):
            if place:
                console.print()
            _print_decision(explained, decision, console, now)
        return
    record = explained.record
    _say(
        console, ", ".join(map(fmt.clean, (f"Session {record.session}", record.started.target, record.started.created)))
    )
    for decision in explained.decisions:
        _print_brief(explained, decision, console)
    console.print()
    _say(console, ending(record))


def as_json(explained: Explained) -> str:
    """Return the decisions with their evidence, its outcome in words, its session and its time, as JSON."""
    decisions = [
        {
            **json.loads(decision.model_dump_json()),  # which writes an infinity as a string
            "provisional": explained.is_provisional(decision),
            "evidence": [_evidence_facts(identity, explained) for identity in decision.evidence],
        }
        for decision in explained.decisions
    ]
    found = {"session": explained.record.session, "ended": ending(explained.record), "decisions": decisions}
    return to_json(found, indent=1, inf_nan_mode="strings").decode()


def ending(record: SessionRecord) -> str:
    """Say how a session ended, as a sentence."""
    session = fmt.clean(record.session)
    try:
        result = read_result(record.folder / RESULT)
        told = f" {result.verdict.value}: {fmt.clean(result.summary)}"
    except InfertuneError:
        told = "" if record.verdict is None else f" {record.verdict.value}."
    match record.state:
        case State.FINISHED:
            return f"It came to its end.{told}"
        case State.INTERRUPTED:
            return f"A person stopped it; to go on: infertune resume {session}.{told}"
        case State.FAILED:
            return f"Its workload could not be loaded: {fmt.clean(record.failure or '')}"
        case State.UNFINISHED:
            return f"It did not end: it runs, or was killed; to go on: infertune resume {session}.{told}"


# --- briefly ------------------------------------------------------------------------------------------------------


def _print_brief(explained: Explained, decision: Decision, console: Console) -> None:
    console.print()
    head = f"{fmt.clean(decision.id)}  {fmt.clean(decision.node)}: {fmt.clean(decision.question)} {_answer(decision)}"
    said = [f"Rule: {_sentence(decision.rule)}", f"{_counted(len(decision.options), 'option')},"]
    said.append(f"{_counted(len(decision.evidence), 'piece')} of evidence.")
    if explained.is_provisional(decision):
        said.append("Provisional: decided while a person was stopping it.")
    _say(console, head)
    _item(console, " ".join(said), 5)


def _answer(decision: Decision) -> str:
    return " ".join(part for part in rows.answer(decision) if part)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _sentence(text: str) -> str:
    return f"{fmt.clean(text).rstrip('.')}."


# --- in full ------------------------------------------------------------------------------------------------------


def _print_decision(explained: Explained, decision: Decision, console: Console, now: dt.datetime) -> None:
    _say(console, f"{fmt.clean(decision.id)}  {fmt.clean(decision.node)}: {fmt.clean(decision.question)}")
    provisional = ", while a person was stopping the session" if explained.is_provisional(decision) else ""
    facts = {
        "chosen": fmt.clean(decision.chosen or "none of the options"),
        "why": _sentence(decision.reason),
        "rule": _sentence(decision.rule),
        "by": f"{decision.by}{provisional}",
    }
    for name, text in facts.items():
        _item(console, f"{name}: {text}")
    if decision.options:
        _heading(console, "Options")
        if console.is_terminal and any("p50_ms" in option.facts for option in decision.options):
            _print_table(explained, decision, console)
        else:
            for option in decision.options:
                _print_option(explained, decision, option, console)
    if decision.evidence:
        _heading(console, "Evidence (infertune evidence show ID)")
        for identity in decision.evidence:
            _item(console, _evidence_line(identity, explained, now))


def _print_table(explained: Explained, decision: Decision, console: Console) -> None:
    """Print options that were measured as a table, why each was rejected below it, and the chosen one's intervals."""
    percent = explained.metric in fmt.PERCENT_METRICS
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("option", overflow="fold")
    for name in _COLUMNS:
        head = "drop,\npoints" if name == "accuracy_drop" and percent else _HEADS.get(name, fmt.label(name))
        table.add_column(head, justify="right", overflow="fold")
    for option in decision.options:
        if "p50_ms" in option.facts:
            cells = [_shown(name, option.facts.get(name), explained.metric) for name in _COLUMNS]
            style = "bold" if option.name == decision.chosen else ""
            table.add_row(
                *map(Text, (_mark(option, decision), fmt.clean(option.name))),
                *(Text(cell.removesuffix(" points")) for cell in cells),
                style=style,
            )
    console.print(table)
    for option in decision.options:
        if option.rejected_because is not None:
            _item(console, f"{_REJECTED} {fmt.clean(option.name)}: {_sentence(option.rejected_because)}")
        if option.facts.get("stable") is False:
            _item(console, f"{fmt.clean(option.name)} did not settle: the machine was too noisy.")
    chosen = next((o for o in decision.options if o.name == decision.chosen), None)
    if chosen is not None:
        _print_option(explained, decision, chosen, console)


def _print_option(explained: Explained, decision: Decision, option: Option, console: Console) -> None:
    """Print an option, one fact a line, with intervals where the evidence has them."""
    _item(console, f"{_mark(option, decision)} {fmt.clean(option.name)}".strip())
    intervals = _intervals(option, [explained.evidence[i] for i in option.evidence if i in explained.evidence])
    for name, value in option.facts.items():
        shown = _shown(name, value, explained.metric)
        _item(console, f"{_label(name)}: {shown}{_span(name, intervals.get(name), explained.metric)}", 6)
    if option.rejected_because is not None:
        _item(console, f"rejected: {_sentence(option.rejected_because)}", 6)


def _mark(option: Option, decision: Decision) -> str:
    if option.name == decision.chosen:
        return _CHOSEN
    return _OTHER if option.rejected_because is None else _REJECTED


def _label(name: str) -> str:
    return "p99, upper end" if name == "p99_high_ms" else fmt.label(name)


def _shown(name: str, value: JsonScalar, metric: str) -> str:
    if name == "accuracy_drop" and isinstance(value, float):
        return fmt.drop(value, metric)
    return fmt.quantity(name, value)


def _span(name: str, interval: Interval | None, metric: str) -> str:
    if interval is None:
        return ""
    return f" {fmt.drop_span(interval, metric) if name == 'accuracy_drop' else fmt.span(interval)}"


def _intervals(option: Option, evidence: Sequence[Evidence]) -> dict[str, Interval]:
    """Return the intervals of an option's facts: those of the point and the accuracy that the facts were taken from."""
    found: dict[str, Interval] = {}
    for result in filter(None, map(trial_result, evidence)):
        for point in result.points:
            measured = {
                "p50_ms": point.latency_ms.p50,
                "p99_ms": point.latency_ms.p99,
                "throughput_rps": point.throughput_rps,
            }
            if all(option.facts.get(name) == interval.value for name, interval in measured.items()):
                found |= measured
                cost = option.facts.get("cost_per_1000_usd")
                if isinstance(cost, float):
                    price = cost * point.throughput_rps.value * 3.6
                    found["cost_per_1000_usd"] = cost_per_1000_usd(price, point.throughput_rps)
        if result.accuracy is not None and option.facts.get("accuracy_drop") == result.accuracy.drop.value:
            found["accuracy_drop"] = result.accuracy.drop
    return found


# --- evidence -----------------------------------------------------------------------------------------------------


def _evidence_line(identity: str, explained: Explained, now: dt.datetime) -> str:
    evidence = explained.evidence.get(identity)
    if evidence is None:
        return f"{identity[:SHORT]}  is no longer in the store, or was damaged there"
    own = evidence.session == explained.record.session
    by = "this session" if own else f"session {fmt.clean(evidence.session)}"
    what = f"{evidence.kind.value.replace('_', ' ')} of {fmt.clean(evidence.recipe.name)}"
    outcome = f"{evidence.outcome.outcome.replace('_', ' ')}, {fmt.clean(describe(evidence))}"
    return f"{identity[:SHORT]}  {what}: {outcome}; by {by}, {_age(evidence.created, now)} ago"


def _evidence_facts(identity: str, explained: Explained) -> dict[str, JsonScalar]:
    evidence = explained.evidence.get(identity)
    if evidence is None:
        return {"id": identity, "missing": True}
    return {
        "id": identity,
        "missing": False,
        "kind": evidence.kind.value,
        "recipe": evidence.recipe.name,
        "outcome": evidence.outcome.outcome,
        "description": describe(evidence),
        "session": evidence.session,
        "created": evidence.created,
        "seconds": evidence.seconds,
    }


def _age(created: str, now: dt.datetime) -> str:
    seconds = max((now - dt.datetime.fromisoformat(created)).total_seconds(), 0.0)
    return f"{seconds / _DAY_S:.0f} days" if seconds >= 2 * _DAY_S else fmt.seconds(seconds)


# --- lines --------------------------------------------------------------------------------------------------------


def _heading(console: Console, title: str) -> None:
    console.print()
    console.print(Text(title, style="bold"))


def _item(console: Console, text: str, indent: int = 2) -> None:
    if console.is_terminal:
        console.print(Padding(Text(text), (0, 0, 0, indent)))
    else:
        console.print(Text(f"{' ' * indent}{text}"), soft_wrap=True)


def _say(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=not console.is_terminal)
