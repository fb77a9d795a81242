"""Applying a plan while the server, the network or somebody else is in the way: stored once, or known not to be."""

# ruff: noqa: F811  # a fixture that is imported, and then asked for by name

import copy

import pytest
from change_support import (  # noqa: F401
    MARKS,
    approved,
    cluster,
    context,
    good,
    kinds,
    production,
    server,
    spec_of,
    store,
    stored_patches,
    time,
    untouched,
    writes,
)
from cluster_support import NAME, NAMESPACE

from tools.cluster.api_errors import ApiError
from tools.cluster.change import apply
from tools.cluster.comparison import same
from tools.cluster.hpa_object import HpaObject
from tools.cluster.resume import resume_change


@pytest.mark.parametrize("verb", ["get", "dry-run"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, "unauthorized"), (403, "forbidden"), (404, "not_found"), (429, "too_many"), (500, "server")],
)
def test_a_server_that_refuses_before_the_patch_leaves_the_plan_approved(context, server, store, verb, status, kind):
    plan = approved(context)
    server.fail_next(verb, status=status, times=None)
    with pytest.raises(ApiError) as caught:
        apply(plan.digest, context)
    assert caught.value.kind == kind
    assert store.state(plan.digest) == "approved"
    untouched(server, plan)
    server.heal()
    assert apply(plan.digest, context).state == "applied"


def test_a_server_that_is_down_leaves_the_plan_approved(context, server, store):
    plan = approved(context)
    server.stop()
    with pytest.raises(ApiError) as caught:
        apply(plan.digest, context)
    assert caught.value.kind == "unreachable"
    server.start()
    assert apply(plan.digest, context).state == "applied"


def test_a_change_that_the_server_finds_invalid_fails_in_the_dry_run(context, server, store):
    plan = approved(context)
    server.fail_next("dry-run", status=422)
    outcome = apply(plan.digest, context)
    assert outcome.state == "failed"
    assert "422" in outcome.why
    untouched(server, plan)


@pytest.mark.parametrize("status", [401, 403, 404, 422])
def test_a_patch_that_is_refused_fails_and_nothing_was_applied(context, server, store, status):
    plan = approved(context)
    server.fail_next("patch", status=status)
    outcome = apply(plan.digest, context)
    assert outcome.state == "failed"
    assert outcome.why.startswith("Nothing was applied.")
    assert stored_patches(server) == []
    assert same(spec_of(server), plan.before)


@pytest.mark.parametrize("status", [409, 429, 500, 504])
def test_a_patch_that_fails_once_is_sent_again_after_a_fresh_read(context, server, time, status):
    plan = approved(context)
    server.fail_next("patch", status=status)
    assert apply(plan.digest, context).state == "applied"
    assert [r.verb for r in server.log][-4:] == ["dry-run", "patch", "get", "patch"]
    assert len(stored_patches(server)) == 1
    assert time.slept == [1.0]


def test_a_status_that_moves_meanwhile_costs_an_attempt_and_no_more(context, server):
    plan = approved(context)
    send = context.writer.patch
    moves = iter([True, True, False])
    context.writer.patch = lambda patch: (next(moves) and server.set_status(NAMESPACE, NAME, current=5), send(patch))[1]
    assert apply(plan.digest, context).state == "applied"
    assert [r.status for r in writes(server)] == [409, 409, 200]


@pytest.mark.parametrize("status", [409, 429, 500])
def test_a_patch_that_always_fails_ends_with_nothing_applied(context, server, store, status):
    plan = approved(context)
    server.fail_next("patch", status=status, times=None)
    outcome = apply(plan.digest, context)
    assert outcome.state == "failed"
    assert "4 attempts failed" in outcome.why
    assert len(writes(server)) == 4
    assert same(spec_of(server), plan.before)


def test_an_hpa_that_somebody_edits_between_dry_run_and_patch_is_left_alone(context, server, store):
    plan = approved(context)
    send = context.writer.patch
    edit = {"spec": {"maxReplicas": 12}}
    context.writer.patch = lambda patch: (server.edit_hpa(NAMESPACE, NAME, edit), send(patch))[1]
    outcome = apply(plan.digest, context)
    assert outcome.state == "failed"
    assert "maxReplicas is 12, not 10" in outcome.why
    assert stored_patches(server) == []


def test_an_hpa_that_gets_an_owner_between_dry_run_and_patch_is_left_alone(context, server, store):
    plan = approved(context)
    send = context.writer.patch
    context.writer.patch = lambda patch: (server.edit_hpa(NAMESPACE, NAME, MARKS["Argo CD"]), send(patch))[1]
    outcome = apply(plan.digest, context)
    assert outcome.state == "failed"
    assert "Argo CD" in outcome.why
    assert stored_patches(server) == []


def test_a_connection_cut_after_the_patch_was_stored_is_applied_once(context, server, store):
    plan = approved(context)
    server.cut_after_store()
    assert apply(plan.digest, context).state == "applied"
    assert len(stored_patches(server)) == 1
    assert len(writes(server)) == 1
    assert kinds(store, plan)[-2:] == ["applying", "applied"]


def test_a_connection_cut_before_the_patch_was_stored_is_sent_again(context, server):
    plan = approved(context)
    server.cut_before_store()
    assert apply(plan.digest, context).state == "applied"
    assert len(writes(server)) == 2
    assert len(stored_patches(server)) == 1


def test_an_html_page_in_place_of_the_answer_is_no_answer(context, server):
    plan = approved(context)
    server.answer_html("patch")
    assert apply(plan.digest, context).state == "applied"
    assert len(stored_patches(server)) == 1


def test_a_server_that_dies_with_the_patch_leaves_it_open_and_resuming_finds_out(context, server, store):
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


def test_a_server_that_would_make_something_else_of_it_is_not_sent_the_patch(context, server, store):
    plan = approved(context)
    ask = context.writer.dry_run
    meddled = copy.deepcopy(server.hpa(NAMESPACE, NAME))
    meddled["spec"].update(plan.after, maxReplicas=50)
    context.writer.dry_run = lambda patch: (ask(patch), HpaObject.parse(meddled))[1]
    outcome = apply(plan.digest, context)
    assert outcome.state == "failed"
    assert "maxReplicas is 50, not 6" in outcome.why
    untouched(server, plan)


def test_an_interrupted_change_that_somebody_else_went_over_is_abandoned(context, server, store):
    plan = approved(context)
    store.append(plan.digest, "applying", by="infertune", at=context.clock())
    server.edit_hpa(NAMESPACE, NAME, {"spec": {"maxReplicas": 20}})
    outcome = resume_change(plan.digest, context, watch_slo=good)
    assert outcome.state == "abandoned"
    assert "maxReplicas is 20, not 10" in outcome.why
    assert writes(server) == []


def test_the_same_spec_by_somebody_else_is_not_taken_for_ours(context, server, store):
    plan = approved(context)
    store.append(plan.digest, "applying", by="infertune", at=context.clock())
    server.edit_hpa(NAMESPACE, NAME, {"spec": plan.after})
    assert resume_change(plan.digest, context, watch_slo=good).state == "abandoned"
