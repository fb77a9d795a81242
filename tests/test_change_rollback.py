"""Taking a plan back: what was before is put back, if the object is as the plan left it."""

# ruff: noqa: F811  # a fixture that is imported, and then asked for by name

import pytest
from change_support import (  # noqa: F401
    applied,
    approved,
    bad,
    cluster,
    context,
    good,
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
from cluster_support import NAME, NAMESPACE

from tools.cluster.rollback import rollback
from tools.cluster.verify import verify
from tools.contracts import Bounds
from tools.errors import FenceError


def test_a_person_may_take_a_verified_change_back(context, server, store):
    plan = applied(context)
    verify(plan.digest, context, watch_slo=good)
    assert rollback(plan.digest, context, by="Ada", why="Too dear.").state == "rolled_back"
    assert rollback(plan.digest, context, by="Ada", why="Too dear.").state == "rolled_back"
    assert len(stored_patches(server)) == 2
    event = next(e for e in store.events(plan.digest) if e.kind == "rolling_back")
    assert (event.by, event.detail["why"]) == ("Ada", "Too dear.")


def test_there_is_nothing_to_take_back_of_a_plan_that_was_not_applied(context, server):
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
def test_what_is_not_as_we_left_it_is_not_taken_back(context, server, edit):
    plan = applied(context)
    server.edit_hpa(NAMESPACE, NAME, LATER[edit])
    spec = spec_of(server)
    outcome = rollback(plan.digest, context, by="Ada", why="")
    assert outcome.state == "abandoned"
    assert "Whoever changed it decides" in outcome.why
    assert spec_of(server) == spec
    assert len(stored_patches(server)) == 1


def test_a_change_that_somebody_else_made_and_unmade_is_noticed(context, server):
    plan = applied(context)
    for replicas in (8, plan.after["maxReplicas"]):
        server.edit_hpa(NAMESPACE, NAME, {"spec": {"maxReplicas": replicas}})
    outcome = rollback(plan.digest, context, by="Ada", why="")
    assert outcome.state == "abandoned"
    assert "kubectl-edit/Update has written maxReplicas" in outcome.why


def test_an_hpa_that_was_made_again_or_deleted_is_not_taken_back(context, server):
    plan = applied(context)
    server.delete_hpa(NAMESPACE, NAME)
    assert "deleted" in rollback(plan.digest, context, by="Ada", why="").why


@pytest.mark.parametrize("status", [403, 409, 429, 500])
def test_a_rollback_that_is_refused_for_a_while_is_tried_again(context, server, status):
    plan = applied(context)
    server.fail_next("patch", status=status, times=6)
    assert verify(plan.digest, context, watch_slo=bad).state == "rolled_back"
    assert len(stored_patches(server)) == 2


def test_a_rollback_whose_answer_is_lost_is_stored_once(context, server):
    plan = applied(context)
    server.cut_after_store()
    assert rollback(plan.digest, context, by="Ada", why="").state == "rolled_back"
    assert len(writes(server)) == 2


def test_bounds_and_cooldown_do_not_stop_a_rollback(context, server):
    plan = applied(context)
    strict = within(context, bounds=Bounds(max_replicas=6), cooldown_s=1e9)
    assert rollback(plan.digest, strict, by="Ada", why="").state == "rolled_back"
