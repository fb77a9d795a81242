"""The nodes from a recommendation to a change: what each answers, and where the graph goes on from there."""

# ruff: noqa: F811  # a fixture that is imported, and then asked for by name

import datetime as dt
from types import SimpleNamespace

import pytest
from change_support import (
    HEALTHY,
    Time,
    stored_patches,
)
from cluster_support import AFTER, NAME, NAMESPACE, cluster, production, server  # noqa: F401
from langgraph.graph import END
from session_support import TRAFFIC, write_spec

import nodes.changing
from nodes.apply import apply, is_applied
from nodes.approval import approval, is_approved
from nodes.context import Context
from nodes.report import is_planned
from nodes.scaling_plan import scaling_plan
from nodes.verify import verify
from tools.cluster.plans import approve, reject
from tools.cluster.store import PlanStore
from tools.contracts import Bounds, Interval, Recommendation, ScalingOption
from tools.contracts.recommendation import Effort
from tools.ledger import Ledger
from tools.observer import Silent
from tools.result import MlflowRef
from tools.scaling.recommend import recommend
from tools.spec import load_spec
from tools.traffic import load_trace

OPTION = ScalingOption(name="queue 30, 2 to 6", spec=AFTER, outcomes=())
EFFORT = Effort(
    settings=1,
    failed_early=0,
    too_costly=0,
    busiest_day_runs=1,
    recorded_runs=1,
    harder_runs=1,
    processes=1,
    seconds=1.0,
)


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def context(cluster, server, time, tmp_path, monkeypatch):
    """What nodes are given, with a live HPA and a clock of the test's."""
    server.set_status(NAMESPACE, NAME, current=3, desired=3, conditions=HEALTHY)
    (tmp_path / "traffic.csv").write_text(TRAFFIC)
    spec = load_spec(write_spec(tmp_path, traffic={"trace": "traffic.csv"}))
    monkeypatch.setattr(nodes.changing, "mirror", lambda *_: MlflowRef(tracking_uri="sqlite://", run_id="r"))
    return Context(
        spec=spec.model_copy(update={"cluster": cluster}),
        bench=SimpleNamespace(home=tmp_path / "home", stopped=False, machine=object()),
        policy=None,
        ledger=Ledger(None),
        observer=Silent(),
        session="2026-03-02-a",
        session_dir=tmp_path,
        created="2026-03-02T09:00:00+00:00",
        tracking_uri="sqlite://",
        availability={},
        clock=time.clock,
        sleep=time.sleep,
    )


def scaling(folder, *, chosen=OPTION, searched=True):
    """The state after a recommendation."""
    summary = recommend(
        trace=load_trace(folder / "traffic.csv"),
        capacity=Interval(value=100, low=90, high=110, n=30),
        p99_ms=10,
        slo_ms=200,
        price_per_hour_usd=0.1,
    )
    found = Recommendation(
        slo_ms=200,
        kept_share=0.999,
        minutes=240,
        chosen=chosen,
        today=None,
        options=(),
        static=None,
        sentence="Two hold it.",
        notes=(),
        effort=EFFORT,
    )
    update = {"recommendation": found if searched else None, "evidence": ("e1",)}
    return {"scaling": summary.model_copy(update=update).model_dump(mode="json"), "decisions": []}


def run(node, state, context):
    """The state after a node."""
    update = node(state, SimpleNamespace(context=context))
    return {**state, **update, "decisions": [*state.get("decisions", []), *update.get("decisions", [])]}


@pytest.fixture
def offered(context, tmp_path):
    """The state once a plan was offered."""
    return run(scaling_plan, scaling(tmp_path), context)


@pytest.fixture
def store(context):
    return PlanStore(context.bench.home)


# --- is there a plan -------------------------------------------------------------------------------------------


def test_a_plan_is_a_decision_with_what_a_person_wants_to_know(offered, store, time):
    (plan,) = store.plans()
    decision = offered["decisions"][-1]
    assert (decision["node"], decision["chosen"], decision["id"]) == ("scaling_plan", f"plan {plan.digest}", "d01")
    (option,) = decision["options"]
    assert option["facts"]["hpa"] == f"{NAMESPACE}/{NAME}"
    assert (option["facts"]["minReplicas"], option["facts"]["maxReplicas"]) == (2, 6)
    assert tuple(option["evidence"]) == ("e1",)
    assert (offered["plan"], is_planned(offered)) == (plan.digest, "approval")
    assert dt.datetime.fromisoformat(plan.created) == time.now, "by the clock that it was given"
    assert plan.why == "Two hold it."


def test_without_a_cluster_there_is_no_question(context, tmp_path):
    context.spec = context.spec.model_copy(update={"cluster": None})
    state = scaling(tmp_path)
    assert run(scaling_plan, state, context) == state
    assert is_planned(state) == END


@pytest.mark.parametrize(
    ("recommended", "why"),
    [
        ({"chosen": None}, "No setting keeps every promise: there is nothing to offer."),
        ({"searched": False}, "The autoscaler's settings were not searched: there is nothing to offer."),
        (None, "The autoscaler's settings were not searched: there is nothing to offer."),
    ],
)
def test_without_a_recommendation_it_is_said_why_nothing_is_offered(context, server, tmp_path, recommended, why):
    state = {"decisions": []} if recommended is None else scaling(tmp_path, **recommended)
    state = run(scaling_plan, state, context)
    assert state["plan_notes"] == [why]
    assert state["decisions"][-1]["chosen"] is None
    assert (is_planned(state), server.log) == (END, [])


@pytest.mark.parametrize("fault", ["stopped", "no kubeconfig", "damaged store", "no such HPA"])
def test_what_goes_wrong_with_a_cluster_is_a_reason_and_no_error(context, server, tmp_path, fault):
    match fault:
        case "stopped":
            server.stop()
        case "no kubeconfig":
            (tmp_path / "kubeconfig").unlink()
        case "damaged store":
            (tmp_path / "home").mkdir()
            PlanStore(tmp_path / "home")._path.write_bytes(b"no database, " * 100)
        case "no such HPA":
            server.delete_hpa(NAMESPACE, NAME)
    state = run(scaling_plan, scaling(tmp_path), context)
    if fault == "stopped":
        server.start()
    assert "plan" not in state
    assert state["decisions"][-1]["reason"] == state["plan_notes"][0] != ""


def test_the_policy_approves_within_its_bounds_only(context, store, tmp_path):
    context.auto_approve = Bounds(max_replicas=5)
    state = run(scaling_plan, scaling(tmp_path), context)
    assert store.state(state["plan"]) == "proposed"
    context.auto_approve = Bounds(max_replicas=6)
    assert run(scaling_plan, scaling(tmp_path), context)["plan"] == state["plan"]
    assert store.state(state["plan"]) == "approved"
    assert [e.by for e in store.events(state["plan"])] == ["infertune", "policy"]


def test_a_plan_that_expired_before_the_session_went_on_is_not_approved_by_itself(context, store, tmp_path, time):
    run(scaling_plan, scaling(tmp_path), context)
    time.sleep(context.spec.cluster.approval_s)
    context.auto_approve = Bounds(max_replicas=6)
    state = run(scaling_plan, scaling(tmp_path), context)
    assert store.state(state["plan"]) == "proposed"


# --- a person's word -------------------------------------------------------------------------------------------


def test_a_persons_yes_leads_on_and_is_recorded_as_theirs(context, offered, store, time):
    approve(store, offered["plan"], by="Ada Lovelace", now=time.clock())
    state = run(approval, offered, context)
    decision = state["decisions"][-1]
    assert (decision["by"], decision["chosen"], is_approved(state)) == ("person", "apply it", "apply")
    assert decision["reason"].startswith("approved by Ada Lovelace at ")
    assert is_planned(state) == END, "nobody is asked twice"


def test_a_persons_no_ends_it(context, offered, store, time):
    reject(store, offered["plan"], by="Grace", now=time.clock())
    state = run(approval, offered, context)
    assert (state["decisions"][-1]["chosen"], is_approved(state)) == ("leave the HPA as it is", "report")


def test_an_approval_that_was_taken_back_is_a_no(context, offered, store, time):
    approve(store, offered["plan"], by="Ada", now=time.clock())
    reject(store, offered["plan"], by="Ada", now=time.clock())
    assert is_approved(run(approval, offered, context)) == "report"


# --- carried out -----------------------------------------------------------------------------------------------


def test_what_is_approved_is_applied_and_watched_by_the_contexts_clock(context, offered, store, server, time):
    approve(store, offered["plan"], by="Ada", now=time.clock())
    began = time.now
    state = run(apply, offered, context)
    assert (state["change"], is_applied(state)) == ("applied", "verify")
    state = run(verify, state, context)
    assert state["change"] == "verified"
    assert (time.now - began).total_seconds() == context.spec.cluster.verify_s
    assert len(stored_patches(server)) == 1


@pytest.mark.parametrize("ended", ["rejected", "failed", "expired"])
def test_what_came_to_nothing_before_is_told_again_and_never_an_error(context, offered, store, server, time, ended):
    """A run that was killed right after it wrote that down runs the node again."""
    approve(store, offered["plan"], by="Ada", now=time.clock())
    store.append(offered["plan"], ended, by="Ada", at=time.clock(), detail={"why": "Somebody said so."})
    state = run(apply, offered, context)
    assert (state["change"], is_applied(state)) == (ended, "report")
    assert state["decisions"][-1]["reason"] == "Somebody said so."
    assert stored_patches(server) == []


def test_without_a_record_nothing_is_sent(context, offered, store, server, time, monkeypatch):
    monkeypatch.setattr(nodes.changing, "mirror", lambda *_: MlflowRef(tracking_uri="x", run_id=None, note="away"))
    approve(store, offered["plan"], by="Ada", now=time.clock())
    with pytest.raises(Exception, match="the session's record cannot be written, so nothing is applied"):
        run(apply, offered, context)
    assert (stored_patches(server), store.state(offered["plan"])) == ([], "approved")
