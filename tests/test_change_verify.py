"""Watching an applied plan, over real HTTP, through everything that can go wrong."""

# ruff: noqa: F811  # a fixture that is imported, and then asked for by name

import datetime as dt

import pytest
from change_support import (  # noqa: F401
    HEALTHY,
    applied,
    approved,
    bad,
    cluster,
    conditions,
    context,
    good,
    kinds,
    production,
    server,
    spec_of,
    store,
    stored_patches,
    time,
)
from cluster_support import NAME, NAMESPACE

from tools.cluster.api_errors import ApiError
from tools.cluster.comparison import same
from tools.cluster.resume import resume_change
from tools.cluster.rollback import rollback
from tools.cluster.verify import verify
from tools.errors import ClusterError, FenceError


def test_a_good_change_is_verified_at_the_end_of_its_window_and_no_sooner(context, store, time):
    plan = applied(context)
    outcome = verify(plan.digest, context, watch_slo=good)
    assert outcome.state == "verified"
    assert time.slept == [15.0] * 40
    assert verify(plan.digest, context, watch_slo=bad).state == "verified"


def test_without_a_source_of_latency_the_conditions_alone_decide_and_it_says_so(context):
    plan = applied(context)
    assert "latency was not watched" in verify(plan.digest, context, watch_slo=None).why


def test_looking_more_often_than_the_controller_is_refused(context):
    with pytest.raises(ValueError, match="too often"):
        verify(applied(context).digest, context, watch_slo=None, period_s=1.0)


def test_a_plan_that_was_not_applied_is_not_verified(context):
    with pytest.raises(FenceError, match="nothing to verify"):
        verify(approved(context).digest, context, watch_slo=None)


def taken_back(context, server, plan, **settings):
    """Verify, and check that it was taken back; return why."""
    outcome = verify(plan.digest, context, **{"watch_slo": good, **settings})
    assert outcome.state == "rolled_back"
    assert same(spec_of(server), plan.before)
    assert len(stored_patches(server)) == 2
    assert kinds(context.store, plan)[-4:] == ["verifying", "breached", "rolling_back", "rolled_back"]
    return next(e.detail["why"] for e in context.store.events(plan.digest) if e.kind == "breached")


def test_a_p99_above_the_slo_in_too_many_checks_takes_it_back(context, server, time):
    plan = applied(context)
    assert "p99 was above 100 ms in 11 of 40" in taken_back(context, server, plan, watch_slo=bad)
    assert len(time.slept) == 11


def test_a_p99_above_the_slo_now_and_then_does_not(context):
    values = iter([500.0, 50.0, 50.0, 50.0] * 10)
    assert verify(applied(context).digest, context, watch_slo=lambda: next(values)).state == "verified"


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_a_source_that_goes_silent_takes_it_back(context, server, nothing):
    assert "could not be measured" in taken_back(context, server, applied(context), watch_slo=lambda: nothing)


def test_a_source_that_fails_counts_as_silent(context, server):
    def failing():
        raise ClusterError("Prometheus is down.")

    assert "could not be measured" in taken_back(context, server, applied(context), watch_slo=failing)


def test_a_metric_that_cannot_be_read_takes_it_back_after_a_few_syncs(context, server, time):
    plan = applied(context)
    server.set_status(NAMESPACE, NAME, conditions=conditions(ScalingActive="False"))
    assert "able to compute replicas for 60 s" in taken_back(context, server, plan)
    assert len(time.slept) == 4


def test_a_metric_that_appears_in_time_is_fine(context, server, time):
    plan = applied(context)
    server.set_status(NAMESPACE, NAME, conditions=conditions(ScalingActive="False"))
    time.after(45, lambda: server.set_status(NAMESPACE, NAME, conditions=HEALTHY))
    assert verify(plan.digest, context, watch_slo=good).state == "verified"


def test_a_target_that_cannot_be_scaled_takes_it_back(context, server):
    plan = applied(context)
    server.set_status(NAMESPACE, NAME, conditions=conditions(AbleToScale="False"))
    assert "able to scale" in taken_back(context, server, plan)


def test_a_controller_that_never_looked_is_no_verification(context, server, time):
    plan = applied(context)
    server.set_status(NAMESPACE, NAME, conditions=[])
    assert "does not say that it scales" in taken_back(context, server, plan)
    assert len(time.slept) == 40


def test_flapping_takes_it_back(context, server, time):
    plan = applied(context)
    for turn, replicas in enumerate([6, 3, 6, 3, 6]):
        time.after(60 * turn, lambda n=replicas: server.set_status(NAMESPACE, NAME, desired=n))
    assert "flaps" in taken_back(context, server, plan)


def test_an_api_server_that_is_away_for_a_while_is_waited_for(context, server, time):
    plan = applied(context)
    time.after(30, server.stop)
    time.after(120, server.start)
    assert verify(plan.digest, context, watch_slo=good).state == "verified"


def test_an_api_server_that_stays_away_takes_it_back_once_it_answers(context, server, time):
    plan = applied(context)
    time.after(30, server.stop)
    time.after(400, server.start)
    assert "has not answered for 120 s" in taken_back(context, server, plan)


def test_an_api_server_that_never_comes_back_leaves_the_plan_breached_and_resuming_takes_it_back(context, server, time):
    plan = applied(context)
    time.after(30, server.stop)
    with pytest.raises(ApiError):
        verify(plan.digest, context, watch_slo=good)
    assert context.store.state(plan.digest) == "breached"
    server.start()
    assert resume_change(plan.digest, context, watch_slo=good).state == "rolled_back"


@pytest.mark.parametrize("minutes", [5, 60])
def test_an_interrupted_watch_goes_on_or_decides_by_one_check(context, store, time, minutes):
    plan = applied(context)
    store.append(plan.digest, "verifying", by="infertune", at=context.clock())
    time.now += dt.timedelta(minutes=minutes)
    assert resume_change(plan.digest, context, watch_slo=good).state == "verified"
    assert len(time.slept) == (20 if minutes == 5 else 0)


@pytest.mark.parametrize("slo", [bad, lambda: None])
def test_one_check_after_a_long_interruption_can_take_it_back(context, server, store, time, slo):
    plan = applied(context)
    store.append(plan.digest, "verifying", by="infertune", at=context.clock())
    time.now += dt.timedelta(hours=1)
    assert resume_change(plan.digest, context, watch_slo=slo).state == "rolled_back"


def test_somebody_who_changes_the_hpa_meanwhile_has_the_last_word(context, server, time):
    plan = applied(context)
    time.after(60, lambda: server.edit_hpa(NAMESPACE, NAME, {"spec": {"maxReplicas": 8}}))
    outcome = verify(plan.digest, context, watch_slo=bad)
    assert outcome.state == "abandoned"
    assert "maxReplicas is 8, not 6" in outcome.why
    assert spec_of(server)["maxReplicas"] == 8
    assert len(stored_patches(server)) == 1


def test_a_deleted_hpa_ends_the_watch(context, server, time):
    plan = applied(context)
    time.after(60, lambda: server.delete_hpa(NAMESPACE, NAME))
    assert verify(plan.digest, context, watch_slo=good).state == "abandoned"


def test_a_person_may_take_it_back_while_it_is_watched(context, server, time):
    plan = applied(context)
    time.after(60, lambda: rollback(plan.digest, context, by="Ada", why="The pager rings."))
    outcome = verify(plan.digest, context, watch_slo=good)
    assert outcome.state == "rolled_back"
    assert len(time.slept) == 4
    assert same(spec_of(server), plan.before)
