"""The worker task that times baseline and candidate in turn, so that what disturbs the machine disturbs both."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from tools.contracts import ArtifactRef, ComparisonResult, Recipe, WorkloadInfo
from tools.measure.latency import warm_up
from tools.measure.statistics import Samples, ratio_interval
from tools.measure.trial import load_for
from tools.runtimes import get_runtime
from tools.worker import stage

SETTLE_CALLS = 3
"""Calls at the start of a block that are thrown away: caches and thread pools change hands."""


def run_comparison(
    *,
    workload: dict[str, Any],
    baseline: dict[str, Any],
    candidate: dict[str, Any],
    baseline_batch: int,
    candidate_batch: int,
    candidate_low_batch: int,
    threads: int,
    rounds: int,
    block_s: float,
) -> dict[str, Any]:
    """Compare p50 at the smallest batch, and throughput at the batch each side is served at.

    Args:
        workload: `WorkloadInfo`, dumped.
        baseline: `{"artifact": ..., "recipe": ...}`, dumped contracts.
        candidate: likewise.
        baseline_batch: the baseline's batch size, usually 1.
        candidate_batch: the batch size the candidate would be served at.
        candidate_low_batch: the candidate's batch for the comparison of p50.
        threads: CPU threads.
        rounds: how many times the three sides take turns (A B C, then C B A).
        block_s: seconds of calls in one block.

    Returns:
        A `ComparisonResult`, dumped.
    """
    info = WorkloadInfo.model_validate(workload)
    stage("loading both sides")
    sides = [
        _call(info, baseline, baseline_batch, threads),
        _call(info, candidate, candidate_low_batch, threads),
    ]
    if candidate_batch != candidate_low_batch:
        sides.append(_call(info, candidate, candidate_batch, threads))
    for call in sides:
        warm_up(call, 2.0)
    stage("timing in turn")
    blocks: list[list[Samples]] = [[] for _ in sides]
    for index in range(rounds):
        order = range(len(sides)) if index % 2 == 0 else reversed(range(len(sides)))
        for side in order:
            blocks[side].append(_block(sides[side], block_s))
    throughput = ratio_interval(blocks[0], blocks[-1], statistic="mean")
    return ComparisonResult(
        baseline_batch=baseline_batch,
        candidate_batch=candidate_batch,
        p50=ratio_interval(blocks[0], blocks[1], statistic="median"),
        throughput=throughput.scaled(candidate_batch / baseline_batch),
        rounds=rounds,
    ).model_dump(mode="json")


def _call(workload: WorkloadInfo, side: dict[str, Any], size: int, threads: int) -> Any:
    recipe = Recipe.model_validate(side["recipe"])
    runner, example = load_for(
        get_runtime(recipe.runtime), ArtifactRef.model_validate(side["artifact"]), recipe, workload, size, threads
    )
    return lambda: runner(example)


def _block(call: Any, block_s: float) -> Samples:
    for _ in range(SETTLE_CALLS):
        call()
    times: list[float] = []
    ends = time.perf_counter() + block_s
    while time.perf_counter() < ends or len(times) < 5:
        before = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - before) / 1e6)
    return np.asarray(times)
