"""The challenge in the terminal: all steps at a glance, then each with its intervals, the targets, and the files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tools.report import challenge as told_rows
from tools.report import format as fmt
from tools.report.rows import Cell

if TYPE_CHECKING:
    from rich.console import Console

    from agent.challenge import Told

_STYLES = {"taken": "bold green", "as given": "bold", "step back": "red", "met": "bold green", "not met": "red"}
_OTHER = "yellow"


def print_told(told: Told, console: Console) -> None:
    """Print every step with what was measured of it, what came of it, and the targets.

    On a terminal sentences wrap at its width; elsewhere every sentence and path stays on one line, without colour.
    """
    console.print()
    _say(console, Text(fmt.clean(told_rows.sentence(told.challenge)), style="bold"))
    rows = told_rows.step_rows(told.challenge)
    console.print()
    console.print(Padding(_overview(rows), (0, 0, 0, 2)))
    for row in rows:
        console.print()
        _say(
            console,
            Text.assemble(
                (row.name, "bold"), "  ", (row.outcome, _STYLES.get(row.outcome, _OTHER)), "  ", (_what(row), "dim")
            ),
        )
        if row.batch:
            console.print(Padding(_figures(row), (0, 0, 0, 2)))
            _item(console, Text.assemble(("cost of 1,000  ", "dim"), _cell(row.cost)))
        _item(console, Text(row.why))
        if row.evidence:
            _item(console, Text(f"evidence {' '.join(row.evidence)}", style="dim"))
    console.print()
    console.print(Text("Targets", style="bold"))
    console.print(Padding(_targets(told), (0, 0, 0, 2)))
    for target in told_rows.target_rows(told.challenge):
        stretch = f" Stretch {target.stretch}." if target.stretch != fmt.NOTHING else ""
        _item(console, Text.assemble((f"{target.name}: ", "dim"), target.how, stretch))
    console.print()
    for name, path in told.files.items():
        console.print(Text.assemble("  ", (name.ljust(9), "dim"), "  ", fmt.clean(str(path))), soft_wrap=True)
    for note in told.notes:
        _item(console, Text(fmt.clean(note), style=_OTHER))


def _what(row: told_rows.StepRow) -> str:
    parts = (row.recipe, row.batch and f"batch {row.batch}", row.replicas)
    return ", ".join(part for part in parts if part)


def _overview(rows: Sequence[told_rows.StepRow]) -> Table:
    """Return a line for each step; the intervals follow below, where there is room for them."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("step", ""):
        table.add_column(name, no_wrap=True)
    for name in ("batch", "throughput", "times", "p99", "cost of 1,000"):
        table.add_column(name, no_wrap=True, justify="right")
    for row in rows:
        outcome = Text(row.outcome, style=_STYLES.get(row.outcome, _OTHER))
        figures = (row.throughput.text, row.times, row.p99.text, row.cost.text)
        table.add_row(row.replicas or row.name, outcome, row.batch or fmt.NOTHING, *figures)
    return table


def _figures(row: told_rows.StepRow) -> Table:
    """Return a step's figures with their intervals, two a line, but for the cost, whose ends have many digits."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for _ in range(4):
        table.add_column(no_wrap=True)
    for left, right in (
        (("throughput", row.throughput), ("p50", row.p50)),
        (("accuracy", row.accuracy), ("p99", row.p99)),
        (("drop", row.drop), ("", Cell(""))),
    ):
        table.add_row(*(part for name, cell in (left, right) for part in (Text(name, style="dim"), _cell(cell))))
    return table


def _targets(told: Told) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("", "asked", "measured", ""):
        table.add_column(name, no_wrap=True)
    for row in told_rows.target_rows(told.challenge):
        state = Text(row.state, style=_STYLES.get(row.state, _OTHER))
        table.add_row(row.name, row.wanted, _cell(row.got), state)
    return table


def _cell(cell: Cell) -> Text:
    if not cell.interval:
        return Text(cell.text)
    return Text.assemble(cell.text.removesuffix(" points"), " ", (cell.interval, "dim"))


def _say(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=not console.is_terminal)


def _item(console: Console, text: Text) -> None:
    if console.is_terminal:
        console.print(Padding(text, (0, 0, 0, 2)))
    else:
        console.print(Text.assemble("  ", text), soft_wrap=True)
