"""`infertune plan`: what was offered, a person's word on it, and carrying it out, through the session's graph."""

# ruff: noqa: F811  # a fixture that is imported, and then asked for by name

import contextlib
import datetime as dt
import json
import re
import signal
import socket
import sqlite3

import pytest
from cluster_support import NAME, NAMESPACE
from scaling_session_support import (  # noqa: F401
    HEALTHY,
    clock,
    first_world,
    infertune,
    recorded,
    run_child,
    world,
)

from tools.cluster.plans import approve
from tools.cluster.store import PlanStore
from tools.record import State, read_record


@pytest.fixture
def plan(world):
    """The plan that was offered."""
    (offered,) = PlanStore(world.home).plans()
    return offered


@pytest.fixture
def approved(world, plan):
    """The plan, once Ada has approved it."""
    return approve(PlanStore(world.home), plan.digest, by="Ada Lovelace", now=dt.datetime.now(dt.UTC))


def kinds(world, plan):
    """What happened to a plan, in order."""
    return [event.kind for event in PlanStore(world.home).events(plan.digest)]


def state_told(world):
    """Where the plan stands by the session's result."""
    return world.result.plan.state


# --- shown -----------------------------------------------------------------------------------------------------


def test_the_list_says_where_each_plan_stands_and_until_when(infertune, world, plan):
    answer = infertune("plan", "list")
    assert (answer.exit_code, answer.err) == (0, "")
    (line,) = answer.out.splitlines()
    assert line == (
        f"{plan.digest}  proposed  reader {NAMESPACE}/{NAME}  good until {plan.expires}  {world.session.name}"
    )


def test_an_empty_list_says_how_there_will_be_plans(infertune, world, tmp_path, capsys, monkeypatch):
    answer = world.commands.run(capsys, monkeypatch, "plan", "list", "--home", tmp_path / "empty")
    assert (answer.exit_code, answer.err) == (0, "")
    assert "There are no plans" in answer.out
    assert "`apply: true`" in answer.out


def test_a_plan_is_shown_with_its_diff_the_servers_own_and_its_history(infertune, plan):
    answer = infertune("plan", "show", plan.digest[:8])
    assert (answer.exit_code, answer.err) == (0, "")
    assert answer.out.startswith(f"Plan {plan.digest}: HPA {NAMESPACE}/{NAME} at http://127.0.0.1")
    for line in ("-  minReplicas: 4", "+  minReplicas: 2"):
        assert answer.out.splitlines().count(line) == 2, "in the plan's diff, and in the server's"
    assert "The API server's own dry run" in answer.out
    assert "Written by hand before (by kubectl)" in answer.out
    assert re.search(r"^\S+  proposed by infertune$", answer.out, re.MULTILINE)


def test_all_of_a_plan_can_be_shown_when_its_session_is_gone(infertune, world, plan):
    before = infertune("plan", "show").out
    (world.session / "result.json").unlink()
    assert infertune("plan", "show").out == before
    assert "The API server's own dry run" in before


@pytest.mark.parametrize("command", [("show",), ("approve", "--by", "Ada"), ("reject", "--by", "Ada"), ("apply",)])
def test_a_plan_that_is_not_there_is_a_sentence(infertune, world, command):
    answer = infertune("plan", command[0], "0" * 16, *command[1:])
    assert (answer.exit_code, answer.out) == (2, "")
    assert answer.err == f"infertune: plan {'0' * 16}: there is no such plan.\n"
    assert world.server.log == []


# --- a person's word -------------------------------------------------------------------------------------------


def test_an_approval_from_another_process_is_carried_out(infertune, world, plan):
    other = run_child(world, "", "plan", "approve", plan.digest, "--by", "Ada Lovelace")
    assert (other.returncode, other.stderr) == (0, "")
    assert f"Plan {plan.digest} is approved by Ada Lovelace, good until {plan.expires}." in other.stdout
    assert f"Carry it out: infertune plan apply {plan.digest}" in other.stdout
    assert world.patches == 0
    assert infertune("plan", "apply").exit_code == 0
    assert (world.patches, world.owned) == (1, (2, plan.after["maxReplicas"]))


def test_a_second_approval_says_who_was_faster(infertune, approved):
    answer = infertune("plan", "approve", approved.digest, "--by", "Grace")
    assert (answer.exit_code, answer.out) == (2, "")
    assert f"plan {approved.digest}: is approved already, by Ada Lovelace at " in answer.err


@pytest.mark.parametrize("name", ["", " ", "policy", "Infertune", "Ada\n", "x" * 200])
def test_what_is_no_persons_name_approves_nothing(infertune, world, plan, name):
    answer = infertune("plan", "approve", plan.digest, "--by", name)
    if name == "Ada\n":  # space around a name is no part of it
        assert answer.exit_code == 0
        return
    assert (answer.exit_code, answer.out) == (2, "")
    assert kinds(world, plan) == ["proposed"]


def test_nothing_is_applied_before_it_is_approved(infertune, world, plan):
    answer = infertune("plan", "apply")
    assert (answer.exit_code, answer.out) == (2, "")
    assert answer.err == (
        f"infertune: plan {plan.digest}: waits for approval. infertune plan approve {plan.digest} --by NAME\n"
    )
    assert world.server.log == []


def test_a_plan_that_expired_is_neither_approved_nor_applied(infertune, world, plan, monkeypatch):
    monkeypatch.setattr("tools.cluster.plans.has_expired", lambda *_: True)
    answer = infertune("plan", "approve", "--by", "Ada")
    assert (answer.exit_code, kinds(world, plan)) == (2, ["proposed"])
    assert "no plan waits for anything. `infertune plan list` shows all of them" in answer.err
    answer = infertune("plan", "approve", plan.digest, "--by", "Ada")
    assert answer.exit_code == 2
    assert f"plan {plan.digest}: is expired already, by infertune" in answer.err
    assert "Make the plan anew" in answer.err
    answer = infertune("plan", "apply", plan.digest)
    assert answer.exit_code == 3
    assert f"EXPIRED  plan {plan.digest}: It was good until {plan.expires}." in answer.out
    assert (world.patches, state_told(world)) == (0, "expired")


def test_an_approval_that_is_not_acted_on_in_time_is_worth_nothing(infertune, world, approved, clock):
    clock.passed_s = 86_400.0
    answer = infertune("plan", "apply")
    assert answer.exit_code == 3
    assert f"EXPIRED  plan {approved.digest}" in answer.out
    assert (world.patches, state_told(world)) == (0, "expired")


def test_a_rejection_is_in_the_record_at_once(infertune, world, plan):
    answer = infertune("plan", "reject", "--by", "Grace Hopper", "--why", "Not during the sale.")
    assert (answer.exit_code, answer.err) == (0, "")
    assert f"Plan {plan.digest} is rejected. The HPA stays as it is." in answer.out
    assert state_told(world) == "rejected"
    decision = world.result.decisions[-1]
    assert (decision.node, decision.by, decision.chosen) == ("approval", "person", "leave the HPA as it is")
    assert "rejected by Grace Hopper" in decision.reason
    assert world.result.plan.events[-1].why == "Not during the sale."
    assert world.server.log == []

    answer = infertune("plan", "apply", plan.digest)
    assert answer.exit_code == 3
    assert f"REJECTED  plan {plan.digest}: Not during the sale." in answer.out
    assert infertune("plan", "approve", plan.digest, "--by", "Ada").exit_code == 2


def test_an_approval_can_be_taken_back_after_an_attempt_that_failed(infertune, world, approved):
    world.server.fail_next("*", status=503, times=None)
    assert infertune("plan", "apply").exit_code == 2
    world.server.heal()
    assert infertune("plan", "reject", approved.digest, "--by", "Ada Lovelace").exit_code == 0
    assert state_told(world) == "rejected"
    answer = infertune("plan", "apply", approved.digest)
    assert (answer.exit_code, world.patches) == (3, 0)
    assert answer.out.splitlines()[-1] == f"REJECTED  plan {approved.digest}: rejected by Ada Lovelace."


def test_a_rejection_stands_when_the_record_cannot_be_told(infertune, world, plan):
    (world.session / "journal.jsonl").unlink()
    answer = infertune("plan", "reject", "--by", "Ada")
    assert answer.exit_code == 0
    assert "the session's record does not say so yet" in answer.err
    assert kinds(world, plan) == ["proposed", "rejected"]


# --- carried out -----------------------------------------------------------------------------------------------


def test_a_change_is_applied_watched_and_recorded(recorded, world, approved):
    answer = recorded("plan", "apply", approved.digest)
    assert (answer.exit_code, answer.err) == (0, "")
    assert answer.out.splitlines()[-1].startswith(
        f"VERIFIED  plan {approved.digest}: In 4 checks nothing spoke against it; latency was not watched"
    )
    assert kinds(world, approved) == ["proposed", "approved", "applying", "applied", "verifying", "verified"]
    assert (world.patches, world.owned) == (1, (2, approved.after["maxReplicas"]))
    result = world.result
    assert result.plan.state == "verified"
    nodes = [(d.node, d.by, d.chosen) for d in result.decisions[-3:]]
    assert nodes == [
        ("approval", "person", "apply it"),
        ("apply", "policy", "applied"),
        ("verify", "policy", "verified"),
    ]
    assert "approved by Ada Lovelace" in result.decisions[-3].reason
    record = read_record(world.session)
    assert (record.state, record.decisions) == (State.FINISHED, result.decisions)
    assert approved.digest in (world.session / "report.html").read_text()
    assert "verified" in (world.session / "report.html").read_text()
    assert mlflow_tags(result)["infertune.plan"] == approved.digest
    assert mlflow_tags(result)["infertune.plan_state"] == "verified"

    answer = recorded("plan", "rollback", approved.digest, "--by", "Grace Hopper", "--why", "Costs too little.")
    assert (answer.exit_code, answer.err) == (0, "")
    assert f"ROLLED_BACK  plan {approved.digest}: The HPA has what was before the plan" in answer.out
    result = world.result
    assert (world.owned, result.plan.state) == ((4, 10), "rolled_back")
    decision = result.decisions[-1]
    assert (decision.by, decision.chosen) == ("person", "rolled_back")
    assert decision.reason == "asked for by Grace Hopper: Costs too little."
    assert read_record(world.session).decisions == result.decisions
    assert mlflow_tags(result)["infertune.plan_state"] == "rolled_back"
    assert recorded("plan", "apply", approved.digest).exit_code == 3


def mlflow_tags(result):
    """The tags of a session's run."""
    path = result.mlflow.tracking_uri.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (result.mlflow.run_id,)))


def test_applied_twice_is_applied_once(infertune, world, approved):
    assert infertune("plan", "apply", approved.digest).exit_code == 0
    before = (world.session / "journal.jsonl").read_bytes()
    answer = infertune("plan", "apply", approved.digest, "--output", "json")
    assert (answer.exit_code, json.loads(answer.out)["state"]) == (0, "verified")
    assert world.patches == 1
    assert (world.session / "journal.jsonl").read_bytes() == before


def test_a_breach_puts_back_what_was_before_and_says_so(infertune, world, approved, clock):
    broken = [{**c, "status": "False", "message": "no metrics\x1b[2J"} for c in HEALTHY]

    def controller():
        if kinds(world, approved)[-1] == "verifying":
            world.server.set_status(NAMESPACE, NAME, conditions=broken)

    clock.meanwhile = controller
    answer = infertune("plan", "apply")
    assert answer.exit_code == 3
    assert f"ROLLED_BACK  plan {approved.digest}: The HPA has what was before the plan" in answer.out
    assert "\x1b[2J" not in answer.out
    assert (world.owned, state_told(world)) == ((4, 10), "rolled_back")
    assert "not been able to" in next(e.why for e in world.result.plan.events if e.kind == "breached")
    assert world.result.decisions[-1].chosen == "rolled_back"
    assert infertune("plan", "rollback", approved.digest, "--by", "Ada").exit_code == 0
    assert world.patches == 2


def test_a_change_that_somebody_edited_is_left_alone(infertune, world, approved):
    assert infertune("plan", "apply").exit_code == 0
    world.server.edit_hpa(NAMESPACE, NAME, {"spec": {"maxReplicas": 9}})
    answer = infertune("plan", "rollback", approved.digest, "--by", "Ada")
    assert answer.exit_code == 3
    assert f"ABANDONED  plan {approved.digest}: The HPA is not as the plan left it" in answer.out
    assert (world.owned, state_told(world), world.patches) == ((2, 9), "abandoned", 1)


def test_what_was_never_applied_cannot_be_taken_back(infertune, world, approved):
    answer = infertune("plan", "rollback", approved.digest, "--by", "Ada")
    assert (answer.exit_code, answer.out) == (2, "")
    assert f"plan {approved.digest}: is approved: there is nothing to take back." in answer.err
    assert kinds(world, approved)[-1] == "approved"


def test_an_hpa_that_changed_since_the_plan_is_not_touched(infertune, world, approved):
    world.server.edit_hpa(NAMESPACE, NAME, {"spec": {"maxReplicas": 12}})
    answer = infertune("plan", "apply")
    assert answer.exit_code == 3
    assert f"FAILED  plan {approved.digest}: Nothing was applied: the HPA changed between plan and apply." in answer.out
    assert (world.patches, world.owned, state_told(world)) == (0, (4, 12), "failed")


@pytest.mark.parametrize("fault", ["stopped", "503"])
def test_an_api_server_that_is_down_leaves_the_approval_as_it_is(infertune, world, approved, fault):
    if fault == "stopped":
        world.server.stop()
    else:
        world.server.fail_next("*", status=503, times=None)
    answer = infertune("plan", "apply")
    assert answer.exit_code == 2
    assert "Traceback" not in answer.err
    assert world.server.url in answer.err
    assert kinds(world, approved) == ["proposed", "approved"]
    if fault == "stopped":
        world.server.start()
    world.server.heal()
    assert infertune("plan", "apply").exit_code == 0
    assert (world.patches, state_told(world)) == (1, "verified")


def test_the_kill_switch_forbids_and_the_approval_stays_good(infertune, world, approved):
    (world.home / "kill-switch").touch()
    answer = infertune("plan", "apply")
    assert answer.exit_code == 2
    assert "The kill switch is on" in answer.err
    assert (world.patches, kinds(world, approved)[-1]) == (0, "approved")
    (world.home / "kill-switch").unlink()
    assert infertune("plan", "apply").exit_code == 0


def test_without_a_record_in_mlflow_nothing_is_patched(recorded, world, approved):
    journal = world.session / "journal.jsonl"
    kept = journal.read_text()
    with socket.socket() as taken:  # an address that refuses connections: bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{taken.getsockname()[1]}"
        journal.write_text(kept.replace(world.result.mlflow.tracking_uri, away))
        answer = recorded("plan", "apply")
    assert answer.exit_code == 2
    assert "the session's record cannot be written, so nothing is applied" in answer.err
    assert (world.patches, kinds(world, approved)[-1]) == (0, "approved")


def test_a_damaged_database_of_mlflow_is_said_at_once_and_a_new_one_is_made(recorded, world, approved):
    database = world.home / "mlflow.db"
    assert world.result.mlflow.tracking_uri == f"sqlite:///{database}"
    database.write_bytes(b"no database, " * 1000)
    for left in ("-wal", "-shm"):
        database.with_name(database.name + left).unlink(missing_ok=True)
    answer = recorded("plan", "apply")
    assert (answer.exit_code, answer.out) == (2, "")
    assert answer.err == (
        f"infertune: {database}: MLflow's database cannot be used (file is not a database). Nothing is applied without "
        "a record. Move the file away, and a new one is made; the approval stays good.\n"
    )
    assert (world.patches, kinds(world, approved)[-1], world.server.log) == (0, "approved", [])
    database.unlink()
    assert recorded("plan", "apply").exit_code == 0
    assert mlflow_tags(world.result)["infertune.plan_state"] == "verified"


def test_a_change_that_has_begun_comes_to_its_end_without_a_record(infertune, world, approved):
    assert run_child(world, "after HpaClient.patch", "plan", "apply").returncode == -signal.SIGKILL
    (world.home / "mlflow.db").write_bytes(b"no database, " * 1000)
    assert infertune("plan", "apply").exit_code == 0
    assert (world.patches, state_told(world)) == (1, "verified")


def test_ctrl_c_while_it_is_watched_says_how_to_go_on(infertune, world, approved, clock):
    def ctrl_c():
        clock.meanwhile = lambda: None
        raise KeyboardInterrupt  # as Python's own handler of SIGINT does

    clock.meanwhile = ctrl_c
    answer = infertune("plan", "apply")
    assert answer.exit_code == 130
    assert f"Go on: infertune plan apply {approved.digest}" in answer.err
    assert kinds(world, approved)[-1] == "verifying"
    assert infertune("plan", "apply").exit_code == 0
    assert (world.patches, state_told(world)) == (1, "verified")


@pytest.mark.parametrize(
    "at",
    [
        "before PlanStore.append applying",
        "after HpaClient.patch",
        "after PlanStore.append verified",
    ],
)
def test_killed_in_the_middle_it_is_finished_by_the_next_and_patched_once(infertune, world, approved, at):
    killed = run_child(world, at, "plan", "apply", approved.digest)
    assert killed.returncode == -signal.SIGKILL
    assert infertune("plan", "apply", approved.digest).exit_code == 0
    assert kinds(world, approved) == ["proposed", "approved", "applying", "applied", "verifying", "verified"]
    assert (world.patches, state_told(world)) == (1, "verified")
    chosen = [d.chosen for d in world.result.decisions if d.node in ("approval", "apply", "verify")]
    assert chosen == ["apply it", "applied" if "verified" not in at else chosen[1], "verified"]


def test_killed_right_after_it_failed_it_ends_all_the_same(infertune, world, approved):
    world.server.edit_hpa(NAMESPACE, NAME, {"spec": {"maxReplicas": 12}})
    killed = run_child(world, "after PlanStore.append failed", "plan", "apply", approved.digest)
    assert killed.returncode == -signal.SIGKILL
    answer = infertune("plan", "apply", approved.digest)
    assert (answer.exit_code, state_told(world)) == (3, "failed")


def test_a_change_that_was_killed_can_be_taken_back(infertune, world, approved):
    assert run_child(world, "after PlanStore.append applied", "plan", "apply").returncode == -signal.SIGKILL
    answer = infertune("plan", "rollback", approved.digest, "--by", "Ada Lovelace")
    assert (answer.exit_code, answer.err) == (0, "")
    assert (world.owned, state_told(world)) == ((4, 10), "rolled_back")


def test_a_change_whose_checkpoints_are_gone_can_only_be_taken_back(infertune, world, approved):
    (world.home / "checkpoints.db").unlink()
    answer = infertune("plan", "apply")
    assert answer.exit_code == 2
    assert f"infertune plan rollback {approved.digest} --by NAME" in answer.err
    assert (world.patches, kinds(world, approved)[-1]) == (0, "approved")


def test_a_plan_that_nobody_can_approve_any_more_does_not_stand_in_the_way_of_the_next(infertune, world, plan):
    past = plan.model_copy(update={"session": "earlier", "expires": plan.created})
    PlanStore(world.home).propose(past, by="infertune", at=dt.datetime.now(dt.UTC))
    answer = infertune("plan", "approve", "--by", "Ada")
    assert (answer.exit_code, answer.err) == (0, "")
    assert f"Plan {plan.digest} is approved" in answer.out


def test_without_a_digest_only_one_open_plan_is_meant(infertune, world, plan):
    assert infertune("plan", "reject", "--by", "Ada").exit_code == 0
    answer = infertune("plan", "apply")
    assert (answer.exit_code, answer.out) == (2, "")
    assert "no plan waits for anything" in answer.err
