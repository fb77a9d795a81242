"""Traffic through the twin under chosen settings: where each part of the question comes from, and the answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.simulate_session import SessionInputs, named
from agent.simulate_wishes import Wishes, curve_of
from tools.contracts import Contract, HpaSpec, ServiceCurve
from tools.contracts.scaling import DayOutcome
from tools.errors import SpecError
from tools.scaling.days import Day
from tools.scaling.manifest import read_hpa
from tools.scaling.replica import Replica
from tools.scaling.settings import Setting
from tools.scaling.stepping import keeps
from tools.scaling.twin import Run, Stage, UnplayableError, prepare
from tools.spec import ScalingSpec, TuningSpec
from tools.traffic import BUNDLED_DAY, Trace, load_trace, read_observed, to_trace
from tools.traffic.shape import per_second

BUNDLED = "day"
"""The bundled day, by name."""
MOST_SETTINGS = 2
SCENARIOS = Path(__file__).parents[1] / "simulations" / "scenarios"
"""Bundled scenarios. They are data: nothing is imported from there."""
_FIX_CURVE = "Name a session that measured it (--curve ID), or give --rps-per-replica 900 --p99-ms 12."
_RECORDED = (".gz", ".json")


@dataclass(frozen=True)
class Played:
    """One setting and its run."""

    setting: Setting
    run: Run


@dataclass(frozen=True)
class Simulation:
    """All settings over the same traffic.

    Attributes:
        traffic: where it comes from.
        replica: how one replica serves.
        slo_ms: p99 to keep.
        kept_share: share of the minutes that must keep it.
        played: one or two settings; the last is the one in question.
    """

    traffic: Trace
    replica: Replica
    slo_ms: float
    kept_share: float
    played: tuple[Played, ...]

    @property
    def kept(self) -> bool:
        """Whether the setting in question keeps the SLO in the asked share of the minutes."""
        return keeps(self.played[-1].run.outcome, self.kept_share)

    def answer(self) -> Answer:
        """Return what scripts read."""
        return Answer(
            traffic=self.traffic.source,
            slo_ms=self.slo_ms,
            kept_share=self.kept_share,
            settings=tuple(
                SettingOutcome(
                    name=played.setting.name,
                    spec=played.setting.spec,
                    kept=keeps(played.run.outcome, self.kept_share),
                    outcome=played.run.outcome,
                )
                for played in self.played
            ),
            leaves_out=self.played[-1].run.leaves_out,
        )


class SettingOutcome(Contract):
    """What one setting came to."""

    name: str
    spec: HpaSpec
    kept: bool
    """Whether the SLO was kept in the asked share of the minutes."""
    outcome: DayOutcome


class Answer(Contract):
    """The whole of `infertune simulate traffic --output json`."""

    traffic: str
    slo_ms: float
    kept_share: float
    settings: tuple[SettingOutcome, ...]
    leaves_out: tuple[str, ...]


def simulate(wishes: Wishes) -> Simulation:
    """Play the traffic under the settings that were asked for.

    What is not said comes from a session: the one that the target or `session` names, and how a replica serves from
    that of `curve`.

    Raises:
        InfertuneError: something is missing or cannot be used; the message says what to add.
    """
    sources = _Sources.of(wishes)
    settings = _settings(wishes, sources.session)
    slo_ms = wishes.slo_ms or sources.slo_ms
    if slo_ms is None:
        raise SpecError("nobody said which p99 a request may take.", fix="Give it: --slo-ms 50")
    spec = sources.spec
    scaling = ScalingSpec() if spec is None else spec.scaling
    price_per_hour_usd = wishes.price_per_hour_usd
    if price_per_hour_usd is None:
        price_per_hour_usd = 0.0 if spec is None else spec.hardware.price_per_hour_usd
    replica = Replica.of(_curve(wishes, sources.measured), seed=0 if spec is None else spec.seed)
    stage = prepare(
        _day(sources.traffic),
        replica,
        delays=scaling.delays,
        slo_ms=slo_ms,
        price_per_hour_usd=price_per_hour_usd,
    )
    return Simulation(
        traffic=sources.traffic,
        replica=replica,
        slo_ms=slo_ms,
        kept_share=wishes.kept_share or scaling.kept_share,
        played=tuple(Played(setting, _play(stage, setting)) for setting in settings),
    )


def find_scenarios(name: str) -> list[Path]:
    """Return the files of a scenario by its name or path, or those of all that are bundled.

    Raises:
        SpecError: there is none.
    """
    bundled = sorted(SCENARIOS.glob("*.yaml"))
    if name == "all" and bundled:
        return bundled
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return [path]
    found = [file for file in bundled if file.stem == name]
    if not found:
        known = ", ".join(file.stem for file in bundled)
        raise SpecError(f"there is no scenario {name!r}.", fix=f"Known: all, {known}; or give a YAML file.")
    return found


@dataclass(frozen=True)
class _Sources:
    """Where what was not said comes from."""

    traffic: Trace
    session: SessionInputs | None
    """Of the settings and the promises."""
    measured: SessionInputs | None
    """Of how a replica serves."""

    @classmethod
    def of(cls, wishes: Wishes) -> _Sources:
        traffic = _read_traffic(wishes.target)
        session = None if wishes.session is None else SessionInputs.of(wishes.home, wishes.session)
        if traffic is None:
            target = SessionInputs.of(wishes.home, wishes.target)
            traffic, session = target.trace(), session or target
        measured = session if wishes.curve is None else SessionInputs.of(wishes.home, wishes.curve)
        return cls(traffic, session, measured)

    @property
    def spec(self) -> TuningSpec | None:
        """Of the session that knows of the service."""
        known = self.session or self.measured
        return None if known is None else known.spec

    @property
    def slo_ms(self) -> float | None:
        return None if self.spec is None else self.spec.objective.p99_ms


def _read_traffic(target: str) -> Trace | None:
    """Return the traffic of a file, or the bundled day; None where the target is neither, and so a session."""
    path = Path(target)
    if target == BUNDLED and not path.is_file():
        return load_trace(BUNDLED_DAY)
    if path.suffix in _RECORDED:
        return to_trace(read_observed(path))
    return load_trace(path) if path.is_file() or path.suffix == ".csv" else None


def _play(stage: Stage, setting: Setting) -> Run:
    try:
        return stage.play(setting.spec)
    except UnplayableError as error:
        raise SpecError(str(error), where=setting.name) from None


def _day(traffic: Trace) -> Day:
    rps = per_second(traffic)
    if rps.size < 60:
        raise SpecError("covers less than a minute: too little to judge an autoscaler by.", where=traffic.source)
    return Day("the recorded traffic", rps)


def _settings(wishes: Wishes, session: SessionInputs | None) -> tuple[Setting, ...]:
    """Return the settings to play: those that were given, else the session's own."""
    given = [named(path.name, read_hpa(path).manifest["spec"]) for path in wishes.files]
    if wishes.metric is not None:
        given.append(wishes.metric.setting())
    if session is not None and (wishes.session is not None or not given):
        given = [*session.settings(), *given]
    if not given:
        raise SpecError(
            "nobody said which setting to play.",
            fix="Give a file (--setting hpa.yaml), a metric (--metric rate --target 500), or --session ID.",
        )
    if len(given) > MOST_SETTINGS:
        names = "; ".join(setting.name for setting in given)
        raise SpecError(f"{len(given)} settings do not fit side by side ({names}).", fix="Give at most two.")
    return tuple(given)


def _curve(wishes: Wishes, measured: SessionInputs | None) -> ServiceCurve:
    if wishes.rps_per_replica is None and wishes.p99_ms is not None:
        raise SpecError("says how fast a replica is, but not how much it serves.", where="--p99-ms", fix=_FIX_CURVE)
    if wishes.rps_per_replica is not None:
        if wishes.curve is not None:
            raise SpecError("says how a replica serves, and so does --rps-per-replica.", where="--curve")
        return curve_of(wishes.rps_per_replica, wishes.p99_ms)
    if measured is None:
        raise SpecError(
            "nobody said how one replica serves.",
            fix=_FIX_CURVE,
        )
    return measured.curve()
