"""Recorded situations: what is known, what is asked, and why the best decision is known. One YAML file each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from simulations.evaluation.planting import Planted
from tools.contracts import Bounds, Contract, Delays, HpaSpec
from tools.errors import InfertuneError
from tools.scaling.scenario import LinearReplica, ScenarioFault, TrafficShape

FOLDER = Path(__file__).with_name("situations")
Topic: TypeAlias = Literal["trying", "scaling", "refusing"]
"""What to try and when to stop; how to scale; and what must be refused, or cannot be told."""
SAME = 1.03
"""A decision is the best one if its figure is at most this many times that of the best."""


class SituationError(InfertuneError):
    """A situation's file cannot be used."""


@dataclass(frozen=True)
class Answer:
    """A decision, or what would have been the best one.

    Attributes:
        says: the decision in a few words.
        figure: what it costs, where a figure decides; infinite for a choice that cannot be allowed.
        trials: that were made before it was made, or settings that were judged.
        because: why no more was tried.
    """

    says: str
    figure: float | None = None
    trials: int = 0
    because: str = ""


@dataclass(frozen=True)
class Score:
    """A decision against the best one."""

    decided: Answer
    best: Answer

    @property
    def is_best(self) -> bool:
        """Whether the decision is the best one, or as good."""
        regret = self.regret
        return self.decided.says == self.best.says if regret is None else regret <= SAME

    @property
    def regret(self) -> float | None:
        """The decision's figure over that of the best; None where no figure decides."""
        if self.best.figure is None:
            return None
        return math.inf if self.decided.figure is None else self.decided.figure / self.best.figure


class _Told(Contract):
    name: str = ""
    """The file's, without its suffix."""
    topic: Topic
    asks: str
    """The question."""
    why: str
    """Why the best decision is known."""


class SearchSituation(_Told):
    """What of a model's configurations to try, and to recommend, on the recorded grid.

    The best decision is found in all of its cells.
    """

    kind: Literal["configuration", "stop", "verdict"]
    p99_ms: float = Field(gt=0)
    max_accuracy_drop: float = Field(0.01, ge=0)
    time_s: float = Field(300.0, gt=0)
    planted: tuple[Planted, ...] = ()
    known: tuple[str, ...] = ()
    """Names of the cells that were tried before, besides the model as given; their seconds are used."""
    most_trials: int | None = Field(None, ge=1)
    p99_spread: float = Field(1.0, ge=1)
    """The upper end of each p99 over its value: more than 1 on a noisy machine."""


class ScalingSituation(_Told):
    """What an autoscaler should be set to. The best decision is found by playing a finer grid of settings."""

    kind: Literal["scaling"]
    traffic: TrafficShape
    replica: LinearReplica
    slo_ms: float = Field(gt=0)
    kept_share: float = Field(0.999, gt=0, le=1)
    price_per_hour_usd: float = Field(0.10, gt=0)
    delays: Delays = Delays()
    bounds: Bounds = Bounds()
    faults: tuple[ScenarioFault, ...] = ()


class ControllerSituation(_Told):
    """What the autoscaler will do. The best answer is what a real controller did, as it was recorded."""

    kind: Literal["controller"]
    recording: str
    """Of `tests/hpa_timelines`."""


class BoundsSituation(_Told):
    """Whether a change may be made. What may not be is known by counting."""

    kind: Literal["bounds"]
    bounds: Bounds
    after: HpaSpec
    price_per_hour_usd: float = Field(gt=0)


class GapSituation(_Told):
    """Whether there is traffic to recommend anything by. What is missing is known, since the whole was recorded."""

    kind: Literal["gap"]
    missing_hours: tuple[tuple[float, float], ...]
    """Stretches of the bundled day without a sample."""
    hold_rps: float = Field(gt=0)
    """That one replica holds."""


Situation: TypeAlias = Annotated[
    SearchSituation | ScalingSituation | ControllerSituation | BoundsSituation | GapSituation,
    Field(discriminator="kind"),
]
_ADAPTER: TypeAdapter[Any] = TypeAdapter(Situation)


def load_situations(folder: Path = FOLDER) -> tuple[Situation, ...]:
    """Read all situations of a folder, by name.

    Raises:
        SituationError: a file is none.
    """
    return tuple(load_situation(path) for path in sorted(folder.glob("*.yaml")))


def load_situation(path: Path) -> Situation:
    """Read a situation.

    Raises:
        SituationError: the file is missing, is no YAML, or is no situation.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SituationError(f"cannot be read: {' '.join(str(error).split())}", where=str(path)) from None
    try:
        found: Situation = _ADAPTER.validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "its text"
        raise SituationError(f"is no situation: {field}: {first['msg']}.", where=str(path)) from None
    return found.model_copy(update={"name": path.stem})
