"""Applying an approved plan, over real HTTP: once, unchanged, and only where every rule allows it."""

# ruff: noqa: F811  # a fixture that is imported, and then asked for by name

import json
import sqlite3

import pytest
from change_support import (  # noqa: F401
    MARKS,
    applied,
    approved,
    bad,
    cluster,
    conditions,
    context,
    good,
    kinds,
    plan_for,
    production,
    server,
    spec_of,
    store,
    stored_patches,
    time,
    untouched,
    within,
    writes,
)
from cluster_support import AFTER, NAME, NAMESPACE, hpa_manifest

from tools.cluster.change import apply
from tools.cluster.comparison import same
from tools.cluster.context import ChangeContext
from tools.cluster.plans import approve, reject
from tools.cluster.resume import resume_change
from tools.cluster.rollback import rollback
from tools.cluster.verify import verify
from tools.contracts import OWNED_FIELDS, Bounds
from tools.errors import FenceError, StorageError
from tools.lock import BusyError, held


def test_an_approved_plan_is_applied_once_however_often_it_is_asked_for(context, server, store):
    plan = applied(context)
    for _ in range(3):
        assert apply(plan.digest[:8], context).state == "applied"
    assert same(spec_of(server), plan.after)
    assert len(stored_patches(server)) == 1
    assert kinds(store, plan) == ["proposed", "approved", "applying", "applied"]


def test_the_patch_holds_our_fields_and_the_version_that_was_read_and_nothing_else(context, server):
    plan = approved(context)
    server.set_status(NAMESPACE, NAME, current=4)
    apply(plan.digest, context)
    (patch,) = stored_patches(server)
    assert set(patch.body) == {"metadata", "spec"}
    assert set(patch.body["metadata"]) == {"resourceVersion"}
    assert set(patch.body["spec"]) <= set(OWNED_FIELDS)
    assert patch.body["metadata"]["resourceVersion"] != plan.target.resource_version
    assert "fieldManager=infertune" in patch.path
    assert "fieldValidation=Strict" in patch.path
    assert patch.user == "infertune"


def test_the_intent_is_on_disk_before_the_patch_is_sent(context, server, store):
    plan = approved(context)
    seen = []
    send = context.writer.patch
    context.writer.patch = lambda patch: (seen.append(store.state(plan.digest)), send(patch))[1]
    apply(plan.digest, context)
    assert seen == ["applying"]


def test_what_the_server_fills_in_by_default_is_written_down(context, store):
    after = {**AFTER, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}}}
    plan = applied(context, after=after)
    defaults = store.events(plan.digest)[-1].detail["defaults"]
    assert any(text.startswith("behavior.scaleUp") for text in defaults)


def test_a_field_that_the_plan_does_not_name_vanishes_and_comes_back(context, server):
    rules = {
        "scaleDown": {"stabilizationWindowSeconds": 60, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}
    }
    server.edit_hpa(NAMESPACE, NAME, {"spec": {"behavior": rules}})
    before = spec_of(server)
    plan = applied(context)
    assert "behavior" not in spec_of(server)
    assert rollback(plan.digest, context, by="Ada", why="Not today.").state == "rolled_back"
    assert spec_of(server) == before


@pytest.mark.parametrize("state", ["proposed", "rejected"])
def test_without_an_approval_nothing_is_sent(context, server, store, state):
    plan = plan_for(context)
    store.propose(plan, by="policy", at=context.clock())
    if state == "rejected":
        reject(store, plan.digest, by="Ada", now=context.clock())
    server.log.clear()
    with pytest.raises(FenceError, match="not approved"):
        apply(plan.digest, context)
    assert server.log == []


def test_an_approval_of_one_plan_does_not_serve_another(context, server, store):
    approved(context)
    other = plan_for(context, {**AFTER, "maxReplicas": 7})
    store.propose(other, by="policy", at=context.clock())
    with pytest.raises(FenceError, match="not approved"):
        apply(other.digest, context)
    with pytest.raises(FenceError, match="no such plan"):
        apply("0123456789abcdef", context)
    assert writes(server) == []


def test_an_expired_plan_is_not_applied(context, server, store, time):
    plan = approved(context, approval_s=3600.0)
    time.sleep(3600)
    assert apply(plan.digest, context).state == "expired"
    untouched(server, plan)
    with pytest.raises(FenceError, match="is expired"):
        apply(plan.digest, context)


EDITS = {
    "spec": {"spec": {"maxReplicas": 12}},
    "what it scales": {"spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"}}},
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_hpa_that_changed_since_the_plan_is_left_alone(context, server, store, edit):
    plan = approved(context)
    server.edit_hpa(NAMESPACE, NAME, EDITS[edit])
    outcome = apply(plan.digest, context)
    assert outcome.state == "failed"
    assert "changed between plan and apply" in outcome.why
    assert "Plan anew" in outcome.why
    assert writes(server) == []


def test_an_hpa_that_was_made_again_is_another_one(context, server):
    plan = approved(context)
    server.delete_hpa(NAMESPACE, NAME)
    server.put_hpa(hpa_manifest())
    assert "made again" in apply(plan.digest, context).why
    assert writes(server) == []


@pytest.mark.parametrize("owner", ["Argo CD", "Flux", "KEDA", "label"])
def test_an_hpa_that_is_not_ours_to_change_is_refused_and_the_plan_stays_approved(context, server, store, owner):
    plan = approved(context)
    server.edit_hpa(NAMESPACE, NAME, MARKS[owner])
    with pytest.raises(FenceError, match=owner):
        apply(plan.digest, context)
    untouched(server, plan)
    assert store.state(plan.digest) == "approved"


def test_min_replicas_zero_is_refused(context, server):
    with pytest.raises(FenceError):
        plan_for(context, {**AFTER, "minReplicas": 0})
    plan = approved(context)
    server.set_status(
        NAMESPACE, NAME, conditions=[{"type": "ScalingActive", "status": "False", "reason": "ScalingDisabled"}]
    )
    with pytest.raises(FenceError, match="scaled to zero"):
        apply(plan.digest, context)
    untouched(server, plan)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"allow_namespaces": ("other",)}, "not on the allow-list"),
        ({"allow_namespaces": ()}, "not on the allow-list"),
        ({"bounds": Bounds(max_replicas=5)}, "above the bound of 5"),
        ({"bounds": Bounds(min_replicas=3)}, "below the bound of 3"),
        ({"bounds": Bounds(metrics=("cpu",))}, "may not be scaled on"),
        ({"bounds": Bounds(daily_cost_usd=1.0)}, "without a price"),
    ],
)
def test_rules_that_became_stricter_since_the_approval_hold(context, server, rules, message):
    plan = approved(context)
    with pytest.raises(FenceError, match=message):
        apply(plan.digest, within(context, **rules))
    untouched(server, plan)


def test_the_kill_switch_stops_everything(context, server, store):
    plan = approved(context)
    switch = store.home / "kill-switch"
    switch.touch()
    with pytest.raises(FenceError, match="kill switch"):
        apply(plan.digest, context)
    untouched(server, plan)
    switch.unlink()
    assert apply(plan.digest, context).state == "applied"
    switch.touch()
    with pytest.raises(FenceError, match="kill switch"):
        verify(plan.digest, context, watch_slo=bad)
    assert same(spec_of(server), plan.after)
    switch.unlink()
    assert resume_change(plan.digest, context, watch_slo=bad).state == "rolled_back"


def test_one_change_after_the_other_with_time_between(context, server, time):
    first = applied(context)
    second = approved(context, {**AFTER, "maxReplicas": 7}, approval_s=86_400.0)
    with pytest.raises(FenceError, match=f"under way: plan {first.digest}"):
        apply(second.digest, context)
    assert verify(first.digest, context, watch_slo=good).state == "verified"
    with pytest.raises(FenceError, match="was changed 600 s ago"):
        apply(second.digest, context)
    time.sleep(1200)
    assert apply(second.digest, context).state == "applied"


def test_a_plan_for_another_cluster_is_refused_without_a_request(context, server, store):
    plan = plan_for(context)
    elsewhere = plan.model_copy(update={"target": plan.target.model_copy(update={"server": "https://10.0.0.1"})})
    store.propose(elsewhere, by="policy", at=context.clock())
    approve(store, elsewhere.digest, by="Ada", now=context.clock())
    server.log.clear()
    with pytest.raises(FenceError, match="was made for"):
        apply(elsewhere.digest, context)
    assert server.log == []


def test_nothing_is_applied_while_the_record_cannot_be_written(context, server, store):
    plan = approved(context)
    unrecorded = ChangeContext(**{**vars(context), "recordable": lambda: False})
    with pytest.raises(StorageError, match="record cannot be written"):
        apply(plan.digest, unrecorded)
    untouched(server, plan)
    assert store.state(plan.digest) == "approved"


def test_nothing_is_applied_while_the_intent_cannot_be_written(context, server, store, monkeypatch):
    plan = approved(context)
    other = sqlite3.connect(store.home / "plans.db", isolation_level=None)
    monkeypatch.setattr("tools.sqlite.BUSY_TIMEOUT_S", 0)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="locked"):
        apply(plan.digest, context)
    other.execute("ROLLBACK")
    other.close()
    untouched(server, plan)


def test_one_process_at_a_time(context, server, store):
    plan = approved(context)
    with held(store.home / "change.lock", busy="busy"), pytest.raises(BusyError):
        apply(plan.digest, context)
    untouched(server, plan)


def test_a_plan_that_was_forged_in_the_store_is_refused(context, server, store):
    plan = approved(context)
    with sqlite3.connect(store.home / "plans.db") as connection:
        connection.execute("DROP TRIGGER plans_keep")
        body = json.dumps({**plan.model_dump(mode="json"), "after": {**plan.after, "maxReplicas": 99}})
        connection.execute("UPDATE plans SET body = ?", (body,))
    connection.close()
    with pytest.raises(FenceError, match="changed by hand"):
        apply(plan.digest, context)
    untouched(server, plan)


def test_an_approval_that_was_forged_in_the_store_is_refused(context, server, store):
    plan = plan_for(context)
    store.propose(plan, by="policy", at=context.clock())
    with sqlite3.connect(store.home / "plans.db") as connection:
        connection.execute(
            "INSERT INTO events VALUES (2, ?, 'approved', '2026-03-02T09:00:00+00:00', 'Ada', '{}', ?)",
            (plan.digest, "0" * 64),
        )
    connection.close()
    with pytest.raises(StorageError, match="row 2"):
        apply(plan.digest, context)
    untouched(server, plan)
