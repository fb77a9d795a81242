"""A real Prometheus for tests, and a real server that answers as no Prometheus should."""

import contextlib
import http.server
import json
import threading
from urllib.parse import parse_qs, urlsplit

import pytest

from simulations.prometheus_server import prometheus, prometheus_missing


@contextlib.contextmanager
def running_prometheus(openmetrics, directory):
    """Yield the URL of a Prometheus that holds these samples; skip where there is none."""
    missing = prometheus_missing()
    if missing is not None:
        pytest.skip(f"{missing}: install Debian's `prometheus` to run this test")
    with prometheus(openmetrics, directory) as url:
        yield url


@pytest.fixture(scope="session")
def start_prometheus(tmp_path_factory):
    """Start servers that live until the tests end: `start_prometheus(openmetrics) -> url`."""
    with contextlib.ExitStack() as servers:
        yield lambda openmetrics: servers.enter_context(
            running_prometheus(openmetrics, tmp_path_factory.mktemp("prometheus"))
        )


class Request:
    """One request that `serving` got."""

    def __init__(self, handler):
        self.handler = handler
        self.headers = dict(handler.headers)
        self.path = urlsplit(handler.path).path
        self.params = {name: values[0] for name, values in parse_qs(urlsplit(handler.path).query).items()}

    def reply(self, body=b"", *, status=200, content_type="application/json", length=None, **headers):
        """Send an answer; `length` is what it claims to be long."""
        body = body.encode() if isinstance(body, str) else body
        self.handler.send_response(status)
        self.handler.send_header("Content-Type", content_type)
        self.handler.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()
        self.handler.wfile.write(body)

    def matrix(self, *series, **more):
        """Answer with series: each a list of (second, value), or a pair of labels and such a list."""
        result = [one if isinstance(one, tuple) else ({}, one) for one in series]
        result = [{"metric": labels, "values": [[t, str(v)] for t, v in points]} for labels, points in result]
        self.reply(json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}} | more))


@contextlib.contextmanager
def serving(answer, *, tls=None):
    """Yield the URL of a server on loopback whose every GET is `answer(request)`, and the requests that it got.

    Args:
        answer: replies through its `Request`, or raises to break off.
        tls: an `ssl.SSLContext`, for https.
    """
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(Request(self))
            with contextlib.suppress(OSError):  # the client has gone: that is what some tests are about
                answer(requests[-1])

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_):
            pass

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    if tls is not None:
        # Each handshake in its own thread, so that one that fails or stalls stops nobody else.
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
