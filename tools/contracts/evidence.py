"""The immutable record of one thing that was measured, named by the digest of its content."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Any, Self

from tools.contracts.base import Contract
from tools.contracts.outcomes import Outcome
from tools.contracts.recipe import Recipe

PROTOCOL_VERSION = "2"
"""Version of the measuring protocol: evidence of another version is never compared with today's."""


class EvidenceKind(StrEnum):
    """What was asked of the machine."""

    PROFILE = "profile"
    BUILD = "build"
    TRIAL = "trial"
    SWEEP = "sweep"
    COMPARISON = "comparison"
    EDGE_CASES = "edge_cases"
    SCALING = "scaling"
    ADVICE = "advice"
    """Asked of a language model, and of no machine."""


class Finding(Contract):
    """What was asked, and what came of it: all of an evidence but its name."""

    question: str
    """Digest of all that the answer depends on: kind, workload, recipe, parameters, hardware, versions, protocol."""
    kind: EvidenceKind
    workload: str
    recipe: Recipe
    parameters: dict[str, Any]
    hardware: str
    versions: dict[str, str]
    protocol: str = PROTOCOL_VERSION
    session: str
    """Which session measured it."""
    raw: str | None = None
    """Name of the file with the raw samples, below `raw/` in the home directory."""
    outcome: Outcome
    seconds: float
    """Wall-clock seconds that it cost, without those of other evidence that it needed first."""
    created: str
    """UTC, ISO 8601."""


class Evidence(Finding):
    """A finding under its name. The same question may be asked again: that is other evidence, with its own id."""

    id: str
    """First 16 hex digits of the SHA-256 of the finding as JSON."""

    @classmethod
    def of(cls, finding: Finding) -> Self:
        """Name a finding."""
        return cls.from_body(finding.model_dump_json())

    @classmethod
    def from_body(cls, body: str) -> Self:
        """Read a finding from the JSON text that it was stored as.

        Raises:
            pydantic.ValidationError: the text is no finding.
        """
        finding = Finding.model_validate_json(body)
        return cls(id=_digest(body), **{name: getattr(finding, name) for name in Finding.model_fields})

    @property
    def body(self) -> str:
        """The JSON text that the id is the digest of."""
        return self.model_dump_json(exclude={"id"})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
