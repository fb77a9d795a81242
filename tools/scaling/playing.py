"""Playing many settings over the same days, on several processes: the days travel to each process once."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tools.contracts.base import digest_of
from tools.contracts.recommendation import SERIES_POINTS, Series
from tools.contracts.scaling import Delays, HpaSpec
from tools.scaling.days import Day
from tools.scaling.promises import Played
from tools.scaling.replica import Replica
from tools.scaling.settings import Setting
from tools.scaling.twin import Run, Stage, prepare

Job: TypeAlias = tuple[int, HpaSpec]
"""The place of a day, and the setting to play over it."""


@dataclass(frozen=True)
class World:
    """All that a run needs besides the setting.

    Attributes:
        days: to play, known by their place.
        replica: how one replica serves.
        delays: what passes until a new replica serves.
        slo_ms: p99 to keep.
        price_per_hour_usd: of one replica.
        queue_limit: requests that may wait in one replica; None: all wait.
        level_rps: up to this rate a lost replica must not matter.
    """

    days: tuple[Day, ...]
    replica: Replica
    delays: Delays
    slo_ms: float
    price_per_hour_usd: float
    queue_limit: int | None
    level_rps: float


class Player:
    """Plays settings in this process; what does not depend on the setting is prepared once for each day."""

    def __init__(self, world: World) -> None:
        """Prepare nothing yet: not every day is needed in every process."""
        self._world = world
        self._hold_rps = world.replica.slo_capacity_rps(world.slo_ms) or 0.0
        self._stages: dict[int, Stage] = {}

    def run(self, day: int, spec: HpaSpec) -> Run:
        """Play one setting over one day, given by its place.

        Raises:
            UnplayableError: it follows a metric that the twin does not know.
        """
        if day not in self._stages:
            world = self._world
            self._stages[day] = prepare(
                world.days[day],
                world.replica,
                delays=world.delays,
                slo_ms=world.slo_ms,
                price_per_hour_usd=world.price_per_hour_usd,
                queue_limit=world.queue_limit,
            )
        return self._stages[day].play(spec)

    def play(self, job: Job) -> Played:
        """Play one setting over one day, and keep the numbers that judging needs."""
        run = self.run(*job)
        guarded = run.rps <= self._world.level_rps
        exposed = guarded & ((run.ready - 1) * self._hold_rps < run.rps * (1 - 1e-9))
        return Played(
            outcome=run.outcome,
            guarded=int(np.count_nonzero(guarded)),
            exposed=int(np.count_nonzero(exposed)),
            highest=max((run.outcome.peak_replicas, *(scaling.after for scaling in run.scalings))),
        )


class Players:
    """Play many settings; a context manager, for there may be processes to end."""

    def __init__(self, world: World, processes: int) -> None:
        """Start them.

        Args:
            world: what they play in.
            processes: how many; with 1 everything runs in this one.
        """
        self._own = Player(world)
        self._executor: ProcessPoolExecutor | None = None
        if processes > 1:
            # Fresh processes: a fork would copy whatever threads and locks the caller has.
            context = multiprocessing.get_context("forkserver")
            self._executor = ProcessPoolExecutor(processes, mp_context=context, initializer=_enter, initargs=(world,))

    def __enter__(self) -> Self:
        """Return these players."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes; after an error, without what they have not begun."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=kind is not None)

    def play(self, jobs: Sequence[Job]) -> list[Played]:
        """Return what each setting does on its day, in the order of the jobs."""
        if self._executor is None:
            return [self._own.play(job) for job in jobs]
        return list(self._executor.map(_play, jobs))

    def play_each(self, settings: Sequence[Setting], days: Sequence[int]) -> tuple[list[tuple[Played, ...]], int]:
        """Return what each of the settings does on each of the days, and how many runs that took.

        Settings that differ in nothing but maxReplicas share a run if it never went above the lower maximum: up to
        there the controller decides the same.
        """
        families: dict[str, list[Setting]] = {}
        for setting in settings:
            families.setdefault(digest_of({**setting.spec, "maxReplicas": None}), []).append(setting)
        widest = [(max(family, key=lambda s: s.max_replicas), family) for family in families.values()]
        first = self._known([(widest_of, day) for widest_of, _ in widest for day in days])
        known = dict(first)
        for (widest_of, family), day in itertools.product(widest, days):
            played = first[id(widest_of), day]
            known |= {(id(s), day): played for s in family if s.max_replicas >= played.highest}
        left = [(s, day) for s, day in itertools.product(settings, days) if (id(s), day) not in known]
        known |= self._known(left)
        return [tuple(known[id(s), day] for day in days) for s in settings], len(first) + len(left)

    def _known(self, pairs: Sequence[tuple[Setting, int]]) -> dict[tuple[int, int], Played]:
        """Play settings on days; return what happened by the setting's identity and the day."""
        played = self.play([(day, setting.spec) for setting, day in pairs])
        return {(id(setting), day): one for (setting, day), one in zip(pairs, played, strict=True)}


def series_of(run: Run) -> Series:
    """Return a run as it is drawn: at most `SERIES_POINTS` equally long buckets, each by its highest minute."""
    width = -(-run.rps.size // SERIES_POINTS)
    starts = np.arange(0, run.rps.size, width)

    def highest(values: NDArray[np.float64]) -> tuple[float, ...]:
        return tuple(float(f"{value:.6g}") for value in np.maximum.reduceat(values, starts))

    return Series(
        minute=tuple(float(start) for start in starts),
        rate_rps=highest(run.rps),
        replicas=highest(run.ready),
        p99_ms=highest(run.p99_ms),
    )


_player: Player | None = None
"""The player of this process; only ever set in the processes of `Players`."""


def _enter(world: World) -> None:
    global _player  # noqa: PLW0603 - an initializer has no other way to hand something to the calls that follow
    _player = Player(world)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: the pool itself would wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _play(job: Job) -> Played:
    assert _player is not None
    return _player.play(job)
