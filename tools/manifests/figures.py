"""The figures of a service, each from its measurement or from a default that says so."""

from __future__ import annotations

import math
from pathlib import Path

from tools.contracts import OWNED_FIELDS, HpaSpec, Interval
from tools.manifests.service import Sourced
from tools.result import Configuration, SessionResult
from tools.scaling.capacity import MIN_REPLICAS, QUEUE_TARGET_WITHOUT_SLO, UTILIZATION, queue_target
from tools.scaling.manifest import Manifest, read_hpa
from tools.scaling.recommended_hpa import recommended_hpa
from tools.spec import TuningSpec

MEMORY_HEADROOM = 1.25
"""What a replica may take over the peak that was measured: allocators fragment over weeks, a trial lasts seconds."""
SERVER_MIB = 128
"""For what a trial does not have: an HTTP server and the requests that wait in it."""
MEMORY_STEP_MIB = 32
DEFAULT_MEMORY_MIB = 1024
DEFAULT_CORES = 1
DEFAULT_MAX_REPLICAS = 10
DEFAULT_JOB_MEMORY_MIB = 4096
SESSION_MIB = 1024
"""For the session itself, beside its largest trial."""

PROCESS_START_S = 10.0
"""An interpreter and the libraries of a model server, from a cold page cache."""
STARTUP_FACTOR = 4.0
"""A node that starts many pods at once is this much slower; a probe that gives up early restarts for ever."""
MIN_STARTUP_S = 60
PRE_STOP_S = 5
"""A pod that ends still gets requests until all proxies know: it sleeps so long before it is told to stop."""
DRAIN_S = 10
"""To answer what was accepted: no request that waits longer keeps any SLO."""
JOB_OVERHEAD_S = 1800
"""Over the spec's time budget: loading, the trial that is running, reporting."""

UNMEASURED = "a default: nothing was measured"


def cpu(spec: TuningSpec, result: SessionResult | None) -> Sourced[int]:
    """Return the CPU of a replica in thousandths of a core: as many cores as it was measured with."""
    if spec.scaling.cores is not None:
        return Sourced(value=math.ceil(1000 * spec.scaling.cores), source="the spec's scaling.cores")
    best = None if result is None else result.best
    own = None if best is None else best.definition.settings.get("threads")
    if isinstance(own, int):
        return Sourced(value=1000 * own, source="the threads of the recipe that was measured")
    if spec.hardware.threads is not None:
        return Sourced(value=1000 * spec.hardware.threads, source="the spec's hardware.threads")
    if result is None:
        return Sourced(value=1000 * DEFAULT_CORES, source=UNMEASURED)
    return Sourced(
        value=1000 * result.hardware.cores,
        source=f"all {result.hardware.cores} cores of the machine that session {result.session} measured on",
    )


def measured_memory(best: Configuration, session: str) -> Sourced[int]:
    """Return the memory of a replica in MiB: the peak of a trial, and room for what a trial does not have."""
    return Sourced(
        value=_up_mib(best.memory_mb * MEMORY_HEADROOM) + SERVER_MIB,
        source=f"measured in session {session}: a peak of {best.memory_mb:.0f} MB at batch {best.batch_size}, and "
        f"{100 * (MEMORY_HEADROOM - 1):.0f} % more, up to the next {MEMORY_STEP_MIB} MiB, and {SERVER_MIB} MiB for the "
        "server",
    )


def promised_memory(spec: TuningSpec) -> Sourced[int]:
    """Return the memory of a replica that nobody measured."""
    most_mb = spec.objective.max_memory_mb
    if most_mb is None:
        return Sourced(value=DEFAULT_MEMORY_MIB, source=UNMEASURED)
    return Sourced(value=_up_mib(most_mb), source="the spec's objective.max_memory_mb")


def job_memory(spec: TuningSpec) -> Sourced[int]:
    """Return the memory in MiB of a pod in which infertune measures."""
    most_mb = spec.budget.trial_memory_mb
    if most_mb is None:
        return Sourced(value=DEFAULT_JOB_MEMORY_MIB, source="a default: the spec has no budget.trial_memory_mb")
    return Sourced(
        value=_up_mib(most_mb) + SESSION_MIB,
        source=f"the spec's budget.trial_memory_mb, and {SESSION_MIB} MiB for the session",
    )


def job_deadline(spec: TuningSpec) -> Sourced[int]:
    """Return the seconds after which a night's job is stopped."""
    return Sourced(
        value=math.ceil(spec.budget.time_s + spec.budget.trial_s + JOB_OVERHEAD_S),
        source=f"the spec's budget.time_s and budget.trial_s, and {JOB_OVERHEAD_S} s for the rest",
    )


def startup(load_ms: float | None, session: str | None) -> Sourced[int]:
    """Return the seconds that a replica may take to start, by how long its model took to load."""
    load_s = 0.0 if load_ms is None else load_ms / 1000
    seconds = max(MIN_STARTUP_S, math.ceil(STARTUP_FACTOR * (PROCESS_START_S + load_s)))
    if load_ms is None:
        return Sourced(value=seconds, source="a default: how long the model takes to load was not measured")
    return Sourced(
        value=seconds,
        source=f"measured in session {session}: loading the model took {load_s:.2f} s; with {PROCESS_START_S:g} s for "
        f"the process, {STARTUP_FACTOR:g} times over, and at least {MIN_STARTUP_S} s",
    )


def termination(spec: TuningSpec) -> Sourced[int]:
    """Return the seconds that a replica may take to end."""
    return Sourced(
        value=max(math.ceil(spec.scaling.delays.termination_s), PRE_STOP_S + DRAIN_S),
        source=f"scaling.delays.termination_s, and at least {PRE_STOP_S} s of sleep and {DRAIN_S} s to answer what was "
        "accepted",
    )


def recommended(result: SessionResult, best: Configuration, spec: TuningSpec) -> Sourced[HpaSpec]:
    """Return the autoscaler that a session recommends, within the spec's bounds."""
    scaling = result.scaling
    chosen = None if scaling is None or scaling.recommendation is None else scaling.recommendation.chosen
    if chosen is not None:  # the search kept the bounds
        return Sourced(
            value=_owned(chosen.spec),
            source=f"chosen by session {result.session}, which played the traffic ({_named(result)}): {chosen.name}",
        )
    if scaling is not None:
        return _sized(
            spec,
            minimum=scaling.min_replicas,
            maximum=scaling.max_replicas,
            queue=scaling.queue_target,
            percent=round(100 * scaling.utilization),
            source=f"recommended by session {result.session}, from its capacity and the traffic ({_named(result)})",
        )
    capacity: Interval | None = best.intervals.get("throughput_rps")
    queue = (
        QUEUE_TARGET_WITHOUT_SLO
        if capacity is None
        else queue_target(capacity, p99_ms=best.latency_ms.p99.value, slo_ms=result.objective.p99_ms)
    )
    return _sized(
        spec,
        minimum=MIN_REPLICAS,
        maximum=DEFAULT_MAX_REPLICAS,
        queue=queue,
        percent=round(100 * UTILIZATION),
        source=f"the queue target from the capacity that session {result.session} measured; the bounds are defaults, "
        "since it knew no traffic",
    )


def unmeasured(spec: TuningSpec) -> Sourced[HpaSpec]:
    """Return the autoscaler in use, or a careful one, where there is nothing to recommend from."""
    if spec.hpa is not None:
        in_use = _owned(read_hpa(Path(spec.hpa.file)).manifest["spec"])
        return Sourced(value=in_use, source="the autoscaler in use: nothing was measured that changes it")
    return _sized(
        spec,
        minimum=MIN_REPLICAS,
        maximum=DEFAULT_MAX_REPLICAS,
        queue=QUEUE_TARGET_WITHOUT_SLO,
        percent=round(100 * UTILIZATION),
        source=UNMEASURED,
    )


def _sized(spec: TuningSpec, *, minimum: int, maximum: int, queue: int, percent: int, source: str) -> Sourced[HpaSpec]:
    if spec.cluster is not None:
        bounds = spec.cluster.bounds
        most = min(maximum, bounds.max_replicas)
        least = min(max(minimum, bounds.min_replicas), most)
        if (least, most) != (minimum, maximum):
            source += "; within the spec's cluster.bounds"
        minimum, maximum = least, most
    hpa = recommended_hpa(
        None if spec.hpa is None else read_hpa(Path(spec.hpa.file)).manifest,
        workload=spec.workload.name,
        min_replicas=minimum,
        max_replicas=maximum,
        queue_target=queue,
        cpu_percent=percent,
    )
    return Sourced(value=_owned(hpa["spec"]), source=source)


def _named(result: SessionResult) -> str:
    """Name the traffic without the folders of the machine that it was on."""
    assert result.scaling is not None
    return result.scaling.traffic.source.rpartition("/")[2]


def _owned(spec: Manifest) -> HpaSpec:
    return {field: spec[field] for field in OWNED_FIELDS if spec.get(field) is not None}


def _up_mib(megabytes: float) -> int:
    return MEMORY_STEP_MIB * math.ceil(megabytes * 1e6 / 2**20 / MEMORY_STEP_MIB)
