"""A headless Chromium, spoken to over a pair of pipes: to take a picture of a page, and to look at it as people do.

The DevTools protocol without a port that others could reach, and without a library: JSON messages that end in a zero
byte, read from file descriptor 4 of the browser and written to its descriptor 3
(https://chromedevtools.github.io/devtools-protocol, `--remote-debugging-pipe`).
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FREE_FD = 10
"""Descriptors below this are taken by the browser's own."""
_WIDTH, _HEIGHT = 1280, 900
_TALLEST = 16_000
"""Pixels: what lies below is not in the picture, since browsers draw no larger surface reliably."""
_LIMIT_S = 45.0


class NoBrowserError(RuntimeError):
    """There is no Chromium here, or it does not answer."""


class Browser:
    """One page of a running Chromium.

    Args:
        commands: the browser reads from it.
        answers: the browser writes to it.
        limit_s: after which an answer is no longer waited for.
    """

    def __init__(self, commands: int, answers: int, limit_s: float = _LIMIT_S) -> None:
        self._commands = commands
        self._answers = answers
        self._limit_s = limit_s
        self._number = 0
        self._rest = b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        """Everything that the browser told unasked, in order."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol, and return its result.

        Raises:
            NoBrowserError: the browser refuses, is gone, or does not answer in time.
        """
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        try:
            self._write(json.dumps(message).encode() + b"\0")
        except BrokenPipeError:
            raise NoBrowserError("the browser ended early") from None
        until = time.monotonic() + self._limit_s
        while True:
            answer = self._next(until)
            if answer.get("id") != self._number:
                self.events.append(answer)
            elif "error" in answer:
                raise NoBrowserError(f"{method}: {answer['error'].get('message', 'refused')}")
            else:
                found: dict[str, Any] = answer["result"]
                return found

    def show(self, page: Path, *, width: int, height: int = _HEIGHT, dark: bool = False, phone: bool = False) -> None:
        """Open a page as wide as a screen, in one of the two colour schemes, and wait until it is loaded."""
        scheme = "dark" if dark else "light"
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.events.clear()
        self.ask("Page.navigate", url=page.resolve().as_uri())
        until = time.monotonic() + self._limit_s
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next(until))

    def value(self, expression: str) -> Any:
        """Return what a JavaScript expression is on the page, JSON-ready.

        Raises:
            NoBrowserError: it throws.
        """
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise NoBrowserError(str(answer["exceptionDetails"].get("exception", {}).get("description", "it throws")))
        return answer["result"].get("value")

    def picture(self) -> bytes:
        """Return the whole page as a PNG, down to the tallest that is reliably drawn."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], _TALLEST), "scale": 1}
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._commands, data) :]

    def _next(self, until: float) -> dict[str, Any]:
        """Return the next message.

        Raises:
            NoBrowserError: the browser is gone, or silent for too long.
        """
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], max(until - time.monotonic(), 0))
            if not ready:
                raise NoBrowserError(f"the browser did not answer within {self._limit_s:.0f} s")
            read = os.read(self._answers, 1 << 16)
            if not read:
                raise NoBrowserError("the browser ended early")
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """Start a headless Chromium with an empty profile and no network, and end it and all it started.

    Raises:
        NoBrowserError: there is none, or it does not answer.
    """
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None:
        raise NoBrowserError("there is no Chromium on this machine's PATH.")
    with contextlib.ExitStack() as stack:
        profile = stack.enter_context(tempfile.TemporaryDirectory(prefix="infertune-page-", ignore_cleanup_errors=True))
        process, ours = _start(path, profile)
        for end in ours:
            stack.callback(os.close, end)
        stack.callback(_end, process)
        yield Browser(*ours)


def take_picture(page: Path) -> bytes:
    """Return a page as a PNG, in light colours, with everything that unfolds still folded.

    Raises:
        NoBrowserError: there is no browser, or it does not answer.
    """
    with open_browser() as browser:
        browser.show(page, width=_WIDTH)
        return browser.picture()


def _arguments(path: str, profile: str) -> list[str]:
    arguments = [
        path,
        "--headless=new",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
        "--no-first-run",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # it refuses to run as root with one; the page holds no scripts
    return arguments


def _start(path: str, profile: str) -> tuple[int, tuple[int, int]]:
    """Start the browser in a group of its own; returns its id, and where it is written to and read from."""
    (theirs_in, ours_out), (ours_in, theirs_out) = _pipe(), _pipe()
    silence = os.open(os.devnull, os.O_RDWR)
    try:
        actions = [
            *((os.POSIX_SPAWN_DUP2, silence, standard) for standard in (0, 1, 2)),
            (os.POSIX_SPAWN_DUP2, theirs_in, 3),
            (os.POSIX_SPAWN_DUP2, theirs_out, 4),
        ]
        process = os.posix_spawn(path, _arguments(path, profile), dict(os.environ), file_actions=actions, setpgroup=0)
    except OSError as error:
        os.close(ours_out)
        os.close(ours_in)
        raise NoBrowserError(f"{path} cannot be started ({error.strerror})") from None
    finally:
        for end in (theirs_in, theirs_out, silence):
            os.close(end)
    return process, (ours_out, ours_in)


def _pipe() -> tuple[int, int]:
    """Return a pipe's ends, both away from the descriptors that the browser expects."""
    ends = []
    for end in os.pipe():
        ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _FREE_FD))
        os.close(end)
    return ends[0], ends[1]


def _end(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
