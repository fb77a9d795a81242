"""Who may do what: tokens, rules as RBAC has them, and the reviews by which a caller asks for its own rights."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from simulations.api_server.answers import GROUP, RESOURCE, Answer, Manifest

AUTHORIZATION = "authorization.k8s.io"

_SELF_REVIEWS: Manifest = {
    "verbs": ["create"],
    "apiGroups": [AUTHORIZATION],
    "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
}
"""What `system:basic-user` gives to everybody who is logged in."""

_DISCOVERY: Manifest = {"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/version"]}
"""What `system:discovery` gives."""


@dataclass(frozen=True)
class Right:
    """One thing that a caller may, or may not, do."""

    verb: str
    group: str = GROUP
    resource: str = RESOURCE
    """With the subresource: `deployments/scale`."""
    namespace: str | None = None
    """None: in all of them."""
    name: str | None = None
    """None: all objects."""


@dataclass(frozen=True)
class Rule:
    """One rule of a Role, or, without a namespace, of a ClusterRole."""

    verbs: tuple[str, ...]
    resources: tuple[str, ...] = (RESOURCE,)
    groups: tuple[str, ...] = (GROUP,)
    names: tuple[str, ...] = ()
    """Empty: all of them."""
    namespace: str | None = None
    """None: in all namespaces."""

    def allows(self, right: Right) -> bool:
        """Whether the rule covers this."""
        return (
            _covers(self.verbs, right.verb)
            and _covers(self.groups, right.group)
            and _covers(self.resources, right.resource)
            and (not self.names or right.name in self.names)
            and (self.namespace is None or self.namespace == right.namespace)
        )


class Access:
    """The table of users, their tokens and their rules."""

    def __init__(self) -> None:
        self._rules: dict[str, list[Rule]] = {}
        self._tokens: dict[str, str] = {}

    def add(self, user: str, rules: Iterable[Rule] = ()) -> str:
        """Add a user, or further rules, and return the user's token: random, and different in each server."""
        self._rules.setdefault(user, []).extend(rules)
        return self._tokens.setdefault(user, secrets.token_hex(24))

    def set(self, user: str, rules: Iterable[Rule]) -> None:
        """Replace the user's rules."""
        self._rules[user] = list(rules)

    def user_of(self, authorization: str | None) -> str | None:
        """Return whose token the header holds, None if nobody's."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        return next((user for user, known in self._tokens.items() if known == token), None)

    def allowed_by(self, user: str, right: Right) -> Rule | None:
        """Return the rule that gives the user this right, None if none does."""
        return next((rule for rule in self._rules.get(user, []) if rule.allows(right)), None)

    def access_review(self, user: str, review: Manifest, manager: str, time: str) -> Answer:
        """Answer a SelfSubjectAccessReview."""
        asked = review.get("spec", {}).get("resourceAttributes", {})
        right = Right(
            asked.get("verb", ""),
            group=asked.get("group", ""),
            resource="/".join(filter(None, (asked.get("resource"), asked.get("subresource")))),
            namespace=asked.get("namespace") or None,
            name=asked.get("name") or None,
        )
        rule = self.allowed_by(user, right)
        status: Manifest = {"allowed": rule is not None}
        if rule is not None:
            role, where = ("ClusterRole", "") if rule.namespace is None else ("Role", f"/{rule.namespace}")
            status["reason"] = f'RBAC: allowed by {role}Binding "tuner{where}" of {role} "tuner" to User "{user}"'
        held: Manifest = {".": {}, **{f"f:{field}": {} for field in asked}}
        entry = {
            "manager": manager,
            "operation": "Update",
            "apiVersion": f"{AUTHORIZATION}/v1",
            "time": time,
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:resourceAttributes": held}},
        }
        return Answer(
            201,
            {
                "kind": "SelfSubjectAccessReview",
                "apiVersion": f"{AUTHORIZATION}/v1",
                "metadata": {"managedFields": [entry]},
                "spec": {"resourceAttributes": asked},
                "status": status,
            },
        )

    def rules_review(self, user: str, review: Manifest) -> Answer:
        """Answer a SelfSubjectRulesReview: all rules that hold in one namespace."""
        namespace = review.get("spec", {}).get("namespace", "")
        rules = [rule for rule in self._rules.get(user, []) if rule.namespace in (None, namespace)]
        told = [
            {
                "verbs": list(rule.verbs),
                "apiGroups": list(rule.groups),
                "resources": list(rule.resources),
                **({"resourceNames": list(rule.names)} if rule.names else {}),
            }
            for rule in rules
        ]
        return Answer(
            201,
            {
                "kind": "SelfSubjectRulesReview",
                "apiVersion": f"{AUTHORIZATION}/v1",
                "metadata": {},
                "spec": {},
                "status": {
                    "resourceRules": [_SELF_REVIEWS, *told],
                    "nonResourceRules": [_DISCOVERY],
                    "incomplete": False,
                },
            },
        )


def _covers(allowed: tuple[str, ...], wanted: str) -> bool:
    return "*" in allowed or wanted in allowed
