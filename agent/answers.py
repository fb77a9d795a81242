"""What-if in words: the answer in sentences, beside the session's own, and what would have to be measured."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tools.contracts import Verdict
from tools.doubts import Check
from tools.report import format as fmt
from tools.result import Configuration, Margin
from tools.whatif import NO_LIMIT, Answer, WhatIf, figure_of
from tools.workloads.bundled import BUNDLED


def print_what_if(found: WhatIf, target: str, console: Console) -> None:
    """Print the answer, the session's own beside it, how sure it is, and how to make it sure.

    On a terminal sentences wrap at its width; elsewhere every fact stays on one line.

    Args:
        found: what was answered.
        target: what the session optimized: a spec, or a bundled workload.
        console: where to.
    """
    for sentence in _sentences(found):
        _say(console, sentence)
    console.print()
    _print_comparison(found, console)
    if found.now.margins:
        _heading(console, "Promises")
        for margin in found.now.margins:
            _item(console, _promise(margin, found))
    for note in found.notes:
        _say(console, fmt.clean(note))
    console.print()
    if not found.checks:
        _say(console, "Everything that this answer rests on was measured.")
        return
    total = [check.seconds for check in found.checks if check.seconds is not None]
    _say(console, f"To be sure, measure{f' (about {fmt.seconds(sum(total))})' if total else ''}:")
    for check in found.checks:
        _item(console, _check(check))
    _heading(console, "How")
    for way in _ways(found, target):
        _item(console, way)


def _sentences(found: WhatIf) -> Iterator[str]:
    now, then = found.now, found.then
    asked = f"For the {fmt.objective(now.objective, found.metric)}, at {fmt.usd(now.price_per_hour_usd)} an hour"
    if now.verdict is not Verdict.MET or now.best is None:
        yield f"{asked}: {now.verdict.value}. {fmt.clean(now.summary)}"
    else:
        yield f"{asked}: {_named(now.best)}, {_figure(now)}."
    if then.best is None:
        return
    if then.verdict is not Verdict.MET:
        yield f"The session's own answer: {then.verdict.value}. {fmt.clean(then.summary)}"
    elif found.same and _figure(now) == _figure(then):
        yield "The session chose the same."
    elif found.same:
        yield f"The session chose the same: {_figure(then)}, at {fmt.usd(then.price_per_hour_usd)} an hour."
    else:
        yield f"The session chose {_named(then.best)}: {_figure(then)}."


def _named(best: Configuration) -> str:
    return f"{fmt.clean(best.recipe)} at batch {best.batch_size}"


def _figure(answer: Answer) -> str:
    figure = figure_of(answer)
    if figure is None:
        return fmt.NOTHING
    name, interval = figure
    told = fmt.quantity(name, interval.value)
    match answer.objective.minimize:
        case "cost":
            return f"{told} per 1,000 requests"
        case "latency":
            return f"p50 {told}"
        case "size":
            return told


def _print_comparison(found: WhatIf, console: Console) -> None:
    """Print both answers fact by fact."""
    facts = list(zip(_facts(found.then, found.metric), _facts(found.now, found.metric), strict=True))
    if not console.is_terminal:
        for (name, before), (_, after) in facts:
            _item(console, f"{name}: {after} (session: {before})" if before != after else f"{name}: {after}")
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("session", overflow="fold")
    table.add_column("what if", overflow="fold")
    for (name, before), (_, after) in facts:
        table.add_row(name, Text(before), Text(after, style="bold" if before != after else ""))
    console.print(table)


def _facts(answer: Answer, metric: str) -> Iterator[tuple[str, str]]:
    """Yield the same names for every answer."""
    best, ratio, scaling = answer.best, answer.ratio, answer.scaling
    nothing = fmt.NOTHING
    yield "verdict", answer.verdict.value
    yield "recipe", fmt.clean(best.recipe) if best else nothing
    yield "batch", str(best.batch_size) if best else nothing
    yield "p50", f"{fmt.ms(best.latency_ms.p50.value)} {fmt.span(best.latency_ms.p50)}" if best else nothing
    yield "p99", f"{fmt.ms(best.latency_ms.p99.value)} {fmt.span(best.latency_ms.p99)}" if best else nothing
    throughput = best.intervals["throughput_rps"] if best else None
    yield "throughput", f"{fmt.rate(throughput.value)} {fmt.span(throughput)}" if throughput else nothing
    yield "cost per 1,000", fmt.usd(best.cost_per_1000_usd) if best else nothing
    drop = best.accuracy_drop if best else None
    yield "accuracy drop", f"{fmt.drop(drop.value, metric)} {fmt.drop_span(drop, metric)}" if drop else nothing
    yield "size", fmt.mb(best.size_mb) if best else nothing
    yield "memory", fmt.mb(best.memory_mb) if best else nothing
    yield "requests for the money", fmt.ratio(ratio.throughput) if ratio else "not measured"
    yield "replicas, 95 % / peak", f"{scaling.replicas_p95} / {scaling.replicas_peak}" if scaling else nothing
    yield "cost a day", fmt.usd(scaling.daily_cost_usd) if scaling else nothing


def _promise(margin: Margin, found: WhatIf) -> str:
    def shown(value: float) -> str:
        if margin.constraint == "max_accuracy_drop":
            return fmt.drop(value, found.metric).removeprefix("+")
        return fmt.quantity(margin.constraint, value)

    name = fmt.label(margin.constraint.removeprefix("max_"))
    room = f"{shown(margin.margin)} to spare" if margin.margin >= 0 else f"{shown(-margin.margin)} too much"
    if margin.constraint != "p99_ms":
        return f"{name}: {shown(margin.value)} of {shown(margin.limit)}, {room}"
    batch = found.now.best.batch_size if found.now.best is not None else 1
    twice = " (a batch is counted twice: a request may wait for the one before its own)" if batch > 1 else ""
    return f"{name}: up to {shown(margin.value)} of {shown(margin.limit)}, {room}{twice}"


def _check(check: Check) -> str:
    took = "" if check.seconds is None else f" (about {fmt.seconds(check.seconds)})"
    return f"{fmt.clean(check.measure)}{took}: {fmt.clean(check.why)}."


def _ways(found: WhatIf, target: str) -> Iterator[str]:
    """Say how to have it measured: what to change in the spec, and the command."""
    edits = [f"remove {name}" if value == NO_LIMIT else f"{name}: {value}" for name, value in found.changed.items()]
    hows = {check.how for check in found.checks}
    if target in BUNDLED and edits:
        yield f"The spec of {target} comes with infertune and stays as it is; in one of your own: {', '.join(edits)}."
    elif edits:
        yield f"In {fmt.clean(target)}: {', '.join(edits)}"
    yield f"infertune optimize {fmt.clean(target)}{' --fresh' if 'fresh' in hows else ''}"
    yield "--fresh measures everything anew." if "fresh" in hows else "What is settled already is not measured again."
    if "more data" in hows:
        yield "Only more items in workload.evaluation tell accuracies apart that are this close."


def _heading(console: Console, title: str) -> None:
    console.print()
    console.print(Text(title, style="bold"))


def _item(console: Console, text: str) -> None:
    if console.is_terminal:
        console.print(Padding(Text(text), (0, 0, 0, 2)))
    else:
        console.print(Text(f"  {text}"), soft_wrap=True)


def _say(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=not console.is_terminal)
