"""What nodes are given: the state that is checkpointed, and the context that is not."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import add
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from typing_extensions import TypedDict

from tools.bench import Bench
from tools.contracts import Availability, Bounds, Contract, Decision, Option, Recipe
from tools.ledger import Ledger
from tools.observer import Observer
from tools.result import SessionResult
from tools.spec import TuningSpec
from tools.view import SessionView
from tools.worker import TaskOutcome

STATE_VERSION = 1


class TuningState(TypedDict, total=False):
    """What is checkpointed: JSON-ready values, and ids instead of big things."""

    schema_version: int
    session: str
    proposal: dict[str, Any]
    decisions: Annotated[list[dict[str, Any]], add]
    scaling: dict[str, Any]
    plan: str
    """Digest of the plan that a person may approve."""
    server_diff: str
    """What the server would make of the HPA."""
    change: str
    """State of the plan after the last step."""
    plan_notes: list[str]
    """What a person should know of the plan, or why there is none."""
    result: str
    """Path of result.json, once it is written."""


class Proposal(Contract):
    """What the policy wants to be done next."""

    node: str
    """The graph node that does it."""
    recipes: tuple[Recipe, ...] = ()
    batch_sizes: tuple[int, ...] = ()
    """For a sweep."""
    considered: tuple[Option, ...] = ()
    """What could have been done instead, with what is expected of it."""
    skipped: tuple[Option, ...] = ()
    """What could have been tried, and why it is not."""
    reason: str
    by: Literal["policy", "model"] = "policy"
    """Whose idea it is: the policy's, or the advisor's."""
    limit_s: float | None = None
    """Seconds that it may take, where that is limited."""


class Policy(Protocol):
    """Decides what is tried next. Pure: the same view gives the same proposal."""

    def baseline(self, view: SessionView) -> Recipe:
        """Return the recipe that runs the model as it was given."""
        ...

    def next(self, view: SessionView) -> Proposal:
        """Return the next experiment, or `scaling_recommendation` when there is nothing left worth its time."""
        ...


class Advisor(Protocol):
    """A language model that is asked in an autonomous run. It may be slow, wrong or hostile: nothing rests on it."""

    def order(self, view: SessionView, options: Sequence[Option], *, asked_at_s: float, limit_s: float) -> TaskOutcome:
        """Return in which order it would try what the policy left.

        Args:
            view: what is known.
            options: what is left.
            asked_at_s: seconds of the time budget that are used.
            limit_s: within which it answers, or has not answered.

        Returns:
            An `AdviceResult`, dumped; or why there is none. It never raises.
        """
        ...

    def word(self, result: SessionResult) -> TaskOutcome:
        """Return its summary of a result as a `WordingResult`, dumped; or why there is none. It never raises."""
        ...


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass
class Context:
    """What nodes work with."""

    spec: TuningSpec
    bench: Bench
    policy: Policy
    ledger: Ledger
    observer: Observer
    session: str
    session_dir: Path
    created: str
    """When the session began, UTC, ISO 8601."""
    tracking_uri: str
    availability: dict[str, Availability]
    loading_s: float = 0.0
    """Seconds that loading the workload took."""
    training_s: float = 0.0
    """Seconds that training a bundled workload took, before anything was asked of the time budget."""
    proposed: tuple[Recipe, ...] = ()
    """What plugins propose to try."""
    advises: bool = False
    """Whether an advisor was asked for."""
    advisor: Advisor | None = None
    """Answers; None to replay, since its answers are evidence."""
    auto_approve: Bounds | None = None
    """Within these a plan needs no person's word."""
    builders: int = 1
    """How many things can be built at the same time."""
    wall_s: Callable[[], float] = lambda: 0.0
    """Seconds that a person has waited for this session, over all the processes that worked on it."""
    clock: Callable[[], dt.datetime] = _utc_now
    """The time, with a time zone: plans expire by it, and changes are watched by it."""
    sleep: Callable[[float], None] = time.sleep
    """Waits while a change is watched; given from outside so that a test can pass the time."""

    @property
    def elapsed_s(self) -> float:
        """Seconds of the time budget that are used: training a bundled workload once is no part of tuning it.

        They are counted from what the journal knows, and not from a clock, so that a session that was killed and
        resumed, or is replayed, finds the same time on it at every decision.
        """
        return self.loading_s + self.bench.charged_s

    def view(self) -> SessionView:
        """Return what is known now."""
        return SessionView(
            spec=self.spec,
            workload=self.bench.workload,
            hardware=self.bench.hardware,
            availability=self.availability,
            evidence=tuple(self.ledger.evidence),
            elapsed_s=self.elapsed_s,
            stopped=self.bench.stopped,
            proposed=self.proposed,
            builders=self.builders,
            advises=self.advises,
        )

    def record(self, decision: Decision) -> dict[str, Any]:
        """Write a decision to the journal, tell whoever watches, and return it for the state."""
        if self.bench.stopped:
            self.ledger.interrupt()
        self.ledger.decide(decision)
        self.observer.finding(f"{decision.question} {decision.chosen or 'None'}: {decision.reason.rstrip('.')}.")
        return decision.model_dump(mode="json")


def decision_id(state: TuningState) -> str:
    """Return the id of the next decision of a session: d01, d02, ..."""
    return f"d{len(state.get('decisions', [])) + 1:02d}"
