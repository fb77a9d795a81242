"""`infertune ui`: MLflow's own web pages over the local store."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tools.tracking.errors import TrackingError, public_uri
from tools.tracking.store import artifact_root, local_store, local_tracking_uri, quiet_environment


def ui_command(home: Path, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """Return the command that serves the store of this home directory.

    The runs' artifacts lie below `artifact_root(home)`, where the server finds them by the path that each experiment
    names; what clients log through the server goes to the same folder.
    """
    return [
        sys.executable,
        *("-m", "mlflow", "server"),
        *("--backend-store-uri", local_tracking_uri(home)),
        *("--artifacts-destination", artifact_root(home).as_uri()),
        *("--host", host),
        *("--port", str(port)),
        *("--workers", "1"),
    ]


def serve_ui(home: Path, host: str = "127.0.0.1", port: int = 5000) -> int:
    """Serve the pages until Ctrl-C or SIGTERM, and return the server's exit status (0 when it was asked to stop).

    Raises:
        TrackingError: there is no store yet, or the port is taken.
    """
    store = local_store(home)
    if not store.is_file():
        elsewhere = os.environ.get("MLFLOW_TRACKING_URI")
        raise TrackingError(
            "there is no MLflow store yet.",
            where=str(store),
            fix=f"Sessions are recorded at {public_uri(elsewhere)} (MLFLOW_TRACKING_URI): look there."
            if elsewhere
            else "Run `infertune optimize` first.",
        )
    _check_port(host, port)
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)

    process: subprocess.Popen[bytes] | None = None
    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        environment = {**os.environ, **quiet_environment(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        # The server starts workers of its own. In a session of their own they hear of Ctrl-C from us only, and once.
        process = subprocess.Popen(ui_command(home, host, port), env=environment, start_new_session=True)
        if stopped:  # while it was being started
            stop()
        status = process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 0 if stopped else status


def _check_port(host: str, port: int) -> None:
    """Find out now what the server would otherwise say in a traceback."""
    error = _bind_error(host, port)
    if error is not None:
        free = next((p for p in range(port + 1, port + 100) if _bind_error(host, p) is None), None)
        raise TrackingError(
            f"port {port} cannot be used ({error.strerror or error}).",
            where=host,
            fix=f"Choose another: infertune ui --port {free}" if free else "Choose another host or port.",
        )


def _bind_error(host: str, port: int) -> OSError | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family):
            return None
    except OSError as error:
        return error
