"""A finished session in the terminal: the few lines that a person wants to see, within 80 columns."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tools.contracts import Decision, Verdict
from tools.report import format as fmt
from tools.report import rows
from tools.result import PlanSummary, ScalingSummary, SessionResult

_VERDICT_STYLES = {Verdict.MET: "bold green", Verdict.INFEASIBLE: "bold red"}
_SHORT_NAMES = {
    "p50": "p50, batch 1",
    "p95": "p95, batch 1",
    "p99": "p99, batch 1",
    "p50 of a batch": "p50",
    "p95 of a batch": "p95",
    "p99 of a batch": "p99",
    "Throughput": "throughput",
    "Cost per 1,000 requests": "cost / 1,000",
    "Accuracy": "accuracy",
    "Accuracy drop": "drop",
    "Size on disk": "size",
    "Peak memory": "memory",
}
_ROOMY = 90
"""Columns from which there is room for wider gaps: values and intervals of both sides fit into 80 just so."""
_DIFF_STYLES = {"added": "green", "removed": "red", "head": "dim", "same": ""}


def print_summary(result: SessionResult, console: Console) -> None:
    """Print verdict, baseline against best, time, decisions, the HPA diff, open gates, and where the files are.

    On a terminal sentences wrap at its width; elsewhere every sentence and path stays on one line, without colour.
    """
    console.print()
    _say(
        console,
        Text.assemble(
            (result.verdict.value, _VERDICT_STYLES.get(result.verdict, "bold yellow")), "  ", fmt.clean(result.summary)
        ),
    )
    if result.baseline is not None or result.best is not None:
        console.print()
        console.print(_comparison(result, 1 if console.width >= _ROOMY else 0))
    _say(console, _took(result))
    last = _last_decisions(result)
    if last:
        _heading(console, "Decisions")
        for decision in last:
            _item(console, Text.assemble((fmt.clean(decision.question), "dim"), " ", *_answer(decision)))
    if result.batch is not None:
        _heading(console, "Batch size")
        under_slo = "none" if result.batch.sla_batch is None else str(result.batch.sla_batch)
        _item(console, Text.assemble(("under the SLO ", "dim"), f"{under_slo}: {fmt.clean(result.batch.sla_reason)}"))
        _item(
            console,
            Text.assemble(
                ("for batch jobs ", "dim"), f"{result.batch.job_batch}: {fmt.clean(result.batch.job_reason)}"
            ),
        )
    if result.scaling is not None:
        _print_scaling(result.scaling, console)
    if result.plan is not None:
        _print_plan(result.plan, console)
    open_gates = [gate for gate in result.gates if not gate.passed]
    if open_gates:
        _heading(console, "Open gates")
        for gate in open_gates:
            _item(console, Text.assemble((fmt.clean(gate.name), "yellow"), ": ", fmt.clean(gate.detail)))
    _print_files(result, console)


def _took(result: SessionResult) -> Text:
    seconds = result.seconds
    parts = [f"{fmt.seconds(seconds.trials)} in trials"]
    if seconds.training:
        parts.append(f"{fmt.seconds(seconds.training)} in training")
    parts.append(f"{fmt.seconds(seconds.overhead)} overhead ({seconds.overhead / seconds.total:.1%})")
    return Text.assemble(("took ", "dim"), fmt.seconds(seconds.total), (": " + ", ".join(parts), "dim"))


def _last_decisions(result: SessionResult) -> list[Decision]:
    """Return the last answer to each question but what comes next: an earlier one was overtaken by more evidence."""
    answers = {(d.node, d.question): d for d in result.decisions if d.node != "planner"}
    return sorted(answers.values(), key=result.decisions.index)


def _answer(decision: Decision) -> tuple[tuple[str, str], str]:
    chosen, reason = rows.answer(decision)
    return (chosen, "bold"), f" {reason}" if reason else ""


def _comparison(result: SessionResult, gap: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap, 0, 0))
    table.add_column("", no_wrap=True)
    for role, configuration in (("baseline", result.baseline), ("best", result.best)):
        name = "none" if configuration is None else f"{configuration.recipe}\nbatch {configuration.batch_size}"
        shown = "\n".join(fmt.clean(line).replace(", ", ",\n") for line in name.splitlines())
        table.add_column(Text.assemble((role + "\n", "dim"), shown), overflow="fold")
    table.add_column("\nratio", style="bold", no_wrap=True)
    for place, group in enumerate(rows.comparison(result)):
        if place:
            table.add_row()
        for row in group.rows:
            name = _SHORT_NAMES.get(row.name, row.name)
            table.add_row(name, _cell(row.baseline), _cell(row.best), row.ratio)
    return table


def _cell(cell: rows.Cell) -> Text:
    """A value with its interval where both fit: the ends of a price have too many digits for 80 columns."""
    if not cell.interval or cell.text.startswith("$"):
        return Text(cell.text)
    return Text.assemble(cell.text.removesuffix(" points"), " ", (cell.interval, "dim"))


def _print_scaling(scaling: ScalingSummary, console: Console) -> None:
    _heading(console, "Scaling")
    _item(console, Text(fmt.clean(scaling.sentence)))
    if scaling.hpa_diff:
        console.print()
        for line in rows.diff(scaling.hpa_diff):
            console.print(Text("  " + line.text, style=_DIFF_STYLES[line.kind]), soft_wrap=True)


def _print_plan(plan: PlanSummary, console: Console) -> None:
    _heading(console, "Change of the cluster")
    text = f"Plan {plan.digest} for {plan.hpa} in {plan.context}: {plan.state}."
    if plan.state == "proposed":
        text += f" It waits for a person until {plan.expires}: infertune plan show {plan.digest}"
    _item(console, Text(fmt.clean(text)))


def _print_files(result: SessionResult, console: Console) -> None:
    files = {name: str(value) for name, value in result.files.items() if value is not None}
    if result.scaling is not None and result.scaling.hpa_yaml is not None:
        files.setdefault("hpa", result.scaling.hpa_yaml)
    if result.mlflow is not None:
        run = f", run {result.mlflow.run_id}" if result.mlflow.run_id else ""
        files["MLflow"] = f"{result.mlflow.tracking_uri}{run}"
    if not files:
        return
    _heading(console, "Files")
    width = max(len(fmt.label(name)) for name in files)
    for name, path in files.items():
        line = Text.assemble("  ", (fmt.label(name).ljust(width), "dim"), "  ", fmt.clean(path))
        console.print(line, soft_wrap=True)  # a path stays in one piece, to be copied
    if result.mlflow is not None and result.mlflow.note is not None:
        _item(console, Text(fmt.clean(result.mlflow.note), style="yellow"))


def _heading(console: Console, title: str) -> None:
    console.print()
    console.print(Text(title, style="bold"))


def _item(console: Console, text: Text) -> None:
    if console.is_terminal:
        console.print(Padding(text, (0, 0, 0, 2)))
    else:
        console.print(Text.assemble("  ", text), soft_wrap=True)


def _say(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=not console.is_terminal)
