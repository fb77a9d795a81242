"""Reading and patching one HPA over real HTTP: identities, rights, and every way in which it can fail."""

# ruff: noqa: F811  # a fixture that is imported, and then asked for by name

import copy
import datetime as dt
import email.utils
import json
from pathlib import Path

import pytest
import yaml
from cluster_support import (  # noqa: F401
    AFTER,
    NAME,
    NAMESPACE,
    QUEUE_30,
    changed,
    cluster,
    failing,
    hpa_manifest,
    production,
    server,
)
from hypothesis import given
from hypothesis import strategies as st

from simulations.api_server.hpas import merge
from tools.cluster.api_errors import error_of_answer
from tools.cluster.client import HpaClient, HpaObject, patch_body
from tools.cluster.connection import connect, open_reader, open_writer
from tools.cluster.hpa_object import owned_fields
from tools.cluster.text import shown
from tools.cluster.transport import ATTEMPTS, RETRY_AFTER_CAP_S
from tools.errors import FenceError


@pytest.fixture
def waits():
    """How long the client waited between attempts, in seconds; it does not really wait."""
    return []


@pytest.fixture
def reader(cluster, waits):
    with open_reader(cluster, read_timeout_s=0.3, sleep=waits.append) as client:
        yield client


@pytest.fixture
def writer(cluster, waits):
    with open_writer(cluster, read_timeout_s=0.3, sleep=waits.append) as client:
        yield client


def verbs(server):
    return [request.verb for request in server.log]


# --- reading ---


def test_the_object_is_read_as_the_server_gave_it(server, reader):
    condition = {"type": "ScalingActive", "status": "False", "reason": "FailedGetPodsMetric", "message": "none"}
    server.set_status(NAMESPACE, NAME, current=2, desired=3, conditions=[condition])
    obj = reader.read()
    assert obj.manifest == server.hpa(NAMESPACE, NAME)
    assert (obj.namespace, obj.name, obj.labels) == (NAMESPACE, NAME, {"infertune.dev/managed": "true"})
    assert obj.owned == {key: hpa_manifest()["spec"][key] for key in ("minReplicas", "maxReplicas", "metrics")}
    assert (obj.current_replicas, obj.desired_replicas, obj.generation) == (2, 3, None)
    assert obj.condition("ScalingActive").reason == "FailedGetPodsMetric"
    assert obj.condition("AbleToScale") is None
    assert [(m.name, sorted(m.fields)) for m in obj.managers] == [
        ("kubectl", ["maxReplicas", "metrics", "minReplicas"]),
        ("kube-controller-manager", []),
    ]
    assert reader.ref(obj).model_dump() == {
        "server": server.url,
        "context": "reader",
        "namespace": NAMESPACE,
        "name": NAME,
        "uid": obj.uid,
        "resource_version": obj.resource_version,
    }


@pytest.mark.parametrize(
    ("fields", "held"),
    [
        (None, {"minReplicas", "maxReplicas", "metrics", "behavior"}),
        ({"f:spec": {}}, {"minReplicas", "maxReplicas", "metrics", "behavior"}),
        ({"f:spec": {"f:behavior": {"f:scaleUp": {}}}}, {"behavior"}),
        ({"f:spec": {"f:scaleTargetRef": {}}}, set()),
        ({"f:status": {}}, set()),
    ],
)
def test_what_a_manager_holds_is_everything_where_it_cannot_be_told(server, fields, held):
    manifest = server.hpa(NAMESPACE, NAME)
    manifest["metadata"]["managedFields"] = [{"manager": "x", "fieldsV1": fields}]
    assert HpaObject.parse(manifest).managers[0].fields == held


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m.update(kind="Deployment"),
        lambda m: m.update(apiVersion="autoscaling/v1"),
        lambda m: m.pop("spec"),
        lambda m: m["metadata"].pop("uid"),
        lambda m: m["metadata"].update(resourceVersion=""),
    ],
)
def test_what_is_no_hpa_is_not_taken_for_one(server, spoil):
    manifest = server.hpa(NAMESPACE, NAME)
    spoil(manifest)
    with pytest.raises(ValueError):
        HpaObject.parse(manifest)


# --- patching ---


def test_a_dry_run_stores_nothing_and_shows_the_servers_defaults(server, reader, writer):
    obj = reader.read()
    patch = changed(obj, maxReplicas=6, metrics=[QUEUE_30], behavior={"scaleDown": {"stabilizationWindowSeconds": 60}})
    would_be = writer.dry_run(patch)
    assert would_be.owned["behavior"]["scaleUp"]["selectPolicy"] == "Max"
    assert would_be.resource_version == obj.resource_version
    assert reader.read() == obj
    sent = server.log[1]
    assert (sent.user, sent.verb, sent.body) == ("infertune", "dry-run", patch)
    assert {"dryRun=All", "fieldManager=infertune", "fieldValidation=Strict"} <= set(sent.path.split("?")[1].split("&"))


def test_a_patch_is_stored_under_our_name(server, reader, writer):
    after = writer.patch(changed(reader.read(), maxReplicas=6, metrics=[QUEUE_30]))
    assert after == reader.read()
    assert after.owned == AFTER
    assert [(m.name, sorted(m.fields)) for m in after.managers_of("maxReplicas")] == [
        ("infertune", ["maxReplicas", "metrics"])
    ]
    assert "dryRun" not in server.log[1].path


def test_a_status_that_moved_is_a_conflict_and_nothing_is_sent_again(server, reader, writer):
    obj = reader.read()
    server.set_status(NAMESPACE, NAME, current=4)
    error = failing(writer.patch, changed(obj, maxReplicas=6))
    assert (error.kind, error.status, error.maybe_stored) == ("conflict", 409, False)
    assert verbs(server).count("patch") == 1
    assert reader.read().owned["maxReplicas"] == 10


def test_what_the_server_finds_invalid_is_said_in_its_words(reader, writer):
    error = failing(writer.dry_run, changed(reader.read(), minReplicas=11))
    assert (error.kind, error.status) == ("invalid", 422)
    assert "must be greater than or equal to `minReplicas`" in str(error)


def test_a_field_that_the_cluster_does_not_know_is_named_and_the_object_not_repeated(reader, writer):
    behavior = {"scaleUp": {"selectPolicie": "Max"}}
    error = failing(writer.patch, changed(reader.read(), behavior=behavior))
    assert 'unknown field "spec.behavior.scaleUp.selectPolicie"' in str(error)
    assert "managedFields" not in str(error)
    assert len(str(error)) < 700


def test_a_patch_names_all_of_the_after_spec_and_nulls_for_what_vanishes():
    before = {"minReplicas": 2, "maxReplicas": 9, "behavior": {"scaleUp": {"tolerance": "0.1"}, "scaleDown": {}}}
    after = {"maxReplicas": 9, "behavior": {"scaleUp": {"selectPolicy": "Min"}}}
    assert patch_body({**before, "scaleTargetRef": {}}, after, "7") == {
        "metadata": {"resourceVersion": "7"},
        "spec": {
            "minReplicas": None,
            "maxReplicas": 9,
            "behavior": {"scaleUp": {"selectPolicy": "Min", "tolerance": None}, "scaleDown": None},
        },
    }


def test_a_patch_of_other_fields_or_of_any_version_is_never_made():
    with pytest.raises(FenceError, match=r"not infertune's: scaleTargetRef\. Only minReplicas, "):
        patch_body({}, {"maxReplicas": 3, "scaleTargetRef": {}}, "7")
    with pytest.raises(ValueError, match="resourceVersion"):
        patch_body({}, {"maxReplicas": 3}, "")


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"maxReplicas": 6}},
        {"metadata": {"resourceVersion": ""}, "spec": {"maxReplicas": 6}},
        {"metadata": {"resourceVersion": "646", "labels": {}}, "spec": {"maxReplicas": 6}},
        {"metadata": {"resourceVersion": "646"}, "spec": {"maxReplicas": 6, "scaleTargetRef": {}}},
        {"metadata": {"resourceVersion": "646"}, "spec": {"maxReplicas": 6}, "status": {}},
        {"metadata": {"resourceVersion": "646"}},
    ],
)
def test_a_patch_of_another_shape_never_leaves_the_house(server, writer, patch):
    for send in (writer.patch, writer.dry_run):
        with pytest.raises(FenceError):
            send(patch)
    assert server.log == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=3),
    lambda below: st.lists(below, max_size=2) | st.dictionaries(st.sampled_from("abc"), below, max_size=3),
    max_leaves=8,
)
specs = st.dictionaries(st.sampled_from(["minReplicas", "maxReplicas", "metrics", "behavior", "other"]), json_values)


def without_nulls(value):
    """As JSON objects are after a merge: a key that is null is not there."""
    if not isinstance(value, dict):
        return value
    return {key: without_nulls(below) for key, below in value.items() if below is not None}


@given(before=specs, after=specs)
def test_a_patch_makes_the_before_spec_into_the_after_spec_and_touches_nothing_else(before, after):
    before, after = without_nulls(before), {key: value for key, value in after.items() if key != "other"}
    kept = copy.deepcopy((before, after))
    patched = merge(before, patch_body(before, after, "1")["spec"])
    assert owned_fields(patched) == without_nulls(after)
    assert patched.get("other") == before.get("other")
    assert (before, after) == kept


# --- faults: reading ---


def test_a_server_that_is_down_is_said_after_three_attempts(server, reader, waits):
    server.stop()
    error = failing(reader.read)
    assert (error.kind, error.status, error.maybe_stored) == ("unreachable", None, False)
    assert waits == [0.5, 1.0]
    assert f"HPA {NAMESPACE}/{NAME} at {server.url} (context reader): the API server cannot be reached" in str(error)
    assert "Connection refused" in str(error)


def test_a_name_that_does_not_resolve_is_unreachable(cluster, tmp_path, waits):
    config = yaml.safe_load(Path(cluster.kubeconfig).read_text())
    config["clusters"][0]["cluster"]["server"] = "https://no-such-host.invalid"
    path = tmp_path / "elsewhere"
    path.write_text(yaml.safe_dump(config))
    connection = connect("reader", str(path), sleep=waits.append)
    with HpaClient(connection, namespace=NAMESPACE, name=NAME) as client:
        assert failing(client.read).kind == "unreachable"


def test_an_error_that_passes_is_not_noticed(server, reader, waits):
    server.fail_next("get", NAME, status=500)
    server.cut_before_store("get")
    assert reader.read().name == NAME
    assert (verbs(server), waits) == (["get"] * 3, [0.5, 1.0])


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_an_error_that_stays_is_said(server, reader, status):
    server.fail_next("get", status=status, times=None)
    error = failing(reader.read)
    assert (error.kind, error.status) == ("server", status)
    assert len(server.log) == ATTEMPTS


def test_too_many_requests_are_repeated_when_the_server_asks_for_it(server, reader, waits):
    server.fail_next("get", status=429, retry_after=2)
    server.fail_next("get", status=429)
    assert reader.read().name == NAME
    assert waits == [2.0, 1.0]


def test_a_server_that_asks_to_wait_for_long_is_not_waited_for(server, reader, waits):
    server.fail_next("get", status=429, retry_after=int(RETRY_AFTER_CAP_S) + 1, times=None)
    error = failing(reader.read)
    assert (error.kind, error.status, error.retry_after_s, waits) == ("too_many", 429, 11.0, [])
    assert len(server.log) == 1


def test_a_slow_server_is_given_up(server, reader):
    server.slow(0.8, "get", times=ATTEMPTS)
    error = failing(reader.read)
    assert (error.kind, "took too long" in str(error)) == ("unreachable", True)


def test_a_page_in_place_of_json_is_no_api_server(server, reader):
    for status in (200, 403, 409):
        server.answer_html(status=status)
        error = failing(reader.read)
        assert (error.kind, error.status, "sign in" in str(error).lower()) == ("not_json", status, False)
    assert len(server.log) == 3


def test_a_redirect_is_not_followed(server, reader):
    server.answer_html(status=302)
    assert failing(reader.read).status == 302
    assert len(server.log) == 1


def test_no_valid_token_no_right_and_no_object_are_told_apart(server, cluster):
    def error(**update):
        with open_reader(cluster.model_copy(update=update)) as client:
            return failing(client.read)

    forbidden = error(context="nobody")
    assert (forbidden.kind, forbidden.status) == ("forbidden", 403)
    assert 'User "nobody" cannot get resource "horizontalpodautoscalers"' in str(forbidden)
    assert error(hpa="absent").kind == "not_found"
    server.fail_next("get", status=401, message="Unauthorized")
    assert error().kind == "unauthorized"
    assert len(server.log) == 3  # none of them is worth a second attempt


# --- faults: writing ---


def test_a_connection_cut_after_storing_is_unknown_and_the_patch_is_not_sent_again(server, reader, writer):
    patch = changed(reader.read(), maxReplicas=6)
    server.cut_after_store()
    error = failing(writer.patch, patch)
    assert (error.kind, error.status, error.maybe_stored) == ("unknown", None, True)
    assert "may, or may not, have been stored" in str(error)
    assert reader.read().owned["maxReplicas"] == 6
    assert verbs(server).count("patch") == 1


def test_a_connection_cut_before_storing_is_unknown_too(server, reader, writer):
    patch = changed(reader.read(), maxReplicas=6)
    server.cut_before_store()
    assert failing(writer.patch, patch).maybe_stored
    assert (reader.read().owned["maxReplicas"], verbs(server).count("patch")) == (10, 1)


def test_an_answer_that_comes_too_late_is_unknown(server, reader, writer):
    patch = changed(reader.read(), maxReplicas=6)
    server.slow(0.8, "patch")
    assert failing(writer.patch, patch).kind == "unknown"
    assert reader.read().owned["maxReplicas"] == 6


@pytest.mark.parametrize(
    ("status", "kind", "maybe_stored"),
    [
        (401, "unauthorized", False),
        (403, "forbidden", False),
        (404, "not_found", False),
        (409, "conflict", False),
        (422, "invalid", False),
        (429, "too_many", False),
        (400, "rejected", False),
        (500, "server", True),
        (504, "server", True),
    ],
)
def test_a_refused_patch_is_sent_once_and_says_whether_it_may_be_stored(
    server, reader, writer, status, kind, maybe_stored, waits
):
    patch = changed(reader.read(), maxReplicas=6)
    server.fail_next("patch", status=status, times=None, retry_after=1)
    error = failing(writer.patch, patch)
    assert (error.kind, error.status, error.maybe_stored) == (kind, status, maybe_stored)
    assert (verbs(server).count("patch"), waits) == (1, [])


def test_a_page_in_answer_to_a_patch_does_not_say_that_nothing_was_stored(server, reader, writer):
    patch = changed(reader.read(), maxReplicas=6)
    server.answer_html("patch")
    error = failing(writer.patch, patch)
    assert (error.kind, error.maybe_stored) == ("not_json", True)


def test_a_patch_to_a_server_that_is_down_was_not_stored(server, reader, writer):
    patch = changed(reader.read(), maxReplicas=6)
    server.stop()
    error = failing(writer.patch, patch)
    assert (error.kind, error.maybe_stored) == ("unreachable", False)


def test_a_dry_run_changes_nothing_and_so_is_repeated(server, reader, writer):
    patch = changed(reader.read(), maxReplicas=6)
    server.fail_next("dry-run", status=503)
    assert writer.dry_run(patch).owned["maxReplicas"] == 6
    assert verbs(server) == ["get", "dry-run", "dry-run"]


def test_an_answer_about_another_object_is_not_believed(server, cluster):
    server.put_hpa({**hpa_manifest(), "metadata": {"name": "other"}})
    with open_reader(cluster) as client:
        client._hpas.read_namespaced_horizontal_pod_autoscaler = lambda name, **rest: type(client._hpas)(
            client.connection.api
        ).read_namespaced_horizontal_pod_autoscaler("other", **rest)
        assert failing(client.read).kind == "not_json"


def test_retry_after_as_a_date_is_not_counted_as_seconds():
    date = email.utils.format_datetime(dt.datetime(2026, 1, 1, tzinfo=dt.UTC), usegmt=True)
    error = error_of_answer(429, {"Retry-After": date}, "slow down", where="x", writing=False)
    assert (error.kind, error.retry_after_s) == ("too_many", None)


# --- texts from elsewhere ---


@given(st.text(), st.integers(20, 60))
def test_a_shown_text_is_printable_and_short(text, limit):
    result = shown(text, limit)
    assert result.isprintable()
    assert len(result) <= limit


def test_a_shown_text_keeps_both_ends_and_escapes_what_moves_the_cursor():
    assert shown("a\n\x1b[31m\u202eb") == r"a\n\x1b[31m\u202eb"
    assert shown("x" * 1000 + "end", 20).endswith("xend")
    assert json.loads(json.dumps(shown("ä"))) == "ä"
