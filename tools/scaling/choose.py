"""The search: every setting through the twin, the cheapest that keeps every promise, and what that rests on.

A grid of settings comes first, then those with targets near that of its best.

What is promised, and what settles a tie, stands in `tools.scaling.promises` and `tools.scaling.judging.choose`. If no
setting keeps every promise, none is chosen: a promise is never traded for money.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from tools.contracts.base import digest_of
from tools.contracts.recommendation import Effort, Judged, Recommendation, StaticNeed
from tools.contracts.scaling import Bounds, Delays, HpaSpec, ScalingOption
from tools.scaling.capacity import replicas_for
from tools.scaling.days import Day, busiest_day, harder_days
from tools.scaling.judging import BUSIEST, HARDER, RECORDED, WORTH_RUNNING, Case, Judge, choose, closest
from tools.scaling.playing import Player, Players, World, series_of
from tools.scaling.promises import HARDER_KEPT_SHARE, Promises
from tools.scaling.replica import Replica
from tools.scaling.settings import candidates, nearby
from tools.scaling.story import sentence, stretch
from tools.scaling.twin import Run, UnplayableError
from tools.spec import ScalingMetric
from tools.units import DAY_S

PROCESSES = 2
_LEVEL = 0.95
_PROBE_S = 60


def search(
    recorded: Day,
    replica: Replica,
    *,
    slo_ms: float,
    price_per_hour_usd: float,
    kept_share: float = 0.999,
    metrics: Sequence[ScalingMetric] = ("queue", "rate", "cpu"),
    delays: Delays | None = None,
    bounds: Bounds | None = None,
    today: HpaSpec | None = None,
    service: str = "model",
    queue_limit: int | None = None,
    seed: int = 0,
    processes: int = PROCESSES,
) -> Recommendation:
    """Return the cheapest setting that keeps every promise over the recorded traffic and the harder days.

    The same arguments give the same recommendation, whatever the number of processes; only `effort` tells them apart.

    Args:
        recorded: the traffic, one value a second; a week is good, an hour is possible.
        replica: how one replica serves.
        slo_ms: p99 to keep.
        price_per_hour_usd: of one replica.
        kept_share: share of the recorded minutes that must keep the SLO.
        metrics: what the autoscaler may follow.
        delays: what passes until a new replica serves; None: the defaults.
        bounds: what no setting may leave, today's excepted; None: the defaults.
        today: `spec` of the HPA in use.
        service: name of the Service that serves the model.
        queue_limit: requests that may wait in one replica, more are refused; None: all wait.
        seed: of the harder days.
        processes: how many to run the twin in. With more than one, the caller's main module must be importable
            without side effects (`if __name__ == "__main__":`).

    Raises:
        SpecError: today's HPA is none that a server would take.
        ValueError: the SLO or the price is not positive.
    """
    if not (slo_ms > 0 and price_per_hour_usd > 0):
        raise ValueError(f"slo_ms ({slo_ms!r}) and price_per_hour_usd ({price_per_hour_usd!r}) must be positive")
    started = time.perf_counter()
    world = World(
        days=(recorded, Day("the busiest day", busiest_day(recorded.rps)), *harder_days(recorded, seed)),
        replica=replica,
        delays=delays or Delays(),
        slo_ms=slo_ms,
        price_per_hour_usd=price_per_hour_usd,
        queue_limit=queue_limit,
        level_rps=float(np.quantile(recorded.rps, _LEVEL, method="higher")),
    )
    player = Player(world)
    unplayable = None if today is None else _unplayable(world, today)
    settings = candidates(
        replica,
        recorded.rps,
        slo_ms=slo_ms,
        price_per_hour_usd=price_per_hour_usd,
        metrics=metrics,
        bounds=bounds or Bounds(),
        today=today if unplayable is None else None,
        service=service,
    )
    with Players(world, processes) as players:
        judge = Judge(
            players,
            _promises(world, kept_share),
            harder_days=len(world.days) - HARDER,
            rest_usd=price_per_hour_usd * (recorded.seconds - world.days[BUSIEST].seconds) / 3600,
        )
        cases = judge.judge(settings)
        best = choose(cases)
        if best is not None:
            tried = {digest_of(setting.spec) for setting in settings}
            finer = nearby(best.setting, replica, slo_ms=slo_ms, bounds=bounds or Bounds())
            cases = judge.judge([setting for setting in finer if digest_of(setting.spec) not in tried], cases)
    found = _Found(cases, judge)
    static = _static_need(world)
    before, after = (None if case is None else player.run(RECORDED, case.setting.spec) for case in found.drawn)
    chosen, today_judged, nearest = (found.judged(case) for case in (found.best, found.today, found.closest))
    return Recommendation(
        slo_ms=slo_ms,
        kept_share=kept_share,
        minutes=_minutes(recorded),
        chosen=None if chosen is None else chosen.option,
        today=None if today_judged is None else today_judged.option,
        unplayable=unplayable,
        closest=nearest,
        options=found.options(),
        static=static,
        sentence=sentence(
            slo_ms=slo_ms,
            static=static,
            chosen=None if chosen is None else chosen.option,
            today=today_judged,
            unplayable=unplayable,
            closest=nearest,
        ),
        notes=tuple(_notes(world, before or after)),
        effort=Effort(
            settings=len(cases),
            failed_early=sum(bool(case.broken) and not case.whole for case in cases),
            too_costly=sum(not case.broken and not case.harder for case in cases),
            busiest_day_runs=judge.busiest_day_runs,
            recorded_runs=judge.recorded_runs,
            harder_runs=judge.harder_runs,
            processes=processes,
            seconds=time.perf_counter() - started,
        ),
        before=None if before is None else series_of(before),
        after=None if after is None else series_of(after),
    )


class _Found:
    """The cases that matter among all."""

    def __init__(self, cases: Sequence[Case], judge: Judge) -> None:
        self._cases = cases
        self._judge = judge
        self.best = choose(cases)
        self.closest = closest(cases) if self.best is None else None
        self.today = next((case for case in cases if case.setting.is_today), None)

    @property
    def drawn(self) -> tuple[Case | None, Case | None]:
        """Today's, and what is to come instead; nothing if that is today's."""
        then = self.best or self.closest
        return self.today, None if then is self.today else then

    def judged(self, case: Case | None) -> Judged | None:
        """Return a case as it is kept."""
        return None if case is None else case.judged(self._judge.least_usd(case), self.best)

    def options(self) -> tuple[ScalingOption, ...]:
        """Return all of them: today's, then what was run on all of the recorded traffic by cost, then the rest."""
        ordered = sorted(self._cases, key=lambda case: (not case.setting.is_today, not case.whole, case.cost_usd))
        return tuple(case.judged(self._judge.least_usd(case), self.best).option for case in ordered)


def _unplayable(world: World, today: HpaSpec) -> str | None:
    """Say why the twin cannot play an HPA; None if it can."""
    probe = replace(world, days=(Day("probe", world.days[RECORDED].rps[:_PROBE_S]),))
    try:
        Player(probe).run(0, today)
    except UnplayableError as error:
        return str(error)
    return None


def _promises(world: World, kept_share: float) -> Promises:
    rps = world.days[RECORDED].rps
    minute_rps = np.add.reduceat(rps, np.arange(0, rps.size, 60)) / 60
    return Promises(
        kept_share=kept_share,
        minutes=_minutes(world.days[RECORDED]),
        guarded=int(np.count_nonzero(minute_rps <= world.level_rps)),
    )


def _minutes(day: Day) -> int:
    return -(-day.seconds // 60)


def _static_need(world: World) -> StaticNeed | None:
    """Return the replicas that hold the traffic if nothing ever changes."""
    hold_rps = world.replica.slo_capacity_rps(world.slo_ms)
    if not hold_rps:
        return None
    peak_rps = float(np.max(world.days[RECORDED].rps))
    return StaticNeed(p95=replicas_for(world.level_rps, hold_rps), peak=replicas_for(peak_rps, hold_rps))


def _notes(world: World, run: Run | None) -> Iterator[str]:
    """Say what the comparison leaves out."""
    recorded = world.days[RECORDED]
    if run is not None:
        yield from run.leaves_out
    yield "Each setting starts with as many replicas as it rests at under the first second of the traffic."
    if recorded.seconds < DAY_S * 0.99:
        yield (
            f"Only {stretch(_minutes(recorded)).removeprefix('these ')} of traffic were there to judge by: what the "
            "rest of the day brings is unknown."
        )
    share = 100 * (1 - HARDER_KEPT_SHARE)
    yield f"The harder days are made up from the busiest one; {share:.0f} % of each may miss the SLO."
    yield (
        f"What costs more than {WORTH_RUNNING:g} times the cheapest that keeps every promise was not run to the end."
    )
