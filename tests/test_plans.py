"""Plans, what people say to them, and the store that nobody can edit unnoticed."""

import datetime as dt
import json
import sqlite3
import stat
import threading

import pytest
from change_child import START
from change_support import (  # noqa: F401
    approved,
    cluster,
    context,
    kinds,
    plan_for,
    production,
    server,
    store,
    time,
)
from cluster_support import AFTER, CPU_70, QUEUE_30
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.cluster.events import FOLLOWS, IN_FLIGHT, KINDS, follow, state_of
from tools.cluster.plans import approve, auto_approve, describe, has_expired, open_plans, pending, reject
from tools.cluster.store import PlanStore
from tools.contracts import Bounds, HpaRef, ScalingPlan
from tools.errors import FenceError, StorageError

HOUR = dt.timedelta(hours=1)


def make(**settings):
    """A plan by itself, without a cluster."""
    target = HpaRef(server="https://api", context="prod", namespace="shop", name="web", uid="u", resource_version="7")
    settings = {
        "session": "s",
        "target": target,
        "scales": "apps/v1 Deployment web",
        "before": {"minReplicas": 2, "maxReplicas": 10, "metrics": [CPU_70]},
        "after": AFTER,
        "why": "It pays.",
        "verify_s": 600.0,
        "created": START.isoformat(),
        "expires": (START + HOUR).isoformat(),
        **settings,
    }
    return ScalingPlan(**settings)


@pytest.fixture
def proposed(store):  # noqa: F811
    plan = make()
    store.propose(plan, by="policy", at=START)
    return plan


def by_hand(store, *statements):  # noqa: F811
    """Edit the store as somebody with an SQLite shell would."""
    connection = sqlite3.connect(store.home / "plans.db", isolation_level=None)
    for trigger in ("events_stay", "events_keep", "plans_stay", "plans_keep"):
        connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
    for statement in statements:
        connection.execute(statement)
    connection.close()


# --- events ---


@given(st.lists(st.sampled_from(KINDS), max_size=12))
def test_only_what_may_follow_follows(attempted):
    state, happened = None, []
    for kind in attempted:
        if kind in FOLLOWS[state]:
            state = follow(state, kind)
            happened.append(kind)
        else:
            with pytest.raises(ValueError, match="cannot be"):
                follow(state, kind)
    assert len(happened) == len(set(happened))
    if "applying" in happened:
        assert happened[:2] == ["proposed", "approved"]
    if "rolled_back" in happened:
        assert happened[-2:] == ["rolling_back", "rolled_back"]


@settings(max_examples=15)
@given(st.lists(st.sampled_from(KINDS), max_size=8))
def test_the_store_takes_an_event_if_and_only_if_it_may_follow(tmp_path_factory, attempted):
    store = PlanStore(tmp_path_factory.mktemp("home"))  # noqa: F811
    digest = store.propose(make(), by="policy", at=START)
    for kind in attempted:
        before = store.state(digest)
        if kind in FOLLOWS[before]:
            store.append(digest, kind, by="x", at=START)
            assert store.state(digest) == kind
        else:
            with pytest.raises(FenceError):
                store.append(digest, kind, by="x", at=START)
            assert store.state(digest) == before
    assert store.flaw() is None


def test_every_state_that_is_in_flight_can_still_be_settled():
    settled = {"verified", "rolled_back", "failed", "abandoned"}

    def reachable(state):
        return {state}.union(*(reachable(kind) for kind in FOLLOWS[state]))

    for state in IN_FLIGHT:
        assert reachable(state) & settled
    assert {kind for kind, after in FOLLOWS.items() if not after} == {
        "rejected",
        "expired",
        "rolled_back",
        "failed",
        "abandoned",
    }


def test_a_plan_that_nothing_has_happened_to_has_no_state():
    assert state_of([]) is None


# --- store ---


def test_what_is_proposed_is_there_for_the_next_process_under_its_digest(store, proposed):  # noqa: F811
    again = PlanStore(store.home)
    assert again.get(proposed.digest) == proposed
    assert again.get(proposed.digest[:8].upper()) == proposed
    assert again.plans() == (proposed,)
    assert again.state(proposed.digest) == "proposed"


def test_the_same_plan_twice_is_one(store, proposed):  # noqa: F811
    store.propose(proposed, by="policy", at=START + HOUR)
    assert kinds(store, proposed) == ["proposed"]


@pytest.mark.parametrize("name", ["", "abc", "1234567", "not-hex-at-all", "x" * 16])
def test_a_digest_that_is_none_names_nothing(store, proposed, name):  # noqa: F811
    with pytest.raises(FenceError, match="first 8 hex digits"):
        store.get(name)


def test_a_prefix_of_two_plans_names_neither(store, proposed, monkeypatch):  # noqa: F811
    by_hand(store, f"INSERT INTO plans VALUES ('{proposed.digest[:8]}00000000', '{{}}')")
    with pytest.raises(FenceError, match="2 plans begin so"):
        store.get(proposed.digest[:8])


@given(st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=20), st.integers())
def test_a_plan_keeps_its_digest_through_json(number, text, whole):
    plan = make(after={**AFTER, "metrics": [{"number": number, "whole": whole}]}, why=text)
    assert ScalingPlan.model_validate_json(json.dumps(plan.model_dump(mode="json"))).digest == plan.digest


def test_of_many_who_approve_at_once_one_does(store, proposed):  # noqa: F811
    results = []

    def try_it(name):
        try:
            approve(PlanStore(store.home), proposed.digest, by=name, now=START)
            results.append(None)
        except FenceError as error:
            results.append(str(error))

    threads = [threading.Thread(target=try_it, args=(f"Person {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(None) == 1
    assert all("approved already, by Person" in text for text in results if text)
    assert store.flaw() is None


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path):
    home = tmp_path / "home"
    plans = [make(session=str(n)) for n in range(8)]
    threads = [
        threading.Thread(target=lambda plan=plan: PlanStore(home).propose(plan, by="policy", at=START))
        for plan in plans
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = PlanStore(home)  # noqa: F811
    assert store.flaw() is None
    assert len(store.plans()) == 8
    assert stat.S_IMODE((home / "plans.key").stat().st_mode) == 0o600
    assert sorted(path.name for path in home.iterdir()) == ["plans.db", "plans.key"]


def test_the_key_is_in_no_text(store, proposed):  # noqa: F811
    key = (store.home / "plans.key").read_bytes()
    assert key not in (store.home / "plans.db").read_bytes()
    assert key.hex().encode() not in (store.home / "plans.db").read_bytes()


KEYS = {
    "missing": (lambda path: path.unlink(), "is missing"),
    "readable by others": (lambda path: path.chmod(0o644), "can be used by others"),
    "damaged": (lambda path: path.write_bytes(b"short"), "is damaged"),
    "another": (lambda path: path.write_bytes(b"k" * 32), "row 1 of the events was changed"),
}


@pytest.mark.parametrize("case", KEYS)
def test_without_its_key_the_store_refuses_and_can_still_be_shown(store, proposed, case):  # noqa: F811
    harm, message = KEYS[case]
    harm(store.home / "plans.key")
    with pytest.raises(StorageError, match=message):
        approve(store, proposed.digest, by="Ada", now=START)
    with pytest.raises(StorageError, match=message):
        store.require_intact()
    assert kinds(store, proposed) == ["proposed"]


FORGERIES = {
    "a kind": ("UPDATE events SET kind = 'applied' WHERE seq = 2", "row 2"),
    "a name": ("UPDATE events SET by = 'Eve' WHERE seq = 2", "row 2"),
    "a time": ("UPDATE events SET at = '2027-01-01T00:00:00+00:00' WHERE seq = 1", "row 1"),
    "a plan's name": ("UPDATE events SET plan = 'ffffffffffffffff' WHERE seq = 1", "row 1"),
    "a detail": ("UPDATE events SET detail = '{}' WHERE seq = 1", "row 1"),
    "a seal": ("UPDATE events SET mac = '00' WHERE seq = 3", "row 3"),
    "the first row": ("DELETE FROM events WHERE seq = 1", "row 1"),
    "a row in the middle": ("DELETE FROM events WHERE seq = 2", "row 2"),
    "the last row": ("DELETE FROM events WHERE seq = 3", "after row 2"),
    "all rows": ("DELETE FROM events", "after row 0"),
    "a row put in": ("INSERT INTO events VALUES (4, 'x', 'approved', 't', 'Eve', '{}', '00')", "row 4"),
    "a row put in far behind": ("INSERT INTO events VALUES (9, 'x', 'approved', 't', 'Eve', '{}', '00')", "row 4"),
    "a row put in front": ("INSERT INTO events VALUES (-1, 'x', 'approved', 't', 'Eve', '{}', '00')", "row 1"),
    "a copied row": ("INSERT INTO events SELECT 4, plan, kind, at, by, detail, mac FROM events WHERE seq = 2", "row 4"),
    "the head": ("DELETE FROM head", "after row 3"),
    "a plan's content": ("UPDATE plans SET body = replace(body, '\"maxReplicas\":6', '\"maxReplicas\":60')", "changed"),
    "a plan's name in plans": ("UPDATE plans SET digest = 'ffffffffffffffff' WHERE rowid = 1", "missing"),
    "a plan": ("DELETE FROM plans WHERE rowid = 1", "missing"),
    "a plan put in": ("INSERT INTO plans SELECT 'ffffffffffffffff', body FROM plans", "not written by infertune"),
    "bytes that are no text": ("UPDATE events SET by = CAST(x'ff' AS TEXT) WHERE seq = 1", "row 1"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_store_that_was_edited_by_hand_says_where_and_takes_no_more(store, proposed, forgery):  # noqa: F811
    approve(store, proposed.digest, by="Ada", now=START)
    reject(store, proposed.digest, by="Ada", now=START)
    statement, message = FORGERIES[forgery]
    by_hand(store, statement)
    assert message in store.flaw()
    with pytest.raises(StorageError, match="changed by hand"):
        store.propose(make(session="other"), by="policy", at=START)
    with pytest.raises(StorageError, match="changed by hand"):
        store.require_intact()
    store.events()
    store.plans()


def test_a_plan_whose_content_was_edited_is_refused(store, proposed):  # noqa: F811
    by_hand(store, "UPDATE plans SET body = replace(body, '\"maxReplicas\":6', '\"maxReplicas\":60')")
    with pytest.raises(FenceError, match="changed by hand"):
        store.get(proposed.digest)


@pytest.mark.parametrize("statement", ["DELETE FROM events", "UPDATE plans SET body = ''"])
def test_rows_cannot_be_changed_by_mistake(store, proposed, statement):  # noqa: F811
    connection = sqlite3.connect(store.home / "plans.db")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    connection.close()


def test_a_file_that_is_no_database_is_an_error_and_not_overwritten(tmp_path):
    (tmp_path / "plans.db").write_text("my shopping list, and it is long enough to be read as a header" * 4)
    with pytest.raises(StorageError, match="Look at the HPA first"):
        PlanStore(tmp_path)
    assert (tmp_path / "plans.db").read_text().startswith("my shopping list")


def test_a_transaction_that_does_not_come_to_its_end_leaves_nothing(store, proposed):  # noqa: F811
    def guard(events):
        raise FenceError("no")

    with pytest.raises(FenceError, match="no"):
        store.append(proposed.digest, "approved", by="Ada", at=START, guard=guard)
    assert kinds(store, proposed) == ["proposed"]
    approve(store, proposed.digest, by="Ada", now=START)


# --- people ---


def test_a_person_approves_exactly_one_plan_by_name(store, proposed):  # noqa: F811
    other = make(session="other")
    store.propose(other, by="policy", at=START)
    assert pending(store, now=START) == (proposed, other)
    approve(store, proposed.digest[:8], by="  Ada Lovelace ", now=START)
    assert pending(store, now=START) == (other,)
    event = store.events(proposed.digest)[-1]
    assert (event.kind, event.by, event.at) == ("approved", "Ada Lovelace", "2026-03-02T09:00:00.000+00:00")


@pytest.mark.parametrize(
    "name", ["", "   ", "Ada\nLovelace", "Ada\x1b[31m", "A" * 121, "policy", "Infertune", "\u202eadA"]
)
def test_what_is_no_name_approves_nothing(store, proposed, name):  # noqa: F811
    with pytest.raises(FenceError, match="approver"):
        approve(store, proposed.digest, by=name, now=START)
    assert store.state(proposed.digest) == "proposed"


def test_given_twice_an_approval_says_by_whom_and_when_it_was_given(store, proposed):  # noqa: F811
    approve(store, proposed.digest, by="Ada", now=START)
    with pytest.raises(FenceError, match="approved already, by Ada at 2026-03-02T09:00:00"):
        approve(store, proposed.digest, by="Bob", now=START)


def test_a_plan_that_does_not_exist_cannot_be_approved(store, proposed):  # noqa: F811
    with pytest.raises(FenceError, match="no such plan"):
        approve(store, "0123456789abcdef", by="Ada", now=START)


def test_a_plan_is_open_while_it_can_be_answered_or_carried_out_and_until_it_is_settled(store, proposed):  # noqa: F811
    late, digest = START + HOUR, proposed.digest
    assert (open_plans(store, now=START), open_plans(store, now=late)) == ((proposed,), ())
    approve(store, digest, by="Ada", now=START)
    assert (open_plans(store, now=START), open_plans(store, now=late)) == ((proposed,), ())
    store.append(digest, "applying", by="infertune", at=START)
    assert open_plans(store, now=late) == (proposed,), "what has begun has to come to an end"
    store.append(digest, "failed", by="infertune", at=START)
    assert open_plans(store, now=START) == ()


def test_what_has_expired_or_was_rejected_cannot_be_approved(store, proposed):  # noqa: F811
    assert not has_expired(proposed, START + HOUR - dt.timedelta(seconds=1))
    with pytest.raises(FenceError, match="expired already"):
        approve(store, proposed.digest, by="Ada", now=START + HOUR)
    other = make(session="other")
    store.propose(other, by="policy", at=START)
    reject(store, other.digest, by="Bob", now=START, why="Not on a Friday.")
    with pytest.raises(FenceError, match="rejected already, by Bob"):
        approve(store, other.digest, by="Ada", now=START)
    assert pending(store, now=START) == ()


def test_an_approval_can_be_taken_back_until_it_was_acted_on(store, proposed):  # noqa: F811
    approve(store, proposed.digest, by="Ada", now=START)
    reject(store, proposed.digest, by="Ada", now=START)
    assert store.state(proposed.digest) == "rejected"
    other = make(session="other")
    store.propose(other, by="policy", at=START)
    approve(store, other.digest, by="Ada", now=START)
    store.append(other.digest, "applying", by="infertune", at=START)
    with pytest.raises(FenceError, match="applying already"):
        reject(store, other.digest, by="Ada", now=START)


@pytest.mark.parametrize(
    ("limits", "price", "yes"),
    [
        (Bounds(), None, True),
        (Bounds(max_replicas=6, metrics=("request_queue_length",), target=(30.0, 30.0)), None, True),
        (Bounds(max_replicas=5), None, False),
        (Bounds(metrics=("cpu",)), None, False),
        (Bounds(daily_cost_usd=144.0), 1.0, True),
        (Bounds(daily_cost_usd=143.0), 1.0, False),
        (Bounds(daily_cost_usd=1e9), None, False),
    ],
)
def test_the_policy_approves_only_what_lies_wholly_within_its_limits(store, proposed, limits, price, yes):  # noqa: F811
    assert auto_approve(store, proposed, limits, price_per_hour_usd=price, now=START) is yes
    assert store.state(proposed.digest) == ("approved" if yes else "proposed")
    assert store.events(proposed.digest)[-1].by == "policy"


# --- making and showing ---


def test_a_plan_says_what_is_and_what_is_to_be(context):  # noqa: F811
    plan = plan_for(context)
    assert plan.before == {"minReplicas": 2, "maxReplicas": 10, "metrics": [CPU_70]}
    assert plan.after == AFTER
    assert plan.scales == "apps/v1 Deployment resnet50"
    assert plan.expires == "2026-03-02T10:00:00+00:00"


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ({**AFTER, "scaleTargetRef": {}}, "names scaleTargetRef"),
        ({"minReplicas": 2, "maxReplicas": 6}, "lacks metrics"),
        ({**AFTER, "minReplicas": 0}, "lacks minReplicas"),
        ({**AFTER, "maxReplicas": 101}, "above the bound of 100"),
        ({**AFTER, "metrics": [{**QUEUE_30, "weight": float("nan")}]}, "JSON cannot"),
        ({"minReplicas": 2, "maxReplicas": 10, "metrics": [CPU_70]}, "nothing to change"),
    ],
)
def test_what_may_not_be_planned_is_not(context, after, message):  # noqa: F811
    with pytest.raises(FenceError, match=message):
        plan_for(context, after)


def test_a_plan_is_shown_with_its_diff_and_nothing_that_moves_the_cursor():
    text = describe(make(why="Because\x1b[2J\nand \u202eesrever."))
    assert "-  maxReplicas: 10\n+  maxReplicas: 6\n" in text
    assert "\\x1b[2J\\nand \\u202eesrever." in text
    assert make(why="Because\x1b[2J\nand \u202eesrever.").digest in text
    assert all(line.isprintable() for line in text.splitlines())
