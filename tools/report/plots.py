"""The plots of batch sizes, layers and traffic, each as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tools.contracts import BatchPoint, LayerProfile
from tools.report import format as fmt
from tools.report import rows
from tools.report.svg import Ink, inline_svg, new_figure, plain_log_ticks, styled
from tools.result import ScalingSummary, SessionResult, TrialSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LAYERS = 15
_PATH_WIDTH = 34
_OTHER_CURVES = 6
_OPERATOR_COLORS = ("convolution", "linear", "normalization", "activation", "attention", "pooling")
"""Kinds of operators with a colour of their own, the same in every report."""


@styled
def batch_curves(result: SessionResult) -> str | None:
    """Draw throughput and p99 against the batch size; None when no trial has two batch sizes."""
    best, baseline = rows.trial_of(result, result.best), rows.trial_of(result, result.baseline)
    curves = [t for t in result.trials if len(t.points) > 1]
    if not curves:
        return None
    others = [t for t in curves if t not in (best, baseline)]
    others.sort(key=lambda t: -max(p.throughput_rps.value for p in t.points))
    figure = new_figure(4.2)
    throughput, p99 = figure.subplots(1, 2)
    for axes, pick in ((throughput, _throughput), (p99, _p99)):
        axes.set_xscale("log", base=2)
        for trial in others[:_OTHER_CURVES]:
            _curve(axes, trial.points, pick, Ink.OTHER, None)
        for named, color, role in ((baseline, Ink.BASELINE, "baseline"), (best, Ink.BEST, "best")):
            if named is not None and named in curves:
                _curve(axes, named.points, pick, color, f"{role}: {fmt.clean(named.recipe)}")
        sizes = sorted({p.batch_size for t in curves for p in t.points})
        axes.set_xticks(sizes, [str(s) for s in sizes])
        axes.minorticks_off()
        axes.set_xlabel("batch size")
        if best is not None:
            _recommended(axes, result, best, pick)
    throughput.set_ylim(bottom=0)
    throughput.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    throughput.set_title("requests per second", loc="left", fontsize=10, color=Ink.TEXT)
    p99.set_yscale("log")
    plain_log_ticks(p99, "y")
    p99.set_title("p99 of one batch (ms, log scale)", loc="left", fontsize=10, color=Ink.TEXT)
    if result.objective.p99_ms is not None:
        p99.axhline(result.objective.p99_ms, color=Ink.LIMIT, linestyle=(0, (5, 3)), linewidth=1.2)
        p99.annotate(
            f"limit {fmt.ms(result.objective.p99_ms)}",
            (0, result.objective.p99_ms),
            xycoords=("axes fraction", "data"),
            xytext=(4, 4),
            textcoords="offset points",
            color=Ink.LIMIT,
            fontsize=9,
        )
    handles, names = throughput.get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside upper left", ncols=2, fontsize=9.5)
    return inline_svg(figure, "batch", "Throughput and p99 latency against the batch size, with 95 % intervals.")


@styled
def layers(slowest: Sequence[LayerProfile]) -> str | None:
    """Draw the shares of the slowest layers as bars, coloured by kind of operator."""
    shown = list(slowest)[:_LAYERS]
    if not shown:
        return None
    figure = new_figure(0.9 + 0.29 * len(shown))
    axes = figure.add_subplot()
    seen: dict[str, Any] = {}
    for place, layer in enumerate(shown):
        bars = axes.barh(place, layer.share * 100, height=0.66, color=_operator_color(layer.operator))
        seen.setdefault(fmt.clean(layer.operator), bars)
        axes.annotate(
            f"{layer.share * 100:.1f} %  ({fmt.ms(layer.ms)})",
            (layer.share * 100, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=Ink.MUTED,
        )
    axes.set_yticks(range(len(shown)), [fmt.shorten(fmt.clean(layer.path), _PATH_WIDTH) for layer in shown])
    axes.tick_params(axis="y", labelcolor=Ink.TEXT, length=0)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.16)
    axes.set_xlabel("share of the forward pass (%)")
    axes.legend(seen.values(), seen.keys(), loc="lower right", fontsize=9.5)
    return inline_svg(figure, "layers", f"Share of the forward pass of the {len(shown)} slowest layers.")


@styled
def traffic(scaling: ScalingSummary) -> str | None:
    """Draw the traffic, and below it the replicas that hold it; None without a series of at least two points."""
    series = scaling.traffic.series
    if len(series) < 2 or scaling.usable_rps <= 0:
        return None
    hours = [second / 3600 for second, _ in series]
    rates = [rate for _, rate in series]
    needed = [
        min(max(math.ceil(rate / scaling.usable_rps), scaling.min_replicas), scaling.max_replicas) for rate in rates
    ]
    figure = new_figure(4.2)
    load, replicas = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    load.fill_between(hours, rates, color=Ink.BEST, alpha=0.13, linewidth=0)
    load.plot(hours, rates, color=Ink.BEST, linewidth=1.3)
    for value, name in ((scaling.traffic.p95_rps, "p95"), (scaling.traffic.peak_rps, "peak")):
        load.axhline(value, color=Ink.MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
        load.annotate(
            f"{name} {fmt.rate(value)}",
            (1, value),
            xycoords=("axes fraction", "data"),
            xytext=(-2, -3 if name == "p95" else 3),
            textcoords="offset points",
            ha="right",
            va="top" if name == "p95" else "bottom",
            fontsize=9,
            color=Ink.MUTED,
        )
    load.set_ylim(bottom=0, top=max(*rates, scaling.traffic.peak_rps) * 1.15)
    load.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    load.set_title("requests per second", loc="left", fontsize=10, color=Ink.TEXT)
    replicas.step(hours, needed, where="post", color=Ink.TEXT, linewidth=1.5)
    replicas.set_ylim(0, max(needed) + 1)
    replicas.yaxis.get_major_locator().set_params(integer=True, nbins=4)
    replicas.set_title("replicas that hold it", loc="left", fontsize=10, color=Ink.TEXT)
    replicas.set_xlabel("hour")
    replicas.set_xlim(hours[0], hours[-1])
    replicas.xaxis.get_major_locator().set_params(steps=[1, 2, 3, 4, 6, 10], nbins=12)
    return inline_svg(
        figure,
        "traffic",
        f"Traffic with a p95 of {fmt.rate(scaling.traffic.p95_rps)} and a peak of "
        f"{fmt.rate(scaling.traffic.peak_rps)}, held by {min(needed)} to {max(needed)} replicas.",
    )


def _throughput(point: BatchPoint) -> tuple[float, float, float]:
    interval = point.throughput_rps
    return interval.value, interval.low, interval.high


def _p99(point: BatchPoint) -> tuple[float, float, float]:
    interval = point.latency_ms.p99
    return interval.value, interval.low, interval.high


def _curve(axes: Axes, points: Sequence[BatchPoint], pick: Any, color: str, name: str | None) -> None:
    ordered = sorted(points, key=lambda p: p.batch_size)
    sizes = [p.batch_size for p in ordered]
    values, lows, highs = zip(*(pick(p) for p in ordered), strict=True)
    if name is None:
        axes.plot(sizes, values, color=color, linewidth=1.0, zorder=2)
        return
    errors = [
        [max(v - low, 0) for v, low in zip(values, lows, strict=True)],
        [max(high - v, 0) for v, high in zip(values, highs, strict=True)],
    ]
    axes.errorbar(
        sizes,
        values,
        yerr=errors,
        color=color,
        marker="o",
        markersize=3.5,
        capsize=2.5,
        elinewidth=1,
        label=name,
        zorder=4,
    )


def _recommended(axes: Axes, result: SessionResult, best: TrialSummary, pick: Any) -> None:
    """Ring the two recommended batch sizes on the best's curve."""
    if result.batch is None:
        return
    marks: dict[int, list[str]] = {result.batch.job_batch: ["jobs"]}
    if result.batch.sla_batch is not None:
        marks.setdefault(result.batch.sla_batch, []).insert(0, "SLO")
    for size, names in marks.items():
        point = rows.at_batch(best, size)
        if point is None:
            continue
        value = pick(point)[0]
        axes.plot([size], [value], "o", markersize=10, markerfacecolor="none", markeredgecolor=Ink.BEST, zorder=5)
        axes.annotate(
            ", ".join(names),
            (size, value),
            xytext=(2, -18),
            textcoords="offset points",
            ha="center" if pick is _throughput else "left",
            fontsize=9.5,
            color=Ink.BEST,
            zorder=6,
        )


def _operator_color(operator: str) -> str:
    if operator in _OPERATOR_COLORS:
        return Ink.KINDS[_OPERATOR_COLORS.index(operator)]
    return Ink.OTHER
