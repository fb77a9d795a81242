"""Sessions side by side: what each recommends, what they were asked and ran on, and which figures do not compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agent.sessions import find, folders
from tools.contracts import Hardware, Interval
from tools.errors import InfertuneError
from tools.record import RESULT, SessionRecord, read_record
from tools.report import format as fmt
from tools.result import Configuration, SessionResult
from tools.tracking.session import read_result

UNKNOWN = "unknown"
_ABSENT = "not there"
_NAMES, _COLUMN = 18, 30
"""Columns of a terminal for the names, and for each session: a value with its interval fits."""
_TIMES = ("p50_ms", "p99_ms", "throughput_rps", "cost_per_1000_usd")
_RATIOS = ("p50_ratio", "throughput_ratio")
_SCORES = ("accuracy", "accuracy_drop")
_LABELS = {
    "batch_size": "batch",
    "cost_per_1000_usd": "cost / 1,000",
    "accuracy_drop": "drop",
}


@dataclass(frozen=True)
class Compared:
    """Sessions, in the order in which they were asked for.

    Attributes:
        results: of each.
        records: their journals; None where one cannot be read.
    """

    results: tuple[SessionResult, ...]
    records: tuple[SessionRecord | None, ...]


@dataclass(frozen=True)
class Warned:
    """Figures that do not compare, by name (`p50_ms`, `accuracy`, ...), and why, as a sentence."""

    figures: tuple[str, ...]
    why: str


def gather(home: Path, sessions: Sequence[str]) -> Compared:
    """Read sessions to compare.

    Args:
        home: where they are.
        sessions: ids, or their beginnings. One alone is compared with the one before it of the same workload; none
            means the latest that has one before it.

    Raises:
        InfertuneError: one is not there or has no result, or there is none to compare with.
    """
    if len(sessions) > 1:
        chosen = [find(home, session) for session in sessions]
        if len(set(chosen)) < len(chosen):
            raise InfertuneError("a session is named twice.", where="compare", fix="Name different ones.")
    else:
        chosen = _two_latest(home, find(home, sessions[0]) if sessions else None)
    return Compared(tuple(_result(folder) for folder in chosen), tuple(_record(folder) for folder in chosen))


def differences(compared: Compared) -> dict[str, tuple[str, ...]]:
    """Return what sessions were asked, ran on and decided by, by name, where it is not the same for all."""
    facts = [_facts(result, record) for result, record in zip(compared.results, compared.records, strict=True)]
    names = dict.fromkeys(name for one in facts for name in one)
    told = {name: tuple(one.get(name, _ABSENT) for one in facts) for name in names}
    return {name: values for name, values in told.items() if len(set(values)) > 1}


def warnings(compared: Compared) -> tuple[Warned, ...]:
    """Return which figures do not compare, and why. Different versions of libraries compare: that is a finding."""
    results, found = compared.results, []

    def differs(of: Callable[[SessionResult], object]) -> bool:
        return any(of(result) != of(results[0]) for result in results)

    if differs(lambda result: result.workload_digest):
        found.append(
            Warned((*_TIMES, *_RATIOS, *_SCORES), "They are of different workloads: another model, or other data.")
        )
    if differs(lambda result: result.metric):
        found.append(Warned(_SCORES, "Accuracy was told by different metrics."))
    if differs(lambda result: result.hardware.digest):
        found.append(Warned((*_TIMES, *_RATIOS), "They ran on different machines, or on one that was set differently."))
    if len({_threads(record) for record in compared.records}) > 1:
        found.append(Warned((*_TIMES, *_RATIOS), "A replica had another number of threads."))
    protocols = {UNKNOWN if record is None else record.started.protocol for record in compared.records}
    if len(protocols) > 1:
        why = "They were measured by different protocols."
        if UNKNOWN in protocols:
            why = "Nobody knows by which protocol all were measured: a journal cannot be read."
        found.append(Warned((*_TIMES, *_RATIOS, *_SCORES), why))
    if differs(lambda result: result.price_per_hour_usd):
        found.append(Warned(("cost_per_1000_usd",), "An hour of the machine was priced differently."))
    return tuple(found)


def as_json(compared: Compared) -> dict[str, Any]:
    """Return the comparison as JSON-ready values; figures are numbers, in the units of `result.json`."""
    return {
        "sessions": [
            {
                "session": result.session,
                "workload": result.workload,
                "verdict": result.verdict.value,
                "seconds": result.seconds.total,
                "best": None if result.best is None else _figures(result.best),
                "ratio": None if result.ratio is None else result.ratio.model_dump(mode="json"),
            }
            for result in compared.results
        ],
        "differences": {name: list(values) for name, values in differences(compared).items()},
        "do_not_compare": [{"figures": list(one.figures), "why": one.why} for one in warnings(compared)],
    }


def print_compared(compared: Compared, console: Console) -> None:
    """Print the comparison; more sessions than fit side by side stand in several tables."""
    beside = max((console.width - _NAMES) // _COLUMN, 2)
    doubtful = {figure for warned in warnings(compared) for figure in warned.figures}
    for start in range(0, len(compared.results), beside):
        if start:
            console.print()
        console.print(_table(compared.results[start : start + beside], doubtful))
    if any(result.best is not None for result in compared.results):
        _item(
            console, "Values are of the best configuration, with 95 % intervals. Ratios: model as given over best.", 0
        )
    if warnings(compared):
        _heading(console, "These do not compare (marked with *)")
        for warned in warnings(compared):
            _item(console, f"{', '.join(map(_label, warned.figures))}: {warned.why}")
    _heading(console, "What differs")
    found = differences(compared)
    for name, values in found.items():
        _item(console, f"{name}: {' | '.join(values)}")
    if not found:
        _item(console, "Nothing: the same question, price, machine, libraries, policy and protocol.")


def _two_latest(home: Path, last: Path | None) -> list[Path]:
    """Return a session, or the latest that will do, after the one before it of the same workload."""
    known = [folder for folder in folders(home) if (folder / RESULT).exists()]
    names: dict[Path, str] = {}
    for folder in known:
        try:
            names[folder] = _result(folder).workload
        except InfertuneError:
            continue  # `infertune sessions` says what is wrong with it
    for later in reversed(list(names)) if last is None else [last]:
        wanted = names[later] if later in names else _result(later).workload
        before = [folder for folder, workload in names.items() if folder.name < later.name and workload == wanted]
        if before:
            return [before[-1], later]
    what = "no workload has two sessions with results."
    if last is not None:
        what = f"no session with a result, before {last.name}, is of its workload."
    raise InfertuneError(what, where=str(home), fix="Name those to compare. See: infertune sessions")


def _result(folder: Path) -> SessionResult:
    if not (folder / RESULT).exists():
        raise InfertuneError("has no result to compare.", where=folder.name, fix="See: infertune sessions")
    return read_result(folder / RESULT)


def _record(folder: Path) -> SessionRecord | None:
    try:
        return read_record(folder)
    except InfertuneError:  # its result holds most of what is compared; what is missing is said
        return None


def _facts(result: SessionResult, record: SessionRecord | None) -> dict[str, str]:
    started = None if record is None else record.started
    return {
        "workload": fmt.clean(f"{result.workload} ({result.workload_digest})"),
        "objective": fmt.objective(result.objective, result.metric),
        "metric": fmt.clean(result.metric),
        "price of an hour": fmt.usd(result.price_per_hour_usd),
        **_machine(result.hardware),
        "threads of a replica": _threads(record),
        "policy": UNKNOWN if started is None else fmt.clean(started.policy),
        "protocol": UNKNOWN if started is None else fmt.clean(started.protocol),
        **{fmt.clean(name): fmt.clean(version) for name, version in sorted(result.versions.items())},
    }


def _threads(record: SessionRecord | None) -> str:
    if record is None or record.loaded is None:
        return UNKNOWN
    threads = record.loaded.spec.hardware.threads
    return "all that the machine offers" if threads is None else str(threads)


def _machine(hardware: Hardware) -> dict[str, str]:
    """Return every fact of a machine, in words."""
    facts: dict[str, str] = {}
    for name in type(hardware).model_fields:
        value = getattr(hardware, name)
        text = ", ".join(value) if isinstance(value, tuple) else fmt.quantity(name, value)
        facts[fmt.label(name)] = fmt.clean(text) or "none"
    return facts


def _table(results: Sequence[SessionResult], doubtful: set[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for result in results:
        table.add_column(Text(result.session), overflow="fold")
    table.add_row("workload", *(Text(fmt.clean(result.workload)) for result in results))
    table.add_row("verdict", *(Text(result.verdict.value, style="bold") for result in results))
    table.add_row("recipe", *(Text(fmt.clean(r.best.recipe) if r.best else fmt.NOTHING) for r in results))
    table.add_row("batch", *(str(r.best.batch_size) if r.best else fmt.NOTHING for r in results))
    for name in (*_TIMES, *_SCORES):
        table.add_row(_marked(name, doubtful), *(_shown(name, result) for result in results))
    for name in _RATIOS:
        ratios = [r.ratio and getattr(r.ratio, name.removesuffix("_ratio")) for r in results]
        table.add_row(_marked(name, doubtful), *(Text(fmt.ratio(r) if r else fmt.NOTHING) for r in ratios))
    table.add_row("took", *(fmt.seconds(result.seconds.total) for result in results))
    return table


def _label(name: str) -> str:
    return _LABELS.get(name, fmt.label(name))


def _marked(name: str, doubtful: set[str]) -> str:
    return f"{_label(name)} *" if name in doubtful else _label(name)


def _measured(best: Configuration) -> dict[str, tuple[float, Interval | None]]:
    """Return the figures of a configuration: each value, and its interval where it has one."""
    latency, drop = best.latency_ms, best.accuracy_drop
    return {
        "p50_ms": (latency.p50.value, latency.p50),
        "p99_ms": (latency.p99.value, latency.p99),
        "accuracy_drop": (drop.value, drop),
        **{
            name: (getattr(best, name), best.intervals.get(name))
            for name in ("throughput_rps", "cost_per_1000_usd", "accuracy")
        },
    }


def _figures(best: Configuration) -> dict[str, Any]:
    """Return a configuration's recipe, batch size and figures, JSON-ready: an interval where there is one."""
    return {"recipe": best.recipe, "batch_size": best.batch_size} | {
        name: value if interval is None else interval.model_dump(mode="json")
        for name, (value, interval) in _measured(best).items()
    }


def _shown(name: str, result: SessionResult) -> Text:
    if result.best is None:
        return Text(fmt.NOTHING)
    value, interval = _measured(result.best)[name]
    if name == "accuracy":
        text = fmt.accuracy(value, result.metric)
        ends = [] if interval is None else [fmt.accuracy(end, result.metric) for end in (interval.low, interval.high)]
        span = f"[{', '.join(end.removesuffix(' %') for end in ends)}]" if ends else ""
    elif name == "accuracy_drop":
        text = fmt.drop(value, result.metric)
        span = "" if interval is None else fmt.drop_span(interval, result.metric)
    else:
        text, span = fmt.quantity(name, value), "" if interval is None else fmt.span(interval)
    return Text.assemble(text, " ", (span, "dim")) if span else Text(text)


def _heading(console: Console, title: str) -> None:
    console.print()
    console.print(Text(title, style="bold"))


def _item(console: Console, text: str, indent: int = 2) -> None:
    if console.is_terminal:
        console.print(Padding(Text(text), (0, 0, 0, indent)))
    else:
        console.print(Text(" " * indent + text), soft_wrap=True)
