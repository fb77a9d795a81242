"""The plot of accuracy against latency over all trials, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from tools.contracts import BatchPoint
from tools.report import format as fmt
from tools.report import rows
from tools.report.labels import place_labels
from tools.report.svg import Ink, inline_svg, new_figure, plain_log_ticks, styled
from tools.result import SessionResult, TrialSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABEL_WIDTH = 38
_Dot: TypeAlias = tuple[TrialSummary, BatchPoint, float]
"""A trial, what was measured of it at batch 1, and its accuracy."""


@styled
def pareto(result: SessionResult) -> str | None:
    """Draw accuracy against batch-1 latency for all measured trials; None when there are none.

    A dot is the p50, its whisker reaches the p99; it is hollow where the numbers rest on too few samples. The front
    holds the trials that no other beats in both, but for those that were given up.
    """
    points = [
        (trial, point, trial.accuracy)
        for trial in result.trials
        if (point := rows.at_batch(trial, 1)) is not None
        and trial.accuracy is not None
        and math.isfinite(trial.accuracy)
    ]
    if not points:
        return None
    metric = result.metric
    lower = not result.higher_is_better
    whole = [i for i, (trial, _, _) in enumerate(points) if trial.given_up is None]
    values = [(points[i][1].latency_ms.p50.value, -points[i][2] if lower else points[i][2]) for i in whole]
    front = {whole[place] for place in pareto_front(values)}
    figure = new_figure(4.4)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    labelled = []
    for i, (trial, point, accuracy) in enumerate(points):
        color, size = _look(result, trial, on_front=i in front)
        p50, p99 = point.latency_ms.p50.value, point.latency_ms.p99.value
        axes.plot([p50, p99], [accuracy] * 2, color=color, linewidth=1.2, alpha=0.55, zorder=3)
        filled = trial.outcome == "measured" and trial.given_up is None
        axes.scatter(
            [p50], [accuracy], s=size, color=color if filled else Ink.PAPER, edgecolors=color, linewidths=1.3, zorder=4
        )
        if i in front or color in (Ink.BEST, Ink.BASELINE):
            labelled.append((p50, accuracy, _label(trial, color), color))
    steps = sorted((points[i][1].latency_ms.p50.value, points[i][2]) for i in front)
    axes.step([x for x, _ in steps], [y for _, y in steps], where="post", color=Ink.BEST, lw=1.2, alpha=0.6, zorder=2)
    _limits(axes, result, lower=lower)
    axes.margins(x=0.1, y=0.16)
    if lower:
        axes.invert_yaxis()
    plain_log_ticks(axes)
    axes.yaxis.set_major_formatter(lambda value, _: fmt.accuracy(value, metric))
    axes.set_xlabel("latency of one request, p50 with whisker to p99 (ms, log scale)")
    axes.set_ylabel(f"accuracy ({fmt.clean(metric.rpartition(':')[2])})" if metric else "accuracy")
    # where room is short, what the page is about has its name before the others
    labelled.sort(key=lambda label: (label[3] != Ink.BEST, label[3] != Ink.BASELINE))
    place_labels(axes, labelled, [(p.latency_ms.p50.value, a) for _, p, a in points])
    return inline_svg(figure, "pareto", "Accuracy against latency of every trial", _describe(result, points, front))


def pareto_front(points: Sequence[tuple[float, float]]) -> set[int]:
    """Return the indices of the points (smaller x is better, larger y is better) that no other point dominates."""
    return {i for i, (x, y) in enumerate(points) if not any(u <= x and v >= y and (u, v) != (x, y) for u, v in points)}


def _label(trial: TrialSummary, color: str) -> str:
    """Return what stands beside a dot: in lines, and short, since few long names find a place."""
    name = fmt.clean(trial.recipe)
    variant, _, runtime = name.rpartition(", ")
    lines = [fmt.squeeze(variant, _LABEL_WIDTH), fmt.squeeze(runtime, _LABEL_WIDTH)] if variant else [name]
    role = {Ink.BEST: "best", Ink.BASELINE: "as given"}.get(color)
    return "\n".join([role, *lines] if role else lines)


def _describe(result: SessionResult, points: Sequence[_Dot], front: set[int]) -> str:
    """Return the plot in words: what is on the front, what was chosen, and the model as given."""
    metric, told = result.metric, []
    for i, (trial, point, accuracy) in enumerate(points):
        given = result.baseline is not None and trial.definition == result.baseline.definition
        roles = [("best", trial.chosen), ("as given", given), ("on the front", i in front)]
        what = ", ".join(role for role, holds in roles if holds)
        if what:
            latency = f"p50 {fmt.ms(point.latency_ms.p50.value)}, p99 {fmt.ms(point.latency_ms.p99.value)}"
            told.append(f"{fmt.clean(trial.recipe)} ({what}): {fmt.accuracy(accuracy, metric)}, {latency}")
    return f"Accuracy against the latency of one request, {len(points)} trials. {'; '.join(told)}."


def _look(result: SessionResult, trial: TrialSummary, *, on_front: bool) -> tuple[str, float]:
    if trial.chosen:
        return Ink.BEST, 90
    if result.baseline is not None and trial.definition == result.baseline.definition:
        return Ink.BASELINE, 70
    return (Ink.TEXT, 42) if on_front else (Ink.OTHER, 34)


def _limits(axes: Axes, result: SessionResult, *, lower: bool) -> None:
    limit_style: dict[str, Any] = {"color": Ink.LIMIT, "linestyle": (0, (5, 3)), "linewidth": 1.2, "zorder": 1}
    text_style: dict[str, Any] = {"textcoords": "offset points", "color": Ink.LIMIT, "fontsize": 9}
    if result.baseline is not None:
        allowed = result.objective.max_accuracy_drop
        floor = result.baseline.accuracy + (allowed if lower else -allowed)
        axes.axhline(floor, **limit_style)
        axes.annotate("accuracy budget", (0, floor), xycoords=("axes fraction", "data"), xytext=(4, 4), **text_style)
    if result.objective.p99_ms is not None:
        axes.axvline(result.objective.p99_ms, **limit_style)
        axes.annotate(
            f"p99 limit {fmt.ms(result.objective.p99_ms)}",
            (result.objective.p99_ms, 0),
            xycoords=("data", "axes fraction"),
            xytext=(-4, 5),
            ha="right",
            rotation=90,
            va="bottom",
            **text_style,
        )
