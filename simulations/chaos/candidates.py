"""Candidates that misbehave: each is an outcome, recorded once, and the session goes on without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.sessions import folders
from simulations.chaos import workloads
from simulations.chaos.checks import lost
from simulations.chaos.child import Settings
from simulations.chaos.lab import OK, Case, Lab, Outcome, unwell
from simulations.chaos.runs import run
from tools.evidence import EVIDENCE, EvidenceStore
from tools.record import read_record

TRIAL_S = 12.0
"""Time cap for the candidate that hangs: longer than any other trial takes."""
TRIAL_MEMORY_MB = 1500.0
PRINTS = "print a gigabyte"
HOME_LIMIT_MB = 25.0
"""What a home may hold after a candidate printed a gigabyte; an undisturbed one holds half a megabyte."""


@dataclass(frozen=True)
class Misbehaviour:
    """A way to misbehave.

    Attributes:
        fault: what it is called.
        write: writes the workload into a folder, and returns its spec.
        outcomes: what its trials may end as; empty when they are measured like others.
        says: what the outcome must name.
        light: whether it does without PyTorch.
    """

    fault: str
    write: Callable[[Path], Path]
    outcomes: tuple[str, ...]
    says: str = ""
    light: bool = True


def _metric(name: str, **budget: float) -> Callable[[Path], Path]:
    return lambda folder: workloads.classifier(folder, name, **budget)


MISBEHAVIOURS = (
    Misbehaviour("NaN in INT8 alone", workloads.nan_in_int8, ("failed",), "NaN"),
    Misbehaviour("hang in C that holds the interpreter", _metric("hang", trial_s=TRIAL_S), ("timed_out",)),
    Misbehaviour(
        "allocate until it is killed", _metric("allocate", trial_memory_mb=TRIAL_MEMORY_MB), ("out_of_memory",)
    ),
    Misbehaviour("segmentation fault", _metric("crash"), ("crashed",), "SIGSEGV"),
    Misbehaviour("task killed every time", _metric("kill_itself"), ("crashed",), "SIGKILL"),
    Misbehaviour(PRINTS, _metric("print_a_lot"), ()),
    Misbehaviour("export that fails", workloads.without_export, ("failed",), "export", light=False),
)


def candidate_cases(_: Lab) -> Iterator[Case]:
    """Yield a case for each way to misbehave."""
    for misbehaviour in MISBEHAVIOURS:
        yield Case(f"candidate: {misbehaviour.fault}", "", partial(misbehaves, misbehaviour))


def misbehaves(misbehaviour: Misbehaviour, folder: Path) -> Outcome:
    """Optimize a workload, one of whose candidates misbehaves; then look at what is recorded of it."""
    spec = misbehaviour.write(folder)
    home = folder / "home"
    runtimes = ("onnxruntime",) if misbehaviour.light else ("eager", "onnxruntime")
    ended = run(home, "optimize", str(spec), settings=Settings(runtimes, light=misbehaviour.light))
    complaints = [*ended.left, *unwell(ended)]
    if ended.code not in OK:
        return Outcome(1, tuple(complaints))
    session = folders(home)[-1]
    evidence = EvidenceStore(home / EVIDENCE).get_all(read_record(session).evidence)
    wrong = [e for e in evidence if e.outcome.outcome in misbehaviour.outcomes]
    injected = len(wrong) if misbehaviour.outcomes else 1
    if not injected:
        complaints.append(f"no outcome is one of {', '.join(misbehaviour.outcomes)}: it did not misbehave")
    complaints += [
        f"of {e.recipe.name} it says only: {e.outcome}" for e in wrong if misbehaviour.says not in str(e.outcome)
    ]
    size_mb = sum(p.stat().st_size for p in home.rglob("*") if p.is_file()) / 1e6
    if size_mb > HOME_LIMIT_MB:
        complaints.append(f"the home has grown to {size_mb:.0f} MB")
    if misbehaviour.fault == PRINTS and not any("left out" in text for text in _logs(session)):
        complaints.append("no log says that output was left out: it did not misbehave")
    if "MET" not in ended.text:
        complaints.append("the float model keeps every promise, and that was not found")
    return Outcome(injected, (*complaints, *lost(home, session)))


def _logs(session: Path) -> Iterator[str]:
    for path in (session / "logs").iterdir():
        yield path.read_text(encoding="utf-8", errors="replace")
