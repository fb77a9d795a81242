"""One request to Prometheus: bounded in time and size, and with an answer that is whole, or a sentence that says why.

`prometheus_api_client` sends through a `requests.Session` that it is given. The one here adds what it lacks: a limit on
the whole request, retries that keep the server's own words, no redirects (a token never goes where a redirect points),
no `.netrc` (which would replace the token), and an answer that is checked before anybody takes data out of it.

This module imports `requests`: import it where it is used.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import ssl
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import requests
import requests.utils
from urllib3.exceptions import HTTPError

from tools.errors import TrafficError
from tools.spec import PrometheusSpec
from tools.traffic.credentials import bearer_token, client_certificate
from tools.traffic.failures import Failure, TooLargeError, TooSlowError, of_exception, of_status

BACKOFF_S = (0.2, 1.0)
"""Waits before a second and a third attempt: a proxy without a backend for a moment, a Prometheus that restarts."""
MAX_ANSWER_BYTES = 64_000_000
"""A hundred series of 11,000 points are about 25 MB; more is a query that forgot to add up."""
_CHUNK_BYTES = 1 << 16


class Session(requests.Session):
    """A session to one Prometheus, for `PrometheusConnect(session=...)`.

    Attributes:
        warnings: what Prometheus remarked on the last answer.
    """

    def __init__(self, source: PrometheusSpec) -> None:
        """Prepare it: read the token and look at the certificates' files; nothing is sent.

        Raises:
            SpecError: the token or a certificate cannot be read.
        """
        super().__init__()
        self.warnings: tuple[str, ...] = ()
        self._where = source.url
        self._timeout_s = source.timeout_s
        self._token = bearer_token(source)
        self.cert = client_certificate(source)
        # The system's certificates, which other programs here trust; requests would bring its own.
        self.verify = source.ca_file or ssl.get_default_verify_paths().cafile or True
        self.trust_env = False
        self.proxies = proxies_for(source.url)

    def request(self, method: str, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request, again if that may help, and return an answer that holds Prometheus's data.

        Raises:
            TrafficError: there is no such answer within the time limit.
        """
        end = time.monotonic() + self._timeout_s
        kwargs["headers"] = {"Accept": "application/json"}
        if self._token is not None:
            kwargs["headers"]["Authorization"] = f"Bearer {self._token}"
        answer = self._attempt(end, method, url, *args, **kwargs)
        for wait_s in BACKOFF_S:
            if isinstance(answer, requests.Response) or not answer.passing or time.monotonic() + wait_s >= end:
                break
            time.sleep(wait_s)
            answer = self._attempt(end, method, url, *args, **kwargs)
        if isinstance(answer, Failure):
            raise TrafficError(answer.what, where=self._where, fix=answer.fix)
        return answer

    def _attempt(
        self, end: float, method: str, url: str | bytes, *args: Any, **kwargs: Any
    ) -> requests.Response | Failure:
        kwargs |= {"timeout": max(end - time.monotonic(), 0.01), "stream": True, "allow_redirects": False}
        try:
            with super().request(method, url, *args, **kwargs) as answer:
                body = _read(answer, end)
        # OSError: requests lets some errors of TLS and files through as they are.
        except (requests.RequestException, HTTPError, OSError, TooSlowError, TooLargeError) as error:
            return of_exception(error, timeout_s=self._timeout_s)
        query = str((kwargs.get("params") or {}).get("query", ""))
        failure = of_status(answer, body, query, with_token=self._token is not None, redacted=self.redacted)
        if failure is not None:
            return failure
        answer._content = body  # noqa: SLF001 - the caller's answer.json() is to find what was read here
        self.warnings = tuple(self.redacted(str(text)) for text in json.loads(body).get("warnings") or ())
        return answer

    def redacted(self, text: str) -> str:
        """Take the token out of what others wrote: some proxies and login pages repeat the request."""
        return text if self._token is None else text.replace(self._token, "***")


def proxies_for(url: str) -> dict[str, str]:
    """Return the proxies that the environment names for this address; none for this machine itself.

    Variables like HTTPS_PROXY and NO_PROXY count as everywhere. A proxy could not reach a loopback address here, and
    must not be shown the token meant for it.
    """
    host = urlsplit(url).hostname or ""
    return {} if is_loopback(host) else requests.utils.get_environ_proxies(url, no_proxy=None)


def is_loopback(host: str) -> bool:
    """Tell whether a host, by name or address, is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(answer: requests.Response, end: float) -> bytes:
    """Return the body, of which all must be there by `end`: timeouts of sockets bound each wait, not their sum."""
    guard = threading.Timer(max(end - time.monotonic(), 0.0), _break_off, [answer])
    guard.daemon = True
    guard.start()
    parts, size = [], 0
    try:
        while part := answer.raw.read1(_CHUNK_BYTES, decode_content=True):
            parts.append(part)
            size += len(part)
            if size > MAX_ANSWER_BYTES:
                raise TooLargeError
    finally:
        guard.cancel()
        if time.monotonic() > end:
            raise TooSlowError
    return b"".join(parts)


def _break_off(answer: requests.Response) -> None:
    with contextlib.suppress(ValueError, OSError):  # it ended by itself a moment ago
        answer.raw.shutdown()
