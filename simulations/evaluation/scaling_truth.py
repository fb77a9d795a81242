"""Autoscaling and refusing: the best decision by enumeration, counting or recording, and what infertune decides."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simulations.evaluation.situation import (
    Answer,
    BoundsSituation,
    ControllerSituation,
    GapSituation,
    ScalingSituation,
    SituationError,
)
from tools.cluster.bounds import within
from tools.scaling.capacity import replicas_for
from tools.scaling.choose import search
from tools.scaling.days import Day, harder_days
from tools.scaling.hpa import Controller, Memory, parse_autoscaler
from tools.scaling.playing import Player, World
from tools.scaling.promises import Promises
from tools.scaling.replica import Replica
from tools.scaling.settings import BEHAVIORS, LOAD_SHARES, describe, max_replicas_within
from tools.traffic import bundled_day
from tools.traffic.observed import Window
from tools.traffic.quality import clean, refusal
from tools.units import DAY_S

TIMELINES = Path(__file__).parents[2] / "tests" / "hpa_timelines"
NOTHING = "no setting keeps every promise"
REFUSED = "refuse"
FINE_SHARES = tuple(round(0.35 + 0.025 * step, 3) for step in range(23))
"""Loads to aim at, as shares of what a replica holds: all as close as those that the search tries near its best."""
_HOUR_S = 3600.0
_MINUTE_S = 60.0
_LEVEL = 0.95


def search_settings(situation: ScalingSituation) -> Answer:
    """Return what infertune's search recommends, with what it costs on the recorded traffic."""
    found = search(
        _day(situation),
        Replica.of(situation.replica.curve()),
        slo_ms=situation.slo_ms,
        price_per_hour_usd=situation.price_per_hour_usd,
        kept_share=situation.kept_share,
        metrics=("rate",),
        delays=situation.delays,
        bounds=situation.bounds,
        processes=1,
    )
    if found.chosen is None:
        return Answer(NOTHING, trials=found.effort.settings)
    aims = ", ".join(f"{share:.0%}" for share in LOAD_SHARES)
    return Answer(
        found.chosen.name,
        found.chosen.outcomes[0].cost_usd,
        found.effort.settings,
        f"it aims at {aims} of what a replica holds, and then only near the best of these",
    )


def best_setting(situation: ScalingSituation) -> Answer:
    """Return the cheapest of a finer grid of settings that keeps every promise, each tried by ascending cost.

    Every minReplicas from 1 on, every target of `FINE_SHARES`, every behaviour, and every fixed number of replicas.
    maxReplicas is what the bounds allow, since a promise that is kept with less is kept with more.
    """
    day, replica = _day(situation), Replica.of(situation.replica.curve())
    world = World(
        days=(day, *harder_days(day)),
        replica=replica,
        delays=situation.delays,
        slo_ms=situation.slo_ms,
        price_per_hour_usd=situation.price_per_hour_usd,
        queue_limit=None,
        level_rps=float(np.quantile(day.rps, _LEVEL, method="higher")),
    )
    promises, player = _promises(situation, world), Player(world)
    played = [(spec, player.play((0, spec))) for spec in _fine_grid(situation, replica, day)]
    kept = [(spec, one) for spec, one in played if not promises.broken(one)]
    for spec, one in sorted(kept, key=lambda pair: pair[1].outcome.cost_usd):
        # One harder day after the other: most settings break the first that they break.
        if not any(promises.broken(one, [player.play((place, spec))]) for place in range(1, len(world.days))):
            return Answer(describe(spec), one.outcome.cost_usd, len(played))
    return Answer(NOTHING, trials=len(played))


def decide_replicas(situation: ControllerSituation) -> Answer:
    """Return what the arithmetic of `tools.scaling.hpa` makes of the recorded proposals."""
    recording = _recorded(situation)
    flags = recording["controller"]["hpa_settings"]
    controller = Controller(
        tolerance=flags["tolerance"],
        downscale_window_s=flags["downscale_window"],
        cpu_initialization_s=flags["cpu_init_period"],
        readiness_delay_s=flags["initial_readiness_delay"],
    )
    memory = Memory(parse_autoscaler(recording["hpa_spec_submitted"], controller))
    replicas, said = recording["initial_replicas"], []
    for sync in recording["syncs"]:
        now_s = sync.get("t_proposal", sync["t"])
        following = memory.decide(now_s, replicas, sync["proposal"]).replicas
        if following != replicas:
            memory.scaled(sync.get("t_decided", now_s), replicas, following)
        replicas = following
        said.append(replicas)
    return Answer(_walk(recording["initial_replicas"], said))


def recorded_replicas(situation: ControllerSituation) -> Answer:
    """Return what the real controller wrote."""
    recording = _recorded(situation)
    replicas, said = recording["initial_replicas"], []
    for sync in recording["syncs"]:
        replicas = (sync.get("scale_put") or {}).get("replicas", replicas)
        said.append(replicas)
    return Answer(_walk(recording["initial_replicas"], said))


def judge_change(situation: BoundsSituation) -> Answer:
    """Return whether the fence lets a change pass."""
    violations = within(situation.bounds, situation.after, situation.price_per_hour_usd)
    return Answer(REFUSED if violations else "allow")


def may_change(situation: BoundsSituation) -> Answer:
    """Return whether a change is allowed, by counting replicas and money."""
    bounds, most = situation.bounds, situation.after["maxReplicas"]
    day_usd = most * situation.price_per_hour_usd * DAY_S / _HOUR_S
    too_dear = bounds.daily_cost_usd is not None and day_usd > bounds.daily_cost_usd
    fits = bounds.min_replicas <= situation.after["minReplicas"] <= most <= bounds.max_replicas
    return Answer("allow" if fits and not too_dear else REFUSED)


def judge_traffic(situation: GapSituation) -> Answer:
    """Return whether infertune takes the traffic that is left for a ground to recommend anything by."""
    points = clean(_points(situation))
    window = Window(start_s=0.0, end_s=DAY_S - _MINUTE_S, step_s=_MINUTE_S)
    return Answer(REFUSED if refusal("request_rate", "sum(rate(requests[1m]))", points, window) else "recommend")


def traffic_is_enough(situation: GapSituation) -> Answer:
    """Return whether what is left of the day asks for as many replicas as all of it."""
    whole, left = bundled_day().rps, [rate for _, rate in _points(situation)]
    needs = [replicas_for(max(rates), situation.hold_rps) for rates in (whole, left)]
    return Answer("recommend" if needs[0] == needs[1] else REFUSED)


def _points(situation: GapSituation) -> list[tuple[float, float]]:
    day = bundled_day()
    return [
        (second, rate)
        for second, rate in zip(day.seconds, day.rps, strict=True)
        if not any(begin <= second / _HOUR_S < end for begin, end in situation.missing_hours)
    ]


def _day(situation: ScalingSituation) -> Day:
    return Day("the recorded traffic", situation.traffic.rps(), tuple(fault.fault() for fault in situation.faults))


def _promises(situation: ScalingSituation, world: World) -> Promises:
    rps = world.days[0].rps
    minute_rps = rps.reshape(-1, int(_MINUTE_S)).mean(axis=1)  # situations last whole minutes
    guarded = int(np.count_nonzero(minute_rps <= world.level_rps))
    return Promises(kept_share=situation.kept_share, minutes=minute_rps.size, guarded=guarded)


def _fine_grid(situation: ScalingSituation, replica: Replica, day: Day) -> Iterator[dict[str, Any]]:
    hold_rps = replica.slo_capacity_rps(situation.slo_ms)
    ceiling = max_replicas_within(situation.bounds, situation.price_per_hour_usd)
    if not hold_rps or ceiling < situation.bounds.min_replicas:
        return
    most = min(ceiling, 3 * replicas_for(float(day.rps.max()), hold_rps))
    minima = range(situation.bounds.min_replicas, replicas_for(float(day.rps.max()), hold_rps) + 2)
    for share, least, behavior in itertools.product(FINE_SHARES, minima, BEHAVIORS.values()):
        if least < most:
            spec = _rate_spec(share * hold_rps, least, most)
            yield spec if behavior is None else {**spec, "behavior": behavior}
    for count in range(situation.bounds.min_replicas, most + 1):
        yield _rate_spec(hold_rps, count, count)


def _rate_spec(target_rps: float, least: int, most: int) -> dict[str, Any]:
    target = {"type": "AverageValue", "averageValue": f"{target_rps:.0f}"}
    metric = {"type": "Pods", "pods": {"metric": {"name": "request_rate"}, "target": target}}
    return {"minReplicas": least, "maxReplicas": most, "metrics": [metric]}


def _recorded(situation: ControllerSituation) -> dict[str, Any]:
    path = TIMELINES / situation.recording
    try:
        recording: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    except OSError as error:
        reason = error.strerror or str(error)
        raise SituationError(f"cannot be read ({reason}).", where=str(path), fix="Run from a checkout.") from None
    return recording


def _walk(first: int, replicas: list[int]) -> str:
    """Say which numbers of replicas there were, in order."""
    return " -> ".join(str(count) for count, _ in itertools.groupby([first, *replicas]))
