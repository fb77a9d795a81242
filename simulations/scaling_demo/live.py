"""A service as Prometheus sees it while it runs: a metrics endpoint whose latency can be made bad."""

from __future__ import annotations

import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from simulations.prometheus_week import BOUNDS_MS

DEPLOYMENT = "model"
USUAL_MS, SLOW_MS = 2.0, 60.0
"""Mean latency of a request, exponential: its p99 is 4.6 times that."""


class LiveService:
    """Serves `/metrics` on a free port of loopback, under the names that the preset `ray-serve` reads."""

    def __init__(self, rate_rps: float) -> None:
        """Make a service that is not yet running.

        Args:
            rate_rps: requests per second that it gets, all the time.
        """
        self._rate_rps = rate_rps
        self._mean_ms = USUAL_MS
        self._lock = threading.Lock()
        self._last_s = time.monotonic()
        self._counts = dict.fromkeys((*BOUNDS_MS, math.inf), 0.0)
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = service.text().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def become(self, *, slow: bool) -> None:
        """Make requests slow from now on, or as usual again."""
        with self._lock:
            self._advance()
            self._mean_ms = SLOW_MS if slow else USUAL_MS

    def text(self) -> str:
        """Return the metrics as they stand now."""
        with self._lock:
            self._advance()
            counts = dict(self._counts)
        label = f'deployment="{DEPLOYMENT}",application="default",replica="live"'
        lines = [
            "# TYPE ray_serve_deployment_request_counter_total counter",
            f"ray_serve_deployment_request_counter_total{{{label}}} {counts[math.inf]:.0f}",
            "# TYPE ray_serve_deployment_processing_latency_ms histogram",
            *(
                f'ray_serve_deployment_processing_latency_ms_bucket{{{label},le="{_bound(bound)}"}} {count:.0f}'
                for bound, count in counts.items()
            ),
        ]
        return "\n".join([*lines, ""])

    def _advance(self) -> None:
        """Count the requests since the last look."""
        now_s = time.monotonic()
        requests = self._rate_rps * (now_s - self._last_s)
        self._last_s = now_s
        for bound in self._counts:
            self._counts[bound] += requests * (1 - math.exp(-bound / self._mean_ms))


def _bound(bound: float) -> str:
    return "+Inf" if math.isinf(bound) else f"{bound:.1f}"
