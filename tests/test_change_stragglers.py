"""A patch that is stored long after its sender has died, or given up waiting, is never one that nobody knows of."""

# ruff: noqa: F811  # a fixture that is imported, and then asked for by name

import pytest
from change_support import (  # noqa: F401
    applied,
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
    within,
    writes,
)
from cluster_support import NAME, NAMESPACE

from tools.cluster.api_errors import ApiError
from tools.cluster.change import apply
from tools.cluster.comparison import same
from tools.cluster.hpa_object import patch_body
from tools.cluster.resume import resume_change
from tools.cluster.rollback import rollback
from tools.cluster.sending import LANDS_WITHIN_S
from tools.errors import ClusterError


@pytest.fixture
def straggler(context, store):
    """A plan whose patch is still on its way from a process that was killed, and what brings it to the server."""
    plan = approved(context)
    obj = context.writer.read()
    patch = patch_body(obj.owned, plan.after, obj.resource_version)
    store.append(plan.digest, "applying", by="infertune", at=context.clock(), detail={"patch": patch})
    refused = []

    def arrive():
        try:
            context.writer.patch(patch)
        except ApiError as error:
            refused.append(error.kind)

    arrive.refused = refused
    return plan, arrive


def test_one_that_lands_while_a_person_takes_the_change_back_is_taken_back(context, server, store, time, straggler):
    plan, arrive = straggler
    time.after(20, arrive)
    assert rollback(plan.digest, context, by="Ada", why="The pager rings.").state == "rolled_back"
    assert kinds(store, plan)[-4:] == ["applying", "applied", "rolling_back", "rolled_back"]
    assert same(spec_of(server), plan.before)
    assert len(stored_patches(server)) == 2


def test_one_that_lands_after_the_plan_has_expired_is_watched(context, server, store, time, straggler):
    plan, arrive = straggler
    time.sleep(3600)
    time.after(20, arrive)
    assert resume_change(plan.digest, context, watch_slo=good).state == "verified"
    assert same(spec_of(server), plan.after)
    assert len(stored_patches(server)) == 1


def test_one_that_lands_before_the_dry_run_of_the_next_process_is_taken_for_what_it_is(context, server, straggler):
    plan, arrive = straggler
    ask = context.writer.dry_run
    context.writer.dry_run = lambda patch: (arrive(), ask(patch))[1]
    assert apply(plan.digest, context).state == "applied"
    assert len(stored_patches(server)) == 1


def test_one_that_lands_although_the_kill_switch_is_on_by_now_is_known(context, server, store, time, straggler):
    plan, arrive = straggler
    (store.home / "kill-switch").touch()
    time.after(20, arrive)
    assert apply(plan.digest, context).state == "applied"


def test_one_whose_answers_were_all_lost_is_waited_for(context, server, store, time):
    plan = approved(context)
    obj = context.writer.read()
    late = patch_body(obj.owned, plan.after, obj.resource_version)
    send = context.writer.patch
    server.fail_next("patch", status=504, times=4)
    time.after(20, lambda: send(late))
    assert apply(plan.digest, context).state == "applied"
    assert [r.status for r in writes(server)] == [504, 504, 504, 504, 200]


def test_where_none_comes_the_plan_has_failed_once_none_can_come_any_more(context, server, store, time, straggler):
    plan, _ = straggler
    assert rollback(plan.digest, context, by="Ada", why="").state == "failed"
    assert sum(time.slept) == LANDS_WITHIN_S
    assert (kinds(store, plan)[-1], writes(server)) == ("failed", [])


def test_a_status_that_is_written_makes_it_void_and_ends_the_wait(context, server, store, time, straggler):
    plan, arrive = straggler
    time.after(8, lambda: server.set_status(NAMESPACE, NAME, current=5))
    assert rollback(plan.digest, context, by="Ada", why="").state == "failed"
    assert sum(time.slept) == 10
    arrive()
    assert arrive.refused == ["conflict"]
    assert same(spec_of(server), plan.before)


def test_somebody_who_changes_the_hpa_meanwhile_has_the_last_word(context, server, time, straggler):
    plan, _ = straggler
    time.after(20, lambda: server.edit_hpa(NAMESPACE, NAME, {"spec": {"maxReplicas": 8}}))
    outcome = rollback(plan.digest, context, by="Ada", why="")
    assert outcome.state == "abandoned"
    assert "maxReplicas is 8, not 10" in outcome.why
    assert writes(server) == []


def test_an_hpa_that_is_deleted_meanwhile_ends_the_wait(context, server, time, straggler):
    plan, _ = straggler
    time.after(20, lambda: server.delete_hpa(NAMESPACE, NAME))
    outcome = rollback(plan.digest, context, by="Ada", why="")
    assert (outcome.state, outcome.why) == ("abandoned", "The HPA was deleted while the plan was being applied.")


def test_a_server_that_goes_away_meanwhile_leaves_it_open(context, server, store, time, straggler):
    plan, arrive = straggler
    time.after(20, server.stop)
    with pytest.raises(ClusterError):
        rollback(plan.digest, context, by="Ada", why="")
    assert store.state(plan.digest) == "applying"
    server.start()
    arrive()
    assert rollback(plan.digest, context, by="Ada", why="").state == "rolled_back"


def test_one_that_takes_the_change_back_before_the_dry_run_of_the_next_process_is_taken_for_what_it_is(
    context, server, store
):
    plan = applied(context)
    obj = context.writer.read()
    late = patch_body(obj.owned, plan.before, obj.resource_version)
    store.append(plan.digest, "rolling_back", by="Ada", at=context.clock(), detail={"why": "The pager rings."})
    ask = context.writer.dry_run
    context.writer.dry_run = lambda patch: (context.writer.patch(late), ask(patch))[1]
    assert resume_change(plan.digest, context, watch_slo=good).state == "rolled_back"
    assert same(spec_of(server), plan.before)
    assert len(stored_patches(server)) == 2


def test_a_patch_that_was_refused_for_certain_is_not_waited_for(context, server, time):
    plan = approved(context)
    server.fail_next("patch", status=409, times=None)
    assert apply(plan.digest, context).state == "failed"
    assert sum(time.slept) < 5
