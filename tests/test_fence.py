"""The fence: what may be changed at all, by how much, and when. Each rule alone, and all of them together."""

import copy
import datetime as dt
import json
import os

import pytest
from cluster_support import AFTER, BOUNDS, CPU_70, NAME, NAMESPACE, PRICE_USD, QUEUE_30, hpa_manifest, with_target
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simulations.api_server.hpas import merge
from tools.cluster.client import HpaObject, patch_body
from tools.cluster.fence import Refusal, check_fence, kill_switch, notes_on, owner_of, within
from tools.contracts.scaling import OWNED_FIELDS
from tools.errors import FenceError

NOW = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)


def held(manager, *fields, **entry):
    tree = {"f:spec": {f"f:{field}": {} for field in fields}} if fields else {"f:metadata": {"f:labels": {}}}
    return {"manager": manager, "operation": "Update", "time": "2026-11-22T00:00:00Z", "fieldsV1": tree, **entry}


BY_HAND = (held("kubectl", "minReplicas", "maxReplicas", "metrics"),)


def as_stored(manifest, managers=BY_HAND):
    """The manifest as a server would give it."""
    manifest = copy.deepcopy(manifest)
    given = manifest["metadata"]
    manifest["metadata"] = {"namespace": NAMESPACE, "uid": "uid-1", "resourceVersion": "646", **given}
    if managers:
        manifest["metadata"]["managedFields"] = copy.deepcopy(list(managers))
    return manifest


def hpa(managers=BY_HAND, **arguments):
    return HpaObject.parse(as_stored(hpa_manifest(**arguments), managers))


def refusals(obj=None, after=None, **facts):
    arguments = {
        "allow_namespaces": (NAMESPACE,),
        "bounds": BOUNDS,
        "price_per_hour_usd": PRICE_USD,
        "now": NOW,
        "cooldown_s": 1800.0,
        **facts,
    }
    return check_fence(obj or hpa(), AFTER if after is None else after, **arguments)


def only(found):
    assert len(found) == 1, found
    return found[0].rule, found[0].sentence


# --- each rule alone ---


def test_a_change_that_every_rule_allows_is_not_refused():
    assert refusals() == ()


def test_a_namespace_that_is_not_on_the_allow_list():
    rule, sentence = only(refusals(allow_namespaces=("a", "b")))
    assert (rule, "a, b" in sentence, NAMESPACE in sentence) == ("namespace", True, True)
    assert "none" in only(refusals(allow_namespaces=()))[1]


@pytest.mark.parametrize("labels", [{}, {"infertune.dev/managed": "True"}, {"infertune.dev/managed": "false"}])
def test_an_hpa_whose_team_has_not_opted_in(labels):
    assert only(refusals(hpa(labels=labels)))[0] == "opt_in"


OWNED_BY_OTHERS = {
    "a label of Argo CD": ({"labels": {"argocd.argoproj.io/instance": "x"}}, "Argo CD (label"),
    "an annotation of Argo CD": ({"annotations": {"argocd.argoproj.io/tracking-id": "x"}}, "Argo CD (annotation"),
    "a Kustomization of Flux": ({"labels": {"kustomize.toolkit.fluxcd.io/name": "x"}}, "Flux (label"),
    "a HelmRelease of Flux": ({"labels": {"helm.toolkit.fluxcd.io/name": "x"}}, "Flux (label"),
    "a ScaledObject of KEDA": ({"labels": {"scaledobject.keda.sh/name": "x"}}, "KEDA (label"),
    "an operator's label": ({"labels": {"app.kubernetes.io/managed-by": "some-operator"}}, "some-operator (label"),
    "an owner": ({"owners": [{"kind": "InferenceService", "name": "r"}]}, "InferenceService/r (ownerReferences)"),
    "Argo CD's writing": ({"managers": [held("argocd-controller", "maxReplicas")]}, "Argo CD (it wrote maxReplicas as"),
    "Flux's writing": ({"managers": [held("kustomize-controller", "metrics")]}, "Flux (it wrote metrics as"),
    "Flux's Helm": ({"managers": [held("helm-controller", "metrics")]}, "Flux (it wrote metrics as"),
    "KEDA's writing": ({"managers": [held("keda", "minReplicas")]}, "KEDA (it wrote minReplicas as"),
    "an unknown controller": ({"managers": [held("manager", "behavior")]}, "the controller (it wrote behavior as"),
    "who wrote the whole spec": ({"managers": [held("x", fieldsV1={"f:spec": {}})]}, "the controller (it wrote min"),
}


@pytest.mark.parametrize(("made", "owner"), OWNED_BY_OTHERS.values(), ids=OWNED_BY_OTHERS)
def test_an_hpa_that_somebody_else_keeps(made, owner):
    made = {**made, "labels": {"infertune.dev/managed": "true", **made.get("labels", {})}}
    obj = hpa(**made)
    assert owner_of(obj).startswith(owner)
    rule, sentence = only(refusals(obj))
    assert (rule, "belongs into that owner's repository" in sentence) == ("owner", True)


@pytest.mark.parametrize(
    "made",
    [
        {"managers": [held("kubectl-client-side-apply", "maxReplicas"), held("kubectl-edit", "minReplicas")]},
        {"managers": [held("infertune", "maxReplicas", "metrics")]},
        {"managers": [held("argocd-controller")]},  # it wrote labels only
        {"managers": [held("kube-controller-manager", subresource="status")]},
        {"managers": []},
        {"annotations": {"notargocd.argoproj.io/x": "", "example.com/argocd.argoproj.io": "", "argocd": ""}},
        {"labels": {"app.kubernetes.io/instance": "x", "app.kubernetes.io/managed-by": "Helm"}},
    ],
)
def test_people_and_infertune_itself_are_no_other_owner(made):
    made = {**made, "labels": {"infertune.dev/managed": "true", **made.get("labels", {})}}
    assert owner_of(hpa(**made)) is None
    assert refusals(hpa(**made)) == ()


def test_what_people_should_know_before_they_approve_is_noted():
    labels = {"app.kubernetes.io/managed-by": "Helm"}
    annotations = {"meta.helm.sh/release-name": "resnet"}
    notes = notes_on(hpa(labels=labels, annotations=annotations, managers=[held("kubectl-edit", "metrics")]))
    assert "Helm installed it (resnet)" in notes[0]
    assert "Written by hand before (by kubectl-edit)" in notes[1]
    assert "whether somebody else keeps it cannot be seen" in notes_on(hpa(managers=[]))[0]
    assert notes_on(hpa(managers=[held("infertune", *OWNED_FIELDS)])) == ()


def test_an_hpa_that_is_scaled_to_zero_or_may_be():
    assert only(refusals(hpa(minReplicas=0)))[0] == "scaled_to_zero"
    asleep = as_stored(hpa_manifest())
    asleep["status"] = {"conditions": [{"type": "ScalingActive", "status": "False", "reason": "ScalingDisabled"}]}
    assert only(refusals(HpaObject.parse(asleep)))[0] == "scaled_to_zero"


def test_an_hpa_that_is_being_deleted():
    gone = as_stored(hpa_manifest())
    gone["metadata"]["deletionTimestamp"] = "2026-11-22T00:00:00Z"
    assert only(refusals(HpaObject.parse(gone)))[0] == "deleting"


@pytest.mark.parametrize(("passed_s", "refused"), [(-1, True), (0, True), (1799, True), (1800, False), (1e6, False)])
def test_the_cool_down_ends_when_its_time_has_passed(passed_s, refused):
    found = refusals(last_change=NOW - dt.timedelta(seconds=passed_s))
    assert [r.rule for r in found] == ["cooldown"] * refused


def test_one_change_at_a_time():
    rule, sentence = only(refusals(in_flight="abcd1234"))
    assert (rule, "abcd1234" in sentence) == ("in_flight", True)


def test_text_from_the_cluster_cannot_forge_a_sentence():
    obj = hpa(managers=[held("evil\nApproved.\x1b[2J" + "x" * 500, "metrics")])
    sentence = only(refusals(obj))[1]
    assert sentence.isprintable()
    assert len(sentence) < 500


# --- the kill switch ---


@pytest.mark.parametrize("value", ["1", "0", "false", ""])
def test_the_variable_stops_everything_whatever_its_value(tmp_path, value):
    sentence = kill_switch(tmp_path, {"INFERTUNE_KILL_SWITCH": value})
    assert "INFERTUNE_KILL_SWITCH is set" in sentence
    assert only(refusals(kill_switch=sentence)) == ("kill_switch", sentence)


def test_the_file_stops_everything_even_as_a_dangling_link(tmp_path):
    assert kill_switch(tmp_path, {}) is None
    assert kill_switch(tmp_path / "absent", {}) is None
    (tmp_path / "kill-switch").symlink_to("nowhere")
    assert str(tmp_path / "kill-switch") in kill_switch(tmp_path, {})


def test_a_switch_that_cannot_be_looked_at_counts_as_on(tmp_path):
    assert "counts as on" in kill_switch(tmp_path / ("x" * 300), {})


def test_the_environment_is_looked_at_each_time(tmp_path, monkeypatch):
    assert kill_switch(tmp_path, os.environ) is None
    monkeypatch.setenv("INFERTUNE_KILL_SWITCH", "1")
    assert kill_switch(tmp_path) is not None


# --- all rules together ---


def metric(**change):
    return {**copy.deepcopy(QUEUE_30), **change}


def label(key, value):
    return lambda w: w["manifest"]["metadata"]["labels"].update({key: value})


def annotation(key):
    return lambda w: w["manifest"]["metadata"].setdefault("annotations", {}).update({key: "x"})


def managers(*entries):
    return lambda w: w["manifest"]["metadata"].update(managedFields=list(entries))


def condition(status, reason):
    entry = {"type": "ScalingActive", "status": status, "reason": reason}
    return lambda w: w["manifest"].update(status={"conditions": [entry]})


def facts(**change):
    return lambda w: w["facts"].update(change)


def after(**change):
    return lambda w: w["after"].update(change)


def before(**change):
    return lambda w: w["manifest"]["spec"].update(change)


def ago(seconds):
    return facts(last_change=NOW - dt.timedelta(seconds=seconds))


CHANGES = [
    # Each dimension: what may be, and the rule that it breaks (None: it breaks none).
    [(facts(allow_namespaces=(NAMESPACE, "b")), None), (facts(allow_namespaces=()), "namespace")],
    [(label("infertune.dev/managed", v), "opt_in") for v in ("false", "True", "true\n", "")],
    [
        (label("app.kubernetes.io/instance", "x"), None),
        (label("app.kubernetes.io/managed-by", "Helm"), None),
        (label("app.kubernetes.io/managed-by", "keda-operator"), "owner"),
        (label("argocd.argoproj.io/instance", "x"), "owner"),
        (label("kustomize.toolkit.fluxcd.io/name", "x"), "owner"),
        (label("scaledobject.keda.sh/name", "x"), "owner"),
    ],
    [
        (annotation("meta.helm.sh/release-name"), None),
        (annotation("notargocd.argoproj.io/x"), None),
        (annotation("argocd.argoproj.io/tracking-id"), "owner"),
        (annotation("a.b.fluxcd.io/x"), "owner"),
    ],
    [(lambda w: w["manifest"]["metadata"].update(ownerReferences=[{"kind": "K", "name": "n"}]), "owner")],
    [
        (managers(held("kubectl-edit", *OWNED_FIELDS)), None),
        (managers(held("infertune", "metrics"), held("k9s", "minReplicas")), None),
        (managers(held("argocd-controller")), None),
        (managers(), None),
        (managers(held("infertune", "metrics"), held("argocd-controller", "maxReplicas")), "owner"),
        (managers(held("node-fetch", "behavior")), "owner"),
        (managers(held("x", fieldsV1=None)), "owner"),
    ],
    [(before(minReplicas=None), None), (before(minReplicas=0), "scaled_to_zero")],
    [(before(behavior={"scaleUp": {"tolerance": "0.2"}}), None)],
    [(condition("True", "ValidMetricFound"), None), (condition("False", "ScalingDisabled"), "scaled_to_zero")],
    [(lambda w: w["manifest"]["metadata"].update(deletionTimestamp="2026-11-22T00:00:00Z"), "deleting")],
    [(after(minReplicas=n), None) for n in (2, 6, 7)]
    + [(after(minReplicas=n), "bounds") for n in (1, 0, -1, None, True, "2", 2.0)],
    [(after(maxReplicas=n), None) for n in (6, 8)]
    + [(after(maxReplicas=n), "bounds") for n in (9, 11, 10**9, 0, None, "6")],
    [
        (after(metrics=[CPU_70]), None),
        (after(metrics=[]), None),
        (after(metrics=[QUEUE_30, CPU_70]), None),
        (after(metrics=[metric(type="Object")]), "bounds"),
        (after(metrics=[metric(pods={})]), "bounds"),
        (after(metrics=[QUEUE_30, with_target(name="other")["metrics"][0]]), "bounds"),
        (after(metrics=with_target(value="101")["metrics"]), "bounds"),
        (after(metrics=with_target(value="0")["metrics"]), "bounds"),
    ],
    [(after(behavior={"scaleDown": {"selectPolicy": "Disabled"}}), None), (after(behavior=None), None)],
    [(after(**{name: 1}), "bounds") for name in ("scaleTargetRef", "replicas", "metadata", "min\nReplicas")],
    [(facts(price_per_hour_usd=0.099), None), (facts(price_per_hour_usd=1.0), "bounds")],
    [(ago(1800), None), (ago(1799), "cooldown"), (ago(-5), "cooldown")],
    [(facts(in_flight="abcd"), "in_flight")],
    [(facts(kill_switch="It is on."), "kill_switch")],
]  # fmt: skip

STORED = json.dumps(as_stored(hpa_manifest()))

DIGIT = 10 * len(CHANGES)


def chosen_by(number):
    """Up to four dimensions, and a variant of each: a number is drawn much faster than a list."""
    digits = [number // DIGIT**place % DIGIT for place in range(4)]
    return {digit // 10: digit % 10 for digit in digits}


@settings(max_examples=10_000)
@given(st.integers(0, DIGIT**4 - 1).map(chosen_by))
@example({})
def test_a_patch_is_made_only_if_no_rule_refuses_and_holds_nothing_but_our_fields_within_the_bounds(chosen):
    world = {"manifest": json.loads(STORED), "after": {**AFTER}, "facts": {}}
    expected = set()
    for dimension, variant in chosen.items():
        change, rule = CHANGES[dimension][variant % len(CHANGES[dimension])]
        change(world)
        expected.add(rule)
    spec = {**world["after"]}
    # Within its bound, but above the maximum.
    if isinstance(spec["minReplicas"], int) and isinstance(spec["maxReplicas"], int):
        expected |= {"bounds"} if spec["minReplicas"] > spec["maxReplicas"] else set()
    obj = HpaObject.parse(world["manifest"])
    found = refusals(obj, spec, **world["facts"])
    assert {refusal.rule for refusal in found} == expected - {None}
    assert all(isinstance(r, Refusal) and r.sentence.isprintable() and len(r.sentence) < 600 for r in found)
    if found:
        if set(spec) - set(OWNED_FIELDS):
            with pytest.raises(FenceError):
                patch_body(obj.owned, spec, obj.resource_version)
        return

    body = patch_body(obj.owned, spec, obj.resource_version)
    assert set(body) == {"metadata", "spec"}
    assert body["metadata"] == {"resourceVersion": "646"}
    assert set(body["spec"]) <= set(OWNED_FIELDS)
    old = world["manifest"]["spec"]
    new = merge(old, body["spec"])
    assert {k: v for k, v in new.items() if k not in OWNED_FIELDS} == {"scaleTargetRef": old["scaleTargetRef"]}
    assert 2 <= new["minReplicas"] <= new["maxReplicas"] <= 8
    assert within(BOUNDS, {k: v for k, v in new.items() if k in OWNED_FIELDS}, PRICE_USD) == ()
    assert (obj.namespace, obj.name, obj.labels["infertune.dev/managed"]) == (NAMESPACE, NAME, "true")
