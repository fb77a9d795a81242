"""What an API server, or the way to it, answers in place of an object: each with what a person can do about it."""

from __future__ import annotations

import json
import re
from typing import Any, Literal, TypeAlias

from tools.cluster.text import MESSAGE_LIMIT, shown
from tools.errors import ClusterError

Kind: TypeAlias = Literal[
    "unreachable",
    "unauthorized",
    "forbidden",
    "not_found",
    "conflict",
    "invalid",
    "too_many",
    "server",
    "unknown",
    "not_json",
    "rejected",
]

_KIND_OF_STATUS: dict[int, Kind] = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    422: "invalid",
    429: "too_many",
}

_WHAT: dict[Kind, str] = {
    "unauthorized": "the API server does not know who asks (401).",
    "forbidden": "the API server does not allow it (403).",
    "not_found": "the API server has no such object (404).",
    "conflict": "the object has changed meanwhile (409).",
    "invalid": "the API server finds the change invalid (422).",
    "too_many": "the API server is asked too much (429).",
    "server": "the API server failed ({status}).",
    "rejected": "the API server does not take the request ({status}).",
}

_FIX: dict[Kind, str] = {
    "unreachable": "Check the address in the kubeconfig, the network and, for a private cluster, the VPN.",
    "unauthorized": "The credentials of this context are missing or have expired: log in again, or renew its token.",
    "forbidden": "Grant it with the Role for this identity; `infertune doctor --cluster` names what is lacking.",
    "not_found": "Check `cluster.namespace`, `cluster.hpa` and the context, and that the cluster serves autoscaling/v2 "
    "(Kubernetes 1.23 or later).",
    "conflict": "Read it again and make a new plan; nothing is ever forced.",
    "invalid": "Make a new plan: the object, or the cluster's rules for it, are not what this one was made for.",
    "too_many": "Try again later.",
    "server": "Try again later; if it stays, the cluster's administrators have its log.",
    "unknown": "Read the object before anything else is done: the change may, or may not, have been stored.",
    "not_json": "Something in between answers for it, as a proxy or a login page does: check the context's address.",
    "rejected": "Check the address of the context, and the cluster's version.",
}

_LONG_VALUE = re.compile(r'Invalid value: "(?:[^"\\]|\\.){200,}": ')
"""With `fieldValidation=Strict` the server repeats the whole object before it says what is wrong with it."""


class ApiError(ClusterError):
    """A request to the API server that did not give what was asked for."""

    def __init__(
        self,
        kind: Kind,
        what: str,
        *,
        where: str,
        status: int | None = None,
        writing: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        """Compose the message.

        Args:
            kind: decides what the reader is told to do.
            what: what happened, as a sentence.
            where: server and object.
            status: of the HTTP answer, if there was one.
            writing: whether the request was to change something.
            retry_after_s: how long the server asks to wait.
        """
        self.kind: Kind = kind
        self.status = status
        self.retry_after_s = retry_after_s
        self.maybe_stored = writing and kind in ("unknown", "server", "not_json")
        """Whether the change may have been stored all the same. A gateway's 504, or a crash after etcd's answer, looks
        like a failure too, so that only a fresh read can tell."""
        super().__init__(what, where=where, fix=_FIX["unknown" if self.maybe_stored else kind])


def error_of_answer(
    status: int, headers: Any, body: str, *, where: str, writing: bool, secrets: tuple[str, ...] = ()
) -> ApiError:
    """Return what an answer other than 2xx means.

    Args:
        status: of the answer.
        headers: of the answer; a mapping, or None.
        body: a Kubernetes `Status` as JSON, or whatever something in between sent.
        where: server and object.
        writing: whether the request was to change something.
        secrets: never to be repeated, even if the server does.
    """
    kind = _KIND_OF_STATUS.get(status, "server" if status >= 500 else "rejected")
    said = _message(body)
    if said is None and kind not in ("too_many", "server", "unauthorized", "not_found"):
        # A real API server gives its reasons. (A gateway's 401, 429 or 5xx, or a missing API's 404, are plain text.)
        kind = "not_json"
    what = _WHAT.get(kind, "what answers is no API server ({status}).").format(status=status)
    return ApiError(
        kind,
        what + (f" It says: {_shortened(redacted(said, secrets))}." if said else ""),
        where=where,
        status=status,
        writing=writing,
        retry_after_s=_seconds((headers or {}).get("Retry-After")),
    )


def redacted(text: str, secrets: tuple[str, ...]) -> str:
    """Return the text without any of the secrets."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "[redacted]")
    return text


def _message(body: str) -> str | None:
    """Return the server's reason, None if it is no Kubernetes `Status`."""
    try:
        status = json.loads(body)
    except ValueError:
        return None
    if not isinstance(status, dict) or status.get("kind") != "Status":
        return None
    return str(status.get("message") or status.get("reason") or "nothing more").strip().rstrip(".")


def _shortened(message: str) -> str:
    return shown(_LONG_VALUE.sub("", message), MESSAGE_LIMIT)


def _seconds(value: str | None) -> float | None:
    """Read Retry-After in seconds, which is all that an API server sends (RFC 9110 has a date too)."""
    return float(value) if value is not None and re.fullmatch(r"\d{1,6}", value.strip()) else None
