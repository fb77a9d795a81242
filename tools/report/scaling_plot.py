"""The plot of a scaling recommendation: traffic, replicas and p99 over the same time, before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tools.contracts.recommendation import Recommendation, Series
from tools.contracts.scaling import ScalingOption
from tools.report import format as fmt
from tools.report.svg import Ink, inline_svg, mark_slo, new_figure, styled
from tools.scaling.story import counted, stretch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHED = (0, (3, 2))
"""Before and after differ by dash as well as by colour."""
_SECONDS_FROM_MS = 10_000
_LOG_FROM = 8.0
"""A p99 that rises to this many times the SLO, or never to so small a part of it, is flat on a linear scale."""
_LOG_UP_TO = 100.0
"""What waits this many times the SLO is hopeless: how hopeless need not be seen, and would flatten the rest."""
_HOURS_UP_TO_MINUTES = 2 * 1440


@styled
def scaling(recommendation: Recommendation) -> str | None:
    """Draw three panels that share their time: requests per second, replicas, and p99 with the SLO.

    Returns:
        An `<svg>` element with a textual description; None when nothing was played.
    """
    lines = _lines(recommendation)
    if not lines:
        return None
    figure = new_figure(6.4)
    load, replicas, p99 = figure.subplots(3, 1, sharex=True, height_ratios=(1.3, 1, 1.3))
    unit, minutes_a_unit = ("hour", 60) if recommendation.minutes <= _HOURS_UP_TO_MINUTES else ("day", 1440)
    first = lines[0][1]
    times = [minute / minutes_a_unit for minute in first.minute]
    load.fill_between(times, first.rate_rps, color=Ink.MUTED, alpha=0.15, linewidth=0)
    load.plot(times, first.rate_rps, color=Ink.MUTED, linewidth=1.2)
    load.set_ylim(bottom=0)
    load.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    load.set_title("requests per second", loc="left", fontsize=11, color=Ink.TEXT)
    for name, series, color, dash in lines:
        own = [minute / minutes_a_unit for minute in series.minute]
        replicas.step(own, series.replicas, where="post", color=color, linestyle=dash, linewidth=1.5, label=name)
        p99.plot(own, _drawn(series.p99_ms, recommendation.slo_ms), color=color, linestyle=dash, linewidth=1.4)
    replicas.set_ylim(0, max(max(series.replicas) for _, series, _, _ in lines) + 1)
    replicas.yaxis.get_major_locator().set_params(integer=True, nbins=4)
    replicas.set_title("replicas", loc="left", fontsize=11, color=Ink.TEXT)
    _slo(p99, recommendation.slo_ms, [series.p99_ms for _, series, _, _ in lines])
    p99.set_xlabel(unit)
    p99.set_xlim(times[0], times[-1] if len(times) > 1 else times[0] + 1)
    p99.xaxis.get_major_locator().set_params(steps=[1, 2, 3, 4, 6, 10], nbins=8)
    handles, names = replicas.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=2, fontsize=11)
    for axes in (load, replicas, p99):
        axes.tick_params(labelsize=11)
    title = "Traffic, replicas and p99 over the same time, before and after"
    return inline_svg(figure, "scaling", title, describe(recommendation))


def describe(recommendation: Recommendation) -> str:
    """Say in words what the plot shows, for those who cannot see it."""
    lines = _lines(recommendation)
    if not lines:
        return "Nothing was played."
    rates = lines[0][1].rate_rps
    over, highest = stretch(recommendation.minutes), fmt.rate(max(rates))
    parts = [f"Traffic over {over}, up to {highest}, against an SLO of {fmt.ms(recommendation.slo_ms)} at p99."]
    played = {"before": recommendation.today, "after": _after(recommendation)}
    for name, series, _, _ in lines:
        option = played[name.split(":", maxsplit=1)[0]]
        missed = option.outcomes[0].missed_minutes if option is not None else 0
        parts.append(
            f"{name[0].upper()}{name[1:]}: {min(series.replicas):.0f} to {max(series.replicas):.0f} replicas, "
            f"p99 up to {_time(max(series.p99_ms))}, SLO missed in {counted(missed, 'minute')}."
        )
    return " ".join(parts)


def _lines(recommendation: Recommendation) -> list[tuple[str, Series, str, object]]:
    """Return what was played, the HPA in use first: its name, its series, its colour and its dash."""
    after = "after: recommended" if recommendation.chosen else "after: the closest"
    found = (
        ("before: today's HPA", recommendation.before, Ink.BASELINE, _DASHED),
        (after, recommendation.after, Ink.BEST, "solid"),
    )
    return [(name, series, color, dash) for name, series, color, dash in found if series is not None and series.minute]


def _after(recommendation: Recommendation) -> ScalingOption | None:
    if recommendation.chosen is not None:
        return recommendation.chosen
    return None if recommendation.closest is None else recommendation.closest.option


def _slo(axes: Axes, slo_ms: float, series: Sequence[Sequence[float]]) -> None:
    """Mark the SLO, and choose a scale on which both it and the worst p99 can be read."""
    from matplotlib.ticker import LogLocator, NullLocator

    shown = [value for values in series for value in values if math.isfinite(value)]
    highest = max(shown, default=slo_ms)
    title = "p99 (ms)"
    if not slo_ms / _LOG_FROM <= highest <= _LOG_FROM * slo_ms:
        lowest = min((value for value in shown if value > 0), default=slo_ms)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(base=10))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.15g}")
        upper = 1.5 * highest if highest > slo_ms else 2.5 * slo_ms  # what the SLO is stands above its line
        axes.set_ylim(min(lowest, slo_ms) / 1.5, min(upper, _LOG_UP_TO * slo_ms))
        cut = f", cut off at {_LOG_UP_TO:g} times the SLO" if highest > _LOG_UP_TO * slo_ms else ""
        title = f"p99 (ms, log scale{cut})"
    else:
        axes.set_ylim(0, 1.12 * max(highest, slo_ms))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_title(title, loc="left", fontsize=11, color=Ink.TEXT)
    mark_slo(axes, slo_ms, fmt.ms(slo_ms))


def _time(ms: float) -> str:
    return fmt.ms(ms) if ms < _SECONDS_FROM_MS else fmt.seconds(ms / 1000) if math.isfinite(ms) else "infinite"


def _drawn(values: Sequence[float], slo_ms: float) -> list[float]:
    """Return the values as far as the scale goes, with a gap where there is none."""
    return [math.nan if math.isnan(value) else min(value, _LOG_UP_TO * slo_ms) for value in values]
