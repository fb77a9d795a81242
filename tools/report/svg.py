"""Matplotlib figures as inline SVG that follows the page: its fonts, its colours by light and dark, its width.

Figures are drawn with the placeholder colours of `Ink`; in the SVG they become CSS variables of the page, so one
drawing serves both colour schemes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from functools import wraps
from html import escape
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Ink:
    """Placeholder colours. Each stands for the CSS variable of its name; none is ever seen."""

    TEXT = "#0a0b01"
    MUTED = "#0a0b02"
    FAINT = "#0a0b03"
    PAPER = "#0a0b04"
    BEST = "#0a0b05"
    BASELINE = "#0a0b06"
    LIMIT = "#0a0b07"
    OTHER = "#0a0b08"
    KINDS = ("#0a0b11", "#0a0b12", "#0a0b13", "#0a0b14", "#0a0b15", "#0a0b16")


_VARIABLES = {
    Ink.TEXT: "--ink",
    Ink.MUTED: "--muted",
    Ink.FAINT: "--line",
    Ink.PAPER: "--paper",
    Ink.BEST: "--best",
    Ink.BASELINE: "--base",
    Ink.LIMIT: "--limit",
    Ink.OTHER: "--other",
    **{color: f"--kind-{i}" for i, color in enumerate(Ink.KINDS, start=1)},
}

STYLE: dict[str, Any] = {
    "svg.hashsalt": "infertune",  # the same figure always becomes the same text
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and copied
    "text.parse_math": False,  # a `$` in a layer's name is a dollar sign
    "font.family": "DejaVu Sans",  # ships with matplotlib; wider than system fonts, so their text fits its place
    "font.size": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": Ink.FAINT,
    "axes.labelcolor": Ink.MUTED,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": Ink.FAINT,
    "grid.linewidth": 0.7,
    "text.color": Ink.TEXT,
    "xtick.color": Ink.FAINT,
    "ytick.color": Ink.FAINT,
    "xtick.labelcolor": Ink.MUTED,
    "ytick.labelcolor": Ink.MUTED,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
}


_WIDTH_IN = 8.6
P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function under `STYLE`, whatever the person's matplotlibrc says."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        from matplotlib import style

        with style.context(["default", STYLE]), warnings.catch_warnings():
            # a name in a script that this font lacks is measured a little wrong; the browser has the glyphs
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            return draw(*args, **kwargs)

    return drawn


def new_figure(height_in: float) -> Figure:
    """Return an empty figure as wide as the page's column; to be called from a `styled` function."""
    from matplotlib.figure import Figure

    return Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")


def plain_log_ticks(axes: Axes, which: str = "x") -> None:
    """Write a log axis' ticks as plain numbers (0.5, 1, 2, 5, ...), few enough to read."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def mark_slo(axes: Axes, slo: float, text: str) -> None:
    """Draw a dashed line across the axes at the SLO, and write what it is above its left end."""
    axes.axhline(slo, color=Ink.LIMIT, linestyle=(0, (5, 3)), linewidth=1.2)
    axes.annotate(
        f"SLO {text}",
        (0, slo),
        xycoords=("axes fraction", "data"),
        xytext=(4, 4),
        textcoords="offset points",
        color=Ink.LIMIT,
        fontsize=11,
    )


def inline_svg(figure: Figure, name: str, title: str, description: str) -> str:
    """Render a figure as an `<svg>` element to put into the page.

    Args:
        figure: drawn by a `styled` function with the colours of `Ink`.
        name: prefix of every id inside, so that several drawings can share a page.
        title: what is drawn, in a few words; browsers show it under the pointer.
        description: what a person hears who cannot see it, with the figures that the drawing shows.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]  # no XML prolog, no DOCTYPE inside a page
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would style the whole page
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: (?:\d{3} )?([\d.]+px) [^;\"]*", r"font-size: \1", svg)  # shorthand, before matplotlib 3.11
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub("|".join(_VARIABLES), lambda found: f"var({_VARIABLES[found.group()]})", svg)
    head, rest = svg.split(">", 1)
    head = re.sub(r' (?:width|height)="[^"]*"', "", head)
    attributes = f'role="img" aria-label="{escape(description)}" style="stroke-linejoin: round"'
    return f"{head} {attributes}><title>{escape(title)}</title>{rest}"
