"""The stand-in for the Kubernetes API server answers as Kubernetes 1.36 did, and fails as it is told."""

import datetime as dt
import json
import re
from pathlib import Path

import pytest
import urllib3
from cluster_support import NAME, NAMESPACE, QUEUE_30, hpa_manifest

from simulations.api_server import ApiServer, Rule

TRANSCRIPTS = json.loads((Path(__file__).parent / "kubernetes_transcripts.json").read_text())
HPA_PATH = f"/apis/autoscaling/v2/namespaces/{NAMESPACE}/horizontalpodautoscalers/{NAME}"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


def ask(server, method, path, body=None, *, user="admin", content_type="application/json"):
    headers = {"User-Agent": "python-requests/2", "Content-Type": content_type}
    if user is not None:
        headers["Authorization"] = f"Bearer {server.access.add(user)}"
    data = None if body is None else json.dumps(body)
    with urllib3.PoolManager(retries=False) as http:
        return http.request(method, server.url + path, body=data, headers=headers, timeout=10)


def patched(server, body, query="", **arguments):
    answer = ask(server, "PATCH", HPA_PATH + query, body, **{"content_type": MERGE, **arguments})
    return answer.status, answer.json()


@pytest.fixture
def server():
    with ApiServer(namespace=NAMESPACE, hpa=NAME) as running:
        running.put_hpa(hpa_manifest())
        yield running


# --- what Kubernetes 1.36 answered ---


def normalised(value):
    """Without what is random (the uid), or a copy of the object in another notation."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UID", json.dumps(value))
    text = re.sub(r'Invalid value: \\"\{.*?\}\\": strict', "Invalid value: OBJECT: strict", text)
    return json.loads(text)


def times_of(value):
    return re.findall(r"2026-\d\d-\d\dT[\d:]+Z", json.dumps(value))


def test_every_recorded_request_is_answered_as_kubernetes_answered_it():
    now = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
    users = {"admin": "admin", "tuner": "infertune", "without rights": "infertune", None: None}
    with ApiServer(namespace=NAMESPACE, hpa=NAME, clock=lambda: now) as server:
        for recorded in TRANSCRIPTS:
            request, response = recorded["request"], recorded["response"]
            now = dt.datetime.fromisoformat(max(times_of(response), default="2026-11-22T00:00:00+00:00"))
            may = Rule(("get", "patch"), names=(NAME,), namespace=NAMESPACE)
            server.access.set("infertune", [may] if recorded["by"] == "tuner" else [])
            answer = ask(
                server,
                request["method"],
                request["path"],
                request["body"],
                user=users[recorded["by"]],
                content_type=request["content_type"] or "application/json",
            )
            assert (answer.status, normalised(answer.json())) == (
                response["status"],
                normalised(response["body"]),
            ), recorded["title"]


# --- what was not recorded: patches ---


def test_a_patch_that_changes_nothing_takes_no_version(server):
    before = server.hpa(NAMESPACE, NAME)
    assert patched(server, {"spec": {"maxReplicas": 10}}) == (200, before)
    assert server.log[-1].stored is False


def test_null_removes_a_field_and_what_has_a_default_gets_it_back(server):
    patched(server, {"spec": {"minReplicas": 4, "behavior": {"scaleDown": {"selectPolicy": "Min"}}}})
    _, hpa = patched(server, {"spec": {"minReplicas": None, "metrics": None, "behavior": None}})
    assert hpa["spec"]["minReplicas"] == 1
    assert hpa["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 80
    assert "behavior" not in hpa["spec"]
    held = json.dumps(hpa["metadata"]["managedFields"])
    assert "f:behavior" not in held


def test_an_unknown_field_is_dropped_without_strict_validation(server):
    status, hpa = patched(server, {"spec": {"maxReplica": 9, "maxReplicas": 9}})
    assert (status, hpa["spec"]["maxReplicas"], "maxReplica" in hpa["spec"]) == (200, 9, False)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"minReplicas": 0}, "spec.minReplicas"),
        ({"maxReplicas": 0}, "spec.maxReplicas"),
        ({"metrics": [{"type": "Pods"}]}, "spec.metrics[0].pods"),
        ({"metrics": [{"type": "Nothing"}]}, "spec.metrics[0].type"),
        ({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 3601}}}, "scaleUp.stabilizationWindowSeconds"),
        ({"behavior": {"scaleDown": {"policies": []}}}, "spec.behavior.scaleDown.policies"),
        (
            {"behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 0}]}}},
            "spec.behavior.scaleDown.policies[0].periodSeconds",
        ),
    ],
)
def test_what_validation_forbids_is_422_and_names_the_field(server, spec, field):
    before = server.hpa(NAMESPACE, NAME)
    status, answer = patched(server, {"spec": spec})
    assert (status, answer["reason"]) == (422, "Invalid")
    assert field in answer["message"]
    assert server.hpa(NAMESPACE, NAME) == before


def test_a_target_that_is_not_positive_is_422(server):
    wrong = json.loads(json.dumps(QUEUE_30).replace('"30"', '"0"'))
    assert patched(server, {"spec": {"metrics": [wrong]}})[0] == 422


def test_name_and_uid_cannot_be_changed(server):
    for key in ("name", "uid"):
        status, answer = patched(server, {"metadata": {key: "other"}})
        assert (status, answer["details"]["causes"][0]["field"]) == (422, f"metadata.{key}")


def test_a_patch_of_another_kind_is_refused(server):
    assert patched(server, [], content_type="application/json-patch+json")[0] == 415


def test_server_side_apply_by_force_takes_the_field_over(server):
    patched(server, {"spec": {"maxReplicas": 6}}, "?fieldManager=infertune")
    config = {"metadata": {"name": NAME}, "spec": {"maxReplicas": 20}}
    assert patched(server, config, "?fieldManager=argocd", content_type=APPLY)[0] == 409
    status, hpa = patched(server, config, "?fieldManager=argocd&force=true", content_type=APPLY)
    assert (status, hpa["spec"]["maxReplicas"]) == (200, 20)
    holders = {e["manager"]: e for e in hpa["metadata"]["managedFields"]}
    assert set(holders) == {"kubectl", "argocd"}
    assert holders["argocd"]["operation"] == "Apply"
    assert holders["argocd"]["fieldsV1"] == {"f:spec": {"f:maxReplicas": {}}}


def test_server_side_apply_of_an_equal_value_shares_the_field(server):
    config = {"metadata": {"name": NAME}, "spec": {"maxReplicas": 10}}
    _, hpa = patched(server, config, "?fieldManager=argocd", content_type=APPLY)
    held = [e["manager"] for e in hpa["metadata"]["managedFields"] if "f:maxReplicas" in e["fieldsV1"]["f:spec"]]
    assert sorted(held) == ["argocd", "kubectl"]


# --- what goes on meanwhile ---


def test_the_controllers_status_takes_a_version_and_leaves_the_spec(server):
    before = server.hpa(NAMESPACE, NAME)
    condition = {"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale"}
    after = server.set_status(NAMESPACE, NAME, current=2, desired=3, conditions=[condition])
    assert int(after["metadata"]["resourceVersion"]) == int(before["metadata"]["resourceVersion"]) + 1
    assert (after["spec"], after["status"]["desiredReplicas"]) == (before["spec"], 3)
    assert after["metadata"]["managedFields"][-1]["subresource"] == "status"


def test_the_world_may_change_before_a_request_is_looked_at(server):
    server.before = lambda verb: server.edit_hpa(NAMESPACE, NAME, {"spec": {"maxReplicas": 11}})
    assert ask(server, "GET", HPA_PATH).json()["spec"]["maxReplicas"] == 11


def test_a_stopped_server_refuses_connections_and_starts_again_where_it_was(server):
    url = server.url
    server.stop()
    with pytest.raises(urllib3.exceptions.NewConnectionError):
        ask(server, "GET", HPA_PATH)
    server.start()
    assert (server.url, ask(server, "GET", HPA_PATH).status) == (url, 200)


def test_two_servers_run_beside_each_other_and_stop_in_any_order():
    first, second = ApiServer(), ApiServer()
    first.start()
    second.start()
    first.stop()
    assert ask(second, "GET", "/version").status == 200
    second.stop()


def test_the_kubeconfig_is_for_its_owner_only_and_its_current_context_is_another_server(server, tmp_path):
    with ApiServer() as other:
        path = server.kubeconfig(tmp_path / "config", others={"production": other})
    assert path.stat().st_mode & 0o777 == 0o600
    assert "current-context: production" in path.read_text()


def test_an_hpa_that_is_there_is_not_created_twice_and_one_that_is_deleted_is_gone(server):
    collection = HPA_PATH.rpartition("/")[0]
    assert ask(server, "POST", collection, hpa_manifest()).json()["reason"] == "AlreadyExists"
    listed = ask(server, "GET", collection, user="infertune-reader").json()
    assert [item["metadata"]["name"] for item in listed["items"]] == [NAME]
    assert ask(server, "DELETE", HPA_PATH).status == 200
    assert ask(server, "GET", HPA_PATH).status == 404
    assert ask(server, "PUT", HPA_PATH, {}).status == 405


def test_discovery_is_answered_and_what_is_not_known_is_404(server):
    assert ask(server, "GET", "/version").json()["major"] == "1"
    for path in ("/nowhere", "/api/v1/namespaces/x/pods/y"):
        assert ask(server, "GET", path).status == 404


def test_a_mistake_of_the_stand_in_itself_is_not_hidden():
    def mistake(verb):
        raise ZeroDivisionError

    server = ApiServer()
    server.before = mistake
    server.__enter__()
    assert ask(server, "GET", HPA_PATH).status == 500
    with pytest.raises(ZeroDivisionError):
        server.__exit__(None, None, None)
