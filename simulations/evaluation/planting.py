"""Changing a recorded grid: other promises, and surprises that are planted in it."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from simulations.search.grid import Grid, Recording
from simulations.search.space import Cell, all_cells
from tools.contracts import Contract


class Planted(Contract):
    """A surprise: some of the cells are slower, or answer worse, than they were recorded to."""

    where: dict[str, str]
    """Levels of the cells that it hits, by attribute of `Cell`: `{precision: int8-static}`."""
    slower: float = Field(1.0, gt=0)
    """Times as long for each call."""
    drop: float = 0.0
    """Added to the accuracy drop, in the metric's unit."""

    def hits(self, cell: Cell) -> bool:
        """Whether a cell is among those."""
        return all(str(getattr(cell, factor)) == level for factor, level in self.where.items())


HARDER_STUDENTS = (
    Planted(where={"student": "resnet18"}, drop=0.020),
    Planted(where={"student": "resnet18@width=0.5"}, drop=0.034),
    Planted(where={"student": "resnet18@width=0.25"}, drop=0.040),
)
"""Students that pay for being small: as recorded, all of them answer better than their teacher, so that no limit on the
accuracy drop would bind. With this they lose about 0.5, 1.5 and 2.5 points."""


def varied(recording: Recording, *, p99_ms: float, max_accuracy_drop: float, planted: Sequence[Planted] = ()) -> Grid:
    """Return a recorded grid with other promises and with what is planted."""
    promises = {"p99_ms": p99_ms, "max_accuracy_drop": max_accuracy_drop}
    cells, accuracy = dict(recording.cells), dict(recording.accuracy)
    known = {cell.key: cell for cell in all_cells()}
    for one in planted:
        hit = [known[key] for key in cells if one.hits(known[key])]
        for cell in hit:
            timing = cells[cell.key]
            slow = {
                "p99_ms": timing.p99_ms * one.slower,
                "samples_us": tuple(value * one.slower for value in timing.samples_us),
            }
            cells[cell.key] = timing.model_copy(update=slow)
        for judgement in {cell.judgement for cell in hit}:
            judged = accuracy[judgement]
            worse = {"value": judged.value - one.drop, "drop": judged.drop + one.drop}
            accuracy[judgement] = judged.model_copy(update=worse)
    update = {
        "provenance": recording.provenance.model_copy(update=promises),
        "cells": cells,
        "accuracy": accuracy,
    }
    return Grid(recording.model_copy(update=update))
