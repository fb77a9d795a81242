"""The worker task that times baseline and candidate in turn, so that what disturbs the machine disturbs both."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tools.contracts import ArtifactRef, ComparisonResult, Recipe, WorkloadInfo
from tools.measure.latency import warm_up
from tools.measure.statistics import Samples, ratio_interval
from tools.measure.trial import load_for
from tools.runtimes import get_runtime
from tools.worker import stage

SETTLE_CALLS = 3
SETTLE_S = 0.03
"""Calls at the start of a block that are thrown away, at least so many and for so long: caches and thread pools change
hands. With three calls alone, a model of 0.4 ms timed against itself came out 1 % faster than itself."""


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
) -> dict[str, Any]:
    """Compare p50 at the smallest batch, and throughput at the batch size that each side is served at.

    Args:
        workload: `WorkloadInfo`, dumped.
        baseline: `{"artifact": ..., "recipe": ...}`, dumped contracts.
        candidate: likewise.
        baseline_batch: the batch size that the baseline is served at.
        candidate_batch: likewise for the candidate.
        low_batch: the batch size that both have their p50 taken at.
        threads: CPU threads.
        rounds: how often the calls take turns (A B C, then C B A).
        block_s: seconds of one call's turn.

    Returns:
        A `ComparisonResult`, dumped.
    """
    info = WorkloadInfo.model_validate(workload)
    stage("loading both sides")
    sides = {"baseline": baseline, "candidate": candidate}
    wanted = [("baseline", low_batch), ("candidate", low_batch)]
    wanted += [("baseline", baseline_batch), ("candidate", candidate_batch)]
    calls = {key: _call(info, sides[key[0]], key[1], threads) for key in dict.fromkeys(wanted)}
    for call in calls.values():
        warm_up(call, 2.0)
    stage("timing in turn")
    blocks: dict[tuple[str, int], list[Samples]] = {key: [] for key in calls}
    for index in range(rounds):
        for key in list(calls) if index % 2 == 0 else reversed(list(calls)):
            blocks[key].append(time_block(calls[key], block_s))
    p50 = ratio_interval(blocks["baseline", low_batch], blocks["candidate", low_batch], statistic="median")
    throughput = ratio_interval(
        blocks["baseline", baseline_batch], blocks["candidate", candidate_batch], statistic="mean"
    )
    return ComparisonResult(
        baseline_batch=baseline_batch,
        candidate_batch=candidate_batch,
        p50=p50,
        throughput=throughput.scaled(candidate_batch / baseline_batch),
        rounds=rounds,
    ).model_dump(mode="json")


def _call(workload: WorkloadInfo, side: dict[str, Any], size: int, threads: int) -> Any:
    recipe = Recipe.model_validate(side["recipe"])
    runner, example = load_for(
        get_runtime(recipe.runtime), ArtifactRef.model_validate(side["artifact"]), recipe, workload, size, threads
    )
    return lambda: runner(example)


def time_block(call: Callable[[], object], block_s: float) -> Samples:
    """Let a call settle, then time it in milliseconds for `block_s` seconds, at least five times: one side's turn."""
    settled = time.perf_counter() + SETTLE_S
    calls = 0
    while calls < SETTLE_CALLS or time.perf_counter() < settled:
        call()
        calls += 1
    times: list[float] = []
    ends = time.perf_counter() + block_s
    while time.perf_counter() < ends or len(times) < 5:
        before = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - before) / 1e6)
    return np.asarray(times)
