"""The plot of a simulation: traffic, replicas and p99 over the same time, for one or two settings, as a file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from tools.artifacts import write_file
from tools.contracts.recommendation import Series
from tools.errors import SpecError
from tools.report.svg import Ink, inline_svg, mark_slo, new_figure, plain_log_ticks, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = ((Ink.BASELINE, (0, (3, 2))), (Ink.BEST, "solid"))
"""Colour and dash of two settings, which differ by both; one alone has the last."""
_UP_TO = 100.0
"""What waits this many times the SLO is hopeless: how hopeless need not be seen, and would flatten the rest."""
_HOURS_UP_TO_MINUTES = 2 * 1440
_PALETTE = """
:root { color-scheme: light dark; --paper: #fcfcfa; --ink: #1b2226; --muted: #5b676e; --line: #dfe2df;
  --best: #0b6b6a; --base: #a15c12; --limit: #b3263a; --other: #a9b1b4; }
@media (prefers-color-scheme: dark) { :root { --paper: #13171a; --ink: #e4e8e8; --muted: #9aa6ac; --line: #2d343a;
  --best: #57c4ba; --base: #e2a15a; --limit: #f0818c; --other: #59646b; } }
svg { background: var(--paper); font-family: system-ui, sans-serif; }
"""
"""The report's colours, for a file that stands alone."""


def write_plot(path: Path, settings: Sequence[tuple[str, Series]], *, slo_ms: float, title: str, about: str) -> None:
    """Draw settings over the same traffic, and write the drawing.

    Args:
        path: `.svg`, or `.html` for a page with the sentences below the drawing.
        settings: name and series of one or two.
        slo_ms: p99 to keep.
        title: of the page.
        about: what a person hears who cannot see the drawing.

    Raises:
        SpecError: the name ends otherwise.
        StorageError: the file cannot be written.
    """
    check_plot_name(path)
    svg = draw(settings, slo_ms=slo_ms, description=about)
    if path.suffix == ".svg":
        head, rest = svg.split(">", 1)
        write_file(path, f"{head}><style>{_PALETTE}</style>{rest}\n")
        return
    page = (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>\n<style>{_PALETTE}'
        "body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif;\n"
        "  background: var(--paper); color: var(--ink); }\n</style>\n"
        f"<h1>{escape(title)}</h1>\n<figure>{svg}</figure>\n<p>{escape(about)}</p>\n</html>\n"
    )
    write_file(path, page)


def check_plot_name(path: Path) -> None:
    """Check that a plot can be written under this name.

    Raises:
        SpecError: it ends in neither `.svg` nor `.html`.
    """
    if path.suffix not in (".svg", ".html"):
        raise SpecError("is neither an .svg nor an .html file.", where=f"--plot {path}", fix="Name one, as day.svg.")


@styled
def draw(settings: Sequence[tuple[str, Series]], *, slo_ms: float, description: str) -> str:
    """Return three panels that share their time as an `<svg>` element: requests per second, replicas, p99."""
    figure = new_figure(6.4)
    load, replicas, p99 = figure.subplots(3, 1, sharex=True, height_ratios=(1.3, 1, 1.3))
    minutes = settings[0][1].minute
    unit, minutes_a_unit = ("hour", 60) if minutes[-1] <= _HOURS_UP_TO_MINUTES else ("day", 1440)
    times = [minute / minutes_a_unit for minute in minutes]
    rates = settings[0][1].rate_rps
    load.fill_between(times, rates, color=Ink.MUTED, alpha=0.15, linewidth=0)
    load.plot(times, rates, color=Ink.MUTED, linewidth=1.2)
    load.set_ylim(bottom=0)
    for (name, series), (color, dash) in zip(settings, STYLES[-len(settings) :], strict=True):
        replicas.step(times, series.replicas, where="post", color=color, linestyle=dash, label=name)
        p99.plot(times, [min(ms, _UP_TO * slo_ms) for ms in series.p99_ms], color=color, linestyle=dash)
    replicas.set_ylim(0, max(max(series.replicas) for _, series in settings) + 1)
    replicas.yaxis.get_major_locator().set_params(integer=True, nbins=4)
    _latency_axis(p99, slo_ms, [ms for _, series in settings for ms in series.p99_ms])
    p99.set_xlabel(unit)
    p99.set_xlim(times[0], times[-1] if len(times) > 1 else times[0] + 1)
    p99.xaxis.get_major_locator().set_params(steps=[1, 2, 3, 4, 6, 10], nbins=8)
    highest_ms = max(max(series.p99_ms) for _, series in settings)
    cut = f", cut off at {_UP_TO:g} times the SLO" if highest_ms > _UP_TO * slo_ms else ""
    titles = ("requests per second", "replicas that serve", f"p99 (ms, log scale{cut})")
    for axes, title in zip((load, replicas, p99), titles, strict=True):
        axes.set_title(title, loc="left", fontsize=11, color=Ink.TEXT)
    load.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    handles, names = replicas.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", fontsize=10)
    return inline_svg(figure, "simulation", "Traffic, replicas and p99 over the same time", description)


def _latency_axis(axes: Axes, slo_ms: float, p99_ms: Sequence[float]) -> None:
    """Scale the p99 so that the SLO, an idle replica and a hopeless backlog can be read."""
    lowest_ms, highest_ms = min(slo_ms, *p99_ms), min(max(slo_ms, *p99_ms), _UP_TO * slo_ms)
    axes.set_yscale("log")
    axes.set_ylim(lowest_ms / 1.5, 2 * highest_ms)
    plain_log_ticks(axes, "y")
    mark_slo(axes, slo_ms, f"{slo_ms:g} ms")
