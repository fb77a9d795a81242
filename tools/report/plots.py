"""The plots of batch sizes and of layers, each as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tools.contracts import BatchPoint, LayerProfile
from tools.measure.layers import kind_of
from tools.report import format as fmt
from tools.report import rows
from tools.report.svg import Ink, inline_svg, new_figure, plain_log_ticks, styled
from tools.result import SessionResult, TrialSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LAYERS = 15
_PATH_WIDTH = 34
_OTHER_CURVES = 6
_COLORED = ("convolution", "linear", "normalization", "activation", "attention", "pooling")
"""Kinds of operators with a colour of their own, the same in every report."""
_BASELINE: dict[str, Any] = {"color": Ink.BASELINE, "marker": "s", "linestyle": (0, (4, 2))}
_BEST: dict[str, Any] = {"color": Ink.BEST, "marker": "o"}
"""Baseline and best differ by marker and dash as well as by colour."""


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
            _curve(axes, trial.points, pick, {"color": Ink.OTHER}, None)
        for named, look, role in ((baseline, _BASELINE, "baseline"), (best, _BEST, "best")):
            if named is not None and named in curves:
                _curve(axes, named.points, pick, look, f"{role}: {fmt.clean(named.recipe)}")
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
    told = " ".join(
        f"{role}, {fmt.clean(t.recipe)}: {_in_words(t.points)}."
        for role, t in (("Best", best), ("Baseline", baseline))
        if t is not None and t in curves
    )
    words = f"Throughput and p99 of a batch against its size, {len(curves)} candidates. {told}".rstrip()
    return inline_svg(figure, "batch", "Throughput and p99 against the batch size", words)


@styled
def layers(slowest: Sequence[LayerProfile]) -> str | None:
    """Draw the shares of the slowest layers as bars, coloured by kind of operator."""
    shown = list(slowest)[:_LAYERS]
    if not shown:
        return None
    figure = new_figure(0.9 + 0.29 * len(shown))
    axes = figure.add_subplot()
    seen: dict[str, Any] = {}
    kinds = [kind_of(layer.operator) for layer in shown]
    for place, layer in enumerate(shown):
        bars = axes.barh(place, layer.share * 100, height=0.66, color=_kind_color(kinds[place]))
        seen.setdefault(kinds[place], bars)
        kind = f", {kinds[place]}" if len(set(kinds)) > 1 else ""
        axes.annotate(
            f"{layer.share * 100:.1f} %  ({fmt.ms(layer.ms)}{kind})",
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
    axes.margins(x=0.16 if len(set(kinds)) == 1 else 0.28)
    axes.set_xlabel("share of the forward pass (%)")
    axes.legend(seen.values(), seen.keys(), loc="lower right", fontsize=9.5)
    told = "; ".join(f"{fmt.clean(layer.path)} {layer.share * 100:.1f} %, {fmt.ms(layer.ms)}" for layer in shown)
    return inline_svg(figure, "layers", "The slowest layers", f"Shares of the forward pass, slowest first: {told}.")


def _in_words(points: Sequence[BatchPoint]) -> str:
    """Return a curve's figures: `batch 1 7,750/s, 0.237 ms; batch 2 ...`."""
    ordered = sorted(points, key=lambda p: p.batch_size)
    return "; ".join(
        f"batch {p.batch_size} {fmt.rate(p.throughput_rps.value)}, {fmt.ms(p.latency_ms.p99.value)}" for p in ordered
    )


def _throughput(point: BatchPoint) -> tuple[float, float, float]:
    interval = point.throughput_rps
    return interval.value, interval.low, interval.high


def _p99(point: BatchPoint) -> tuple[float, float, float]:
    interval = point.latency_ms.p99
    return interval.value, interval.low, interval.high


def _curve(axes: Axes, points: Sequence[BatchPoint], pick: Any, look: dict[str, Any], name: str | None) -> None:
    ordered = sorted(points, key=lambda p: p.batch_size)
    sizes = [p.batch_size for p in ordered]
    values, lows, highs = zip(*(pick(p) for p in ordered), strict=True)
    if name is None:
        axes.plot(sizes, values, **look, linewidth=1.0, zorder=2)
        return
    errors = [
        [max(v - low, 0) for v, low in zip(values, lows, strict=True)],
        [max(high - v, 0) for v, high in zip(values, highs, strict=True)],
    ]
    axes.errorbar(
        sizes,
        values,
        yerr=errors,
        **look,
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


def _kind_color(kind: str) -> str:
    return Ink.KINDS[_COLORED.index(kind)] if kind in _COLORED else Ink.OTHER
