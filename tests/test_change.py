"""Applying, verifying and taking back a plan, over real HTTP, through everything that can go wrong."""

import copy
import datetime as dt
import json
import sqlite3

import pytest
from change_support import (  # noqa: F401
    HEALTHY,
    Time,
    approved,
    cluster,
    conditions,
    context,
    kinds,
    plan_for,
    production,
    server,
    spec_of,
    store,
    stored_patches,
    time,
    within,
    writes,
)
from cluster_support import AFTER, NAME, NAMESPACE, hpa_manifest

from tools.cluster.api_errors import ApiError
from tools.cluster.change import apply
from tools.cluster.comparison import same
from tools.cluster.context import ChangeContext
from tools.cluster.hpa_object import HpaObject
from tools.cluster.plans import approve, reject
from tools.cluster.resume import resume_change
from tools.cluster.rollback import rollback
from tools.cluster.verify import verify
from tools.contracts import OWNED_FIELDS, Bounds
from tools.errors import ClusterError, FenceError, StorageError
from tools.lock import BusyError, held


def good():
    return 50.0


def bad():
    return 500.0


def untouched(server, plan):  # noqa: F811
    """Check that nothing was sent that could change anything, and that the HPA is as it was."""
    assert writes(server) == []
    assert same(spec_of(server), plan.before)


def applied(context, **settings):  # noqa: F811
    plan = approved(context, **settings)
    assert apply(plan.digest, context).state == "applied"
    return plan


# --- apply ---


def test_an_approved_plan_is_applied_once_however_often_it_is_asked_for(context, server, store):  # noqa: F811
    plan = applied(context)
    for _ in range(3):
        assert apply(plan.digest[:8], context).state == "applied"
    assert same(spec_of(server), plan.after)
    assert len(stored_patches(server)) == 1
    assert kinds(store, plan) == ["proposed", "approved", "applying", "applied"]


def test_the_patch_holds_our_fields_and_the_version_that_was_read_and_nothing_else(context, server):  # noqa: F811
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


def test_the_intent_is_on_disk_before_the_patch_is_sent(context, server, store):  # noqa: F811
    plan = approved(context)
    seen = []
    send = context.writer.patch
    context.writer.patch = lambda patch: (seen.append(store.state(plan.digest)), send(patch))[1]
    apply(plan.digest, context)
    assert seen == ["applying"]


def test_what_the_server_fills_in_by_default_is_written_down(context, store):  # noqa: F811
    after = {**AFTER, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}}}
    plan = applied(context, after=after)
    defaults = store.events(plan.digest)[-1].detail["defaults"]
    assert any(text.startswith("behavior.scaleUp") for text in defaults)


def test_a_field_that_the_plan_does_not_name_vanishes_and_comes_back(context, server):  # noqa: F811
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
def test_without_an_approval_nothing_is_sent(context, server, store, state):  # noqa: F811
    plan = plan_for(context)
    store.propose(plan, by="policy", at=context.clock())
    if state == "rejected":
        reject(store, plan.digest, by="Ada", now=context.clock())
    server.log.clear()
    with pytest.raises(FenceError, match="not approved"):
        apply(plan.digest, context)
    assert server.log == []


def test_an_approval_of_one_plan_does_not_serve_another(context, server, store):  # noqa: F811
    approved(context)
    other = plan_for(context, {**AFTER, "maxReplicas": 7})
    store.propose(other, by="policy", at=context.clock())
    with pytest.raises(FenceError, match="not approved"):
        apply(other.digest, context)
    with pytest.raises(FenceError, match="no such plan"):
        apply("0123456789abcdef", context)
    assert writes(server) == []


def test_an_expired_plan_is_not_applied(context, server, store, time):  # noqa: F811
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
def test_an_hpa_that_changed_since_the_plan_is_left_alone(context, server, store, edit):  # noqa: F811
    plan = approved(context)
    server.edit_hpa(NAMESPACE, NAME, EDITS[edit])
    outcome = apply(plan.digest, context)
    assert outcome.state == "failed"
    assert "changed between plan and apply" in outcome.why
    assert "Plan anew" in outcome.why
    assert writes(server) == []


def test_an_hpa_that_was_made_again_is_another_one(context, server):  # noqa: F811
    plan = approved(context)
    server.delete_hpa(NAMESPACE, NAME)
    server.put_hpa(hpa_manifest())
    assert "made again" in apply(plan.digest, context).why
    assert writes(server) == []


MARKS = {
    "Argo CD": {"metadata": {"labels": {"argocd.argoproj.io/instance": "shop"}}},
    "Flux": {"metadata": {"labels": {"kustomize.toolkit.fluxcd.io/name": "shop"}}},
    "KEDA": {"metadata": {"labels": {"scaledobject.keda.sh/name": "shop"}}},
    "label": {"metadata": {"labels": {"infertune.dev/managed": None}}},
}


@pytest.mark.parametrize("owner", ["Argo CD", "Flux", "KEDA", "label"])
def test_an_hpa_that_is_not_ours_to_change_is_refused_and_the_plan_stays_approved(context, server, store, owner):  # noqa: F811
    plan = approved(context)
    server.edit_hpa(NAMESPACE, NAME, MARKS[owner])
    with pytest.raises(FenceError, match=owner):
        apply(plan.digest, context)
    untouched(server, plan)
    assert store.state(plan.digest) == "approved"


def test_min_replicas_zero_is_refused(context, server):  # noqa: F811
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
def test_rules_that_became_stricter_since_the_approval_hold(context, server, rules, message):  # noqa: F811
    plan = approved(context)
    with pytest.raises(FenceError, match=message):
        apply(plan.digest, within(context, **rules))
    untouched(server, plan)


def test_the_kill_switch_stops_everything(context, server, store):  # noqa: F811
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


def test_one_change_after_the_other_with_time_between(context, server, time):  # noqa: F811
    first = applied(context)
    second = approved(context, {**AFTER, "maxReplicas": 7}, approval_s=86_400.0)
    with pytest.raises(FenceError, match=f"under way: plan {first.digest}"):
        apply(second.digest, context)
    assert verify(first.digest, context, watch_slo=good).state == "verified"
    with pytest.raises(FenceError, match="was changed 600 s ago"):
        apply(second.digest, context)
    time.sleep(1200)
    assert apply(second.digest, context).state == "applied"


def test_a_plan_for_another_cluster_is_refused_without_a_request(context, server, store):  # noqa: F811
    plan = plan_for(context)
    elsewhere = plan.model_copy(update={"target": plan.target.model_copy(update={"server": "https://10.0.0.1"})})
    store.propose(elsewhere, by="policy", at=context.clock())
    approve(store, elsewhere.digest, by="Ada", now=context.clock())
    server.log.clear()
    with pytest.raises(FenceError, match="was made for"):
        apply(elsewhere.digest, context)
    assert server.log == []


def test_nothing_is_applied_while_the_record_cannot_be_written(context, server, store):  # noqa: F811
    plan = approved(context)
    unrecorded = ChangeContext(**{**vars(context), "recordable": lambda: False})
    with pytest.raises(StorageError, match="record cannot be written"):
        apply(plan.digest, unrecorded)
    untouched(server, plan)
    assert store.state(plan.digest) == "approved"


def test_nothing_is_applied_while_the_intent_cannot_be_written(context, server, store, monkeypatch):  # noqa: F811
    plan = approved(context)
    other = sqlite3.connect(store.home / "plans.db", isolation_level=None)
    monkeypatch.setattr("tools.cluster.store._BUSY_TIMEOUT_S", 0)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="locked"):
        apply(plan.digest, context)
    other.execute("ROLLBACK")
    other.close()
    untouched(server, plan)


def test_one_process_at_a_time(context, server, store):  # noqa: F811
    plan = approved(context)
    with held(store.home / "change.lock", busy="busy"), pytest.raises(BusyError):
        apply(plan.digest, context)
    untouched(server, plan)


# --- faults of the server ---


@pytest.mark.parametrize("verb", ["get", "dry-run"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, "unauthorized"), (403, "forbidden"), (404, "not_found"), (429, "too_many"), (500, "server")],
)
def test_a_server_that_refuses_before_the_patch_leaves_the_plan_approved(context, server, store, verb, status, kind):  # noqa: F811
    plan = approved(context)
    server.fail_next(verb, status=status, times=None)
    with pytest.raises(ApiError) as caught:
        apply(plan.digest, context)
    assert caught.value.kind == kind
    assert store.state(plan.digest) == "approved"
    untouched(server, plan)
    server.heal()
    assert apply(plan.digest, context).state == "applied"


def test_a_server_that_is_down_leaves_the_plan_approved(context, server, store):  # noqa: F811
    plan = approved(context)
    server.stop()
    with pytest.raises(ApiError) as caught:
        apply(plan.digest, context)
    assert caught.value.kind == "unreachable"
    server.start()
    assert apply(plan.digest, context).state == "applied"


def test_a_change_that_the_server_finds_invalid_fails_in_the_dry_run(context, server, store):  # noqa: F811
    plan = approved(context)
    server.fail_next("dry-run", status=422)
    outcome = apply(plan.digest, context)
    assert outcome.state == "failed"
    assert "422" in outcome.why
    untouched(server, plan)


@pytest.mark.parametrize("status", [401, 403, 404, 422])
def test_a_patch_that_is_refused_fails_and_nothing_was_applied(context, server, store, status):  # noqa: F811
    plan = approved(context)
    server.fail_next("patch", status=status)
    outcome = apply(plan.digest, context)
    assert outcome.state == "failed"
    assert outcome.why.startswith("Nothing was applied.")
    assert stored_patches(server) == []
    assert same(spec_of(server), plan.before)


@pytest.mark.parametrize("status", [409, 429, 500, 504])
def test_a_patch_that_fails_once_is_sent_again_after_a_fresh_read(context, server, time, status):  # noqa: F811
    plan = approved(context)
    server.fail_next("patch", status=status)
    assert apply(plan.digest, context).state == "applied"
    assert [r.verb for r in server.log][-4:] == ["dry-run", "patch", "get", "patch"]
    assert len(stored_patches(server)) == 1
    assert time.slept == [1.0]


def test_a_status_that_moves_meanwhile_costs_an_attempt_and_no_more(context, server):  # noqa: F811
    plan = approved(context)
    send = context.writer.patch
    moves = iter([True, True, False])
    context.writer.patch = lambda patch: (next(moves) and server.set_status(NAMESPACE, NAME, current=5), send(patch))[1]
    assert apply(plan.digest, context).state == "applied"
    assert [r.status for r in writes(server)] == [409, 409, 200]


@pytest.mark.parametrize("status", [409, 429, 500])
def test_a_patch_that_always_fails_ends_with_nothing_applied(context, server, store, status):  # noqa: F811
    plan = approved(context)
    server.fail_next("patch", status=status, times=None)
    outcome = apply(plan.digest, context)
    assert outcome.state == "failed"
    assert "4 attempts failed" in outcome.why
    assert len(writes(server)) == 4
    assert same(spec_of(server), plan.before)


def test_an_hpa_that_somebody_edits_between_dry_run_and_patch_is_left_alone(context, server, store):  # noqa: F811
    plan = approved(context)
    send = context.writer.patch
    edit = {"spec": {"maxReplicas": 12}}
    context.writer.patch = lambda patch: (server.edit_hpa(NAMESPACE, NAME, edit), send(patch))[1]
    outcome = apply(plan.digest, context)
    assert outcome.state == "failed"
    assert "maxReplicas is 12, not 10" in outcome.why
    assert stored_patches(server) == []


def test_an_hpa_that_gets_an_owner_between_dry_run_and_patch_is_left_alone(context, server, store):  # noqa: F811
    plan = approved(context)
    send = context.writer.patch
    context.writer.patch = lambda patch: (server.edit_hpa(NAMESPACE, NAME, MARKS["Argo CD"]), send(patch))[1]
    outcome = apply(plan.digest, context)
    assert outcome.state == "failed"
    assert "Argo CD" in outcome.why
    assert stored_patches(server) == []


def test_a_connection_cut_after_the_patch_was_stored_is_applied_once(context, server, store):  # noqa: F811
    plan = approved(context)
    server.cut_after_store()
    assert apply(plan.digest, context).state == "applied"
    assert len(stored_patches(server)) == 1
    assert len(writes(server)) == 1
    assert kinds(store, plan)[-2:] == ["applying", "applied"]


def test_a_connection_cut_before_the_patch_was_stored_is_sent_again(context, server):  # noqa: F811
    plan = approved(context)
    server.cut_before_store()
    assert apply(plan.digest, context).state == "applied"
    assert len(writes(server)) == 2
    assert len(stored_patches(server)) == 1


def test_an_html_page_in_place_of_the_answer_is_no_answer(context, server):  # noqa: F811
    plan = approved(context)
    server.answer_html("patch")
    assert apply(plan.digest, context).state == "applied"
    assert len(stored_patches(server)) == 1


def test_a_server_that_dies_with_the_patch_leaves_it_open_and_resuming_finds_out(context, server, store):  # noqa: F811
    plan = approved(context)
    send = context.writer.patch

    def dying(patch):
        server.cut_after_store()
        try:
            return send(patch)
        finally:
            server.stop()

    context.writer.patch = dying
    with pytest.raises(ApiError):
        apply(plan.digest, context)
    assert store.state(plan.digest) == "applying"
    server.start()
    context.writer.patch = send
    assert resume_change(plan.digest, context, watch_slo=good).state == "verified"
    assert len(stored_patches(server)) == 1


def test_a_server_that_would_make_something_else_of_it_is_not_sent_the_patch(context, server, store):  # noqa: F811
    plan = approved(context)
    ask = context.writer.dry_run
    meddled = copy.deepcopy(server.hpa(NAMESPACE, NAME))
    meddled["spec"].update(plan.after, maxReplicas=50)
    context.writer.dry_run = lambda patch: (ask(patch), HpaObject.parse(meddled))[1]
    outcome = apply(plan.digest, context)
    assert outcome.state == "failed"
    assert "maxReplicas is 50, not 6" in outcome.why
    untouched(server, plan)


def test_an_interrupted_change_that_somebody_else_went_over_is_abandoned(context, server, store):  # noqa: F811
    plan = approved(context)
    store.append(plan.digest, "applying", by="infertune", at=context.clock())
    server.edit_hpa(NAMESPACE, NAME, {"spec": {"maxReplicas": 20}})
    outcome = resume_change(plan.digest, context, watch_slo=good)
    assert outcome.state == "abandoned"
    assert "maxReplicas is 20, not 10" in outcome.why
    assert writes(server) == []


def test_the_same_spec_by_somebody_else_is_not_taken_for_ours(context, server, store):  # noqa: F811
    plan = approved(context)
    store.append(plan.digest, "applying", by="infertune", at=context.clock())
    server.edit_hpa(NAMESPACE, NAME, {"spec": plan.after})
    assert resume_change(plan.digest, context, watch_slo=good).state == "abandoned"


# --- verify ---


def test_a_good_change_is_verified_at_the_end_of_its_window_and_no_sooner(context, store, time):  # noqa: F811
    plan = applied(context)
    outcome = verify(plan.digest, context, watch_slo=good)
    assert outcome.state == "verified"
    assert time.slept == [15.0] * 40
    assert verify(plan.digest, context, watch_slo=bad).state == "verified"


def test_without_a_source_of_latency_the_conditions_alone_decide_and_it_says_so(context):  # noqa: F811
    plan = applied(context)
    assert "latency was not watched" in verify(plan.digest, context, watch_slo=None).why


def test_looking_more_often_than_the_controller_is_refused(context):  # noqa: F811
    with pytest.raises(ValueError, match="too often"):
        verify(applied(context).digest, context, watch_slo=None, period_s=1.0)


def test_a_plan_that_was_not_applied_is_not_verified(context):  # noqa: F811
    with pytest.raises(FenceError, match="nothing to verify"):
        verify(approved(context).digest, context, watch_slo=None)


def taken_back(context, server, plan, **settings):  # noqa: F811
    """Verify, and check that it was taken back; return why."""
    outcome = verify(plan.digest, context, **{"watch_slo": good, **settings})
    assert outcome.state == "rolled_back"
    assert same(spec_of(server), plan.before)
    assert len(stored_patches(server)) == 2
    assert kinds(context.store, plan)[-4:] == ["verifying", "breached", "rolling_back", "rolled_back"]
    return next(e.detail["why"] for e in context.store.events(plan.digest) if e.kind == "breached")


def test_a_p99_above_the_slo_in_too_many_checks_takes_it_back(context, server, time):  # noqa: F811
    plan = applied(context)
    assert "p99 was above 100 ms in 11 of 40" in taken_back(context, server, plan, watch_slo=bad)
    assert len(time.slept) == 11


def test_a_p99_above_the_slo_now_and_then_does_not(context):  # noqa: F811
    values = iter([500.0, 50.0, 50.0, 50.0] * 10)
    assert verify(applied(context).digest, context, watch_slo=lambda: next(values)).state == "verified"


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_a_source_that_goes_silent_takes_it_back(context, server, nothing):  # noqa: F811
    assert "could not be measured" in taken_back(context, server, applied(context), watch_slo=lambda: nothing)


def test_a_source_that_fails_counts_as_silent(context, server):  # noqa: F811
    def failing():
        raise ClusterError("Prometheus is down.")

    assert "could not be measured" in taken_back(context, server, applied(context), watch_slo=failing)


def test_a_metric_that_cannot_be_read_takes_it_back_after_a_few_syncs(context, server, time):  # noqa: F811
    plan = applied(context)
    server.set_status(NAMESPACE, NAME, conditions=conditions(ScalingActive="False"))
    assert "able to compute replicas for 60 s" in taken_back(context, server, plan)
    assert len(time.slept) == 4


def test_a_metric_that_appears_in_time_is_fine(context, server, time):  # noqa: F811
    plan = applied(context)
    server.set_status(NAMESPACE, NAME, conditions=conditions(ScalingActive="False"))
    time.after(45, lambda: server.set_status(NAMESPACE, NAME, conditions=HEALTHY))
    assert verify(plan.digest, context, watch_slo=good).state == "verified"


def test_a_target_that_cannot_be_scaled_takes_it_back(context, server):  # noqa: F811
    plan = applied(context)
    server.set_status(NAMESPACE, NAME, conditions=conditions(AbleToScale="False"))
    assert "able to scale" in taken_back(context, server, plan)


def test_a_controller_that_never_looked_is_no_verification(context, server, time):  # noqa: F811
    plan = applied(context)
    server.set_status(NAMESPACE, NAME, conditions=[])
    assert "does not say that it scales" in taken_back(context, server, plan)
    assert len(time.slept) == 40


def test_flapping_takes_it_back(context, server, time):  # noqa: F811
    plan = applied(context)
    for turn, replicas in enumerate([6, 3, 6, 3, 6]):
        time.after(60 * turn, lambda n=replicas: server.set_status(NAMESPACE, NAME, desired=n))
    assert "flaps" in taken_back(context, server, plan)


def test_an_api_server_that_is_away_for_a_while_is_waited_for(context, server, time):  # noqa: F811
    plan = applied(context)
    time.after(30, server.stop)
    time.after(120, server.start)
    assert verify(plan.digest, context, watch_slo=good).state == "verified"


def test_an_api_server_that_stays_away_takes_it_back_once_it_answers(context, server, time):  # noqa: F811
    plan = applied(context)
    time.after(30, server.stop)
    time.after(400, server.start)
    assert "has not answered for 120 s" in taken_back(context, server, plan)


def test_an_api_server_that_never_comes_back_leaves_the_plan_breached_and_resuming_takes_it_back(context, server, time):  # noqa: F811
    plan = applied(context)
    time.after(30, server.stop)
    with pytest.raises(ApiError):
        verify(plan.digest, context, watch_slo=good)
    assert context.store.state(plan.digest) == "breached"
    server.start()
    assert resume_change(plan.digest, context, watch_slo=good).state == "rolled_back"


@pytest.mark.parametrize("minutes", [5, 60])
def test_an_interrupted_watch_goes_on_or_decides_by_one_check(context, store, time, minutes):  # noqa: F811
    plan = applied(context)
    store.append(plan.digest, "verifying", by="infertune", at=context.clock())
    time.now += dt.timedelta(minutes=minutes)
    assert resume_change(plan.digest, context, watch_slo=good).state == "verified"
    assert len(time.slept) == (20 if minutes == 5 else 0)


@pytest.mark.parametrize("slo", [bad, lambda: None])
def test_one_check_after_a_long_interruption_can_take_it_back(context, server, store, time, slo):  # noqa: F811
    plan = applied(context)
    store.append(plan.digest, "verifying", by="infertune", at=context.clock())
    time.now += dt.timedelta(hours=1)
    assert resume_change(plan.digest, context, watch_slo=slo).state == "rolled_back"


def test_somebody_who_changes_the_hpa_meanwhile_has_the_last_word(context, server, time):  # noqa: F811
    plan = applied(context)
    time.after(60, lambda: server.edit_hpa(NAMESPACE, NAME, {"spec": {"maxReplicas": 8}}))
    outcome = verify(plan.digest, context, watch_slo=bad)
    assert outcome.state == "abandoned"
    assert "maxReplicas is 8, not 6" in outcome.why
    assert spec_of(server)["maxReplicas"] == 8
    assert len(stored_patches(server)) == 1


def test_a_deleted_hpa_ends_the_watch(context, server, time):  # noqa: F811
    plan = applied(context)
    time.after(60, lambda: server.delete_hpa(NAMESPACE, NAME))
    assert verify(plan.digest, context, watch_slo=good).state == "abandoned"


def test_a_person_may_take_it_back_while_it_is_watched(context, server, time):  # noqa: F811
    plan = applied(context)
    time.after(60, lambda: rollback(plan.digest, context, by="Ada", why="The pager rings."))
    outcome = verify(plan.digest, context, watch_slo=good)
    assert outcome.state == "rolled_back"
    assert len(time.slept) == 4
    assert same(spec_of(server), plan.before)


# --- rollback ---


def test_a_person_may_take_a_verified_change_back(context, server, store):  # noqa: F811
    plan = applied(context)
    verify(plan.digest, context, watch_slo=good)
    assert rollback(plan.digest, context, by="Ada", why="Too dear.").state == "rolled_back"
    assert rollback(plan.digest, context, by="Ada", why="Too dear.").state == "rolled_back"
    assert len(stored_patches(server)) == 2
    event = next(e for e in store.events(plan.digest) if e.kind == "rolling_back")
    assert (event.by, event.detail["why"]) == ("Ada", "Too dear.")


def test_there_is_nothing_to_take_back_of_a_plan_that_was_not_applied(context, server):  # noqa: F811
    plan = approved(context)
    with pytest.raises(FenceError, match="nothing to take back"):
        rollback(plan.digest, context, by="Ada", why="")
    with pytest.raises(FenceError, match="no person"):
        rollback(plan.digest, context, by=" ", why="")
    untouched(server, plan)


LATER = {
    "another spec": {"spec": {"maxReplicas": 8}},
    "an owner": {"metadata": {"labels": {"argocd.argoproj.io/instance": "shop"}}},
    "no opt-in": {"metadata": {"labels": {"infertune.dev/managed": None}}},
}


@pytest.mark.parametrize("edit", LATER)
def test_what_is_not_as_we_left_it_is_not_taken_back(context, server, edit):  # noqa: F811
    plan = applied(context)
    server.edit_hpa(NAMESPACE, NAME, LATER[edit])
    spec = spec_of(server)
    outcome = rollback(plan.digest, context, by="Ada", why="")
    assert outcome.state == "abandoned"
    assert "Whoever changed it decides" in outcome.why
    assert spec_of(server) == spec
    assert len(stored_patches(server)) == 1


def test_a_change_that_somebody_else_made_and_unmade_is_noticed(context, server):  # noqa: F811
    plan = applied(context)
    for replicas in (8, plan.after["maxReplicas"]):
        server.edit_hpa(NAMESPACE, NAME, {"spec": {"maxReplicas": replicas}})
    outcome = rollback(plan.digest, context, by="Ada", why="")
    assert outcome.state == "abandoned"
    assert "kubectl-edit/Update has written maxReplicas" in outcome.why


def test_an_hpa_that_was_made_again_or_deleted_is_not_taken_back(context, server):  # noqa: F811
    plan = applied(context)
    server.delete_hpa(NAMESPACE, NAME)
    assert "deleted" in rollback(plan.digest, context, by="Ada", why="").why


@pytest.mark.parametrize("status", [403, 409, 429, 500])
def test_a_rollback_that_is_refused_for_a_while_is_tried_again(context, server, status):  # noqa: F811
    plan = applied(context)
    server.fail_next("patch", status=status, times=6)
    assert verify(plan.digest, context, watch_slo=bad).state == "rolled_back"
    assert len(stored_patches(server)) == 2


def test_a_rollback_whose_answer_is_lost_is_stored_once(context, server):  # noqa: F811
    plan = applied(context)
    server.cut_after_store()
    assert rollback(plan.digest, context, by="Ada", why="").state == "rolled_back"
    assert len(writes(server)) == 2


def test_bounds_and_cooldown_do_not_stop_a_rollback(context, server):  # noqa: F811
    plan = applied(context)
    strict = within(context, bounds=Bounds(max_replicas=6), cooldown_s=1e9)
    assert rollback(plan.digest, strict, by="Ada", why="").state == "rolled_back"


def test_a_plan_that_was_forged_in_the_store_is_refused(context, server, store):  # noqa: F811
    plan = approved(context)
    with sqlite3.connect(store.home / "plans.db") as connection:
        connection.execute("DROP TRIGGER plans_keep")
        body = json.dumps({**plan.model_dump(mode="json"), "after": {**plan.after, "maxReplicas": 99}})
        connection.execute("UPDATE plans SET body = ?", (body,))
    connection.close()
    with pytest.raises(FenceError, match="changed by hand"):
        apply(plan.digest, context)
    untouched(server, plan)


def test_an_approval_that_was_forged_in_the_store_is_refused(context, server, store):  # noqa: F811
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
