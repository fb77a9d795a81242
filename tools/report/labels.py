"""Labels beside the dots of a scatter plot that touch neither each other nor another dot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from tools.report.svg import Ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Label: TypeAlias = tuple[float, float, str, str]
"""(x, y, text, colour), x and y in data units."""
Box: TypeAlias = tuple[float, float, float, float]
"""(left, bottom, right, top) in pixels."""

_DOT = 6.0
_FONT_SIZE = 9.5
_BESIDE = 10.0
"""Points between a dot and the end of a label beside it."""
_OFFSETS = [
    (side * distance, up * distance)
    for distance in (14, 24, 36, 50, 66)
    for side, up in ((0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1), (2, 1), (-2, 1))
]
"""Places to try around a dot, in points, nearest first."""


def place_labels(axes: Axes, labels: Sequence[Label], dots: Sequence[tuple[float, float]]) -> None:
    """Write each label at the nearest free place, with a hair line to its dot.

    A label for which no place is free is left out: the table beside the plot has them all.

    Args:
        axes: with its limits settled; the layout is fixed by drawing it once.
        labels: in order of importance.
        dots: all dots in data units, also those without a label.
    """
    figure = axes.get_figure(root=True)
    if figure is None:
        raise ValueError("the axes belong to no figure")
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    pixels_per_point = figure.dpi / 72
    taken: list[Box] = [around(x, y, _DOT, _DOT) for x, y in map(axes.transData.transform, dots)]
    for x, y, text, color in labels:
        extent = axes.text(0, 0, text, fontsize=_FONT_SIZE).get_window_extent()
        axes.texts[-1].remove()
        center_x, center_y = axes.transData.transform((x, y))
        width_points = extent.width / pixels_per_point
        for dx, dy in (*_OFFSETS, *_beside(width_points)):
            seat = around(
                center_x + dx * pixels_per_point,
                center_y + dy * pixels_per_point,
                extent.width / 2 + 3,
                extent.height / 2 + 2,
            )
            inside = frame.x0 <= seat[0] and seat[2] <= frame.x1 and frame.y0 <= seat[1] and seat[3] <= frame.y1
            if inside and not any(overlap(seat, other) for other in taken):
                taken.append(seat)
                _write(axes, (x, y), (dx, dy), text, color)
                break


def _beside(width_points: float) -> list[tuple[float, float]]:
    """Return places that begin or end beside a dot, above and below it: what a wide label needs at an edge."""
    reach = width_points / 2 + _BESIDE
    return [(side * reach, up * distance) for distance in (20, 28, 38, 50, 66) for side in (1, -1) for up in (1, -1)]


def around(x: float, y: float, half_width: float, half_height: float) -> Box:
    """Return the box about a center."""
    return (x - half_width, y - half_height, x + half_width, y + half_height)


def overlap(a: Box, b: Box) -> bool:
    """Whether two boxes share some area."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _write(axes: Axes, at: tuple[float, float], offset: tuple[float, float], text: str, color: str) -> None:
    axes.annotate(
        text,
        at,
        xytext=offset,
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=_FONT_SIZE,
        color=color,
        arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.7, "alpha": 0.5, "shrinkA": 1, "shrinkB": 5},
        bbox={"facecolor": Ink.PAPER, "edgecolor": "none", "alpha": 0.85, "pad": 1},  # lines pass behind the words
        zorder=6,
    )
