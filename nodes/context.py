"""What nodes are given: the state that is checkpointed, and the context that is not."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from operator import add
from pathlib import Path
from typing import Annotated, Any, Protocol

from typing_extensions import TypedDict

from tools.bench import Bench
from tools.contracts import Availability, Contract, Decision, Evidence, Option, Recipe
from tools.journal import Journal
from tools.observer import Observer
from tools.spec import TuningSpec
from tools.view import SessionView

STATE_VERSION = 1


class TuningState(TypedDict, total=False):
    """What is checkpointed: JSON-ready values, and ids instead of big things."""

    schema_version: int
    session: str
    proposal: dict[str, Any]
    decisions: Annotated[list[dict[str, Any]], add]
    scaling: dict[str, Any]
    result: str
    """Path of result.json, once it is written."""


class Proposal(Contract):
    """What the policy wants to be done next."""

    node: str
    """The graph node that does it."""
    recipes: tuple[Recipe, ...] = ()
    batch_sizes: tuple[int, ...] = ()
    """For a sweep."""
    skipped: tuple[Option, ...] = ()
    """What could have been tried, and why it is not."""
    reason: str


class Policy(Protocol):
    """Decides what is tried next. Pure: the same view gives the same proposal."""

    def baseline(self, view: SessionView) -> Recipe:
        """Return the recipe that runs the model as it was given."""
        ...

    def next(self, view: SessionView) -> Proposal:
        """Return the next experiment, or `scaling_recommendation` when there is nothing left worth its time."""
        ...


@dataclass
class Context:
    """What nodes work with."""

    spec: TuningSpec
    bench: Bench
    policy: Policy
    journal: Journal
    observer: Observer
    session: str
    session_dir: Path
    created: str
    """When the session began, UTC, ISO 8601."""
    tracking_uri: str
    availability: dict[str, Availability]
    training_s: float = 0.0
    evidence: list[Evidence] = field(default_factory=list)
    """Everything this session rests on, in the order of its first use."""
    started: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the session began."""
        return time.monotonic() - self.started

    def view(self) -> SessionView:
        """Return what is known now."""
        return SessionView(
            spec=self.spec,
            workload=self.bench.workload,
            hardware=self.bench.hardware,
            availability=self.availability,
            evidence=tuple(self.evidence),
            elapsed_s=self.elapsed_s,
            stopped=self.bench.stopped,
        )

    def record(self, decision: Decision) -> dict[str, Any]:
        """Write a decision to the journal, tell whoever watches, and return it for the state."""
        dumped = decision.model_dump(mode="json")
        self.journal.append("decision", dumped)
        self.observer.finding(f"{decision.question} {decision.chosen or 'None'}: {decision.reason.rstrip('.')}.")
        return dumped


def decision_id(state: TuningState) -> str:
    """Return the id of the next decision of a session: d01, d02, ..."""
    return f"d{len(state.get('decisions', [])) + 1:02d}"
