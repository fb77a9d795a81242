"""What people read in MLflow's lists: the names of runs, and the description of a session."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from tools.report import format as fmt
from tools.result import Configuration, SessionResult, TrialSummary
from tools.tracking.decisions import cell

UNITS = (
    "Costs are US dollars per 1,000 requests; latency is that of a whole batch, with `_low` and `_high` the ends of "
    "its 95 % interval; memory and size are in MB (10^6 bytes); an accuracy loss is positive when accuracy fell."
)
"""Of the metrics."""


def run_name(result: SessionResult) -> str:
    """Return the name of a session's run: `digits-resnet50 MET 439x 20261122-1252`.

    Sorted by name, the sessions of a workload stand together, and there those that ended alike. The time is UTC.
    """
    began = datetime.fromisoformat(result.created)
    parts = (result.workload, result.verdict.value, _gain(result), f"{began:%Y%m%d-%H%M}")
    return " ".join(part for part in parts if part)


def trial_name(trial: TrialSummary) -> str:
    """Return the name of a candidate's run, with what became of it: `openvino int8-static (timed out)`."""
    return f"{trial.recipe} ({'chosen' if trial.chosen else trial.outcome.replace('_', ' ')})"


def description(result: SessionResult) -> str:
    """Return what a session came to, as Markdown."""
    rows = [
        ("", *(f"**{name}**" for name in ("as given", "best"))),
        *((name, *values) for name, values in _compared(result)),
    ]
    table = [f"| {' | '.join(row)} |" for row in rows]
    report = result.files.get("report")
    place = f"`{report}` on the machine that ran it, and " if report else ""
    machine = f"{fmt.clean(result.hardware.cpu)}, {result.hardware.cores} cores"
    return "\n".join(
        (
            f"**{result.verdict.value}.** {fmt.clean(result.summary)}",
            "",
            table[0],
            "|---|---|---|",
            *table[1:],
            "",
            f"- objective: {fmt.objective(result.objective, result.metric)}",
            f"- machine: {machine}, {fmt.usd(result.price_per_hour_usd)} an hour",
            f"- session: `{result.session}`",
            f"- report: {place}`report.html` among the artifacts",
            "- why: `decisions.md` among the artifacts, and the trace",
            "",
            UNITS,
        )
    )


def _gain(result: SessionResult) -> str:
    """Return how many times as good the best is, in what was to be minimized; empty where nothing was compared."""
    if result.objective.minimize == "size":
        if result.baseline is None or result.best is None or not result.best.size_mb:
            return ""
        value = result.baseline.size_mb / result.best.size_mb
    elif result.ratio is None:
        return ""
    else:
        value = (result.ratio.p50 if result.objective.minimize == "latency" else result.ratio.cost).value
    return f"{fmt.number(value)}x".replace(",", "")


def _compared(result: SessionResult) -> list[tuple[str, tuple[str, str]]]:
    """Return the rows of the table: what it is, of the model as given, of the best."""
    metric = result.metric
    told: dict[str, Callable[[Configuration], str]] = {
        "recipe": lambda c: cell(c.recipe),
        "batch": lambda c: str(c.batch_size),
        "p50": lambda c: fmt.ms(c.latency_ms.p50.value),
        "p99": lambda c: f"{fmt.ms(c.latency_ms.p99.value)} {fmt.span(c.latency_ms.p99)}",
        "throughput": lambda c: fmt.rate(c.throughput_rps),
        "cost of 1,000 requests": lambda c: fmt.usd(c.cost_per_1000_usd),
        cell(metric): lambda c: fmt.accuracy(c.accuracy, metric),
        "accuracy drop": lambda c: (
            f"{fmt.drop(c.accuracy_drop.value, metric)} {fmt.drop_span(c.accuracy_drop, metric)}"
        ),
        "size": lambda c: fmt.mb(c.size_mb),
        "memory": lambda c: fmt.mb(c.memory_mb),
    }

    def shown(configuration: Configuration | None, name: str) -> str:
        return "" if configuration is None else told[name](configuration)

    return [(name, (shown(result.baseline, name), shown(result.best, name))) for name in told]
