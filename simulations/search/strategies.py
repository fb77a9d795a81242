"""What a search is: it is told what was seen so far, and names the cell to try next. It measures nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from simulations.search.grid import Grid, MeasuringProtocol, Observation
from simulations.search.space import TEACHER, Cell
from tools.contracts import Hardware


class Strategy(Protocol):
    """A search."""

    def next(self, history: Sequence[Observation]) -> Cell | None:
        """Return what to try next, or None to stop.

        Args:
            history: what was seen so far, in order; the first is the model as given.
        """
        ...


@dataclass(frozen=True)
class Briefing:
    """What a search may know before the first trial.

    Attributes:
        cells: all that can be tried.
        flops: of each student, over those of the model as given.
        hardware: the machine.
        measuring: how long measuring and training may take.
        p99_ms: the SLO.
    """

    cells: tuple[Cell, ...]
    flops: Mapping[str, float]
    hardware: Hardware
    measuring: MeasuringProtocol
    p99_ms: float

    @classmethod
    def of(cls, grid: Grid) -> Briefing:
        """Return what is known of a grid without looking into it."""
        recording = grid.recording
        teacher = recording.flops[TEACHER]
        return cls(
            cells=grid.cells,
            flops={student: flops / teacher for student, flops in recording.flops.items()},
            hardware=recording.provenance.hardware,
            measuring=recording.provenance.protocol,
            p99_ms=recording.provenance.p99_ms,
        )


def incumbent(history: Sequence[Observation]) -> Observation | None:
    """Return what a search would recommend now: the cheapest of what was seen to be feasible; None without one."""
    return min((one for one in history if one.feasible), key=lambda one: one.cost_usd, default=None)
