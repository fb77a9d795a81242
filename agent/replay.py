"""Replay: the graph once more, on recorded evidence alone, to see whether every decision comes out the same."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.contexts import make_context
from agent.graph import build_graph
from agent.policy import POLICY_VERSION
from agent.recorded import evidence_of, loaded_of
from agent.session import RECURSION_LIMIT
from nodes.context import STATE_VERSION, Context
from tools.bench import NotMeasuredError
from tools.contracts import Decision
from tools.ledger import Ledger
from tools.observer import Silent
from tools.record import SessionRecord, State, read_record
from tools.result import ScalingSummary

OUTSIDE = frozenset({"scaling_plan", "approval", "apply", "verify"})
"""Nodes whose decisions rest on a cluster and on people: they are recorded, and cannot be made again."""


@dataclass(frozen=True)
class Difference:
    """One decision that came out otherwise."""

    decision: str
    """Its id."""
    question: str
    what: str
    """What differs, in a sentence."""


@dataclass(frozen=True)
class Replayed:
    """What a replay showed."""

    session: str
    policy_then: str
    policy_now: str
    decisions: tuple[Decision, ...]
    """As they come out now."""
    checked: int
    """Recorded decisions that were compared."""
    differences: tuple[Difference, ...]
    ended_early: str | None
    """Why it could not go on to the end, if it could not."""
    scaling: ScalingSummary | None

    @property
    def same(self) -> bool:
        """Whether every recorded decision came out as it was."""
        return not self.differences and self.ended_early is None


def describe(replayed: Replayed) -> Iterator[str]:
    """Say what a replay showed, for a person."""
    policies = replayed.policy_now
    if replayed.policy_then != replayed.policy_now:
        policies = f"{replayed.policy_now}; the session was decided by version {replayed.policy_then}"
    counted = f"{replayed.checked} decisions of session {replayed.session}, policy version {policies}"
    if replayed.same:
        yield f"Replayed {counted}: all the same."
        return
    yield f"Replayed {counted}: {len(replayed.differences)} differ."
    for difference in replayed.differences:
        yield f"  {difference.decision}  {difference.question} {difference.what}."
    if replayed.ended_early is not None:
        yield f"It could not go on: {replayed.ended_early}."


def replay(folder: Path) -> Replayed:
    """Run a session's graph again on what it measured, and compare every decision. Writes nothing.

    Args:
        folder: `<home>/sessions/<id>`.

    Raises:
        StorageError: the journal or its evidence cannot be read.
    """
    record = read_record(folder)
    context = context_of(record, folder.parents[1])
    scaling, ended_early = None, None
    try:
        scaling = _run(context)
    except NotMeasuredError as error:
        ended_early = f"the {error.kind.value} of {error.recipe.name} is asked for, which was not measured"
    now = tuple(context.ledger.decisions)
    then = record.decisions[: record.undecided_from]  # later ones were made while a person was stopping it
    then = tuple(decision for decision in then if decision.node not in OUTSIDE)
    differences = tuple(_differences(then, now[: record.undecided_from]))
    if record.state is not State.FINISHED and not differences and len(now) >= len(then):
        ended_early = None  # neither had it gone further then
    return Replayed(
        session=record.session,
        policy_then=record.started.policy,
        policy_now=POLICY_VERSION,
        decisions=now,
        checked=len(then),
        differences=differences,
        ended_early=ended_early,
        scaling=scaling,
    )


def replay_bundle(file: Path, *, limit_mb: float) -> Replayed:
    """Replay an exported session straight from its file, in a home of its own that is gone afterwards.

    Args:
        file: as `infertune evidence export` wrote it.
        limit_mb: refuse a bundle that takes more, unpacked.

    Raises:
        BundleError: it is no bundle, or damaged.
        StorageError: as `replay`; or there is no room for it.
    """
    from tools.unbundle import import_bundle

    with tempfile.TemporaryDirectory(prefix="infertune-replay-") as home:
        return replay(import_bundle(file, Path(home), limit_mb=limit_mb).folder)


def context_of(record: SessionRecord, home: Path) -> Context:
    """Return what the nodes of a session work with, on recorded evidence alone: nothing is measured or written.

    Raises:
        StorageError: the session was never loaded, or its evidence is missing.
    """
    return make_context(
        record, loaded_of(record), home, Ledger(None), recorded=evidence_of(record, home), observer=Silent()
    )


def _run(context: Context) -> ScalingSummary | None:
    """Run the graph up to its report, which would write files."""
    state = (
        build_graph()
        .compile(interrupt_before=["scaling_plan"])
        .invoke(
            {"schema_version": STATE_VERSION, "session": context.session},
            {"recursion_limit": RECURSION_LIMIT},
            context=context,
        )
    )
    scaling = state.get("scaling")
    return None if scaling is None else ScalingSummary.model_validate(scaling)


def _differences(then: Sequence[Decision], now: Sequence[Decision]) -> Iterator[Difference]:
    """Compare decision by decision, in order."""
    for before, after in itertools.zip_longest(then, now):
        match before, after:
            case Decision(), None:
                yield Difference(before.id, before.question, f"chose {before.chosen}, and is not reached now")
            case None, Decision():
                yield Difference(after.id, after.question, f"is new, and chooses {after.chosen}")
            case Decision(), Decision() if before != after:
                yield Difference(before.id, before.question, _what_differs(before, after))


def _what_differs(before: Decision, after: Decision) -> str:
    if (before.node, before.question) != (after.node, after.question):
        return f"{before.node} asked this; now {after.node} asks: {after.question}"
    if before.chosen != after.chosen:
        return f"chose {before.chosen} ({before.reason}); now {after.chosen} ({after.reason})"
    names = {o.name for o in before.options} ^ {o.name for o in after.options}
    if names:
        return f"the same choice, {before.chosen}, among other options: {', '.join(sorted(names))}"
    fields = [f for f in type(before).model_fields if getattr(before, f) != getattr(after, f)]
    return f"the same choice, {before.chosen}, with another {', '.join(fields)}: {after.reason}"
