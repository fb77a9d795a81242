"""From a recommendation to a plan: every rule is asked, the server tries it, and nothing is changed."""

# ruff: noqa: F811  # a fixture that is imported, and then asked for by name

import contextlib
import datetime as dt
import sqlite3

import pytest
from cluster_support import (
    AFTER,
    CPU_70,
    NAME,
    NAMESPACE,
    PRICE_USD,
    cluster,  # noqa: F401
    hpa_manifest,
    production,  # noqa: F401
    server,  # noqa: F401
)
from hypothesis import given
from hypothesis import strategies as st

from tools.cluster.connection import open_reader, open_writer
from tools.cluster.diff import spec_diff
from tools.cluster.offer import offer
from tools.cluster.plans import approve, reject
from tools.cluster.store import PlanStore
from tools.cluster.summary import summarize_plan
from tools.contracts import Bounds
from tools.errors import ClusterError, FenceError, StorageError

NOW = dt.datetime(2026, 3, 2, 9, 0, tzinfo=dt.UTC)


@pytest.fixture
def offered(cluster, tmp_path):
    """Bring a recommendation before the cluster, by rules that may be changed."""

    def bring(after=AFTER, *, session="2026-03-02-a", now=NOW, **rules):
        by = cluster.model_copy(update=rules)
        with open_reader(by) as reader:
            return offer(
                after,
                store=PlanStore(tmp_path),
                reader=reader,
                open_writer=lambda: open_writer(by),
                cluster=by,
                session=session,
                why="The queue tells sooner than the CPU.",
                evidence=("e1", "e2"),
                price_per_hour_usd=PRICE_USD,
                daily_cost_usd=4.8,
                slo_ms=100.0,
                now=now,
            )

    return bring


def asked(server):
    return [(request.user, request.verb) for request in server.log]


def test_what_every_rule_allows_and_the_server_would_take_waits_for_a_person(offered, server, cluster, tmp_path):
    found = offered()
    plan = found.plan
    assert (found.refusals, plan.after, plan.session) == ((), AFTER, "2026-03-02-a")
    assert (plan.evidence, plan.slo_ms, plan.daily_cost_usd) == (("e1", "e2"), 100.0, 4.8)
    assert (plan.target.server, plan.target.namespace, plan.target.name) == (server.url, NAMESPACE, NAME)
    assert plan.before["metrics"] == [CPU_70]
    assert dt.datetime.fromisoformat(plan.expires) - NOW == dt.timedelta(seconds=cluster.approval_s)
    store = PlanStore(tmp_path)
    assert (store.plans(), store.state(plan.digest)) == ((plan,), "proposed")
    assert "+  maxReplicas: 6" in found.server_diff
    assert asked(server)[-1] == ("infertune", "dry-run")
    assert not any(request.stored for request in server.log)


def test_a_session_has_one_plan_however_often_it_asks(offered, server):
    first = offered({**AFTER, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}}})
    assert "+  maxReplicas: 6" in first.server_diff
    by_hand, filled_in = first.notes
    assert by_hand.startswith("Written by hand before")
    assert filled_in.startswith("The server fills in: behavior.")
    server.edit_hpa(NAMESPACE, NAME, {"spec": {"maxReplicas": 12}})
    server.log.clear()
    again = offered({**AFTER, "maxReplicas": 7}, now=NOW + dt.timedelta(hours=1))
    assert again == first, "with all that a person is shown before they approve it"
    assert server.log == [], "the cluster is not even asked"
    assert offered(session="2026-03-02-b").plan != first.plan


def test_what_is_there_already_is_no_change(offered, server):
    server.edit_hpa(NAMESPACE, NAME, {"spec": AFTER})
    found = offered()
    assert found.plan is None
    assert found.refusals == ("The HPA in the cluster is as recommended: there is nothing to change.",)


@pytest.mark.parametrize(
    ("rules", "hpa", "why"),
    [
        ({"apply": False}, {}, "Only recommended: `cluster.apply` is not set."),
        ({"writer_context": None}, {}, "Nobody is named who may change the HPA"),
        ({"allow_namespaces": ()}, {}, f"Namespace {NAMESPACE} is not on the allow-list"),
        ({"bounds": Bounds(max_replicas=5)}, {}, "maxReplicas 6 is above the bound of 5."),
        ({"bounds": Bounds(metrics=("cpu",))}, {}, "The metric request_queue_length may not be scaled on"),
        ({"bounds": Bounds(daily_cost_usd=1)}, {}, "above the bound of 1.00 USD"),
        ({}, {"labels": {}}, "its team has not allowed changes"),
        ({}, {"owners": [{"apiVersion": "keda.sh/v1", "kind": "ScaledObject", "name": "o", "uid": "1"}]}, "is kept by"),
        (
            {},
            {"labels": {"infertune.dev/managed": "true", "kustomize.toolkit.fluxcd.io/name": "apps"}},
            "is kept by Flux",
        ),
    ],
)
def test_what_a_rule_forbids_is_recommended_only_and_the_writer_is_not_asked(
    offered, server, tmp_path, rules, hpa, why
):
    server.put_hpa(hpa_manifest(**hpa))
    found = offered(**rules)
    assert (found.plan, found.server_diff) == (None, "")
    assert why in " ".join(found.refusals)
    assert {user for user, _ in asked(server)} == {"infertune-reader"}
    assert PlanStore(tmp_path).plans() == ()


def test_all_reasons_are_named_at_once(offered, server, tmp_path):
    (tmp_path / "kill-switch").touch()
    server.put_hpa(hpa_manifest(labels={}))
    assert len(offered(allow_namespaces=(), apply=False).refusals) == 4


def test_while_another_change_is_under_way_or_just_was_nothing_is_offered(offered, tmp_path):
    plan, store = offered().plan, PlanStore(tmp_path)
    approve(store, plan.digest, by="Ada", now=NOW)
    for kind in ("applying", "applied"):
        store.append(plan.digest, kind, by="infertune", at=NOW, detail={"why": "."})
    refusals = offered(session="b", now=NOW + dt.timedelta(seconds=60)).refusals
    assert f"Another change of {NAMESPACE}/{NAME} is under way: plan {plan.digest}." in refusals
    assert any("was changed 60 s ago" in sentence for sentence in refusals)


@pytest.mark.parametrize("status", [403, 422, 500])
def test_what_the_servers_dry_run_refuses_is_no_plan(offered, server, tmp_path, status):
    server.fail_next("dry-run", status=status, times=None, message="an admission webhook said no")
    with pytest.raises(ClusterError, match="an admission webhook said no"):
        offered()
    assert PlanStore(tmp_path).plans() == ()


def test_a_server_that_would_store_something_else_is_asked_nothing_more(offered, server, monkeypatch, tmp_path):
    original = type(server._hpas).patch

    def mutated(self, *arguments, **named):
        answer, stored = original(self, *arguments, **named)
        answer["spec"]["maxReplicas"] = 7  # as a mutating webhook does
        return answer, stored

    monkeypatch.setattr(type(server._hpas), "patch", mutated)
    found = offered()
    assert found.plan is None
    assert found.refusals[0].startswith("The server would make something else of it: ")
    assert "+  maxReplicas: 7" in found.server_diff
    assert PlanStore(tmp_path).plans() == ()


def test_what_a_recommendation_holds_beyond_our_fields_is_never_planned(offered):
    plan = offered({**AFTER, "scaleTargetRef": {"kind": "Deployment", "name": "somebody-elses"}}).plan
    assert plan.after == AFTER


def test_a_writer_of_another_cluster_is_an_error(offered):
    with pytest.raises(FenceError, match="what is read in one cluster is not changed in another"):
        offered(writer_context="production")


def test_a_store_that_was_tampered_with_takes_no_plan(offered, tmp_path):
    plan = offered().plan
    with contextlib.closing(sqlite3.connect(PlanStore(tmp_path)._path)) as connection, connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute("UPDATE events SET by = 'Ada' WHERE plan = ?", (plan.digest,))
    with pytest.raises(StorageError, match="was changed by hand"):
        offered(session="b")


# --- a plan as a result tells it -------------------------------------------------------------------------------


def test_a_summary_tells_all_that_happened(offered, tmp_path):
    found, store = offered(), PlanStore(tmp_path)
    reject(store, found.plan.digest, by="Grace", now=NOW, why="Not during the sale.")
    told = summarize_plan(store, found.plan.digest[:8], server_diff=found.server_diff, notes=("A note.",))
    assert (told.digest, told.state, told.hpa) == (found.plan.digest, "rejected", f"{NAMESPACE}/{NAME}")
    assert (told.context, told.server_diff, told.notes) == ("reader", found.server_diff, ("A note.",))
    assert "+  maxReplicas: 6" in told.diff
    assert [(e.kind, e.by, e.why) for e in told.events] == [
        ("proposed", "infertune", ""),
        ("rejected", "Grace", "Not during the sale."),
    ]


def test_a_summary_of_no_plan_is_an_error(tmp_path):
    with pytest.raises(FenceError, match="there is no such plan"):
        summarize_plan(PlanStore(tmp_path), "0" * 16)


# --- the diff --------------------------------------------------------------------------------------------------


def specs():
    target = st.integers(1, 1000).map(
        lambda value: {
            "type": "Pods",
            "pods": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": str(value)}},
        }
    )
    return st.fixed_dictionaries(
        {"minReplicas": st.integers(1, 9), "maxReplicas": st.integers(10, 99), "metrics": st.lists(target, min_size=1)}
    )


@given(specs(), specs())
def test_a_diff_is_empty_only_where_nothing_changes(before, after):
    assert spec_diff(before, before, name="x") == ""
    assert (spec_diff(before, after, name="x") == "") is (before == after)


@given(specs())
def test_layout_and_spelling_are_no_difference(spec):
    turned = dict(reversed(spec.items()))
    metrics = [
        {**m, "pods": {**m["pods"], "target": {"type": "AverageValue", "averageValue": f"{number}000m"}}}
        for m in spec["metrics"]
        for number in [m["pods"]["target"]["averageValue"]]
    ]
    assert spec_diff(spec, {**turned, "metrics": metrics}, name="x") == ""
