"""What is concluded: decisions with all their options, gates, and the verdict."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from tools.contracts.base import Contract, JsonScalar


class Option(Contract):
    """Something that could have been chosen."""

    name: str
    evidence: tuple[str, ...] = ()
    facts: dict[str, JsonScalar] = Field(default_factory=dict)
    """The numbers that counted, by name."""
    rejected_because: str | None = None


class Decision(Contract):
    """A question, what could be answered, what was, by which rule, and why."""

    id: str
    node: str
    question: str
    options: tuple[Option, ...]
    chosen: str | None
    rule: str
    reason: str
    by: Literal["policy", "model", "person"] = "policy"

    @property
    def evidence(self) -> tuple[str, ...]:
        """Ids of all the evidence that any option rests on."""
        return tuple(dict.fromkeys(e for o in self.options for e in o.evidence))


class Verdict(StrEnum):
    """How a session ended."""

    MET = "MET"
    INFEASIBLE = "INFEASIBLE"
    UNSTABLE = "UNSTABLE"
    INTERRUPTED = "INTERRUPTED"


class Gate(Contract):
    """One line of the checklist before optimizing, after it, or before deploying."""

    stage: Literal["before optimizing", "after optimizing", "before deploying"]
    name: str
    passed: bool
    detail: str
    """The evidence in a sentence, or why the gate is open."""
    evidence: tuple[str, ...] = ()
