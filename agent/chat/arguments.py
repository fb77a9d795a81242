"""What tools may be asked with: ids from a list, numbers within bounds, words from a choice. No path, no command."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

_SESSION = "id of a session, as list_sessions gives it; leave it out for the one that this chat is about, or the latest"


class Arguments(BaseModel):
    """Base of all arguments: unknown ones are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Nothing(Arguments):
    """No arguments."""


class OfSession(Arguments):
    """A session."""

    session: str | None = Field(None, max_length=80, description=_SESSION)


class OfDecision(OfSession):
    """Decisions of a session."""

    decision: str | None = Field(
        None, max_length=40, description="id of a decision such as d02, for its options and evidence; leave out for all"
    )


class Changes(OfSession):
    """Another question to a session's evidence."""

    p99_ms: float | None = Field(None, gt=0, le=1e6, description="latency SLO in ms")
    max_accuracy_drop: float | None = Field(
        None, ge=0, le=1e6, description="in the metric's unit: 0.01 is one point of top1"
    )
    max_memory_mb: float | None = Field(None, gt=0, le=1e9, description="peak memory of a replica in MB")
    max_size_mb: float | None = Field(None, gt=0, le=1e9, description="size of the artifact in MB")
    price_per_hour_usd: float | None = Field(None, gt=0, le=1e5, description="price of a replica in USD an hour")
    minimize: Literal["cost", "latency", "size"] | None = Field(None, description="what to minimize")
    rate_rps: float | None = Field(None, gt=0, le=1e9, description="a constant rate in requests/s, for the traffic")


class Pair(Arguments):
    """Two sessions."""

    first: str | None = Field(None, max_length=80, description="id of a session; leave it out for the last but one")
    second: str | None = Field(None, max_length=80, description="id of a session; leave it out for the latest")


class NewSession(Arguments):
    """An optimization to start."""

    workload: str = Field(max_length=80, description="name of a workload, as list_workloads gives it")
    time_budget_s: float = Field(900.0, ge=10, le=86_400, description="seconds after which no new trial is begun")
    max_trials: int | None = Field(None, ge=1, le=200, description="stop after this many trials")


class OfPlan(Arguments):
    """A plan."""

    plan: str | None = Field(
        None, max_length=40, description="a plan's digest, as show_plans gives it; leave it out for the only open one"
    )
