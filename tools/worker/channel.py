"""The child's side of the line to the main process: one JSON object a line."""

from __future__ import annotations

import json
import os
import resource
import threading
import time
from pathlib import Path
from typing import Any

LENGTH_BYTES = 8
"""A request to the warm process is its length in so many bytes, then the request."""

BEAT_EVERY_S = 2.0
"""Seconds between two signs of life: rare enough not to be seen in a measurement."""

_PAGE_MB = resource.getpagesize() / 1e6

_fd: int | None = None
_lock = threading.Lock()
# a task may fork while the other thread is sending: the copy must not be born with a lock that nobody opens
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def open_channel(fd: int) -> None:
    """Send everything from now on to this file descriptor. Called once, in a fresh child."""
    global _fd  # noqa: PLW0603  one channel a process: tasks call `emit` from anywhere, user code included
    _fd = fd


def send(message: dict[str, Any]) -> None:
    """Write one message; without a channel (a task called directly, in a test) it goes nowhere.

    Raises:
        TypeError, ValueError: it is not JSON-ready.
    """
    if _fd is None:
        return
    data = memoryview((json.dumps(message) + "\n").encode())
    with _lock:  # the heartbeat must not land in the middle of a long message
        while data:
            data = data[os.write(_fd, data) :]


def emit(event: str, **details: Any) -> None:
    """Tell the person watching what was found, while the task goes on. Details must be JSON-ready."""
    send({"event": event, **details})


def stage(name: str) -> None:
    """Say what the task is doing now. If it has to be killed, this is what it was killed in."""
    send({"stage": name})


def start_beating() -> None:
    """Send a sign of life every `BEAT_EVERY_S` seconds for as long as Python code can run in this process.

    A thread can only beat while it gets the interpreter's lock, so code that hangs with the lock held falls silent.
    """
    threading.Thread(target=_beat, name="heartbeat", daemon=True).start()


def _beat() -> None:
    while True:
        time.sleep(BEAT_EVERY_S)
        try:
            send({"beat": {"cpu_s": round(time.process_time(), 3), "rss_mb": round(_resident_mb(), 1)}})
        except OSError:  # nobody listens any more, or the task closed the channel
            return


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_MB
