"""What a search for autoscaler settings found: one frozen, JSON-ready value, for the report, the journal and a plan."""

from __future__ import annotations

from pydantic import Field

from tools.contracts.base import Contract
from tools.contracts.scaling import ScalingOption

SERIES_POINTS = 1000
"""At most this many points are kept of a series: more than a plot has pixels."""


class StaticNeed(Contract):
    """How many replicas hold the traffic if nothing ever changes, at the rate at which one just keeps the SLO."""

    p95: int = Field(ge=1)
    """Hold the rate that is not exceeded 95 % of the time."""
    peak: int = Field(ge=1)
    """Hold the highest rate of any second."""


class Shortfall(Contract):
    """One promise that a setting breaks, and by how much."""

    promise: str
    """`slo`, `survivors`, `flapping`, or the name of a harder day."""
    asked: float
    got: float
    sentence: str
    """`misses the SLO in 41 minutes of the week (10 allowed)`."""


class Judged(Contract):
    """A setting, what it did, and every promise that it breaks."""

    option: ScalingOption
    shortfalls: tuple[Shortfall, ...] = ()
    """Of what it was run on; empty if it keeps every promise."""


class Series(Contract):
    """A stretch of time as it is drawn: each point stands for one bucket of minutes, by the highest value in it."""

    minute: tuple[float, ...]
    """First minute of each bucket, ascending, at most `SERIES_POINTS`."""
    rate_rps: tuple[float, ...]
    replicas: tuple[float, ...]
    """That serve."""
    p99_ms: tuple[float, ...]


class Effort(Contract):
    """What the search took."""

    settings: int
    """Judged, today's included."""
    failed_early: int
    """Of these, settings that broke a promise on the busiest day alone, and were not run on the rest."""
    too_costly: int
    """Of these, settings that had broken nothing, but cost too much to be run to the end."""
    busiest_day_runs: int
    """Fewer than settings: those that differ only in a maxReplicas that was never reached share a run."""
    recorded_runs: int
    harder_runs: int
    """Over one harder day each."""
    processes: int
    seconds: float


class Recommendation(Contract):
    """The setting to use, what it was compared with, and what the comparison rests on."""

    slo_ms: float
    kept_share: float
    minutes: int
    """Length of the recorded traffic."""
    chosen: ScalingOption | None
    """None if no setting keeps every promise."""
    today: ScalingOption | None
    """The HPA in use; None if there is none, or it cannot be played."""
    unplayable: str | None = None
    """Why the HPA in use cannot be played."""
    closest: Judged | None = None
    """If none is chosen: the setting that comes closest, and by how much it misses each promise."""
    options: tuple[ScalingOption, ...]
    """All settings that were judged, today's first if there is one; those that were run on all of the recorded
    traffic by cost, then the others."""
    static: StaticNeed | None
    """None if one replica keeps the SLO under no load at all."""
    sentence: str
    notes: tuple[str, ...]
    """What the comparison leaves out, in sentences."""
    effort: Effort
    before: Series | None = None
    """The recorded traffic under today's HPA."""
    after: Series | None = None
    """The recorded traffic under the chosen setting, or the closest."""
