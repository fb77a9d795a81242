"""The child's side of the line to the main process: one JSON object a line."""

from __future__ import annotations

import json
import os
from typing import Any

LENGTH_BYTES = 8
"""A request to the warm process is its length in so many bytes, then the request."""

_fd: int | None = None


def open_channel(fd: int) -> None:
    """Send everything from now on to this file descriptor. Called once, in a fresh child."""
    global _fd  # noqa: PLW0603  one channel a process: tasks call `emit` from anywhere, user code included
    _fd = fd


def send(message: dict[str, Any]) -> None:
    """Write one message; without a channel (a task called directly, in a test) it goes nowhere."""
    if _fd is None:
        return
    data = (json.dumps(message) + "\n").encode()
    while data:
        data = data[os.write(_fd, data) :]


def emit(event: str, **details: Any) -> None:
    """Tell the person watching what was found, while the task goes on. Details must be JSON-ready."""
    send({"event": event, **details})


def stage(name: str) -> None:
    """Say what the task is doing now. If it has to be killed, this is what it was killed in."""
    send({"stage": name})
