"""The settings of an autoscaler as rows of a table, and a plan's events."""

from __future__ import annotations

from dataclasses import dataclass

from tools.contracts import ScalingOption
from tools.report import format as fmt
from tools.result import ScalingSummary


@dataclass(frozen=True)
class SettingRow:
    """One setting, and what it did over the recorded traffic in the twin."""

    name: str
    cost: str
    missed: str
    worst_p99: str
    replicas: str
    scalings: str
    verdict: str
    """`chosen`, or why it was not; empty for what keeps every promise and costs more."""
    chosen: bool


def settings(scaling: ScalingSummary | None) -> tuple[SettingRow, ...]:
    """Return the chosen setting first, then today's, then the others as they are kept."""
    recommendation = None if scaling is None else scaling.recommendation
    if recommendation is None:
        return ()
    first = [o for o in (recommendation.chosen, recommendation.today) if o is not None]
    if recommendation.closest is not None:
        first.insert(0, recommendation.closest.option)
    ordered = {option.name: option for option in (*first, *recommendation.options)}
    chosen = recommendation.chosen
    return tuple(_row(o, chosen=chosen is not None and o.name == chosen.name) for o in ordered.values() if o.outcomes)


def _row(option: ScalingOption, *, chosen: bool) -> SettingRow:
    recorded = option.outcomes[0]
    return SettingRow(
        name=option.name,
        cost=fmt.usd(recorded.cost_usd),
        missed=f"{recorded.missed_minutes:,} of {recorded.minutes:,}",
        worst_p99=fmt.ms(recorded.worst_p99_ms),
        replicas=f"{recorded.mean_replicas:.1f}, at most {recorded.peak_replicas}",
        scalings=f"{recorded.scalings:,} ({recorded.reversals:,} turned back)",
        verdict="chosen" if chosen else option.rejected or "",
        chosen=chosen,
    )
