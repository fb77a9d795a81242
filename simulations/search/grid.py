"""The recorded grid, standing in for the machine: what a trial would show, and the seconds that it would cost."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError

from simulations.search.space import BASELINE, Cell, all_cells
from tools.artifacts import write_file
from tools.contracts import Contract, Hardware, Interval
from tools.cost import cost_per_1000_usd
from tools.errors import InfertuneError
from tools.selection import QUEUEING_FACTOR

GRID_FILE = Path(__file__).with_name("grid.json.gz")
GOOD = 1.03
"""A cell is good when its figure is at most this many times that of the best."""
DRAWN = 20
"""Recorded calls that a noisy measurement draws: few, so that it is wrong by about as much as a short trial is."""
LEAST_SD = 0.005
"""Standard deviation of ln(figure) that even a measurement without noise is told to have: nothing is known better."""
_MEDIAN_ERROR = math.sqrt(math.pi / 2)
"""Standard error of the median of a normal sample over that of its mean."""
_IQR_OF_NORMAL = 1.349


class GridError(InfertuneError):
    """A recorded grid cannot be read."""


class MeasuringProtocol(Contract):
    """How the cells were measured."""

    cell_s: float
    """Seconds of sampling for a cell."""
    distill_s: float
    """Seconds that training a student might take."""
    seed: int = 0


class Provenance(Contract):
    """Where the figures come from, and what they are held against."""

    created: str
    """UTC, ISO 8601."""
    hardware: Hardware
    versions: dict[str, str]
    workload: str
    protocol: MeasuringProtocol
    price_per_hour_usd: float = Field(gt=0)
    p99_ms: float = Field(gt=0)
    """The SLO."""
    max_accuracy_drop: float = Field(ge=0)


class Accuracy(Contract):
    """What a student answers in a format."""

    value: float
    drop: float
    """Against the model as given; positive is worse."""


class Timing(Contract):
    """One cell as it was measured."""

    load_s: float = Field(ge=0)
    measure_s: float = Field(ge=0)
    """Warming up and sampling."""
    p99_ms: float = Field(gt=0)
    """Of all calls."""
    calls: int = Field(ge=1)
    """How many were timed."""
    disturbed: float = Field(ge=0, le=1)
    """Share of the time that was thrown away because something else used the machine."""
    samples_us: tuple[float, ...] = Field(min_length=1)
    """Times of single calls, thinned evenly, in microseconds to four digits."""


class Recording(Contract):
    """The content of a grid's file."""

    kind: Literal["infertune search grid"] = "infertune search grid"
    version: Literal[1] = 1
    provenance: Provenance
    flops: dict[str, float]
    """Of one item, by student."""
    parts_s: dict[str, float]
    """Seconds that each part took: a build step, or judging the accuracy of a format."""
    accuracy: dict[str, Accuracy]
    """By the name of the part that judged it."""
    cells: dict[str, Timing]
    """By the cell's name."""
    failures: dict[str, str] = Field(default_factory=dict)
    """Parts and cells that could not be had, with the reason: what they would have cost is in none of the figures."""


@dataclass(frozen=True)
class Observation:
    """What trying a cell showed.

    Attributes:
        cell: what was tried.
        cost_usd: of 1,000 requests.
        median_ms: of a call.
        sd: standard deviation of ln(cost).
        slowness: by how much the latency breaks the SLO, relative to it; 0 or less when it is kept.
        inaccuracy: by how much the accuracy drop exceeds what is allowed, in the metric's unit; 0 or less when not.
        paid_s: seconds of each part that had to be made for it.
    """

    cell: Cell
    cost_usd: float
    median_ms: float
    sd: float
    slowness: float
    inaccuracy: float
    paid_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def accurate(self) -> bool:
        """Whether the accuracy is kept."""
        return self.inaccuracy <= 1e-12

    @property
    def feasible(self) -> bool:
        """Whether every constraint is kept."""
        return self.accurate and self.slowness <= 0


class Grid:
    """A recording that answers as the machine would. Only cells that were measured are in it.

    Args:
        recording: as it was read.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.cells = tuple(c for c in all_cells() if c.key in recording.cells)
        self._truths = {cell: self._look(cell, np.asarray(self._timing(cell).samples_us)) for cell in self.cells}

    def truth(self, cell: Cell) -> Observation:
        """Return what all of the recorded calls say."""
        return self._truths[cell]

    def measure(self, cell: Cell, rng: np.random.Generator | None) -> Observation:
        """Return what a trial would show: the truth, or with a generator what a few calls drawn from it say.

        Latency and accuracy are held against their limits as they were recorded: noise hits the figure only.
        """
        if rng is None:
            return self._truths[cell]
        return self._look(cell, rng.choice(np.asarray(self._timing(cell).samples_us), DRAWN))

    @cached_property
    def best(self) -> Observation:
        """The feasible cell with the smallest figure.

        Raises:
            GridError: no cell is feasible.
        """
        feasible = [seen for seen in self._truths.values() if seen.feasible]
        if not feasible:
            raise GridError("no cell of the grid keeps every constraint.", fix="Record more of it, on a quiet machine.")
        return min(feasible, key=lambda seen: seen.cost_usd)

    def is_good(self, cell: Cell) -> bool:
        """Whether a cell is feasible, and its true figure within `GOOD` of the best."""
        seen = self._truths[cell]
        return seen.feasible and seen.cost_usd <= GOOD * self.best.cost_usd

    def part_s(self, part: str) -> float:
        """Return the seconds that a part took."""
        return self.recording.parts_s[part]

    def measuring_s(self, cell: Cell) -> float:
        """Return the seconds of loading and measuring a cell whose parts are there."""
        timing = self._timing(cell)
        return timing.load_s + timing.measure_s

    def _timing(self, cell: Cell) -> Timing:
        return self.recording.cells[cell.key]

    def _look(self, cell: Cell, samples_us: np.ndarray) -> Observation:
        limits = self.recording.provenance
        low, median, high = (float(x) for x in np.quantile(samples_us, (0.25, 0.5, 0.75)))
        rps = cell.batch * 1e6 / median
        throughput = Interval(value=rps, low=rps, high=rps, n=len(samples_us))
        error = _MEDIAN_ERROR * (high - low) / _IQR_OF_NORMAL / math.sqrt(len(samples_us)) / median
        waiting = 1.0 if cell.batch == 1 else QUEUEING_FACTOR
        return Observation(
            cell=cell,
            cost_usd=cost_per_1000_usd(limits.price_per_hour_usd, throughput).value,
            median_ms=median / 1e3,
            sd=max(error, LEAST_SD),
            slowness=waiting * self._timing(cell).p99_ms / limits.p99_ms - 1,
            inaccuracy=self.recording.accuracy[cell.judgement].drop - limits.max_accuracy_drop,
        )


class Meter:
    """Counts the seconds that a search spends. A part is paid by the first cell that needs it, and by no other.

    Args:
        grid: where the seconds are recorded.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self.built: set[str] = set()
        self.spent_s = 0.0

    def price_s(self, cell: Cell) -> float:
        """Return the seconds that trying a cell would cost now."""
        missing = [part for part in cell.parts if part not in self.built]
        return math.fsum(self._grid.part_s(part) for part in missing) + self._grid.measuring_s(cell)

    def pay(self, cell: Cell) -> dict[str, float]:
        """Try a cell: spend its price, and have its parts from now on. Returns the seconds of those that it added."""
        added = {part: self._grid.part_s(part) for part in cell.parts if part not in self.built}
        self.spent_s += self.price_s(cell)
        self.built.update(added)
        return added


def load_grid(path: Path = GRID_FILE) -> Grid:
    """Read a recorded grid.

    Raises:
        GridError: the file is missing, damaged or of another kind, or lacks what its cells need.
    """
    again = "Record it again: python -m simulations.search record."
    try:
        text = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise GridError("no such file.", where=str(path), fix=again) from None
    except (OSError, EOFError, zlib.error) as error:
        raise GridError(f"is damaged, or no gzip file ({error}).", where=str(path), fix=again) from None
    try:
        recording = Recording.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "its text"
        raise GridError(f"is no recorded grid: {field}: {first['msg']}.", where=str(path), fix=again) from None
    complaint = _missing(recording)
    if complaint is not None:
        raise GridError(complaint, where=str(path), fix=again)
    return Grid(recording)


def save_grid(recording: Recording, path: Path) -> None:
    """Write a recording, compressed; the same content gives the same bytes.

    Raises:
        StorageError: it cannot be written.
    """
    write_file(path, gzip.compress(recording.model_dump_json().encode(), mtime=0))


def _missing(recording: Recording) -> str | None:
    """Return what a recording lacks, as a sentence; None when it is whole."""
    known = {cell.key: cell for cell in all_cells()}
    unknown = sorted(recording.cells.keys() - known.keys())
    if unknown:
        return f"has a cell that is none of this search: {unknown[0]}."
    if BASELINE.key not in recording.cells:
        return f"lacks the model as given ({BASELINE.key})."
    for key in recording.cells:
        cell = known[key]
        parts = [part for part in cell.parts if part not in recording.parts_s]
        if parts:
            return f"lacks the seconds of {parts[0]!r}, which {key} needs."
        if cell.judgement not in recording.accuracy:
            return f"lacks the accuracy of {cell.student} with {cell.format}."
        if cell.student not in recording.flops:
            return f"lacks the FLOPs of {cell.student}."
    return None
