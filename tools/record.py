"""A session as its journal tells it: what it was asked, what it used, what it decided, and how far it came."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from tools.contracts import Availability, Bounds, Contract, Decision, Hardware, Recipe, Verdict, WorkloadInfo
from tools.errors import StorageError
from tools.journal import Entry, Journal
from tools.limits import BenchLimits
from tools.spec import TuningSpec

JOURNAL = "journal.jsonl"
RESULT = "result.json"
LOCK = ".lock"


class Started(Contract):
    """The first entry: what the session was asked, and what everything that it does depends on."""

    session: str
    target: str
    """A bundled workload, or the absolute path of a spec."""
    created: str
    """UTC, ISO 8601."""
    tracking_uri: str
    fresh: bool
    time_budget_s: float | None
    search: dict[str, Any] = Field(default_factory=dict)
    """Fields of the spec's `search` that were given on the command line."""
    executor: str = "local"
    """Where its tasks run."""
    ray_address: str | None = None
    auto_approve: Bounds | None = None
    """Within these a plan needs no person's word."""
    advisor: str | None = None
    """The language model that may be asked, and its host; None for none."""
    hardware: Hardware
    versions: dict[str, str]
    availability: dict[str, Availability]
    policy: str
    """Version of the policy that decides."""
    protocol: str
    """Version of the measuring protocol."""


class Loaded(Contract):
    """The second: the workload, as it was found."""

    spec: TuningSpec
    workload: WorkloadInfo
    limits: BenchLimits
    loading_s: float
    training_s: float
    proposed: tuple[Recipe, ...] = ()
    """What plugins propose to try."""
    builders: int = 1
    """How many things can be built at the same time."""


class State(StrEnum):
    """How far a session came."""

    UNFINISHED = "unfinished"
    """It runs, or it was killed."""
    INTERRUPTED = "interrupted"
    """A person stopped it; it can go on."""
    FAILED = "failed"
    """The workload could not be loaded."""
    FINISHED = "finished"


@dataclass(frozen=True)
class SessionRecord:
    """All that a journal says, folded."""

    folder: Path
    started: Started
    loaded: Loaded | None = None
    evidence: tuple[str, ...] = ()
    """Ids, in the order of their first use."""
    decisions: tuple[Decision, ...] = ()
    """Those that stand: what was decided while a person was stopping it no longer does once it goes on."""
    undecided_from: int | None = None
    """So many decisions were made before a person stopped it; None when nobody did."""
    verdict: Verdict | None = None
    """Of the result, once there is one."""
    recorded: dict[str, Any] = field(default_factory=dict)
    """The last answer of MLflow: an `MlflowRef`, JSON-ready; empty when it was not asked yet."""
    failure: str | None = None
    finished: bool = False

    @property
    def session(self) -> str:
        """The session's id."""
        return self.started.session

    @property
    def state(self) -> State:
        """How far it came."""
        if self.failure is not None:
            return State.FAILED
        if self.undecided_from is not None:
            return State.INTERRUPTED
        return State.FINISHED if self.finished else State.UNFINISHED


def read_record(folder: Path) -> SessionRecord:
    """Read a session's journal.

    Args:
        folder: `<home>/sessions/<id>`.

    Raises:
        StorageError: there is no journal, it is damaged, or an earlier version of infertune wrote it.
    """
    journal = Journal(folder / JOURNAL)
    return fold(folder, journal.read())


def fold(folder: Path, entries: Iterable[Entry]) -> SessionRecord:
    """Fold a journal's entries into what they say.

    Raises:
        StorageError: they do not begin with `started`, or an earlier version of infertune wrote them.
    """
    remaining = iter(entries)
    first = next(remaining, None)
    if first is None or first.kind != "started":
        raise StorageError("has no beginning: nothing of this session was written down.", where=str(folder / JOURNAL))
    try:
        folding = _Folding(folder, Started.model_validate(first.payload))
        for entry in remaining:
            folding.take(entry)
    except (ValidationError, KeyError) as error:
        raise StorageError(
            f"was written by another version of infertune ({' '.join(str(error).split())[:120]}).",
            where=str(folder / JOURNAL),
            fix="Its result.json and report.html still hold; to replay or resume it, use the version that wrote it.",
        ) from None
    return folding.record()


class _Folding:
    """A record in the making."""

    def __init__(self, folder: Path, started: Started) -> None:
        self._folder = folder
        self._started = started
        self._evidence: dict[str, str] = {}
        """Ids by question, in the order in which these were first asked: a later answer replaces one that was lost."""
        self._decisions: dict[str, Decision] = {}
        self._loaded: Loaded | None = None
        self._ending: dict[str, Any] = {}
        """How it ended, if nothing more follows."""

    def take(self, entry: Entry) -> None:
        payload = entry.payload
        match entry.kind:
            case "loaded":
                self._loaded = _relocated(Loaded.model_validate(payload), self._folder)
            case "evidence":
                self._evidence[payload["question"]] = payload["id"]
            case "decision":
                decision = Decision.model_validate(payload)
                self._decisions[decision.id] = decision
            case "resumed":
                standing = self._ending.get("undecided_from")
                self._decisions = dict(list(self._decisions.items())[:standing])
                self._ending = {}
            case _:
                self._ending |= self._told_by(entry)

    def _told_by(self, entry: Entry) -> dict[str, Any]:
        match entry.kind:
            case "interrupted":
                return {"undecided_from": entry.payload["decisions"]}
            case "result":
                return {"verdict": Verdict(entry.payload["verdict"])}
            case "recorded":
                return {"recorded": entry.payload}
            case "failed":
                return {"failure": str(entry.payload["reason"])}
            case "finished":
                return {"finished": True}
        return {}  # notes, and what happens to a cluster

    def record(self) -> SessionRecord:
        return SessionRecord(
            folder=self._folder,
            started=self._started,
            loaded=self._loaded,
            evidence=tuple(self._evidence.values()),
            decisions=tuple(self._decisions.values()),
            **self._ending,
        )


def _relocated(loaded: Loaded, folder: Path) -> Loaded:
    """Resolve the copies of the inputs, which the journal names relative to the session's folder."""
    traffic = loaded.spec.traffic
    if traffic is None or traffic.trace is None or Path(traffic.trace).is_absolute():
        return loaded
    traffic = traffic.model_copy(update={"trace": str(folder / traffic.trace)})
    return loaded.model_copy(update={"spec": loaded.spec.model_copy(update={"traffic": traffic})})
