"""A change of a cluster to test: time that passes when it is waited for, a plan, and the hands that carry it out."""

import dataclasses

import pytest
from change_child import START, Time  # noqa: F401
from cluster_support import AFTER, NAME, NAMESPACE, cluster, production, server  # noqa: F401

from tools.cluster.change import apply
from tools.cluster.comparison import same
from tools.cluster.connection import open_reader, open_writer
from tools.cluster.context import ChangeContext
from tools.cluster.plans import approve, make_plan
from tools.cluster.store import PlanStore

HEALTHY = (
    {"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale", "message": "recommended size matches"},
    {"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound", "message": "computed from the queue"},
    {"type": "ScalingLimited", "status": "False", "reason": "DesiredWithinRange", "message": "within the range"},
)


MARKS = {
    "Argo CD": {"metadata": {"labels": {"argocd.argoproj.io/instance": "shop"}}},
    "Flux": {"metadata": {"labels": {"kustomize.toolkit.fluxcd.io/name": "shop"}}},
    "KEDA": {"metadata": {"labels": {"scaledobject.keda.sh/name": "shop"}}},
    "label": {"metadata": {"labels": {"infertune.dev/managed": None}}},
}
"""Edits by which an HPA is not ours to change any more."""


def conditions(**status):
    """The controller's conditions, some of them of another status: `conditions(ScalingActive="False")`."""
    return tuple({**c, "status": status.get(c["type"], c["status"])} for c in HEALTHY)


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def store(tmp_path):
    return PlanStore(tmp_path / "home")


@pytest.fixture
def context(store, cluster, server, time):  # noqa: F811
    """Reader and writer of a live HPA, on one store, with a clock of the test's."""
    server.set_status(NAMESPACE, NAME, current=3, desired=3, conditions=HEALTHY)
    with open_reader(cluster) as reader, open_writer(cluster) as writer:
        for client in (reader, writer):
            client.connection._sleep = lambda _: None
        yield ChangeContext(
            store=store, reader=reader, writer=writer, cluster=cluster, clock=time.clock, sleep=time.sleep
        )


def plan_for(context, after=AFTER, **settings):
    """A plan for the HPA as it is now."""
    obj = context.reader.read()
    settings = {
        "session": "2026-03-02-a",
        "why": "The queue tells sooner than the CPU.",
        "bounds": context.cluster.bounds,
        "price_per_hour_usd": context.price_per_hour_usd,
        "now": context.clock(),
        "approval_s": 3600.0,
        "verify_s": 600.0,
        "slo_ms": 100.0,
        **settings,
    }
    return make_plan(obj, context.reader.ref(obj), after, **settings)


def approved(context, after=AFTER, **settings):
    """A plan that was proposed and that a person has approved."""
    plan = plan_for(context, after, **settings)
    context.store.propose(plan, by="policy", at=context.clock())
    approve(context.store, plan.digest, by="Ada Lovelace", now=context.clock())
    return plan


def within(context, **settings):
    """The same hands by other rules of the spec."""
    return dataclasses.replace(context, cluster=context.cluster.model_copy(update=settings))


def kinds(store, plan):
    """What happened to a plan, in order."""
    return [event.kind for event in store.events(plan.digest)]


def stored_patches(server):  # noqa: F811
    """The patches that the server has stored."""
    return [request for request in server.log if request.verb == "patch" and request.stored]


def writes(server):  # noqa: F811
    """What was asked of the server that could have changed something."""
    return [request for request in server.log if request.verb not in {"get", "dry-run"}]


def spec_of(server):  # noqa: F811
    """The HPA's spec, without what it scales."""
    return {k: v for k, v in server.hpa(NAMESPACE, NAME)["spec"].items() if k != "scaleTargetRef"}


def applied(context, **settings):
    """A plan that was proposed, approved and applied."""
    plan = approved(context, **settings)
    assert apply(plan.digest, context).state == "applied"
    return plan


def untouched(server, plan):  # noqa: F811
    """Check that nothing was sent that could change anything, and that the HPA is as it was."""
    assert writes(server) == []
    assert same(spec_of(server), plan.before)


def good():
    """A p99 that keeps the SLO, in milliseconds."""
    return 50.0


def bad():
    """A p99 that does not."""
    return 500.0
