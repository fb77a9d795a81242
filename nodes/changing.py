"""What the nodes that change a cluster share: who carries a plan out, and whether its record can be written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from nodes.context import Context, TuningState, decision_id
from tools.contracts import Decision, Option
from tools.mirror import mirror

if TYPE_CHECKING:
    from tools.cluster.context import ChangeContext, ChangeOutcome


@contextlib.contextmanager
def changing(context: Context) -> Iterator[ChangeContext]:
    """Open the cluster as both identities.

    Raises:
        ClusterError: a kubeconfig or a context cannot be used.
        StorageError: the store of plans cannot be used.
    """
    from tools.cluster.connection import open_reader, open_writer
    from tools.cluster.context import ChangeContext
    from tools.cluster.store import PlanStore

    cluster = context.spec.cluster
    assert cluster is not None, "a plan is made for a cluster that the spec names"
    with open_reader(cluster) as reader, open_writer(cluster) as writer:
        yield ChangeContext(
            store=PlanStore(context.bench.home),
            reader=reader,
            writer=writer,
            cluster=cluster,
            price_per_hour_usd=context.spec.hardware.price_per_hour_usd,
            clock=context.clock,
            sleep=context.sleep,
            recordable=_recordable(context),
        )


def decided(
    state: TuningState, context: Context, outcome: ChangeOutcome, *, node: str, question: str, rule: str
) -> dict[str, Any]:
    """Record what came of a step, and return the update of the state."""
    option = Option(name=outcome.state, facts={"plan": outcome.plan})
    decision = Decision(
        id=decision_id(state),
        node=node,
        question=question,
        options=(option,),
        chosen=outcome.state,
        rule=rule,
        reason=outcome.why,
    )
    return {"change": outcome.state, "decisions": [context.record(decision)]}


def _recordable(context: Context) -> Callable[[], bool]:
    """Return a check whether MLflow has the session: what is not recorded is not applied."""
    machine = context.bench.machine
    assert machine is not None, "a session that is replayed changes nothing"
    return lambda: mirror(context.session_dir, context.tracking_uri, machine).run_id is not None
