"""`python -m simulations.chaos`: inject every fault, and say what was lost."""

from __future__ import annotations

import argparse
import collections
import shlex
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from simulations.chaos.candidates import candidate_cases
from simulations.chaos.child import Settings, quick
from simulations.chaos.kills import cold_cases, interrupt_cases, warm_cases
from simulations.chaos.lab import Case, Lab, Outcome
from simulations.chaos.servers import server_cases
from simulations.chaos.surroundings import surrounding_cases
from tools.report import format as fmt

RUNTIMES = ("onnxruntime",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Inject, print, and return the exit code: 1 when anything was lost."""
    options = _parser().parse_args(arguments)
    settings = Settings(RUNTIMES)
    console = Console(width=150, highlight=False)
    began = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="infertune-chaos-"))
    done: list[tuple[Case, Outcome]] = []
    try:
        with quick(settings):
            base = root / "undisturbed"
            base.mkdir()
            lab = Lab.build(base, settings)
            console.print(f"undisturbed: {len(lab.story.decisions)} decisions, {time.monotonic() - began:.0f} s")
            cases = [c for c in all_cases(lab, options.points) if c.title.startswith(options.only)]
            with ThreadPoolExecutor(options.jobs) as pool:
                for number, (case, outcome, took_s) in enumerate(pool.map(lambda c: _inject(c, root), cases), 1):
                    done.append((case, outcome))
                    word = "LOST" if outcome.lost else "survived"
                    console.print(f"[{number}/{len(cases)}] {word:<8} {took_s:5.1f} s  {case.title}", markup=False)
                    for sentence in outcome.lost:
                        console.print(f"    {sentence}", markup=False)
                    if outcome.lost:
                        again = shlex.join(["python", "-m", "simulations.chaos", "--only", case.title])
                        console.print(f"    {again}\n    kept: {_folder(case, root)}", markup=False)
    finally:
        if not any(outcome.lost for _, outcome in done):
            shutil.rmtree(root, ignore_errors=True)
    console.print(table(done))
    console.print(f"took {fmt.seconds(time.monotonic() - began)}")
    return 1 if not done or any(outcome.lost for _, outcome in done) else 0


def all_cases(lab: Lab, points: int) -> Iterable[Case]:
    """Return everything that is injected."""
    yield from warm_cases(lab, points)
    yield from cold_cases(lab)
    yield from interrupt_cases(lab)
    yield from candidate_cases(lab)
    yield from surrounding_cases(lab)
    yield from server_cases(lab)


def table(done: Iterable[tuple[Case, Outcome]]) -> Table:
    """Return a row for each kind of fault."""
    counted: dict[str, collections.Counter[str]] = {}
    for case, outcome in done:
        row = counted.setdefault(case.fault, collections.Counter())
        row["injected"] += outcome.injected
        row["cases"] += 1
        row["lost"] += bool(outcome.lost)
    printed = Table(box=box.MARKDOWN)
    for heading in ("fault", "injected", "sessions", "survived", "lost"):
        printed.add_column(heading)
    for fault, row in counted.items():
        survived = row["cases"] - row["lost"]
        printed.add_row(fault, str(row["injected"]), str(row["cases"]), str(survived), str(row["lost"] or "nothing"))
    return printed


def _inject(case: Case, root: Path) -> tuple[Case, Outcome, float]:
    began = time.monotonic()
    folder = _folder(case, root)
    folder.mkdir()
    try:
        outcome = case.inject(folder)
    except Exception:  # noqa: BLE001  whatever it is, it is a finding, and the other cases are still to come
        outcome = Outcome(0, (traceback.format_exc(),))
    if not outcome.lost:
        shutil.rmtree(folder, ignore_errors=True)
    return case, outcome, time.monotonic() - began


def _folder(case: Case, root: Path) -> Path:
    return root / "".join(c if c.isalnum() else "-" for c in case.title)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulations.chaos", description=__doc__)
    parser.add_argument("--only", default="", metavar="NAME", help="faults and cases whose names begin with this")
    parser.add_argument("--points", type=int, default=1, help="kills of one class, spread over the session")
    parser.add_argument("--jobs", type=int, default=2, help="cases that run at once, each in a home of its own")
    return parser


if __name__ == "__main__":
    sys.exit(main())
