"""A simulation in the terminal: one line a step, what it came to in words, and what it leaves out."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.simulate import Simulation
from tools.scaling.scenario import Scenario, ScenarioVerdict
from tools.scaling.stepping import Step, duration, steps, told

MOST_LINES = 96
"""Without a step of one's own, a run is told in at most so many lines."""
_STEPS_S = (60, 300, 900, 1800, 3600, 7200, 14_400)
_DAY_S = 86_400
_HEADS = ("serve", "paid", "waiting", "p99", "SLO", "controller")
_WIDTHS = (5, 5, 7, 9, 13, 14)
"""One setting fits into 80 columns."""


def step_of(seconds: int) -> int:
    """Return a step in which a run of this length takes at most `MOST_LINES` lines, where there is one."""
    return next((step for step in _STEPS_S if seconds <= step * MOST_LINES), _DAY_S)


def print_steps(simulation: Simulation, console: Console, *, step_s: int, speed: float) -> None:
    """Print a run step by step.

    Args:
        simulation: what was played.
        console: where to.
        step_s: length of a step, a whole number of minutes.
        speed: how many times as fast as the traffic itself; 0 for all at once.
    """
    several = len(simulation.played) > 1
    for number, played in enumerate(simulation.played):
        letter = f"{'AB'[number]}  " if several else ""
        _say(console, Text.assemble((letter, "bold"), played.setting.name))
    hold_rps = simulation.replica.slo_capacity_rps(simulation.slo_ms) or 0.0
    holds = f"One replica holds {hold_rps:,.0f} requests per second within {simulation.slo_ms:g} ms at p99."
    _say(console, Text(holds, style="dim"))
    console.print()
    heads = "".join(f"  {_cells(_HEADS)}" for _ in simulation.played)
    _say(console, Text(f"{'time':>8} {'rate':>9}{heads}".rstrip(), style="bold"))
    begin_s = int(simulation.traffic.seconds[0])
    for rows in zip(*(steps(played.run, step_s) for played in simulation.played), strict=True):
        first: Step = rows[0]
        line = Text(f"{_clock(begin_s, first.at_s):>8} {first.rate_rps:>7,.0f}/s")
        for row in rows:
            line.append("  ").append_text(_told(row))
        line.rstrip()
        _say(console, line)
        if speed:
            time.sleep(step_s / speed)


def print_outcome(simulation: Simulation, console: Console) -> None:
    """Print what each setting came to, and what the numbers leave out."""
    console.print()
    for played in simulation.played:
        words = told(played.run.outcome, slo_ms=simulation.slo_ms, kept_share=simulation.kept_share)
        _say(console, Text.assemble((f"{played.setting.name}. ", "bold"), words))
    console.print()
    _say(console, Text("What the twin leaves out:", style="dim"))
    for sentence in (*simulation.traffic.notes, *simulation.played[-1].run.leaves_out):
        _say(console, Text(f"  {sentence}", style="dim"))


def print_verdicts(scenarios: Sequence[tuple[Scenario, Sequence[ScenarioVerdict]]], console: Console) -> None:
    """Print what was expected of each setting and what it came to, with the lesson of each scenario."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for head in ("scenario", "setting", "expected", "got", "agreed"):
        table.add_column(head, no_wrap=head == "scenario", overflow="fold")
    for scenario, verdicts in scenarios:
        for verdict in verdicts:
            first = scenario.name if verdict is verdicts[0] else ""
            agreed = Text("yes", style="green") if verdict.agreed else Text("no", style="bold red")
            table.add_row(first, verdict.setting, _expected(verdict), _got(verdict), agreed)
    console.print(table)
    for scenario, verdicts in scenarios:
        console.print()
        _say(console, Text.assemble((f"{scenario.name}. ", "bold"), scenario.about))
        _say(console, Text(f"  {scenario.lesson}"))
        for verdict in verdicts:
            if not verdict.agreed:
                _say(console, Text(f"  `{verdict.setting}`: {'; '.join(verdict.disagreements)}.", style="bold red"))


def _told(row: Step) -> Text:
    """Return one setting's part of a line."""
    path = [str(scaling.after) for scaling in row.scalings]
    moves = " > ".join([str(row.scalings[0].before), *path]) if path else ""
    if len(moves) > _WIDTHS[-1]:
        moves = f"{row.scalings[0].before} > ... > {path[-1]} ({len(path)}x)"
    slo = f"{row.missed_minutes} min missed" if row.missed_minutes else "kept"
    text = _cells((_number(row.ready), _number(row.paid), f"{row.queue:,.0f}", duration(row.p99_ms), slo, moves))
    return Text(text, style="red" if row.missed_minutes else "")


def _cells(values: Sequence[str]) -> str:
    """Return values in columns: numbers to the right, words to the left."""
    numbers = [f"{value:>{width}}" for value, width in zip(values[:4], _WIDTHS[:4], strict=True)]
    words = [f"{value:<{width}}" for value, width in zip(values[4:], _WIDTHS[4:], strict=True)]
    return f"{' '.join(numbers)}  {' '.join(words)}"


def _number(replicas: float) -> str:
    return f"{replicas:,.1f}".removesuffix(".0")


def _clock(begin_s: int, at_s: int) -> str:
    """Return the time of day, after the number of the day from the second day on."""
    day, second = divmod(begin_s % _DAY_S + at_s, _DAY_S)
    clock = f"{second // 3600:02d}:{second // 60 % 60:02d}"
    return f"{day + 1}d {clock}" if day else clock


def _expected(verdict: ScenarioVerdict) -> str:
    fewest, most = verdict.expected.missed_minutes
    minutes = f"{most} min" if fewest == most else f"{fewest} to {most} min"
    return _words(minutes, kept=verdict.expected.kept, flapping=verdict.expected.flapping)


def _got(verdict: ScenarioVerdict) -> str:
    return _words(f"{verdict.outcome.missed_minutes} min", kept=verdict.kept, flapping=verdict.flapping)


def _words(minutes: str, *, kept: bool, flapping: bool) -> str:
    return f"{'kept' if kept else 'missed'}, {minutes}{', flapping' if flapping else ''}"


def _say(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=not console.is_terminal)
