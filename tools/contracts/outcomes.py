"""What becomes of a trial: it cannot raise, it can only turn out."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from tools.contracts.base import Contract
from tools.contracts.results import Result


class Measured(Contract):
    """It ran, and here is what was seen."""

    outcome: Literal["measured"] = "measured"
    result: Result


class Failed(Contract):
    """It raised. `reason` is one line for a person; the log has the rest."""

    outcome: Literal["failed"] = "failed"
    stage: str
    reason: str
    kind: str = ""
    """Name of the exception, where one was raised."""


class TimedOut(Contract):
    """It was killed at its time cap, or because it gave no sign of life for long."""

    outcome: Literal["timed_out"] = "timed_out"
    stage: str
    limit_s: float
    silent: bool = False
    """Whether `limit_s` is how long it was silent, and not the time cap."""


class OutOfMemory(Contract):
    """It wanted more memory than it may have, or than there is."""

    outcome: Literal["out_of_memory"] = "out_of_memory"
    stage: str
    limit_mb: float | None = None
    """The cap that it ran into; None when the machine itself was short of memory."""


class Crashed(Contract):
    """It died of a signal."""

    outcome: Literal["crashed"] = "crashed"
    stage: str
    signal: str


class Unstable(Contract):
    """It ran, but the machine was too noisy to say how fast."""

    outcome: Literal["unstable"] = "unstable"
    result: Result
    reason: str


Outcome: TypeAlias = Annotated[
    Measured | Failed | TimedOut | OutOfMemory | Crashed | Unstable,
    Field(discriminator="outcome"),
]
