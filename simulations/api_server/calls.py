"""What a request asks for, and how it is carried out: authentication, authorization, then the resource."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import kmock
import yaml

from simulations.api_server import answers
from simulations.api_server.access import AUTHORIZATION, Access, Right
from simulations.api_server.answers import GROUP, RESOURCE, Answer, Refused
from simulations.api_server.hpas import Hpas
from simulations.api_server.workloads import DEPLOYMENTS, PODS, Resource, Workloads

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_KNOWN: dict[tuple[str | None, str | None], Resource] = {r: r for r in ((GROUP, RESOURCE), DEPLOYMENTS, PODS)}


@dataclass(frozen=True)
class Call:
    """A request as Kubernetes reads it."""

    user: str | None
    verb: str
    """get, list, create, update, delete, patch; a patch that only asks is `dry-run`."""
    resource: tuple[str | None, str | None]
    """Group and plural."""
    namespace: str | None
    name: str | None
    manager: str
    parameters: dict[str, str]
    content_type: str
    body: Any

    @classmethod
    def of(cls, request: kmock.Request, user: str | None) -> Self:
        """Read kmock's request."""
        parameters = dict(request.params)
        content_type = request.headers.get("Content-Type", "").partition(";")[0]
        agent = request.headers.get("User-Agent", "unknown").partition("/")[0]
        return cls(
            user=user,
            verb=_verb(str(request.method.value), named=request.name is not None, parameters=parameters),
            resource=(getattr(request.resource, "group", None), getattr(request.resource, "plural", None)),
            namespace=request.namespace,
            name=request.name,
            manager=parameters.get("fieldManager") or agent,
            parameters=parameters,
            content_type=content_type,
            body=yaml.safe_load(request.text) if content_type.endswith("yaml") else request.data,
        )


def carry_out(call: Call, access: Access, hpas: Hpas, workloads: Workloads, now: str) -> tuple[Answer | None, bool]:
    """Return the answer, and whether anything was stored; no answer if the resource is not known here.

    Raises:
        Refused: the answer is an error.
    """
    if call.user is None:
        return answers.unauthorized(), False
    if call.resource == (AUTHORIZATION, "selfsubjectaccessreviews"):
        return access.access_review(call.user, call.body, call.manager, now), False
    if call.resource == (AUTHORIZATION, "selfsubjectrulesreviews"):
        return access.rules_review(call.user, call.body), False
    resource = _KNOWN.get(call.resource)
    if resource is None or call.namespace is None:
        return None, False
    _require_right(call, call.user, resource, access)
    if resource == (GROUP, RESOURCE):
        return _on_hpas(call, hpas, call.namespace, call.name or "")
    return _on_workloads(call, resource, workloads, call.namespace), False


def _require_right(call: Call, user: str, of: Resource, access: Access) -> None:
    group, resource = of
    verb = "patch" if call.verb == "dry-run" else call.verb
    right = Right(verb, group=group, resource=resource, namespace=call.namespace, name=call.name)
    if access.allowed_by(user, right) is None:
        raise Refused(
            answers.forbidden(user, verb, namespace=call.namespace, name=call.name, group=group, resource=resource)
        )


def _on_workloads(call: Call, resource: Resource, workloads: Workloads, namespace: str) -> Answer:
    """Answer what is read of Deployments and pods; nothing of them is changed by a request."""
    if call.verb == "get":
        return Answer(200, workloads.get(resource, namespace, call.name or ""))
    if call.verb == "list":
        parameters = call.parameters
        limit = int(parameters.get("limit") or 0)
        return Answer(200, workloads.list(resource, namespace, parameters.get("labelSelector", ""), limit))
    return answers.failure(405, "the server does not allow this method on the requested resource")


def _on_hpas(call: Call, hpas: Hpas, namespace: str, name: str) -> tuple[Answer, bool]:
    if call.verb == "get":
        return Answer(200, hpas.get(namespace, name)), False
    if call.verb == "list":
        return Answer(200, hpas.list(namespace)), False
    if call.verb == "create":
        return Answer(201, hpas.create(namespace, call.body, manager=call.manager)), True
    if call.verb in ("patch", "dry-run"):
        hpa, stored = hpas.patch(
            namespace, name, call.body, kind=call.content_type, manager=call.manager, parameters=call.parameters
        )
        return Answer(200, hpa), stored
    if call.verb == "delete":
        hpas.delete(namespace, name)
        return Answer(200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}), True
    return answers.failure(405, "the server does not allow this method on the requested resource"), False


def _verb(method: str, *, named: bool, parameters: dict[str, str]) -> str:
    if method == "GET":
        return "get" if named else "list"
    if method == "PATCH" and parameters.get("dryRun") == "All":
        return "dry-run"
    return _VERBS.get(method, method.lower())
