"""Ten thousand random plans for random HPAs by random rules: nothing is sent that is not approved and allowed."""

import contextlib
import datetime as dt
import random
import sqlite3
import types

from change_child import Time
from cluster_support import CPU_70, NAME, NAMESPACE, hpa_manifest

from simulations.api_server.answers import Refused
from simulations.api_server.hpas import MERGE_PATCH, Hpas
from tools.cluster.api_errors import ApiError
from tools.cluster.bounds import within
from tools.cluster.change import apply
from tools.cluster.comparison import same
from tools.cluster.context import ChangeContext
from tools.cluster.hpa_object import HpaObject
from tools.cluster.plans import approve
from tools.cluster.store import PlanStore
from tools.contracts import OWNED_FIELDS, Bounds, HpaRef, ScalingPlan
from tools.errors import InfertuneError
from tools.spec import ClusterSpec


class StoreInMemory(PlanStore):
    """The store on a database that is no file: all that it does, without the disk."""

    def __init__(self, home, connection):
        self.connection = connection
        super().__init__(home)

    @contextlib.contextmanager
    def _connect(self):
        try:
            yield self.connection
        finally:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")


class Memory:
    """The stand-in's store of objects without the HTTP around it."""

    def __init__(self, manifest):
        self.hpas = Hpas(lambda: "2026-03-02T09:00:00Z")
        self.hpas.create(NAMESPACE, manifest, manager="kubectl")
        self.namespace, self.name = NAMESPACE, NAME
        self.connection = types.SimpleNamespace(server=self.hpas.get(NAMESPACE, NAME)["metadata"]["uid"])
        self.sent = []

    def read(self):
        return HpaObject.parse(self.hpas.get(NAMESPACE, NAME))

    def dry_run(self, patch):
        return self._patch(patch, {"dryRun": "All"})

    def patch(self, patch):
        self.sent.append(patch)
        return self._patch(patch, {})

    def _patch(self, patch, parameters):
        parameters["fieldValidation"] = "Strict"
        try:
            hpa, _ = self.hpas.patch(
                NAMESPACE, NAME, patch, kind=MERGE_PATCH, manager="infertune", parameters=parameters
            )
        except Refused as refused:
            kind = {409: "conflict", 422: "invalid"}[refused.answer.status]
            raise ApiError(kind, "refused", where="memory", writing="dryRun" not in parameters) from None
        return HpaObject.parse(hpa)


def seldom(rng, usual, *others):
    """Mostly the first."""
    return rng.choice(others) if rng.random() < 0.12 else usual


def random_metric(rng):
    if rng.random() < 0.3:
        target = {"type": "Utilization", "averageUtilization": seldom(rng, 50, 70, 90)}
        return {"type": "Resource", "resource": {"name": seldom(rng, "cpu", "memory"), "target": target}}
    target = {"type": "AverageValue", "averageValue": seldom(rng, rng.choice(["5", "30", "2500m"]), "500m", "1k", "x")}
    metric = {"name": seldom(rng, rng.choice(["queue", "rps"]), "evil")}
    return {"type": "Pods", "pods": {"metric": metric, "target": target}}


def random_spec(rng):
    low = seldom(rng, rng.choice([2, 3]), 0, 1)
    spec = {
        "minReplicas": low,
        "maxReplicas": low + seldom(rng, rng.randrange(8), -1, 20, 90, 99),
        "metrics": [random_metric(rng) for _ in range(seldom(rng, 1, 2))],
    }
    if rng.random() < 0.4:
        spec["behavior"] = {"scaleDown": {"stabilizationWindowSeconds": rng.choice([0, 60, 300])}}
    if rng.random() < 0.05:
        spec["scaleTargetRef"] = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"}
    return spec


def random_labels(rng):
    labels = seldom(rng, {"infertune.dev/managed": "true"}, {}, {"infertune.dev/managed": "no"})
    return seldom(rng, labels, {**labels, "argocd.argoproj.io/instance": "shop"})


def random_bounds(rng):
    return Bounds(
        min_replicas=rng.choice([1, 2]),
        max_replicas=rng.choice([12, 100]),
        metrics=rng.choice([None, ("cpu", "queue", "rps")]),
        target=rng.choice([None, (1.0, 80.0)]),
        daily_cost_usd=seldom(rng, None, 20.0, 240.0),
    )


def random_case(rng, store):
    """Try to apply a random plan to a random HPA by random rules; return it, whether it may be, and what was sent."""
    labels = random_labels(rng)
    memory = Memory(hpa_manifest(labels=labels, maxReplicas=rng.choice([10, 20]), metrics=[CPU_70]))
    cluster = ClusterSpec.model_construct(
        allow_namespaces=seldom(rng, (NAMESPACE,), (), ("other",)),
        bounds=random_bounds(rng),
        cooldown_s=0.0,
    )
    price, time = rng.choice([None, 0.1]), Time()
    context = ChangeContext(
        store, memory, memory, cluster, price_per_hour_usd=price, clock=time.clock, sleep=time.sleep
    )
    obj = memory.read()
    plan = ScalingPlan(  # not by make_plan, which refuses most of these
        session=rng.randbytes(8).hex(),
        target=HpaRef(
            server=memory.connection.server,
            context="memory",
            namespace=NAMESPACE,
            name=NAME,
            uid=obj.uid,
            resource_version=obj.resource_version,
        ),
        scales=f"apps/v1 Deployment {NAME}",
        before=obj.owned,
        after=random_spec(rng),
        why="",
        bounds=random_bounds(rng),
        verify_s=60.0,
        created=time.now.isoformat(),
        expires=(time.now + dt.timedelta(hours=1)).isoformat(),
    )
    is_approved, is_late, is_edited = rng.random() > 0.1, rng.random() < 0.1, rng.random() < 0.1
    shown = plan if is_approved else plan.model_copy(update={"session": rng.randbytes(8).hex()})
    for proposed in dict.fromkeys((plan.digest, shown.digest)):
        store.propose(plan if proposed == plan.digest else shown, by="policy", at=time.now)
    approve(store, shown.digest, by="Ada", now=time.now)
    if is_late:
        time.sleep(3600)
    if is_edited:
        edit = {"spec": {"maxReplicas": 11}}
        memory.hpas.patch(NAMESPACE, NAME, edit, kind=MERGE_PATCH, manager="kubectl", parameters={})
    allowed = (
        is_approved
        and not is_late
        and not is_edited
        and labels == {"infertune.dev/managed": "true"}
        and cluster.allow_namespaces == (NAMESPACE,)
        and not any(within(bounds, plan.after, price) for bounds in (plan.bounds, cluster.bounds))
    )
    with contextlib.suppress(InfertuneError):
        apply(plan.digest, context)
    assert allowed == (store.state(plan.digest) == "applied")
    assert not allowed or same(memory.read().owned, plan.after)
    return plan, allowed, memory.sent


def test_of_ten_thousand_random_plans_no_patch_leaves_the_fence(tmp_path):
    rng = random.Random(7)
    sent_in_all = 0
    for _ in range(2_500):
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            store = StoreInMemory(tmp_path, connection)
            for _ in range(4):
                plan, allowed, sent = random_case(rng, store)
                assert len(sent) == allowed
                for patch in sent:
                    assert set(patch) == {"metadata", "spec"}
                    assert set(patch["metadata"]) == {"resourceVersion"}
                    assert set(patch["spec"]) <= set(OWNED_FIELDS)
                    given = {key: value for key, value in patch["spec"].items() if value is not None}
                    assert same(given, plan.after)
                sent_in_all += len(sent)
    assert sent_in_all > 2000
