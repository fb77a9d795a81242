"""The rows of the tables and the sentences about them: what is said, apart from where it is shown.

Pure functions of a `SessionResult`; the page and the terminal both draw from here, so they cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from tools.contracts import BatchPoint, Decision, Interval, Latency
from tools.report import format as fmt
from tools.result import Configuration, Margin, SessionResult, TrialSummary

_ACCURACY_DROP = "max_accuracy_drop"
Role: TypeAlias = Literal["best", "baseline", "feasible", "over its limits", "given up", "not measured"]
"""What became of a candidate."""


@dataclass(frozen=True)
class Cell:
    """A value, its 95 % interval, and the number of samples behind it."""

    text: str = fmt.NOTHING
    interval: str = ""
    n: int | None = None


@dataclass(frozen=True)
class ComparisonRow:
    """One quantity of the baseline and of the best."""

    name: str
    baseline: Cell
    best: Cell
    ratio: str = ""


@dataclass(frozen=True)
class ComparisonGroup:
    """Rows that were measured under the same circumstances."""

    title: str
    rows: tuple[ComparisonRow, ...]


@dataclass(frozen=True)
class TrialRow:
    """One candidate in the table of all trials."""

    name: str
    role: Role
    outcome: str
    reason: str
    p50: Cell
    p99: Cell
    work: Cell
    """MFLOP of one item, with the number of parameters."""
    size: str
    throughput: Cell
    """At the batch size where it is highest."""
    cost: Cell
    """At the batch size where it is lowest, which stands in place of its interval."""
    accuracy: str
    drop: Cell
    seconds: str


@dataclass(frozen=True)
class DiffLine:
    """One line of a unified diff."""

    kind: Literal["added", "removed", "head", "same"]
    text: str


def at_batch(trial: TrialSummary, batch_size: int) -> BatchPoint | None:
    """Return what was measured at this batch size."""
    return next((p for p in trial.points if p.batch_size == batch_size), None)


def trial_of(result: SessionResult, configuration: Configuration | None) -> TrialSummary | None:
    """Return the trial that a configuration was taken from."""
    if configuration is None:
        return None
    return next((t for t in result.trials if t.points and t.definition == configuration.definition), None)


def comparison(result: SessionResult) -> tuple[ComparisonGroup, ...]:
    """Return baseline against best: one request alone, serving at their batch sizes, and what is kept."""
    baseline, best, ratio = result.baseline, result.best, result.ratio
    if baseline is None and best is None:
        return ()
    alone = ComparisonGroup(
        "One request alone (batch 1)",
        _latency_rows(
            _latency_alone(result, baseline), _latency_alone(result, best), fmt.ratio(ratio.p50) if ratio else ""
        ),
    )
    sizes = [c.batch_size for c in (baseline, best) if c is not None]
    batched = (
        _latency_rows(baseline.latency_ms if baseline else None, best.latency_ms if best else None, "", " of a batch")
        if max(sizes) > 1
        else ()
    )
    serving = (
        *batched,
        ComparisonRow(
            "Throughput", _throughput(baseline), _throughput(best), fmt.ratio(ratio.throughput) if ratio else ""
        ),
        ComparisonRow("Cost per 1,000 requests", _cost(baseline), _cost(best), fmt.ratio(ratio.cost) if ratio else ""),
    )
    title = "Serving at batch " + " against ".join(str(s) for s in sizes) if max(sizes) > 1 else "Serving"
    metric = result.metric
    kept = (
        ComparisonRow("Accuracy", _accuracy(baseline, metric), _accuracy(best, metric)),
        ComparisonRow("Accuracy drop", Cell(), _drop(best.accuracy_drop if best else None, metric)),
        _ratio_row("Size on disk", baseline.size_mb if baseline else None, best.size_mb if best else None),
        _ratio_row("Peak memory", baseline.memory_mb if baseline else None, best.memory_mb if best else None),
        *_energy(baseline, best),
    )
    return (alone, ComparisonGroup(title, serving), ComparisonGroup("Accuracy and footprint", kept))


def _energy(baseline: Configuration | None, best: Configuration | None) -> tuple[ComparisonRow, ...]:
    before, after = (None if c is None else c.joules_per_request for c in (baseline, best))
    if before is None or after is None:
        return ()
    return (
        ComparisonRow("Energy per request", Cell(f"{before:.3g} J"), Cell(f"{after:.3g} J"), f"{before / after:.3g}x"),
    )


def trials(result: SessionResult) -> tuple[TrialRow, ...]:
    """Return all trials in the order in which they were tried."""
    return tuple(_trial_row(result, trial) for trial in result.trials)


def promises(result: SessionResult) -> tuple[tuple[str, str, str, str, bool], ...]:
    """Return (constraint, limit, value, margin, kept) of each promise, in the unit a person reads."""
    metric = result.metric
    return tuple(
        (
            fmt.label(margin.constraint.removeprefix("max_")),
            _in_unit(margin, margin.limit, metric).removeprefix("+"),
            _in_unit(margin, margin.value, metric),
            _in_unit(margin, margin.margin, metric),
            margin.margin >= 0,
        )
        for margin in result.margins
    )


def answer(decision: Decision) -> tuple[str, str]:
    """Return what was decided, with a colon if a reason follows, and that reason as a sentence, or nothing."""
    chosen = fmt.clean(decision.chosen if decision.chosen is not None else "None of the options")
    reason = _sentence(fmt.clean(decision.reason))
    return f"{chosen}:" if reason else _sentence(chosen), reason


def diff(text: str) -> tuple[DiffLine, ...]:
    """Split a unified diff into lines of a kind."""
    return tuple(DiffLine(_kind(line), _clean_indented(line)) for line in text.splitlines())


def _in_unit(margin: Margin, value: float, metric: str) -> str:
    if margin.constraint == _ACCURACY_DROP:
        return fmt.drop(value, metric)
    if margin.unit == "ms":
        return fmt.ms(value)
    return f"{fmt.number(value)} {margin.unit}".strip()


def _kind(line: str) -> Literal["added", "removed", "head", "same"]:
    if line.startswith(("+++", "---", "@@")):
        return "head"
    if line.startswith("+"):
        return "added"
    return "removed" if line.startswith("-") else "same"


def _clean_indented(line: str) -> str:
    return fmt.clean(line.expandtabs(2)).rstrip()


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


def _latency_alone(result: SessionResult, configuration: Configuration | None) -> Latency | None:
    if configuration is None:
        return None
    if configuration.batch_size == 1:
        return configuration.latency_ms
    trial = trial_of(result, configuration)
    point = at_batch(trial, 1) if trial is not None else None
    return point.latency_ms if point is not None else None


def _latency_rows(
    baseline: Latency | None, best: Latency | None, p50_ratio: str, of: str = ""
) -> tuple[ComparisonRow, ...]:
    return tuple(
        ComparisonRow(
            f"{name}{of}",
            _ms(getattr(baseline, name) if baseline else None),
            _ms(getattr(best, name) if best else None),
            p50_ratio if name == "p50" else "",
        )
        for name in ("p50", "p95", "p99")
    )


def _ms(interval: Interval | None) -> Cell:
    return Cell() if interval is None else Cell(fmt.ms(interval.value), fmt.span(interval), interval.n)


def _rate(interval: Interval | None) -> Cell:
    return Cell() if interval is None else Cell(fmt.rate(interval.value), fmt.span(interval), interval.n)


def _usd(interval: Interval | None) -> Cell:
    return Cell() if interval is None else Cell(fmt.usd(interval.value), fmt.span(interval), interval.n)


def _drop(interval: Interval | None, metric: str) -> Cell:
    if interval is None:
        return Cell()
    return Cell(fmt.drop(interval.value, metric), fmt.drop_span(interval, metric), interval.n)


def _throughput(configuration: Configuration | None) -> Cell:
    if configuration is None:
        return Cell()
    return (
        _rate(configuration.intervals.get("throughput_rps"))
        if "throughput_rps" in configuration.intervals
        else Cell(fmt.rate(configuration.throughput_rps))
    )


def _cost(configuration: Configuration | None) -> Cell:
    if configuration is None:
        return Cell()
    interval = configuration.intervals.get("cost_per_1000_usd")
    return _usd(interval) if interval is not None else Cell(fmt.usd(configuration.cost_per_1000_usd))


def _accuracy(configuration: Configuration | None, metric: str) -> Cell:
    if configuration is None:
        return Cell()
    text = fmt.accuracy(configuration.accuracy, metric)
    interval = configuration.intervals.get("accuracy")
    if interval is None:
        return Cell(text)
    ends = (fmt.accuracy(v, metric).removesuffix(" %") for v in (interval.low, interval.high))
    return Cell(text, f"[{', '.join(ends)}]", interval.n)


def _ratio_row(name: str, baseline_mb: float | None, best_mb: float | None) -> ComparisonRow:
    cells = [Cell() if v is None else Cell(fmt.mb(v)) for v in (baseline_mb, best_mb)]
    ratio = f"{fmt.number(baseline_mb / best_mb)}x" if baseline_mb and best_mb else ""
    return ComparisonRow(name, cells[0], cells[1], ratio)


def _trial_row(result: SessionResult, trial: TrialSummary) -> TrialRow:
    metric = result.metric
    alone = at_batch(trial, 1)
    fastest = max(trial.points, key=lambda p: p.throughput_rps.value, default=None)
    cheapest = min(trial.cost_per_1000_usd.items(), key=lambda c: c[1].value, default=None)
    return TrialRow(
        name=trial.recipe,
        role=_role(result, trial),
        outcome=trial.outcome.replace("_", " "),
        reason=fmt.clean(trial.given_up or trial.reason or ""),
        p50=_ms(alone.latency_ms.p50 if alone else None),
        p99=_ms(alone.latency_ms.p99 if alone else None),
        work=_work(trial),
        size=fmt.quantity("size_mb", trial.size_mb),
        throughput=_rate(fastest.throughput_rps if fastest else None),
        cost=_at(_usd(cheapest[1]), cheapest[0]) if cheapest else Cell(),
        accuracy=fmt.NOTHING if trial.accuracy is None else fmt.accuracy(trial.accuracy, metric),
        drop=_drop(trial.accuracy_drop, metric),
        seconds=fmt.seconds(trial.seconds),
    )


def _work(trial: TrialSummary) -> Cell:
    return Cell(
        fmt.NOTHING if trial.flops is None else fmt.number(trial.flops / 1e6),
        "" if trial.parameters is None else fmt.count(trial.parameters),
    )


def _at(cell: Cell, batch_size: int) -> Cell:
    return Cell(cell.text, f"at batch {batch_size}", cell.n)


def _role(result: SessionResult, trial: TrialSummary) -> Role:
    if not trial.points:
        return "not measured"
    if trial.given_up is not None:
        return "given up"
    if trial.chosen:
        return "best"
    if result.baseline is not None and trial.definition == result.baseline.definition:
        return "baseline"
    return "feasible" if trial.feasible else "over its limits"
