"""What each identity may do in the cluster, as the cluster itself says: no less than is needed, and no more.

Two questions are put to the API server. SelfSubjectAccessReview decides one right, and is always right.
SelfSubjectRulesReview lists all rules of one namespace, and so finds what nobody thought of asking; it may be
incomplete where rights come from elsewhere than RBAC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from tools.cluster.client import HpaClient
from tools.cluster.connection import open_reader, open_writer
from tools.cluster.text import shown
from tools.contracts.base import Contract
from tools.spec import ClusterSpec

Identity: TypeAlias = Literal["reader", "writer"]

Rule: TypeAlias = dict[str, Any]
"""Of a SelfSubjectRulesReview: verbs, apiGroups, resources, and perhaps resourceNames."""

HPAS = ("autoscaling", "horizontalpodautoscalers")

_NEEDED: dict[Identity, dict[str, str]] = {
    "reader": {"get": "nothing can be read"},
    "writer": {"get": "whether a change was stored cannot be seen", "patch": "nothing can be applied"},
}
"""Verbs on the one HPA, and what does not work without."""

_READING = frozenset({"get", "list", "watch"})

_EVERYBODYS = {
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("certificates.k8s.io", "clustertrustbundles"),
}
"""What every cluster gives to whoever is logged in (`system:basic-user`, `system:cluster-trust-bundle-discovery`)."""


class IdentityRights(Contract):
    """What one identity may not do, but should, and may do, but should not. Sentences."""

    identity: Identity
    context: str
    server: str
    lacks: tuple[str, ...]
    exceeds: tuple[str, ...]
    notes: tuple[str, ...] = ()


class RightsReport(Contract):
    """The rights of both identities on one HPA."""

    namespace: str
    hpa: str
    reader: IdentityRights
    writer: IdentityRights | None
    """None: the spec names no writer, so that nothing is ever applied."""

    @property
    def ok(self) -> bool:
        """Whether both have what they need, and nothing else."""
        return not any(rights.lacks or rights.exceeds for rights in (self.reader, self.writer) if rights)


@dataclass(frozen=True)
class _Right:
    verb: str
    group: str
    resource: str
    name: str = ""
    """Empty: all objects."""
    subresource: str = ""

    @property
    def path(self) -> str:
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


_TOO_MUCH: dict[Identity, tuple[_Right, ...]] = {
    "reader": tuple(_Right(verb, *HPAS) for verb in ("create", "update", "patch", "delete")),
    "writer": tuple(
        _Right(verb, *HPAS) for verb in ("create", "update", "patch", "delete", "deletecollection", "list")
    ),
}
"""On HPAs. Without a name it is about all of them, where a rule with `resourceNames` does not help."""

_OPTIONAL = (_Right("get", "apps", "deployments"), _Right("list", "", "pods"))
"""What the reader can do without; `tools.cluster.startup` makes use of it."""

_MUCH_TOO_MUCH = (
    _Right("*", "*", "*"),
    _Right("get", "", "secrets"),
    _Right("patch", "apps", "deployments"),
    _Right("patch", "apps", "deployments", subresource="scale"),
    _Right("create", "", "pods"),
    _Right("create", "", "pods", subresource="exec"),
    _Right("create", "rbac.authorization.k8s.io", "rolebindings"),
)
"""By any of these, more than one HPA is at stake."""


def examine_rights(cluster: ClusterSpec) -> RightsReport:
    """Ask the cluster what the spec's identities may do. Nothing is changed by it.

    Raises:
        ClusterError: a context cannot be used, or the server cannot be asked.
    """
    with open_reader(cluster) as client:
        reader = _examine("reader", client)
    writer = None
    if cluster.writer_context is not None:
        with open_writer(cluster) as client:
            writer = _examine("writer", client)
    return RightsReport(namespace=cluster.namespace, hpa=cluster.hpa, reader=reader, writer=writer)


def _examine(identity: Identity, client: HpaClient) -> IdentityRights:
    who = f"The {identity} (context {shown(client.connection.context)})"
    lacks = [
        f"{who} may not {verb} {_named(_Right(verb, *HPAS, client.name))} in {client.namespace}: {otherwise}."
        for verb, otherwise in _NEEDED[identity].items()
        if not _may(client, _Right(verb, *HPAS, client.name))
    ]
    rules, incomplete = _rules(client)
    excess = [rule for rule in (_beyond(identity, rule, client.name) for rule in rules) if rule is not None]
    exceeds = [f"{who} may {_in_words(rule)}; that is more than it needs: take it out of its Role." for rule in excess]
    one = _Right("update", *HPAS, client.name), _Right("delete", *HPAS, client.name)
    for right in (*_TOO_MUCH[identity], *one, *_MUCH_TOO_MUCH):
        # What a rule above says already is not said twice, and what only a webhook knows is found here.
        if not any(_covers(rule, right) for rule in excess) and _may(client, right):
            exceeds.append(f"{who} may {right.verb} {_named(right)}; that is more than it needs.")
            excess.append(_rule_of(right))
    return IdentityRights(
        identity=identity,
        context=client.connection.context,
        server=client.connection.server,
        lacks=tuple(lacks),
        exceeds=tuple(exceeds),
        notes=(
            *((f"The server lists the rights of the {identity} only in part.",) if incomplete else ()),
            *(_optional(who, client, rules) if identity == "reader" else ()),
        ),
    )


def _optional(who: str, client: HpaClient, rules: list[Rule]) -> Iterator[str]:
    """Yield what the reader might be allowed besides, what that brings, and how to grant it; nothing if it is."""
    lacking = [
        right
        for right in _OPTIONAL
        # A rule that names one Deployment is enough; which one it must be stands in the HPA, which is not read here.
        if not any(_covers({**rule, "resourceNames": ()}, right) for rule in rules) and not _may(client, right)
    ]
    if lacking:
        rights = " and ".join(f"{right.verb} {_named(right).removeprefix('any ')}" for right in lacking)
        yield (
            f"{who} may not {rights} in {client.namespace}, which is optional: without it, how long a pod takes to "
            "start is not measured, and the delays of the spec are assumed. The Role `...-reader-pods` that `infertune "
            "manifests` writes grants it. Listing pods shows the variables in their specs too: do without if any holds "
            "a secret."
        )


def _may(client: HpaClient, right: _Right) -> bool:
    from kubernetes.client import AuthorizationV1Api

    attributes = {
        "namespace": client.namespace,
        "verb": right.verb,
        "group": right.group,
        "resource": right.resource,
        "subresource": right.subresource,
        "name": right.name,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
    }
    send = AuthorizationV1Api(client.connection.api).create_self_subject_access_review
    answer = client.connection.ask(send, where="SelfSubjectAccessReview", body=review)
    return (answer.get("status") or {}).get("allowed") is True


def _rules(client: HpaClient) -> tuple[list[Rule], bool]:
    """Return the rules that hold in the namespace, and whether there may be more."""
    from kubernetes.client import AuthorizationV1Api

    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": client.namespace},
    }
    send = AuthorizationV1Api(client.connection.api).create_self_subject_rules_review
    status = client.connection.ask(send, where="SelfSubjectRulesReview", body=review).get("status") or {}
    return list(status.get("resourceRules") or ()), bool(status.get("incomplete"))


def _beyond(identity: Identity, rule: Rule, hpa: str) -> Rule | None:
    """Return the part of a rule that the identity does not need, None if there is none."""
    verbs, names = set(rule.get("verbs") or ()), set(rule.get("resourceNames") or ())
    pairs = {(group, resource) for group in rule.get("apiGroups") or () for resource in rule.get("resources") or ()}
    pairs -= _EVERYBODYS
    if identity == "reader" and not any(group in ("", "*") and name in ("secrets", "*") for group, name in pairs):
        verbs -= _READING
    if identity == "writer" and pairs == {HPAS} and names == {hpa}:
        verbs -= set(_NEEDED["writer"])
    if not verbs or not pairs:
        return None
    return {**rule, "verbs": sorted(verbs)}


def _covers(rule: Rule, right: _Right) -> bool:
    def has(key: str, value: str) -> bool:
        return not {"*", value}.isdisjoint(rule.get(key) or ())

    names = rule.get("resourceNames") or ()
    wanted = has("verbs", right.verb) and has("apiGroups", right.group) and has("resources", right.path)
    return wanted and (not names or right.name in names)


def _rule_of(right: _Right) -> Rule:
    return {"verbs": [right.verb], "apiGroups": [right.group], "resources": [right.path]}


def _in_words(rule: Rule) -> str:
    verbs, resources = rule["verbs"], rule.get("resources") or ()
    groups = [group for group in rule.get("apiGroups") or () if group]
    if "*" in verbs and "*" in resources and "*" in groups:
        return "do everything with everything (`*`)"
    names = rule.get("resourceNames") or ()
    of = f" of {_listed(groups)}" if groups else ""
    named = f" named {_listed(names)}" if names else ""
    return f"{_listed(verbs)} {_listed(resources)}{of}{named}"


def _listed(values: Iterable[object]) -> str:
    return ", ".join(shown(value) for value in values)


def _named(right: _Right) -> str:
    what = f"{right.path}.{right.group}" if right.group else right.path
    return f"{what} {right.name}" if right.name else f"any {what}"
