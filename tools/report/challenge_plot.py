"""The plot of the challenge: throughput and p99 of every step, as inline SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tools.challenge import Challenge, ChallengeStep, StepOutcome
from tools.contracts import Interval
from tools.report import format as fmt
from tools.report.svg import Ink, inline_svg, new_figure, plain_log_ticks, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOOKS: dict[StepOutcome, dict[str, Any]] = {
    StepOutcome.BASELINE: {"color": Ink.BASELINE},
    StepOutcome.TAKEN: {"color": Ink.BEST},
    StepOutcome.COMPUTED: {"facecolor": "none", "edgecolor": Ink.BEST, "linestyle": (0, (1, 2)), "linewidth": 1.4},
}
_NOT_TAKEN: dict[str, Any] = {"facecolor": "none", "edgecolor": Ink.MUTED, "hatch": "///", "linewidth": 0.8}
"""What is not taken differs by its hatching, not by colour alone."""

_MANY_TICKS = 200
"""An axis that spans more than this has room for powers of ten only."""


@styled
def draw_steps(challenge: Challenge) -> str | None:
    """Draw throughput (times that of the model as given) and p99 of every step that has figures.

    Returns:
        An `<svg>` element with a textual description; None when there is nothing but the model as given.
    """
    steps = [step for step in challenge.steps if step.figures is not None]
    if len(steps) < 2:
        return None
    figure = new_figure(1.3 + 0.42 * len(steps))
    throughput, p99 = figure.subplots(1, 2, sharey=True, width_ratios=(1.25, 1))
    base = steps[0].figures
    assert base is not None
    for place, step in enumerate(steps):
        assert step.figures is not None
        served = step.figures.throughput_rps.scaled(1 / base.throughput_rps.value)
        _bar(throughput, place, step, served, f"{fmt.number(served.value)}x")
        _bar(p99, place, step, step.figures.p99_ms, fmt.ms(step.figures.p99_ms.value))
    for axes, title in (
        (throughput, "throughput, times the model as given (log scale)"),
        (p99, "p99 of a call (ms, log scale)"),
    ):
        axes.set_title(title, loc="left", fontsize=10, color=Ink.TEXT)
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        high *= (high / low) ** 0.25  # the figures stand to the right of the bars
        axes.set_xlim(low, high)
        plain_log_ticks(axes)
        if high / low > _MANY_TICKS:
            axes.xaxis.get_major_locator().set_params(subs=(1,))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.grid(visible=False, axis="y")
    throughput.axvline(1, color=Ink.MUTED, linewidth=0.8)
    throughput.set_yticks(range(len(steps)), [step.name for step in steps])
    throughput.tick_params(axis="y", labelcolor=Ink.TEXT, length=0)
    throughput.invert_yaxis()
    return inline_svg(figure, "steps", "Throughput and p99, step by step", describe(steps))


def describe(steps: list[ChallengeStep]) -> str:
    """Return the plot in words, for whoever cannot see it."""
    told = []
    first = steps[0].figures
    assert first is not None
    for step in steps:
        assert step.figures is not None
        served, slowest = step.figures.throughput_rps.value, step.figures.p99_ms.value
        gain = fmt.number(served / first.throughput_rps.value)
        told.append(f"{step.name}, {step.outcome.value}: {fmt.rate(served)} ({gain}x), p99 {fmt.ms(slowest)}")
    return f"Throughput and p99 step by step. {'; '.join(told)}."


def _bar(axes: Axes, place: int, step: ChallengeStep, value: Interval, text: str) -> None:
    axes.barh(place, value.value, height=0.6, **_LOOKS.get(step.outcome, _NOT_TAKEN))
    if value.low < value.high:
        reach = [[max(value.value - value.low, 0)], [max(value.high - value.value, 0)]]
        axes.errorbar(value.value, place, xerr=reach, color=Ink.TEXT, capsize=2, elinewidth=0.9, fmt="none")
    axes.annotate(
        text,
        (max(value.value, value.high), place),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=9.5,
        color=Ink.TEXT,
    )
