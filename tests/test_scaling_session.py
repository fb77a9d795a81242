"""Sessions whose spec names a cluster: what they read, what they offer, and what they leave alone."""

# ruff: noqa: F811  # a fixture that is imported, and then asked for by name

import json
import shutil
import socket
import time

import pytest
from cluster_support import NAME, NAMESPACE, hpa_manifest
from prometheus_support import running_prometheus
from scaling_session_support import clock, first_world, infertune, world  # noqa: F401

from simulations.prometheus_week import service_life
from tools.cluster.store import PlanStore
from tools.record import State, read_record
from tools.result import SessionResult


@pytest.fixture
def optimize(infertune):
    """Run a session on a spec; returns what it says and its result."""

    def run(spec, *arguments):
        answer = infertune("optimize", spec, "--output", "json", *arguments)
        assert answer.err == ""
        return answer, SessionResult.model_validate_json(answer.out)

    return run


def refused(result):
    """The decision by which nothing was offered."""
    decision = result.decisions[-1]
    assert (decision.node, decision.chosen, result.plan) == ("scaling_plan", None, None)
    assert decision.options[0].rejected_because == decision.reason
    return decision.reason


def verbs(world):
    """What was asked of the API server, by whom."""
    return [(request.user, request.verb) for request in world.server.log]


# --- what is offered -------------------------------------------------------------------------------------------


def test_without_apply_a_session_recommends_and_says_why_nothing_is_offered(optimize, world):
    answer, result = optimize(world.spec(cluster={"apply": False}))
    assert answer.exit_code == 0
    assert refused(result) == "Only recommended: `cluster.apply` is not set."
    assert refused(result) in result.notes
    assert set(verbs(world)) == {("infertune-reader", "get")}, "the writer is not even asked"
    assert len(PlanStore(world.home).plans()) == 1, "that of the first session"


def test_a_plan_is_offered_in_text_with_what_to_do_next(infertune, world):
    answer = infertune("optimize", world.spec())
    assert (answer.exit_code, answer.err) == (0, "")
    plan = world.result.plan
    assert (plan.state, plan.hpa, plan.context) == ("proposed", f"{NAMESPACE}/{NAME}", "reader")
    assert f"Plan {plan.digest} for {NAMESPACE}/{NAME}" in answer.out
    assert f"infertune plan show {plan.digest}" in answer.out
    assert "+  minReplicas: 2" in plan.server_diff
    assert verbs(world)[-1] == ("infertune", "dry-run")
    assert world.patches == 0
    assert read_record(world.session).state is State.FINISHED
    tokens = [world.server.access.add(user) for user in ("infertune-reader", "infertune", "admin")]
    kept = b"".join(path.read_bytes() for path in world.home.rglob("*") if path.is_file())
    assert not any(token in answer.out or token.encode() in kept for token in tokens)


def test_an_hpa_that_argo_keeps_gets_a_file_for_its_repository(optimize, world):
    label = {"infertune.dev/managed": "true", "argocd.argoproj.io/instance": "vision"}
    _, result = optimize(world.spec(hpa=hpa_manifest(minReplicas=4, labels=label)))
    assert "is kept by Argo CD (label argocd.argoproj.io/instance)" in refused(result)
    patch = (world.session / "hpa.infertune.yaml").read_text()
    assert result.scaling.hpa_yaml == str(world.session / "hpa.infertune.yaml")
    assert "minReplicas: 2" in patch
    assert "argocd.argoproj.io/instance: vision" in patch
    assert "resourceVersion" not in patch
    assert world.patches == 0


def test_every_rule_that_forbids_is_named(optimize, world, monkeypatch):
    monkeypatch.setenv("INFERTUNE_KILL_SWITCH", "1")
    rules = {"allow_namespaces": ["elsewhere"], "writer_context": None}
    _, result = optimize(world.spec(cluster=rules, hpa=hpa_manifest(minReplicas=4, labels={})))
    why = refused(result)
    assert "The kill switch is on: INFERTUNE_KILL_SWITCH is set." in why
    assert f"Namespace {NAMESPACE} is not on the allow-list" in why
    assert 'The label infertune.dev/managed: "true"' in why
    assert "Nobody is named who may change the HPA" in why


def test_a_store_of_plans_that_is_damaged_costs_no_result(optimize, world):
    store = PlanStore(world.home)._path
    store.write_bytes(b"no database at all, " * 100)
    answer, result = optimize(world.spec())
    assert (answer.exit_code, result.verdict) == (0, "MET")
    assert "the store of plans cannot be used" in refused(result)


# --- the API server is away ------------------------------------------------------------------------------------


def test_a_cluster_that_is_away_ends_a_session_before_any_trial(infertune, world):
    spec, before = world.spec(), set((world.home / "sessions").iterdir())
    world.server.stop()
    answer = infertune("optimize", spec)
    assert answer.exit_code == 2
    assert len(answer.err.splitlines()) == 1
    assert world.server.url in answer.err
    assert "trial" not in answer.out
    (folder,) = set((world.home / "sessions").iterdir()) - before
    record = read_record(folder)
    assert (record.state, record.evidence) == (State.FAILED, ())
    assert record.failure in answer.err
    world.server.start()


def test_a_cluster_that_goes_away_meanwhile_costs_the_plan_and_not_the_result(optimize, world):
    def after_the_first(_verb):
        if world.server.log:
            world.server.fail_next("*", status=503, times=None)

    world.server.before = after_the_first
    answer, result = optimize(world.spec())
    assert (answer.exit_code, result.verdict) == (0, "MET")
    assert result.scaling.recommendation.chosen is not None
    assert "503" in refused(result)
    assert refused(result) in result.notes


# --- approved by the policy ------------------------------------------------------------------------------------


def test_within_the_bounds_of_a_person_no_word_is_needed(optimize, world):
    answer, result = optimize(world.spec(), "--auto-approve-within", "min=2,max=4,metrics=request_rate+cpu")
    assert (answer.exit_code, result.plan.state) == (0, "verified")
    assert (world.patches, world.owned[0]) == (1, 2)
    (approval,) = [d for d in result.decisions if d.node == "approval"]
    assert (approval.by, approval.chosen) == ("policy", "apply it")
    assert read_record(world.session).state is State.FINISHED


def test_outside_of_them_the_plan_waits(optimize, world):
    _, result = optimize(world.spec(), "--auto-approve-within", "max=1")
    assert (result.plan.state, world.patches) == ("proposed", 0)


def test_a_session_whose_change_failed_is_resumed_to_its_end(infertune, world):
    def from_the_patch_on(verb):
        if verb == "patch":
            world.server.fail_next("*", status=503, times=None)

    world.server.before = from_the_patch_on
    answer = infertune("optimize", world.spec(), "--auto-approve-within", "max=4")
    assert answer.exit_code == 2
    assert "503" in answer.err
    plan = world.result.plan
    assert (plan.state, world.result.verdict) == ("approved", "MET")
    world.server.before = None
    world.server.heal()
    told = infertune("plan", "apply", plan.digest)
    assert (told.exit_code, f"infertune resume {world.session.name}" in told.err) == (2, True)
    answer = infertune("resume", world.session.name, "--output", "json")
    assert answer.exit_code == 0
    assert (world.result.plan.digest, world.result.plan.state, world.patches) == (plan.digest, "verified", 1)


@pytest.mark.parametrize(
    "bounds", ["", "min=2", "max=4,max=5", "max=four", "replicas=4", "min=9,max=4", "max=4,target=5"]
)
def test_bounds_that_say_nothing_end_it_before_it_begins(infertune, world, bounds):
    before = set((world.home / "sessions").iterdir())
    answer = infertune("optimize", world.spec(), "--auto-approve-within", bounds)
    assert (answer.exit_code, answer.out) == (2, "")
    assert answer.err.startswith("infertune: --auto-approve-within: ")
    assert (set((world.home / "sessions").iterdir()), world.server.log) == (before, [])


# --- looked back at, and taken up again ------------------------------------------------------------------------


def test_replay_and_what_if_ask_no_cluster(infertune, world):
    assert infertune("plan", "approve", "--by", "Ada").exit_code == 0
    assert infertune("plan", "apply").exit_code == 0
    world.server.log.clear()
    replayed = infertune("replay")
    assert (replayed.exit_code, replayed.err) == (0, "")
    assert "all the same" in replayed.out
    answer = infertune("what-if", "--price-per-hour", "0.2")
    assert (answer.exit_code, answer.err) == (0, "")
    explained = infertune("explain", world.session.name, "approval")
    assert "approved by Ada" in explained.out
    assert world.server.log == []


@pytest.mark.parametrize("proposed", [False, True], ids=["before the plan", "after the plan"])
def test_a_session_that_was_killed_near_its_plan_offers_one(infertune, world, proposed):
    (plan,) = PlanStore(world.home).plans()
    journal = world.session / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    asked = next(n for n, line in enumerate(lines) if '"scaling_plan"' in line)
    journal.write_text("".join(lines[:asked]))
    (world.session / "result.json").unlink()
    if not proposed:
        for path in world.home.glob("plans*"):
            path.unlink()
    else:
        assert infertune("plan", "approve", "--by", "Ada").exit_code == 0
        told = infertune("plan", "apply")
        assert (told.exit_code, f"infertune resume {world.session.name}" in told.err) == (2, True)
        assert world.patches == 0
    answer = infertune("resume", world.session.name, "--output", "json")
    assert answer.exit_code == 0
    (offered,) = PlanStore(world.home).plans()
    assert offered.after == plan.after
    if proposed:
        assert (offered, world.result.plan.state, world.patches) == (plan, "verified", 1)
    else:
        assert (world.result.plan.state, world.patches) == ("proposed", 0)


# --- traffic from Prometheus -----------------------------------------------------------------------------------


def prometheus_section(url):
    return {"prometheus": {"url": url, "preset": "ray-serve", "labels": {"deployment": "model"}, "window_s": 3600}}


def test_a_change_is_held_against_the_p99_in_prometheus_and_taken_back_where_that_is_away(infertune, world, tmp_path):
    start_s = int(time.time()) // 60 * 60 - 3600
    week = service_life([120.0] * 60, start_s=start_s, rps_per_replica=100.0, deployment="model")
    with running_prometheus(week, tmp_path / "prometheus") as url:
        spec = world.spec(traffic=prometheus_section(url), cluster={"cooldown_s": 0})
        assert infertune("optimize", spec).exit_code == 0
        first = world.result
        assert first.scaling.traffic.peak_rps == pytest.approx(120, rel=0.05)
        assert (world.session / "inputs" / "traffic.json.gz").exists()
        assert infertune("plan", "approve", first.plan.digest, "--by", "Ada").exit_code == 0
        answer = infertune("plan", "apply", first.plan.digest)
        assert answer.exit_code == 0
        assert "p99 kept 10000 ms" in answer.out
        assert infertune("plan", "rollback", first.plan.digest, "--by", "Ada").exit_code == 0
        assert infertune("optimize", spec).exit_code == 0
    assert "all the same" in infertune("replay").out, "without Prometheus"
    second = world.result.plan.digest
    assert infertune("plan", "approve", second, "--by", "Ada").exit_code == 0
    assert infertune("plan", "apply", second).exit_code == 3
    assert world.result.plan.state == "rolled_back"
    why = [event.why for event in world.result.plan.events if event.kind == "breached"]
    assert why == ["p99 could not be measured once in the whole window."]
    assert world.owned == (4, 10)


def test_a_prometheus_that_is_away_is_a_sentence_before_any_trial(infertune, world):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        answer = infertune("optimize", world.spec(traffic=prometheus_section(url)))
    assert answer.exit_code == 2
    assert len(answer.err.splitlines()) == 1
    assert url in answer.err
    assert "trial" not in answer.out
    assert world.server.log == []


# --- the rights of both identities -----------------------------------------------------------------------------


def test_doctor_says_that_both_identities_are_as_they_should_be(infertune, world):
    answer = infertune("doctor", "--cluster", world.spec())
    assert (answer.exit_code, answer.err) == (0, "")
    assert answer.out.splitlines() == [
        f"HPA {NAMESPACE}/{NAME}",
        f"reader: context reader at {world.server.url}: as it should be",
        f"writer: context writer at {world.server.url}: as it should be",
        "Both have what they need, and nothing else.",
    ]
    assert not any(request.stored for request in world.server.log)


def test_doctor_ends_with_3_where_rights_lack_or_exceed(infertune, world):
    answer = infertune("doctor", "--cluster", world.spec(cluster={"context": "admin", "writer_context": "nobody"}))
    assert answer.exit_code == 3
    assert "may do everything with everything" in answer.out
    assert "may not patch" in answer.out
    assert answer.out.splitlines()[-1] == "The rights are not as they should be."
    report = json.loads(infertune("doctor", "--cluster", world.spec(), "--output", "json").out)
    assert report["writer"]["lacks"] == []


def test_doctor_says_when_nobody_may_change_anything(infertune, world):
    answer = infertune("doctor", "--cluster", world.spec(cluster={"writer_context": None}))
    assert answer.exit_code == 0
    assert "No writer is named (`cluster.writer_context`)" in answer.out


def test_doctor_needs_a_cluster_that_is_named_and_answers(infertune, world, tmp_path):
    spec = world.spec()
    world.server.stop()
    away = infertune("doctor", "--cluster", spec)
    world.server.start()
    assert (away.exit_code, away.out) == (2, "")
    assert world.server.url in away.err
    shutil.copy(world.folder / "traffic.csv", tmp_path)
    without = tmp_path / "tuning.yaml"
    without.write_text(spec.read_text().split("cluster:")[0] + spec.read_text()[spec.read_text().index("hardware:") :])
    answer = infertune("doctor", "--cluster", without)
    assert (answer.exit_code, answer.out) == (2, "")
    assert "names no `cluster`" in answer.err
