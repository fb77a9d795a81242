"""The worker tasks that time baseline and candidate in turn, so that what disturbs the machine disturbs both."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from tools.contracts import ArtifactRef, ComparisonResult, Contract, Recipe, WorkloadInfo
from tools.measure.dependence import Samples
from tools.measure.latency import warm_up
from tools.measure.noise import NoiseMeter
from tools.measure.served import load_for
from tools.measure.statistics import ratios_by_round, typical_ratio
from tools.runtimes import get_runtime
from tools.worker import stage
from tools.workloads.sequences import Cycle

SETTLE_CALLS = 3
SETTLE_S = 0.03
"""Calls at the start of a block that are thrown away, at least so many and for so long: caches and thread pools change
hands. With three calls alone, a model of 0.4 ms timed against itself came out 1 % faster than itself."""
ENOUGH = 2 / 3
"""With a smaller share of the rounds, or of the processes, that were asked for, there is no telling."""
TRIED_CALLS = 8
"""Calls from which it is guessed how many items fit into a block."""
FEWEST_PARTS = 3
"""With fewer undisturbed processes than this there is no interval: the others are reported too, as unstable."""

Key = TypeVar("Key", bound=Hashable)
Call = TypeVar("Call", bound=Callable[[], object])


@dataclass(frozen=True)
class Turns(Generic[Key]):
    """Blocks of calls that took turns.

    Attributes:
        blocks: for each call, one array of times in milliseconds a round; those that are to be used.
        kept: rounds during which nothing else used the machine.
        disturbed: rounds that were thrown away.
        stable: whether enough were kept.
    """

    blocks: dict[Key, list[Samples]]
    kept: int
    disturbed: int
    stable: bool


def run_comparison(
    *,
    workload: dict[str, Any],
    baseline: dict[str, Any],
    candidate: dict[str, Any],
    baseline_batch: int,
    candidate_batch: int,
    low_batch: int,
    threads: int,
    rounds: int,
    block_s: float,
    part: int = 0,
    tolerate_noise: bool = False,
) -> dict[str, Any]:
    """Time both sides in this process: p50 at the smallest batch, throughput at the batch that each is served at.

    Args:
        workload: `WorkloadInfo`, dumped.
        baseline: `{"artifact": ..., "recipe": ...}`, dumped contracts.
        candidate: likewise.
        baseline_batch: the batch size that the baseline is served at.
        candidate_batch: likewise for the candidate.
        low_batch: the batch size that both have their p50 taken at.
        threads: CPU threads.
        rounds: how often the calls take turns (A B C, then C B A). Disturbed rounds are done again, at most so many.
        block_s: seconds of one call's turn.
        part: the how manieth process of a comparison this is; every other one begins with the last call.
        tolerate_noise: keep rounds during which other processes took the CPUs.

    Returns:
        A `Part`, dumped.
    """
    info = WorkloadInfo.model_validate(workload)
    stage("loading both sides")
    sides = {"baseline": baseline, "candidate": candidate}
    wanted = [("baseline", low_batch), ("candidate", low_batch)]
    wanted += [("baseline", baseline_batch), ("candidate", candidate_batch)]
    keys = list(dict.fromkeys(wanted if part % 2 == 0 else reversed(wanted)))
    calls = {key: _call(info, sides[key[0]], key[1], threads, seed=part) for key in keys}
    meters = {key: NoiseMeter(threads, tolerant=tolerate_noise) for key in calls}
    if part == 0:
        stage("waiting for a quiet machine")
        meters["baseline", low_batch].wait_until_quiet()
    stage("timing in turn")
    for call in calls.values():
        warm_up(call, 2.0)
    serve_the_same(calls, block_s)
    turns = take_turns(calls, meters, rounds, lambda call: time_turns(call, block_s))
    blocks = turns.blocks
    low = ratios_by_round(blocks["baseline", low_batch], blocks["candidate", low_batch], statistic="median")
    served = ratios_by_round(blocks["baseline", baseline_batch], blocks["candidate", candidate_batch], statistic="mean")
    return Part(
        p50=float(np.exp(np.mean(np.log(low)))),
        throughput=float(np.exp(np.mean(np.log(served)))) * candidate_batch / baseline_batch,
        kept=turns.kept,
        disturbed=turns.disturbed,
        stable=turns.stable,
    ).model_dump(mode="json")


class Part(Contract):
    """What one process of a comparison found: ratios above 1 mean that the candidate is better."""

    p50: float
    throughput: float
    kept: int
    """Rounds during which nothing else used the machine."""
    disturbed: int
    """Rounds that were thrown away."""
    stable: bool


def combine(*, parts: list[dict[str, Any]], wanted: int, baseline_batch: int, candidate_batch: int) -> dict[str, Any]:
    """Put the parts of a comparison together.

    One process differs from the next by a percent or so, whatever it measures: where its memory lies, how its threads
    fell. So the processes, and not the rounds, are what the interval is over.

    Args:
        parts: `Part`s, dumped, of one process each.
        wanted: how many undisturbed ones were asked for.
        baseline_batch: as for `run_comparison`.
        candidate_batch: likewise.

    Returns:
        A `ComparisonResult`, dumped.
    """
    found = [Part.model_validate(part) for part in parts]
    stable = [part for part in found if part.stable]
    use = stable if len(stable) >= min(FEWEST_PARTS, wanted) else found
    return ComparisonResult(
        baseline_batch=baseline_batch,
        candidate_batch=candidate_batch,
        p50=typical_ratio([part.p50 for part in use]),
        throughput=typical_ratio([part.throughput for part in use]),
        rounds=sum(part.kept for part in found),
        disturbed_rounds=sum(part.disturbed for part in found),
        processes=len(use),
        stable=len(stable) >= ENOUGH * wanted,
    ).model_dump(mode="json")


def take_turns(
    calls: Mapping[Key, Call],
    meters: Mapping[Key, NoiseMeter],
    rounds: int,
    time_one: Callable[[Call], Samples],
) -> Turns[Key]:
    """Time each call in turn, forth and back, until there are `rounds` undisturbed rounds, or twice as many in all.

    A round is thrown away as a whole: a ratio needs both of its sides.

    Args:
        calls: what to time.
        meters: a fresh one for each call, since each loads the CPU in its own way.
        rounds: how many undisturbed rounds to take.
        time_one: times one call's turn.
    """
    taken: dict[Key, list[Samples]] = {key: [] for key in calls}
    quiet: list[bool] = []
    while sum(quiet) < rounds and len(quiet) < 2 * rounds:
        forth = sum(quiet) % 2 == 0  # a round that is done again goes the same way
        for key in list(calls) if forth else reversed(list(calls)):
            meters[key].begin()
            taken[key].append(time_one(calls[key]))
            meters[key].end()
        quiet = [not any(reasons) for reasons in zip(*(meters[key].reasons() for key in calls), strict=True)]
    kept = sum(quiet)
    use = quiet if kept else [True] * len(quiet)
    blocks = {key: [block for block, used in zip(taken[key], use, strict=True) if used] for key in calls}
    return Turns(blocks, kept=kept, disturbed=len(quiet) - kept, stable=kept >= ENOUGH * rounds)


def _call(workload: WorkloadInfo, side: dict[str, Any], size: int, threads: int, *, seed: int) -> Cycle:
    recipe = Recipe.model_validate(side["recipe"])
    artifact = ArtifactRef.model_validate(side["artifact"])
    return load_for(get_runtime(recipe.runtime), artifact, recipe, workload, size, threads, seed=seed)


def serve_the_same(calls: Mapping[tuple[str, int], Cycle], block_s: float) -> None:
    """Let each call serve the same items in one turn, so that their lengths are no part of a ratio.

    As many as the slowest call serves in a block, but at least one of the largest batches. Each process of a comparison
    has other items, so the interval over processes tells of the lengths too. With one batch for all items, each call
    goes on with that.

    Args:
        calls: by side and batch size; their batches are slices of one stream of items.
        block_s: seconds of one call's turn.
    """
    if all(call.length == 1 for call in calls.values()):
        return
    per_item_s = []
    for (_, size), call in calls.items():
        call.restart()
        tried = min(call.length, TRIED_CALLS)
        before = time.perf_counter()
        for _ in range(tried):
            call()
        per_item_s.append((time.perf_counter() - before) / tried / size)
    largest = max(size for _, size in calls)
    most = min(call.length * size for (_, size), call in calls.items())
    items = min(max(int(block_s / max(per_item_s)), largest), most)
    for (_, size), call in calls.items():
        call.restart(max(items // size, 1))


def time_turns(call: Cycle, block_s: float) -> Samples:
    """Time whole turns of a cycle, each batch as often as the others: one side's turn."""
    return time_block(call, block_s, turn=call.length, restart=call.restart)


def time_block(
    call: Callable[[], object], block_s: float, *, turn: int = 1, restart: Callable[[], None] = lambda: None
) -> Samples:
    """Let a call settle, then time it in milliseconds for `block_s` seconds, at least five times: one side's turn.

    Args:
        call: what to time.
        block_s: how long.
        turn: stop at a multiple of so many calls only.
        restart: called when it has settled.
    """
    settled = time.perf_counter() + SETTLE_S
    calls = 0
    while calls < SETTLE_CALLS or time.perf_counter() < settled:
        call()
        calls += 1
    restart()
    times: list[float] = []
    ends = time.perf_counter() + block_s
    while time.perf_counter() < ends or len(times) < 5 or len(times) % turn:
        before = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - before) / 1e6)
    return np.asarray(times)
