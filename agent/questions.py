"""Questions about a session that its record and its evidence answer: what if, and why. Nothing is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.policy import DefaultPolicy
from agent.recorded import view_of
from nodes.context import Proposal
from tools.contracts import Decision, Evidence
from tools.errors import InfertuneError
from tools.evidence import EVIDENCE, EvidenceStore
from tools.inputs import trace_of
from tools.record import SessionRecord, read_record
from tools.spec import TuningSpec
from tools.traffic import Trace
from tools.view import SessionView
from tools.whatif import WhatIf, changed_spec
from tools.whatif import what_if as answer_what_if


@dataclass(frozen=True)
class Explained:
    """Decisions of a session, with all the evidence that they rest on and that is still there."""

    record: SessionRecord
    decisions: tuple[Decision, ...]
    evidence: dict[str, Evidence]
    """By id."""
    in_full: bool
    """Whether somebody asked for these decisions, and not for all there are."""

    @property
    def metric(self) -> str:
        """What accuracy is measured in; empty when the workload was never loaded."""
        return "" if self.record.loaded is None else self.record.loaded.workload.metric

    def is_provisional(self, decision: Decision) -> bool:
        """Whether this was decided while a person was stopping the session."""
        settled = self.record.decisions[: self.record.undecided_from]
        return decision not in settled


def what_if(folder: Path, changes: Mapping[str, str]) -> WhatIf:
    """Return what a session would have answered to another question.

    Args:
        folder: `<home>/sessions/<id>`.
        changes: see `tools.whatif.changed_spec`.

    Raises:
        InfertuneError: nothing is changed, or a value is out of bounds; the session measured nothing, or its record
            or its evidence cannot be read.
    """
    if not changes:
        raise InfertuneError(
            "nothing is changed.",
            where="what-if",
            fix="Give at least one of --p99-ms, --max-accuracy-drop, --max-memory-mb, --max-size-mb, "
            "--price-per-hour, --minimize and --rate.",
        )
    record = read_record(folder)
    view = view_of(record, folder.parents[1])
    spec = changed_spec(view.spec, changes)
    if not view.ran:
        raise InfertuneError(
            "nothing was measured: there is nothing to answer from.",
            where=record.session,
            fix=f"Take it up: infertune resume {record.session}",
        )
    return answer_what_if(
        view,
        spec,
        session=record.session,
        traces=(_trace(view.spec, folder), _trace(spec, folder)),
        policy=experiment_wanted,
    )


def experiment_wanted(view: SessionView) -> Proposal | None:
    """Return the experiment that the policy would ask for next, if it is one that finds new candidates."""
    proposal = DefaultPolicy().next(view)
    return None if proposal.node in ("confirmation", "scaling_recommendation") else proposal


def explain(folder: Path, wanted: str | None) -> Explained:
    """Return a session's decisions.

    Args:
        folder: `<home>/sessions/<id>`.
        wanted: id of a decision, or a node, all of whose decisions are meant; None for all.

    Raises:
        InfertuneError: there is no such decision, or the record cannot be read.
    """
    record = read_record(folder)
    decisions = tuple(d for d in record.decisions if wanted is None or wanted in (d.id, d.node))
    if wanted is not None and not decisions:
        raise InfertuneError(f"there is no decision {wanted!r}.", where=record.session, fix=_known(record.decisions))
    ids = dict.fromkeys(identity for decision in decisions for identity in decision.evidence)
    found = EvidenceStore(folder.parents[1] / EVIDENCE).get_all(ids)
    return Explained(record, decisions, {e.id: e for e in found}, in_full=wanted is not None)


def _known(decisions: Sequence[Decision]) -> str:
    if not decisions:
        return "This session decided nothing."
    return f"There are: {', '.join(f'{d.id} ({d.node})' for d in decisions)}."


def _trace(spec: TuningSpec, folder: Path) -> Trace | None:
    return None if spec.traffic is None else trace_of(spec.traffic, folder)
