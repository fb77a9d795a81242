"""The HorizontalPodAutoscaler controller of Kubernetes 1.36, as arithmetic: no cluster, and the clock is passed in.

One sync of the controller, for a simulation that knows groups of pods:

    autoscaler = parse_autoscaler(spec)
    memory = Memory(autoscaler)
    ...
    proposal = propose_average_value(fleet, current=n, target_milli=metric.target_milli, tolerance=autoscaler.tolerance)
    decided = memory.decide(now_s, n, proposal)
    if decided.replicas != n:
        memory.scaled(now_s, n, decided.replicas)

Several metrics are put together by `combine`; a metric that failed proposes None. Where pods and samples are known one
by one, `propose_all` takes the place of the `propose_*` functions.

A real controller's period is the sync period and the few milliseconds that a sync takes. With a clock that ticks in
exact periods, windows and policy periods that are a multiple of it meet their border, and hold one sync longer here
or there; `SYNC_WORK_S` more for each sync gives the controller's timing.
"""

from tools.scaling.hpa_memory import Decided, Memory
from tools.scaling.hpa_metrics import (
    Fleet,
    alike,
    combine,
    missing_usage,
    propose_average_value,
    propose_total,
    propose_utilization,
    propose_value,
)
from tools.scaling.hpa_pods import Answer, Pod, Sample, Target, fleet_of, propose, propose_all, ready_pods
from tools.scaling.hpa_spec import (
    Autoscaler,
    Behavior,
    Controller,
    Metric,
    Policy,
    Rules,
    Tolerance,
    parse_autoscaler,
)

SYNC_WORK_S = 0.004
"""By how much the controller's period exceeds the sync period: the median of recorded syncs of an idle cluster."""

__all__ = [
    "SYNC_WORK_S",
    "Answer",
    "Autoscaler",
    "Behavior",
    "Controller",
    "Decided",
    "Fleet",
    "Memory",
    "Metric",
    "Pod",
    "Policy",
    "Rules",
    "Sample",
    "Target",
    "Tolerance",
    "alike",
    "combine",
    "fleet_of",
    "missing_usage",
    "parse_autoscaler",
    "propose",
    "propose_all",
    "propose_average_value",
    "propose_total",
    "propose_utilization",
    "propose_value",
    "ready_pods",
]
