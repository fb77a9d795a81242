"""What an API server answers: a status code, a body, and headers; errors as Kubernetes words them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

Manifest: TypeAlias = dict[str, Any]

GROUP = "autoscaling"
RESOURCE = "horizontalpodautoscalers"
KIND = "HorizontalPodAutoscaler"


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: Manifest | str
    """JSON, or text such as the HTML of a proxy."""
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):  # noqa: N818  # an answer as any other, raised where it is found
    """A request that is answered with an error."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(answer.status)


@dataclass(frozen=True)
class Cause:
    """One field that is wrong."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"


_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


def failure(
    status: int, message: str, details: Manifest | None = None, headers: dict[str, str] | None = None
) -> Answer:
    """Return a `Status` object that tells of a failure."""
    body: Manifest = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": _REASONS.get(status, ""),
        "code": status,
    }
    if details is not None:
        body["details"] = details
    return Answer(status, body, headers or {})


def unauthorized() -> Answer:
    """Return the answer to a caller without a valid token."""
    return failure(401, "Unauthorized")


def forbidden(
    user: str,
    verb: str,
    *,
    namespace: str | None,
    name: str | None,
    group: str = GROUP,
    resource: str = RESOURCE,
) -> Answer:
    """Return the answer to a caller without this right."""
    plural = _qualified(group, resource)
    what = f'{plural} "{name}"' if name else plural
    scope = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    message = f'{what} is forbidden: User "{user}" cannot {verb} resource "{resource}" in API group "{group}" {scope}'
    return failure(403, message, _details(group, resource, name))


def not_found(name: str, *, group: str = GROUP, resource: str = RESOURCE) -> Answer:
    """Return the answer to who asks for an object that is not there."""
    return failure(404, f'{_qualified(group, resource)} "{name}" not found', _details(group, resource, name))


def already_exists(name: str) -> Answer:
    """Return the answer to who creates an HPA that is there."""
    answer = failure(
        409, f'{RESOURCE}.{GROUP} "{name}" already exists', {"name": name, "group": GROUP, "kind": RESOURCE}
    )
    return Answer(409, {**_json(answer), "reason": "AlreadyExists"})


def modified(name: str) -> Answer:
    """Return the answer to a change of an older version than the stored one."""
    message = (
        f'Operation cannot be fulfilled on {RESOURCE}.{GROUP} "{name}": the object has been modified; please apply '
        "your changes to the latest version and try again"
    )
    return failure(409, message, {"name": name, "group": GROUP, "kind": RESOURCE})


def apply_conflict(conflicts: list[tuple[str, str]]) -> Answer:
    """Return the answer to a server-side apply of fields, as (manager, path), that others hold."""
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{manager}" using {GROUP}/v2',
            "field": path,
        }
        for manager, path in conflicts
    ]
    told = "; ".join(f"{cause['message']}: {cause['field']}" for cause in causes)
    count = f"{len(causes)} conflict" + ("s" if len(causes) > 1 else "")
    return failure(409, f"Apply failed with {count}: {told}", {"causes": causes})


def invalid(name: str, causes: list[Cause]) -> Answer:
    """Return the answer to an HPA that breaks the rules of validation."""
    told = [f"{cause.field}: {cause.message}" for cause in causes]
    text = told[0] if len(told) == 1 else f"[{', '.join(told)}]"
    details = {
        "name": name,
        "group": GROUP,
        "kind": KIND,
        "causes": [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes],
    }
    return failure(422, f'{KIND}.{GROUP} "{name}" is invalid: {text}', details)


def unknown_fields(patched: str, fields: list[str]) -> Answer:
    """Return the answer to a patch with unknown fields under strict validation.

    Args:
        patched: JSON text of the patched object, which the server repeats.
        fields: paths, as `spec.maxReplica`.
    """
    quoted = '"' + patched.replace("\\", "\\\\").replace('"', '\\"') + '"'
    errors = ", ".join(f'unknown field "{field}"' for field in fields)
    cause = Cause("patch", f"Invalid value: {quoted}: strict decoding error: {errors}")
    details = {"causes": [{"reason": cause.reason, "message": cause.message, "field": cause.field}]}
    return failure(422, f' "" is invalid: patch: {cause.message}', details)


def _qualified(group: str, resource: str) -> str:
    return f"{resource}.{group}" if group else resource


def _details(group: str, resource: str, name: str | None) -> Manifest:
    """Return the `details` of a `Status`; what is empty is left out, as the core group is."""
    return {**({"name": name} if name else {}), **({"group": group} if group else {}), "kind": resource}


def _json(answer: Answer) -> Manifest:
    assert isinstance(answer.body, dict)
    return answer.body
