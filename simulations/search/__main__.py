"""`python -m simulations.search`: let the searches race; `python -m simulations.search record`: record the grid."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from agent.home import home_directory
from simulations.search.grid import GRID_FILE, Grid, MeasuringProtocol, load_grid
from simulations.search.race import SEEDS, describe, race, table
from simulations.search.record import record
from tools.errors import InfertuneError


def main(arguments: Sequence[str] | None = None) -> int:
    """Race or record, print, and return the exit code: 2 for what a person can mend."""
    options = _parser().parse_args(arguments)
    console = Console(width=150, highlight=False, markup=False)
    began = time.monotonic()
    try:
        if options.command == "record":
            protocol = MeasuringProtocol(cell_s=options.cell_s, distill_s=options.distill_s)
            recording = record(
                home_directory(options.home), options.grid, protocol, only=options.only, say=console.print
            )
            console.print(f"{len(recording.cells)} cells, {options.grid.stat().st_size / 1e3:.0f} kB, {options.grid}")
            console.print(describe(Grid(recording)))
        else:
            grid = load_grid(options.grid)
            console.print(describe(grid))
            runs = race(options.grid, options.seeds)
            for noisy in (False, True):
                console.print(table(grid, runs, noisy=noisy))
    except InfertuneError as error:
        console.print(f"error: {error}")
        return 2
    console.print(f"took {time.monotonic() - began:.0f} s")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulations.search", description=__doc__)
    parser.add_argument("--grid", type=Path, default=GRID_FILE, help="the grid's file")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="searches of each kind")
    commands = parser.add_subparsers(dest="command")
    recording = commands.add_parser("record", help="measure every cell on this machine")
    recording.add_argument("--home", type=Path, help="where models and artifacts are kept; default: infertune's home")
    recording.add_argument("--cell-s", type=float, default=0.6, help="seconds of sampling for a cell")
    recording.add_argument("--distill-s", type=float, default=60.0, help="seconds that training a student may take")
    recording.add_argument("--only", default="", metavar="TEXT", help="cells whose names contain this")
    return parser


if __name__ == "__main__":
    sys.exit(main())
