"""Watch the change for its window, and put back what was before if it breaks a promise."""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime

from nodes.changing import changing, decided
from nodes.context import Context, TuningState


def verify(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Bring the plan to its end: verified, rolled back, or left alone because somebody else changed the object."""
    from tools.cluster.resume import resume_change
    from tools.traffic.watch import slo_watch

    context = runtime.context
    traffic = context.spec.traffic
    source = None if traffic is None else traffic.prometheus
    context.observer.started("verify", detail=f"plan {state['plan']}")
    watch = None if source is None else slo_watch(source, context.spec.objective.p99_ms)
    with changing(context) as change:
        outcome = resume_change(state["plan"], change, watch_slo=watch)
    return decided(
        state,
        context,
        outcome,
        node="verify",
        question=f"Does plan {state['plan']} keep its promise?",
        rule="HPA conditions, turns of the replicas and the SLO over the window; a breach is rolled back",
    )
