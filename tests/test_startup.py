"""How long a pod takes to start is read from the cluster's record of its pods, and never stops a session."""

# ruff: noqa: F811  # a fixture that is imported, and then asked for by name

import datetime as dt
import json
from urllib.parse import urlencode

import pytest
import urllib3
from cluster_support import NAME, NAMESPACE, cluster, hpa_manifest, production, server  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st

from agent.inputs import gather
from simulations.api_server import Rule
from tools.cluster.startup import Spread, StartUp, startup_of, summed_up, with_start
from tools.contracts import Delays
from tools.inputs import START
from tools.observer import Silent
from tools.spec import TuningSpec
from tools.worker import Worker

NOW = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
HPA_ONLY = Rule(("get", "list", "watch"), namespace=NAMESPACE)
SCALED = hpa_manifest()
LABELS = {"app": "resnet50", "tier": "gold"}


def stamp(time):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(name="p", *, scheduling=1, ready=40, age_h=5.0, restarts=0, labels=None, **status):
    """A pod as a kubelet tells of it: running and ready, unless conditions are given as False."""
    created = NOW - dt.timedelta(hours=age_h)
    bound = created + dt.timedelta(seconds=scheduling)
    serves = bound + dt.timedelta(seconds=ready)
    times = {
        "PodScheduled": bound,
        "PodReadyToStartContainers": bound,
        "Initialized": bound,
        "ContainersReady": serves,
        "Ready": serves,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": LABELS if labels is None else labels, "creationTimestamp": stamp(created)},
        "spec": {"containers": [{"name": "server", "env": [{"name": "API_KEY", "value": "hunter2-of-the-pod"}]}]},
        "status": {
            "phase": "Running",
            "conditions": [
                {"type": kind, "status": status.get(kind, "True"), "lastTransitionTime": stamp(time)}
                for kind, time in times.items()
            ],
            "containerStatuses": [{"name": "server", "restartCount": restarts, "ready": True}],
        },
    }


def deployment(selector=None, **spec):
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME},
        "spec": {"selector": selector or {"matchLabels": {"app": "resnet50"}}, **spec},
    }


def fill(server, pods, **of):
    server.put_deployment(deployment(**of))
    for number, each in enumerate(pods):
        each["metadata"]["name"] = f"{NAME}-{number}"
        server.put_pod(each)


# --- reading ---


def test_pods_of_the_scaled_deployment_tell_how_long_a_start_takes(server, cluster):
    fill(server, [pod(scheduling=s, ready=r) for s, r in ((0, 38), (1, 41), (0, 36), (2, 90))])
    server.put_pod(pod("stranger", ready=500, labels={"app": "other"}))
    found, sentence = startup_of(cluster, SCALED, NOW)
    assert found == StartUp(
        deployment=NAME,
        pods=4,
        left_out=0,
        scheduling=Spread(median_s=0.5, p90_s=2.0),
        ready=Spread(median_s=39.5, p90_s=90.0),
    )
    assert sentence == (
        "A pod of Deployment resnet50 has a node after 2 s and is ready 90 s later (90th percentile; half of them "
        "within 0.5 s and 39.5 s): measured on 4 pods, to the second."
    )


def test_only_the_reader_asks_and_it_only_reads(server, cluster):
    fill(server, [pod() for _ in range(3)])
    assert startup_of(cluster, SCALED, NOW)[0] is not None
    asked = [(request.user, request.verb) for request in server.log]
    assert asked == [("infertune-reader", "get"), ("infertune-reader", "list")]
    listing = server.log[-1].path
    assert f"/api/v1/namespaces/{NAMESPACE}/pods?" in listing
    assert "labelSelector=app%3Dresnet50" in listing or "labelSelector=app=resnet50" in listing


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (pod(restarts=1, ready=400), "restarted"),
        (pod(ready=400, Ready="False"), "not ready now"),
        (pod(ready=400, age_h=24 * 8), "started long ago, perhaps from another image"),
        (pod(ready=3600), "lost its readiness meanwhile: no rollout may take that long"),
        (pod(ready=-2), "its node's clock is behind"),
        ({"metadata": {"name": "x", "labels": LABELS}, "status": {}}, "tells nothing yet"),
        ({"metadata": {"name": "x", "labels": LABELS}, "status": {"conditions": "odd"}}, "of another shape"),
    ],
)
def test_a_pod_that_does_not_tell_how_long_its_start_took_is_left_out(server, cluster, odd, why):
    fill(server, [pod(ready=30), pod(ready=31), pod(ready=32), odd])
    found, _ = startup_of(cluster, SCALED, NOW)
    assert (found.pods, found.left_out, found.ready.p90_s) == (3, 1, 32.0), why


def test_an_init_container_that_restarted_counts_too(server, cluster):
    again = pod(ready=300)
    again["status"]["initContainerStatuses"] = [{"name": "fetch", "restartCount": 2}]
    fill(server, [pod(), pod(), pod(), again])
    assert startup_of(cluster, SCALED, NOW)[0].left_out == 1


def test_a_deployment_that_allows_a_long_start_is_taken_at_its_word(server, cluster):
    fill(server, [pod(ready=1500) for _ in range(3)], progressDeadlineSeconds=1800)
    assert startup_of(cluster, SCALED, NOW)[0].ready.p90_s == 1500


@pytest.mark.parametrize(
    ("expression", "counted"),
    [
        ({"key": "tier", "operator": "In", "values": ["gold", "silver"]}, 3),
        ({"key": "tier", "operator": "NotIn", "values": ["gold"]}, 0),
        ({"key": "canary", "operator": "DoesNotExist"}, 3),
        ({"key": "canary", "operator": "Exists"}, 0),
    ],
)
def test_a_selector_by_expressions_is_kept_as_well(server, cluster, expression, counted):
    selector = {"matchLabels": {"app": "resnet50"}, "matchExpressions": [expression]}
    fill(server, [pod() for _ in range(3)], selector=selector)
    found, sentence = startup_of(cluster, SCALED, NOW)
    assert (0 if found is None else found.pods) == counted
    assert (f"of {counted} pods" in sentence) is (found is None)


# --- when there is nothing to read ---


def test_of_fewer_than_three_pods_nobody_can_say(server, cluster):
    fill(server, [pod(), pod(), pod(restarts=3)])
    found, sentence = startup_of(cluster, SCALED, NOW)
    assert found is None
    assert sentence == (
        "How long a pod takes to start is not known: of 3 pods of Deployment resnet50, 2 started in the last 7 days "
        "and never restarted; it takes 3."
    )


def test_a_reader_without_the_optional_rights_is_told_what_would_give_them(server, cluster):
    fill(server, [pod() for _ in range(3)])
    server.access.set("infertune-reader", [HPA_ONLY])
    found, sentence = startup_of(cluster, SCALED, NOW)
    assert found is None
    assert "the reader may not look at Deployments or pods (403)" in sentence
    assert "`infertune manifests`" in sentence
    server.access.add("infertune-reader", [Rule(("get",), ("deployments",), ("apps",), namespace=NAMESPACE)])
    assert startup_of(cluster, SCALED, NOW) == (None, sentence), "one of both rights is not enough"


def test_a_deployment_that_is_not_there_is_no_error(cluster):
    found, sentence = startup_of(cluster, SCALED, NOW)
    assert found is None
    assert sentence.endswith("the Deployment that the HPA scales is not there (404).")


@pytest.mark.parametrize(("version", "kind"), [("apps/v1", "StatefulSet"), ("argoproj.io/v1alpha1", "Rollout")])
def test_of_anything_but_a_deployment_no_pods_are_looked_at(server, cluster, version, kind):
    scaled = hpa_manifest(scaleTargetRef={"apiVersion": version, "kind": kind, "name": NAME})
    found, sentence = startup_of(cluster, scaled, NOW)
    assert (found, sentence) == (None, f"The HPA scales a {kind}: only a Deployment's pods are looked at.")
    assert server.log == []


@pytest.mark.parametrize(
    ("fail", "told"),
    [
        (lambda server: server.fail_next("list", "/pods", status=400), "does not take the request (400)"),
        (lambda server: server.answer_html("list"), "does not come from an API server"),
        (lambda server: server.fail_next("get", "/deployments", status=401), "does not know who asks (401)"),
    ],
)
def test_a_server_that_fails_costs_the_figure_and_nothing_else(server, cluster, fail, told):
    fill(server, [pod() for _ in range(3)])
    fail(server)
    found, sentence = startup_of(cluster, SCALED, NOW)
    assert found is None
    assert told in sentence


def test_a_deployment_without_a_selector_is_not_taken_for_one_that_selects_every_pod(server, cluster):
    server.put_deployment({**deployment(), "spec": {"selector": {"matchLabels": {}}}})
    assert startup_of(cluster, SCALED, NOW)[1].endswith("the Deployment selects all pods.")
    server.put_deployment({**deployment(), "spec": {}})
    assert startup_of(cluster, SCALED, NOW)[1].endswith("the answer is no Deployment.")
    assert not any("/pods" in request.path for request in server.log)


# --- arithmetic ---


@given(times=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 600)), min_size=3, max_size=40))
def test_median_and_percentile_are_what_was_seen(times):
    pods = [pod(scheduling=s, ready=r) for s, r in times]
    found, _ = summed_up(NAME, pods, deadline_s=600, now=NOW)
    for spread, seen in ((found.scheduling, [s for s, _ in times]), (found.ready, [r for _, r in times])):
        assert min(seen) <= spread.median_s <= spread.p90_s <= max(seen)
        assert spread.p90_s in seen
        assert sum(value <= spread.p90_s for value in seen) >= 0.9 * len(seen)
        assert sum(value < spread.p90_s for value in seen) < 0.9 * len(seen)


START_S = st.floats(0, 1000, allow_nan=False)
SETTABLE = st.sets(st.sampled_from(["scheduling_s", "start_s", "readiness_s", "scrape_s"]))


@given(scheduling_s=START_S, ready_s=START_S, asked=SETTABLE, value_s=st.floats(1, 500))
def test_what_a_person_has_set_stays_and_the_rest_adds_up_to_what_was_measured(scheduling_s, ready_s, asked, value_s):
    startup = StartUp(
        deployment=NAME,
        pods=3,
        left_out=0,
        scheduling=Spread(median_s=0, p90_s=scheduling_s),
        ready=Spread(median_s=0, p90_s=ready_s),
    )
    delays = Delays.model_validate(dict.fromkeys(asked, value_s))
    used, measured = with_start(delays, startup)
    assert Delays.model_validate(used.model_dump()) == used
    assert not asked & set(measured)
    assert all(getattr(used, name) == value_s for name in asked)
    for name in Delays.model_fields.keys() - {"scheduling_s", "start_s", "readiness_s"} - asked:
        assert getattr(used, name) == getattr(Delays(), name)
    if "scheduling_s" not in asked:
        assert used.scheduling_s == scheduling_s
    if not {"start_s", "readiness_s"} <= asked:
        given_s = max((value_s for name in ("start_s", "readiness_s") if name in asked), default=0)
        assert used.start_s + used.readiness_s == pytest.approx(max(ready_s, given_s))


# --- in a session ---


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    with Worker([], tmp_path_factory.mktemp("logs")) as made:
        yield made


class Listening(Silent):
    def __init__(self):
        self.findings = []

    def finding(self, text):
        self.findings.append(text)


def gathered(cluster, folder, worker, **scaling):
    spec = TuningSpec.model_validate(
        {
            "workload": {"name": "w", "model": {"factory": "m.py:build"}, "evaluation": {"npz": "data.npz"}},
            "hardware": {"price_per_hour_usd": 0.1},
            "cluster": cluster.model_dump(mode="json"),
            **({"scaling": scaling} if scaling else {}),
        }
    )
    observer = Listening()
    return gather(spec, folder, worker, observer), observer.findings


@pytest.fixture
def started(server):
    """Pods that just started: sessions look at the real clock."""
    shift = dt.datetime.now(dt.UTC) - NOW
    pods = [pod(scheduling=2, ready=ready, age_h=1 - shift.total_seconds() / 3600) for ready in (40, 50, 75)]
    fill(server, pods)


@pytest.mark.usefixtures("started")
def test_a_session_simulates_with_the_measured_start_and_says_so(cluster, tmp_path, worker):
    spec, findings = gathered(cluster, tmp_path, worker)
    assert spec.scaling.delays == Delays(scheduling_s=2, start_s=75, readiness_s=0)
    (finding,) = findings
    assert finding.startswith("A pod of Deployment resnet50 has a node after 2 s and is ready 75 s later")
    assert finding.endswith(" Measured, not assumed: scheduling_s 2, start_s 75, readiness_s 0.")
    kept = json.loads((tmp_path / START).read_text())
    assert Delays.model_validate(kept["delays"]) == spec.scaling.delays
    assert StartUp.model_validate(kept["startup"]).pods == 3
    assert kept["note"] == finding
    assert "hunter2" not in (tmp_path / START).read_text()


@pytest.mark.usefixtures("started")
def test_a_delay_that_the_spec_sets_stays_even_at_its_default(cluster, tmp_path, worker):
    spec, findings = gathered(cluster, tmp_path, worker, delays={"start_s": 30, "scheduling_s": 2})
    assert spec.scaling.delays == Delays(scheduling_s=2, start_s=30, readiness_s=45)
    assert findings[0].endswith(" Measured, not assumed: readiness_s 45.")
    spec, findings = gathered(cluster, tmp_path, worker, delays={"start_s": 30, "scheduling_s": 2, "readiness_s": 5})
    assert spec.scaling.delays == Delays()
    assert findings[0].endswith(" The spec's own delays stay.")


@pytest.mark.usefixtures("started")
def test_measured_delays_come_back_from_the_journal_as_they_were_used(cluster, tmp_path, worker):
    spec, _ = gathered(cluster, tmp_path, worker)
    assert TuningSpec.model_validate_json(spec.model_dump_json()).scaling.delays == spec.scaling.delays


def test_a_session_goes_on_with_the_defaults_where_the_cluster_does_not_tell(server, cluster, tmp_path, worker):
    server.access.set("infertune-reader", [HPA_ONLY])
    spec, findings = gathered(cluster, tmp_path, worker, kept_share=0.99)
    assert (spec.scaling.delays, spec.scaling.kept_share) == (Delays(), 0.99)
    assert "(403)" in findings[0]
    assert json.loads((tmp_path / START).read_text())["startup"] is None


# --- the stand-in ---


def asked(server, path, user):
    headers = {"Authorization": f"Bearer {server.access.add(user)}"}
    with urllib3.PoolManager(retries=False) as http:
        answer = http.request("GET", server.url + path, headers=headers, timeout=10)
    return answer.status, answer.json()


def test_the_stand_in_refuses_and_lists_pods_as_kubernetes_does(server):
    fill(server, [pod() for _ in range(3)])
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    status, refused = asked(server, path, "nobody")
    assert (status, refused["details"]) == (403, {"kind": "pods"})
    assert refused["message"] == (
        f'pods is forbidden: User "nobody" cannot list resource "pods" in API group "" in the namespace "{NAMESPACE}"'
    )
    status, listed = asked(server, f"{path}?limit=2", "infertune-reader")
    assert (status, listed["kind"], listed["apiVersion"], listed["metadata"]["continue"]) == (
        200,
        "PodList",
        "v1",
        "more",
    )
    assert [each["metadata"]["name"] for each in listed["items"]] == [f"{NAME}-0", f"{NAME}-1"]
    assert "kind" not in listed["items"][0]
    status, lost = asked(server, f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/web", "infertune-reader")
    assert (status, lost["message"]) == (404, 'deployments.apps "web" not found')


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ("", {"a", "b"}),
        ("app=x", {"a"}),
        ("app==x,tier!=gold", {"a"}),
        ("app!=x", {"b"}),
        ("app in (x, y)", {"a", "b"}),
        ("app notin (x)", {"b"}),
        ("tier", {"b"}),
        ("!tier,app in (x,z)", {"a"}),
    ],
)
def test_the_stand_in_selects_by_labels_as_kubernetes_does(server, selector, chosen):
    server.put_pod(pod("a", labels={"app": "x"}))
    server.put_pod(pod("b", labels={"app": "y", "tier": "gold"}))
    query = urlencode({"labelSelector": selector})
    _, listed = asked(server, f"/api/v1/namespaces/{NAMESPACE}/pods?{query}", "admin")
    assert {each["metadata"]["name"] for each in listed["items"]} == chosen
