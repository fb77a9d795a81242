"""What the identities may do is asked of the cluster, and said: what is lacking, and what is too much."""

# ruff: noqa: F811  # a fixture that is imported, and then asked for by name

import pytest
from cluster_support import NAME, NAMESPACE, cluster, production, server  # noqa: F401

from agent.cluster_doctor import describe
from simulations.api_server import Rule
from tools.cluster.rights import examine_rights


def test_what_is_needed_and_nothing_else_is_fine(server, cluster):
    report = examine_rights(cluster)
    assert report.ok
    assert (report.reader.context, report.writer.context, report.writer.server) == ("reader", "writer", server.url)
    assert {request.verb for request in server.log} == {"create"}  # of reviews: nothing else is touched
    assert not any(request.stored for request in server.log)


def test_without_a_writer_only_the_reader_is_examined(cluster):
    report = examine_rights(cluster.model_copy(update={"writer_context": None}))
    assert (report.ok, report.writer) == (True, None)


def test_missing_rights_are_said_with_what_does_not_work_then(server, cluster):
    report = examine_rights(cluster.model_copy(update={"context": "nobody", "writer_context": "reader"}))
    one = f"horizontalpodautoscalers.autoscaling {NAME} in {NAMESPACE}"
    assert report.reader.lacks == (f"The reader (context nobody) may not get {one}: nothing can be read.",)
    assert "may not patch" in report.writer.lacks[0]
    assert not report.ok


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (
            Rule(("get", "patch", "delete"), names=(NAME,)),
            f"may delete horizontalpodautoscalers of autoscaling named {NAME}",
        ),
        (Rule(("patch",)), "may patch horizontalpodautoscalers of autoscaling;"),
        (
            Rule(("get", "patch"), names=(NAME, "other")),
            f"may get, patch horizontalpodautoscalers of autoscaling named {NAME}, other",
        ),
        (Rule(("list",)), "may list horizontalpodautoscalers of autoscaling;"),
        (Rule(("get",), ("secrets",), ("",)), "may get secrets;"),
        (Rule(("patch",), ("deployments/scale",), ("apps",)), "may patch deployments/scale of apps;"),
        (Rule(("get",), ("widgets",), ("example.com",)), "may get widgets of example.com;"),
        (Rule(("*",), ("*",), ("*",)), "may do everything with everything (`*`);"),
    ],
)
def test_a_writer_that_may_do_more_is_told_which_rule_is_too_much(server, cluster, rule, sentence):
    server.access.add("infertune", [rule])
    report = examine_rights(cluster)
    assert len(report.writer.exceeds) == 1
    assert sentence in report.writer.exceeds[0]
    assert (report.writer.lacks, report.reader.exceeds, report.ok) == ((), (), False)


@pytest.mark.parametrize(
    ("rule", "fine"),
    [
        (Rule(("get", "list", "watch"), ("pods", "deployments"), ("", "apps")), True),
        (Rule(("get",), ("secrets",), ("",)), False),
        (Rule(("list",), ("*",), ("",)), False),
        (Rule(("patch",), names=(NAME,)), False),
        (Rule(("create",), ("pods/exec",), ("",)), False),
    ],
)
def test_a_reader_may_read_but_no_secrets_and_write_nothing(server, cluster, rule, fine):
    server.access.add("infertune-reader", [rule])
    assert (examine_rights(cluster).reader.exceeds == ()) is fine


PODS = Rule(("list",), ("pods",), ("",))
DEPLOYMENT = Rule(("get",), ("deployments",), ("apps",), names=(NAME,))


@pytest.mark.parametrize(
    ("rules", "lacking"),
    [
        ((), "get deployments.apps and list pods"),
        ((PODS,), "get deployments.apps"),
        ((DEPLOYMENT,), "list pods"),
        ((Rule(("get",), ("pods",), ("",)), DEPLOYMENT), "list pods"),
    ],
)
def test_what_the_reader_can_do_without_is_said_with_what_it_brings_and_how_to_grant_it(
    server, cluster, rules, lacking
):
    server.access.set("infertune-reader", [Rule(("get",), names=(NAME,)), *rules])
    report = examine_rights(cluster)
    (note,) = report.reader.notes
    assert note.startswith(f"The reader (context reader) may not {lacking} in {NAMESPACE}, which is optional: without")
    assert "the delays of the spec are assumed" in note
    assert "`infertune manifests` writes grants it" in note
    assert (report.ok, report.writer.notes) == (True, ())
    assert f"  {note}" in describe(report)


@pytest.mark.parametrize("rules", [(PODS, DEPLOYMENT), (Rule(("*",), ("*",), ("*",)),)])
def test_what_is_optional_is_not_mentioned_once_it_is_granted(server, cluster, rules):
    server.access.set("infertune-reader", rules)
    assert examine_rights(cluster).reader.notes == ()


def test_what_only_single_questions_show_is_found_too(server, cluster):
    """As with a webhook in place of RBAC: the list of rules is incomplete."""
    server.access.rules_review = lambda user, review: type(server.access).rules_review(server.access, "nobody", review)
    server.access.add("infertune", [Rule(("delete",)), Rule(("get",), ("secrets",), ("",))])
    exceeds = examine_rights(cluster).writer.exceeds
    assert exceeds == (
        "The writer (context writer) may delete any horizontalpodautoscalers.autoscaling; that is more than it needs.",
        "The writer (context writer) may get any secrets; that is more than it needs.",
    )
