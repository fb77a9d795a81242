"""Every way in which a request to Prometheus fails, as one sentence and what to do.

This module imports `requests`: import it where it is used.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import requests
from urllib3.exceptions import LocationParseError, NameResolutionError

from tools.traffic.text import shortened

PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Answers that may be another one a moment later."""
_ADDRESS = "Check `traffic.prometheus.url`"
_SLOW = "If it can be reached at all: shorten `window_s`, raise `step_s` or `timeout_s`, or narrow `labels`."
_TOKEN = "Give a token that may read, with `token_file` or `token_env`."  # noqa: S105 - advice, not a token


class TooSlowError(Exception):
    """The whole request took longer than its limit."""


class TooLargeError(Exception):
    """The answer is larger than anybody needs."""


class Failure(NamedTuple):
    """Why there is no answer."""

    what: str
    fix: str
    passing: bool = False
    """Another attempt may succeed."""


def of_exception(error: Exception, *, timeout_s: float) -> Failure:
    """Say what an exception of the HTTP layers means; its own text is not used, for it may hold what was sent."""
    chain = list(_chain(error))
    if isinstance(error, TooLargeError):
        return Failure(
            "answered with too much data for one query.", "Let the query add up: sum(...), or sum by (le) (...)."
        )
    if isinstance(error, TooSlowError | requests.Timeout) or any(isinstance(e, TimeoutError) for e in chain):
        return Failure(f"did not answer within {timeout_s:g} s.", _SLOW)
    tls = next((e for e in chain if isinstance(e, ssl.SSLError)), None)
    if tls is not None:
        return _of_tls(tls)
    return _of_connection(error, chain)


def _of_connection(error: Exception, chain: list[BaseException]) -> Failure:
    """Say why there is no connection, or no longer one."""
    if any(isinstance(e, NameResolutionError | socket.gaierror | LocationParseError) for e in chain):
        return Failure("has a name that cannot be found (DNS).", f"{_ADDRESS}: is the name right, from this machine?")
    if isinstance(error, requests.exceptions.ProxyError):
        return Failure(
            "cannot be reached through the proxy.", "Check HTTPS_PROXY and HTTP_PROXY, or put its host into NO_PROXY."
        )
    if isinstance(error, requests.exceptions.InvalidURL):
        return Failure("is not an address that can be called.", f"{_ADDRESS}: http://HOST:PORT.")
    if any(isinstance(e, ConnectionRefusedError) for e in chain):
        return Failure(
            "refuses the connection.", f"{_ADDRESS}: is Prometheus running, and is that its port?", passing=True
        )
    reason = next((e.strerror for e in reversed(chain) if isinstance(e, OSError) and e.strerror), None)
    return Failure(
        f"broke the connection off{'' if reason is None else f' ({reason})'}.",
        f"{_ADDRESS}, and what stands in front of Prometheus.",
        passing=True,
    )


def of_status(
    answer: requests.Response, body: bytes, query: str, *, with_token: bool, redacted: Callable[[str], str]
) -> Failure | None:
    """Say what is wrong with an answer; None if it is Prometheus's, with data.

    Args:
        answer: its status and headers.
        body: of the answer.
        query: what was asked.
        with_token: whether a token was sent.
        redacted: takes secrets out of a text that the server wrote.
    """
    status, said = answer.status_code, _said(body)
    if isinstance(said, dict) and said.get("status") == "error" and status not in (401, 403):
        return _of_prometheus(status, redacted(str(said.get("error"))), said.get("errorType"), query)
    if status == 200:
        return _of_content(answer, body, said)
    if 300 <= status < 400:
        # Where to is not said: login pages are given the request, and what it carried, in their address.
        return Failure(
            f"redirects to another page ({status}), perhaps to log in; redirects are not followed.",
            "Give the address of Prometheus itself, and a token if it needs one.",
        )
    if status in (401, 403):
        why = "does not accept the token" if with_token else "asks for a token, and none is configured"
        return Failure(f"{why} ({status}).", _TOKEN)
    if status == 404:
        return Failure(
            "has no Prometheus API at /api/v1 (404).",
            f"{_ADDRESS}: with its path, if it has one, as http://HOST:PORT/prometheus.",
        )
    return Failure(
        f"failed ({status}): {shortened(redacted(_text(body))) or 'without a word'}.",
        "Ask again later, or look into its log.",
        passing=status in PASSING,
    )


def _of_content(answer: requests.Response, body: bytes, said: Any) -> Failure | None:
    """Judge the content of an answer that calls itself a success."""
    if said is None:
        page = "html" in answer.headers.get("Content-Type", "").lower() or body.lstrip()[:1] == b"<"
        if page:
            return Failure(
                "answered with a web page, not with data: a login page, or a proxy's.",
                "Give the address of Prometheus itself, and a token if it needs one.",
            )
        return Failure(
            f"sent an answer that is no whole JSON ({len(body)} bytes): it was cut off, or is not from Prometheus.",
            f"{_ADDRESS}, and what stands in front of Prometheus.",
            passing=True,
        )
    result = said.get("data") if isinstance(said, dict) else None
    if not (isinstance(result, dict) and isinstance(result.get("result"), list) and said.get("status") == "success"):
        return Failure("sent JSON that is not Prometheus's.", f"{_ADDRESS}: is that a Prometheus?")
    return None


def _of_prometheus(status: int, text: str, kind: object, query: str) -> Failure:
    """Pass on what Prometheus says of itself; `kind` is its `errorType`, one of a documented few."""
    said = f"({status}): {shortened(text)}."
    asked = f"{said} The query: {shortened(query)}."
    if kind == "bad_data":
        return Failure(f"does not take the query {asked}", "Mend the query.")
    if kind == "timeout":
        return Failure(f"took too long over the query {asked}", _SLOW)
    if kind == "execution":
        return Failure(f"cannot run the query {asked}", f"Mend the query, or: {_SLOW}")
    return Failure(f"failed {said}", "Ask again later, or look into its log.", passing=status in PASSING)


def _of_tls(error: ssl.SSLError) -> Failure:
    reason = getattr(error, "verify_message", None) or getattr(error, "reason", None) or "no reason given"
    if isinstance(error, ssl.SSLCertVerificationError):
        return Failure(
            f"has a certificate that is not trusted: {reason}.",
            "Name the certificate authority with `ca_file`, and call the server by the name in its certificate.",
        )
    return Failure(
        f"does not agree on TLS: {str(reason).lower().replace('_', ' ')}.",
        "Does it speak https at that port, and does it want a client certificate (`cert_file`, `key_file`)?",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, and those that it was made of: causes, contexts, and those in urllib3's `reason`."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, BaseException) and id(part) not in seen:
            seen.add(id(part))
            yield part
            waiting += [part.__cause__, part.__context__, getattr(part, "reason", None), *part.args]


def _said(body: bytes) -> Any:
    """Return what the body says as JSON; None if it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # the latter for brackets without end
        return None


def _text(body: bytes) -> str:
    text = body.decode("utf-8", errors="replace").strip()
    return "" if text.startswith("<") else text  # an error page's tags help nobody
