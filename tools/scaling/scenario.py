"""Scenarios: made-up traffic, a replica, what goes wrong, and what each autoscaler setting is expected to make of it.

A scenario is a YAML file with a lesson. Playing it in the twin shows whether the lesson still holds.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

import numpy as np
import yaml
from pydantic import Field, ValidationError, model_validator

from tools.contracts import Contract, Delays, HpaSpec, Interval, ServiceCurve, ServicePoint
from tools.contracts.scaling import DayOutcome
from tools.errors import SpecError
from tools.scaling.days import LAG_S, LOST_SHARE, SLOWDOWN, Day, Fault, Floats
from tools.scaling.promises import Promises
from tools.scaling.replica import Replica
from tools.scaling.stepping import keeps
from tools.scaling.story import counted
from tools.scaling.twin import Run, UnplayableError, simulate
from tools.spec.tuning import describe_validation_error

Rps: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Hours: TypeAlias = Annotated[float, Field(gt=0, le=24 * 31)]

UNCERTAINTY = 0.03
"""Half the interval of a made-up replica's throughput, as a share: what measurements on a quiet machine come to."""


class Diurnal(Contract):
    """A cosine with a period of a day: lowest half a day before and after its peak."""

    shape: Literal["diurnal"]
    base_rps: Rps
    peak_rps: Rps
    peak_hour: float = Field(20.0, ge=0, lt=24, description="hour of the day at which the traffic is highest")
    hours: Hours = 24.0

    def rps(self) -> Floats:
        """Return requests per second, one value for each second."""
        hour = _seconds(self.hours) / 3600
        share = (1 + np.cos((hour - self.peak_hour) * math.tau / 24)) / 2
        rates: Floats = self.base_rps + (self.peak_rps - self.base_rps) * share
        return rates


class Spike(Contract):
    """A level, and once a higher one: a ramp up, a while at the peak, a ramp of the same length down."""

    shape: Literal["spike"]
    base_rps: Rps
    peak_rps: Rps
    at_s: Seconds = Field(description="when the ramp begins")
    rise_s: float = Field(30.0, gt=0)
    for_s: float = Field(gt=0, description="at the peak")
    hours: Hours = 1.0

    def rps(self) -> Floats:
        """Return requests per second, one value for each second."""
        top = self.at_s + self.rise_s
        times = [self.at_s, top, top + self.for_s, top + self.for_s + self.rise_s]
        levels = [self.base_rps, self.peak_rps, self.peak_rps, self.base_rps]
        rates: Floats = np.interp(_seconds(self.hours), times, levels)
        return rates


class Ramp(Contract):
    """From one level evenly to another; a steady rate if both are the same."""

    shape: Literal["ramp"]
    base_rps: Rps
    peak_rps: Rps
    hours: Hours = 1.0

    def rps(self) -> Floats:
        """Return requests per second, one value for each second."""
        return np.linspace(self.base_rps, self.peak_rps, _seconds(self.hours).size)


TrafficShape: TypeAlias = Annotated[Diurnal | Spike | Ramp, Field(discriminator="shape")]


class LinearReplica(Contract):
    """A replica whose batches take a fixed time, and so much more for each request in them."""

    fixed_ms: float = Field(ge=0)
    per_request_ms: float = Field(gt=0)
    max_batch: int = Field(ge=1, le=1024)
    p99_share: float = Field(1.2, ge=1, le=10, description="the p99 of a batch's time, as a multiple of its mean")

    def curve(self, name: str = "made up") -> ServiceCurve:
        """Return how it serves: batches of 1, 2, 4, ... and `max_batch`."""
        sizes = sorted({*(2**power for power in range(self.max_batch.bit_length())), self.max_batch})
        return ServiceCurve(name=name, points=tuple(self._point(size) for size in sizes), max_batch=self.max_batch)

    def _point(self, size: int) -> ServicePoint:
        mean_ms = self.fixed_ms + self.per_request_ms * size
        rps = 1000 * size / mean_ms
        throughput_rps = Interval(value=rps, low=rps * (1 - UNCERTAINTY), high=rps * (1 + UNCERTAINTY), n=100)
        return ServicePoint(
            batch_size=size,
            p50_ms=mean_ms,
            p99_ms=mean_ms * self.p99_share,
            mean_ms=mean_ms,
            throughput_rps=throughput_rps,
        )


class ScenarioFault(Contract):
    """Something that goes wrong; see `tools.scaling.days.Fault`."""

    kind: Literal["lost_node", "metrics_lag", "metrics_missing", "slow_pods"]
    at_s: Seconds
    for_s: Seconds = 0.0
    share: float = Field(LOST_SHARE, gt=0, le=1)
    lag_s: Seconds = LAG_S
    slowdown: float = Field(SLOWDOWN, ge=1, allow_inf_nan=False)

    def fault(self) -> Fault:
        """Return it as the twin takes it."""
        return Fault(**self.model_dump())


class Expected(Contract):
    """What a setting is expected to come to."""

    kept: bool
    """Whether the SLO is kept in the asked share of the minutes."""
    missed_minutes: tuple[int, int]
    """The fewest and the most."""
    flapping: bool = False
    """Whether it changes direction more often than a recommended setting may."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not 0 <= self.missed_minutes[0] <= self.missed_minutes[1]:
            raise ValueError("`missed_minutes` must be the fewest and the most, as in [0, 3]")
        return self


class ScenarioSetting(Contract):
    """One autoscaler setting, with what is expected of it."""

    name: str = Field(min_length=1)
    hpa: HpaSpec
    """`spec` of an HPA: minReplicas, maxReplicas, metrics, behavior."""
    expected: Expected


class Scenario(Contract):
    """The whole of a scenario's file."""

    name: str = Field(min_length=1)
    about: str
    """What happens, in a sentence or two."""
    lesson: str
    """What a person should take away."""
    traffic: TrafficShape
    replica: LinearReplica
    slo_ms: float = Field(gt=0, allow_inf_nan=False)
    kept_share: float = Field(0.999, gt=0, le=1)
    """Share of the minutes that must keep the SLO."""
    price_per_hour_usd: float = Field(0.10, gt=0, allow_inf_nan=False)
    delays: Delays = Delays()
    faults: tuple[ScenarioFault, ...] = ()
    settings: tuple[ScenarioSetting, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _playable(self) -> Self:
        self.day()  # raises ValueError: a fault outside of the traffic, slow pods that become slow again
        return self

    def day(self) -> Day:
        """Return the traffic with what goes wrong."""
        return Day(self.name, self.traffic.rps(), tuple(fault.fault() for fault in self.faults), about=self.about)


class ScenarioVerdict(Contract):
    """What one setting of a scenario came to, against what was expected."""

    scenario: str
    setting: str
    expected: Expected
    kept: bool
    flapping: bool
    outcome: DayOutcome
    disagreements: tuple[str, ...]
    """How it differs from what was expected, in sentences without a full stop."""

    @property
    def agreed(self) -> bool:
        """Whether it is as expected."""
        return not self.disagreements


def load_scenario(path: Path) -> Scenario:
    """Read a scenario.

    Raises:
        SpecError: the file is missing, is no YAML, or is no scenario that can be played.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError("no such file.", where=str(path), fix="Give the YAML file of a scenario.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot be read ({error}).", where=str(path)) from None
    except yaml.YAMLError as error:
        raise SpecError(f"is not valid YAML: {' '.join(str(error).split())}", where=str(path)) from None
    if not isinstance(raw, dict):
        raise SpecError("must be a mapping with `name`, `traffic`, `replica` and `settings`.", where=str(path))
    try:
        return Scenario.model_validate(raw)
    except ValidationError as error:
        raise SpecError(describe_validation_error(error, Scenario), where=str(path)) from None


def play_scenario(scenario: Scenario, setting: ScenarioSetting) -> Run:
    """Play one setting over the scenario's day.

    Raises:
        SpecError: the setting is no HPA's, or follows a metric that the twin does not know.
    """
    try:
        return simulate(
            scenario.day(),
            _replica(scenario.replica),
            setting.hpa,
            delays=scenario.delays,
            slo_ms=scenario.slo_ms,
            price_per_hour_usd=scenario.price_per_hour_usd,
        )
    except UnplayableError as error:
        raise SpecError(str(error), where=f"scenario {scenario.name}, setting `{setting.name}`") from None


def judge_scenario(scenario: Scenario) -> tuple[ScenarioVerdict, ...]:
    """Play every setting of a scenario, and hold it against what is expected.

    Raises:
        SpecError: as `play_scenario`.
    """
    return tuple(judged(scenario, setting, play_scenario(scenario, setting).outcome) for setting in scenario.settings)


def judged(scenario: Scenario, setting: ScenarioSetting, outcome: DayOutcome) -> ScenarioVerdict:
    """Hold what a setting came to against what is expected of it."""
    promises = Promises(kept_share=scenario.kept_share, minutes=outcome.minutes, guarded=0)
    kept = keeps(outcome, scenario.kept_share)
    flapping = outcome.reversals > promises.reversals_allowed
    expected, (fewest, most) = setting.expected, setting.expected.missed_minutes
    found = []
    if kept != expected.kept:
        found.append(f"the SLO is {_kept(kept)}, not {_kept(expected.kept)}")
    if not fewest <= outcome.missed_minutes <= most:
        found.append(f"{counted(outcome.missed_minutes, 'minute')} missed, not {fewest} to {most}")
    if flapping != expected.flapping:
        found.append(f"{counted(outcome.reversals, 'reversal')}, which is {'' if flapping else 'not '}flapping")
    return ScenarioVerdict(
        scenario=scenario.name,
        setting=setting.name,
        expected=expected,
        kept=kept,
        flapping=flapping,
        outcome=outcome,
        disagreements=tuple(found),
    )


@functools.lru_cache(maxsize=32)
def _replica(made_up: LinearReplica) -> Replica:
    """Simulate a replica request by request, once for all scenarios that have it."""
    return Replica.of(made_up.curve())


def _seconds(hours: float) -> Floats:
    return np.arange(max(60, round(hours * 3600)), dtype=np.float64)


def _kept(kept: bool) -> str:  # noqa: FBT001 - one word for one fact
    return "kept" if kept else "missed"
