"""The plot of the traffic and of the replicas that hold it, of the model as given and of the best, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tools.report import format as fmt
from tools.report.svg import Ink, inline_svg, new_figure, styled
from tools.result import ScalingSummary, SessionResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHED = (0, (3, 2))
"""Before and after differ by dash as well as by colour."""
_LOG_FROM = 12
"""So many times as many replicas before as after: on a linear scale what comes after would lie on the floor."""


@styled
def traffic(result: SessionResult) -> str | None:
    """Draw the traffic, and below it the replicas that hold it minute by minute, before and after.

    Before is left out where the model as given was not timed in turn with the best.

    Returns:
        An `<svg>` element with a textual description; None without a series of at least two points.
    """
    scaling = result.scaling
    if scaling is None or len(scaling.traffic.series) < 2 or scaling.usable_rps <= 0:
        return None
    hours = [second / 3600 for second, _ in scaling.traffic.series]
    rates = [rate for _, rate in scaling.traffic.series]
    after = [min(count, scaling.max_replicas) for count in _needed(rates, scaling.usable_rps, scaling)]
    usable_before = usable_as_given_rps(result)
    before = None if usable_before is None else _needed(rates, usable_before, scaling)
    figure = new_figure(4.6)
    load, replicas = figure.subplots(2, 1, sharex=True, height_ratios=(1.6, 1.2))
    _load(load, hours, rates, scaling)
    if before is not None:
        name = "before: the model as given"
        replicas.step(hours, before, where="post", color=Ink.BASELINE, linestyle=_DASHED, linewidth=1.5, label=name)
    replicas.step(hours, after, where="post", color=Ink.BEST, linewidth=1.5, label="after: the best")
    _count_axis(replicas, before or after, after)
    replicas.set_xlabel("hour")
    replicas.set_xlim(hours[0], hours[-1])
    replicas.xaxis.get_major_locator().set_params(steps=[1, 2, 3, 4, 6, 10], nbins=12)
    if before is not None:
        figure.legend(*replicas.get_legend_handles_labels(), loc="outside upper left", ncols=2, fontsize=11)
    for axes in (load, replicas):
        axes.tick_params(labelsize=11)
    return inline_svg(
        figure, "traffic", "The traffic, and the replicas that hold it", _describe(scaling, before, after)
    )


def usable_as_given_rps(result: SessionResult) -> float | None:
    """Return what is planned for a replica of the model as given, by the rule that the best is planned by.

    It is the low end of its capacity, which follows from the two timed in turn, times the planned utilization.

    Returns:
        Requests per second; None where nothing was timed in turn, or the scaling was planned without it.
    """
    scaling, best, ratio = result.scaling, result.best, result.ratio
    if scaling is None or scaling.baseline_replicas_peak is None or best is None or ratio is None:
        return None
    return best.throughput_rps / ratio.throughput.high * scaling.utilization


def _needed(rates: Sequence[float], usable_rps: float, scaling: ScalingSummary) -> list[int]:
    return [max(math.ceil(rate / usable_rps), scaling.min_replicas) for rate in rates]


def _load(axes: Axes, hours: Sequence[float], rates: Sequence[float], scaling: ScalingSummary) -> None:
    axes.fill_between(hours, rates, color=Ink.MUTED, alpha=0.15, linewidth=0)
    axes.plot(hours, rates, color=Ink.MUTED, linewidth=1.2)
    for value, name in ((scaling.traffic.p95_rps, "p95"), (scaling.traffic.peak_rps, "peak")):
        axes.axhline(value, color=Ink.MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.annotate(
            f"{name} {fmt.rate(value)}",
            (1, value),
            xycoords=("axes fraction", "data"),
            xytext=(-2, -3 if name == "p95" else 3),
            textcoords="offset points",
            ha="right",
            va="top" if name == "p95" else "bottom",
            fontsize=10,
            color=Ink.MUTED,
        )
    axes.set_ylim(bottom=0, top=max(*rates, scaling.traffic.peak_rps) * 1.15)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_title("requests per second", loc="left", fontsize=11, color=Ink.TEXT)


def _count_axis(axes: Axes, most: Sequence[int], fewest: Sequence[int]) -> None:
    """Scale the replicas so that both lines can be read."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

    scale = ""
    if max(most) > _LOG_FROM * max(fewest):
        scale = " (log scale)"
        axes.set_yscale("log")
        axes.set_ylim(0.8, max(most) * 1.6)
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    else:
        axes.set_ylim(0, max(most) + 1)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.set_title(f"replicas that hold it{scale}", loc="left", fontsize=11, color=Ink.TEXT)


def _describe(scaling: ScalingSummary, before: Sequence[int] | None, after: Sequence[int]) -> str:
    told = (
        f"Traffic with a p95 of {fmt.rate(scaling.traffic.p95_rps)} and a peak of "
        f"{fmt.rate(scaling.traffic.peak_rps)}, held by {_range(after)} of the best"
    )
    return f"{told}." if before is None else f"{told}, and by {_range(before)} of the model as given."


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low} to {high} replicas" if low < high else f"{low} replica{'s' if low > 1 else ''}"
