"""One request to an API server and its answer, through the official client: bounded in time, and mapped to errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tools.cluster.api_errors import ApiError, error_of_answer, redacted
from tools.cluster.text import MESSAGE_LIMIT, shown

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 15.0
"""Between two pieces of an answer. An API server answers such requests within a second, or it is in trouble."""

ATTEMPTS = 3
"""For a request that changes nothing."""

BACKOFF_S = 0.5
"""Before the second attempt; doubled before each further one."""

RETRY_AFTER_CAP_S = 10.0
"""A server that asks to wait longer is not waited for: the caller is told."""


class Connection:
    """An API server, and an identity that it knows.

    The client's own retries are off: urllib3 would repeat what was asked, follow redirects with a patch in hand, and
    sleep as long as a Retry-After says. Here a read is repeated at most twice, and a change never.
    """

    def __init__(
        self,
        api: Any,
        *,
        context: str,
        read_timeout_s: float,
        sleep: Callable[[float], None],
    ) -> None:
        """Take over an `ApiClient`.

        Args:
            api: `kubernetes.client.ApiClient`, made with `retries=False`.
            context: name of the kubeconfig's context, or `in-cluster`.
            read_timeout_s: how long to wait for an answer.
            sleep: waits between attempts.
        """
        self.api = api
        self.context = context
        self.server: str = api.configuration.host
        self._timeouts = (CONNECT_TIMEOUT_S, read_timeout_s)
        self._sleep = sleep

    def __repr__(self) -> str:
        """Name server and context; never the credentials."""
        return f"Connection({shown(self.context)!r} at {shown(self.server)!r})"

    def close(self) -> None:
        """Let go of the connections."""
        self.api.close()

    def ask(self, send: Callable[..., Any], *, where: str, **arguments: Any) -> dict[str, Any]:
        """Send a request that changes nothing, up to `ATTEMPTS` times, and return the JSON object of the answer.

        Args:
            send: method of a `kubernetes` API, called with `arguments`.
            where: what it is about, for errors.
            arguments: of the method.

        Raises:
            ApiError: there is no such answer.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._send(send, where=where, writing=False, **arguments)
            except ApiError as error:
                wait_s = _wait_before_retry_s(error, attempt)
                if wait_s is None:
                    raise
                self._sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")  # pragma: no cover

    def change(self, send: Callable[..., Any], *, where: str, **arguments: Any) -> dict[str, Any]:
        """Send a request that changes something, once, and return the JSON object of the answer.

        Raises:
            ApiError: there is no such answer; `maybe_stored` says whether it may have been carried out nevertheless.
        """
        return self._send(send, where=where, writing=True, **arguments)

    def _send(self, send: Callable[..., Any], *, where: str, writing: bool, **arguments: Any) -> dict[str, Any]:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        place = f"{shown(where)} at {shown(self.server)} (context {shown(self.context)})"
        try:
            response = send(**arguments, _preload_content=False, _request_timeout=self._timeouts)
            body = response.data
        except ApiException as error:
            if not error.status:  # the client's way to say that TLS failed
                raise _connection_error(error.reason or "", error, place, writing=writing) from None
            text = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body or ""
            raise error_of_answer(
                error.status, error.headers, text, where=place, writing=writing, secrets=self._secrets()
            ) from None
        except HTTPError as error:
            raise _connection_error(redacted(str(error), self._secrets()), error, place, writing=writing) from None
        return _json_object(body, place, status=response.status, writing=writing)

    def _secrets(self) -> tuple[str, ...]:
        values = [str(value) for value in self.api.configuration.api_key.values()]
        return tuple(part for value in values for part in (value, value.partition(" ")[2]) if len(part) >= 8)


def _wait_before_retry_s(error: ApiError, attempt: int) -> float | None:
    """Return how long to wait before asking again, None if that is of no use."""
    if attempt == ATTEMPTS or error.kind not in ("unreachable", "unknown", "too_many", "server"):
        return None
    wait_s = BACKOFF_S * 2 ** (attempt - 1) if error.retry_after_s is None else error.retry_after_s
    return wait_s if wait_s <= RETRY_AFTER_CAP_S else None


def _connection_error(detail: str, error: Exception, place: str, *, writing: bool) -> ApiError:
    """Tell a connection that never was from one that ended early: only then may a change have been stored."""
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProxyError, ReadTimeoutError

    never_sent = isinstance(error, (NewConnectionError, ConnectTimeoutError, ProxyError))
    if "CERTIFICATE_VERIFY_FAILED" in detail:
        what = "its certificate cannot be trusted: no `certificate-authority` of the context vouches for it."
        return ApiError("unreachable", what, where=place, writing=writing)
    if never_sent:
        what = f"the API server cannot be reached ({_reason(detail)})."
        return ApiError("unreachable", what, where=place, writing=writing)
    what = (
        "the API server took too long to answer."
        if isinstance(error, ReadTimeoutError)
        else f"the connection ended before the answer ({_reason(detail)})."
    )
    return ApiError("unknown" if writing else "unreachable", what, where=place, writing=writing)


def _reason(detail: str) -> str:
    """Cut the library's object in front of the reason: `HTTPConnection(host=...): Failed to ...`."""
    return shown(" ".join(detail.rpartition("): ")[2].split()), MESSAGE_LIMIT)


def _json_object(body: bytes, place: str, *, status: int, writing: bool) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        what = "the answer is no JSON object, so it does not come from an API server."
        raise ApiError("not_json", what, where=place, status=status, writing=writing)
    return answer
