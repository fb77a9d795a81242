"""A Ray actor that holds one of infertune's workers, and what it says about the node that it is on."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from tools.contracts import Contract
from tools.hardware import detect
from tools.worker import Returned, TaskOutcome, Worker

LOOK_LIMIT_S = 60.0

Said: TypeAlias = dict[str, Any] | TaskOutcome
"""An event of a task, or, at its end, what became of it."""


class Surroundings(Contract):
    """What tasks find around them: the same on every node as in the main process."""

    environment: dict[str, str]
    folder: str
    """The working directory."""


class Host:
    """Runs tasks on its node, one at a time, in the forked children of a worker.

    Ray calls `cancel` in another thread than `run`.

    Args:
        surroundings: as JSON.
        preload: modules that the worker imports once.
        logs: where the output of tasks goes.
        memory_limit_mb: what a task may have.
    """

    def __init__(
        self, surroundings: dict[str, Any], preload: Sequence[str], logs: str, memory_limit_mb: float | None
    ) -> None:
        _adopt(Surroundings.model_validate(surroundings))
        self._worker = Worker(preload, Path(logs), memory_limit_mb=memory_limit_mb)

    def run(self, task: str, arguments: dict[str, Any], label: str, limit_s: float) -> Iterator[Said]:
        """Yield the task's events as they come, and then its outcome.

        Raises:
            InfertuneError: the worker could not start.
        """
        said: queue.SimpleQueue[Said | BaseException] = queue.SimpleQueue()

        def work() -> None:
            try:
                said.put(self._worker.run(task, arguments, label=label, limit_s=limit_s, on_event=said.put))
            except BaseException as error:  # noqa: BLE001  raised below, where Ray sees it
                said.put(error)

        threading.Thread(target=work, name=label, daemon=True).start()
        while True:
            message = said.get()
            if isinstance(message, BaseException):
                raise message
            yield message
            if not isinstance(message, dict):
                return

    def look(self, token: str) -> Iterator[Said]:
        """Yield a description of the node, or what became of asking for it.

        Args:
            token: a file in the home directory.

        Returns:
            `hardware`, as this process may use it (the worker caps a trial's memory); `versions`, as a
            task finds them; `token`, what the file holds, or None; `niceness` of the processes here.
        """
        *_, asked = self.run("tools.hardware:library_versions", {}, "node", LOOK_LIMIT_S)
        if not isinstance(asked, Returned):
            yield asked
            return
        content = None
        with contextlib.suppress(OSError):
            content = Path(token).read_text(encoding="ascii")
        seen = {
            "hardware": detect().model_dump(mode="json"),
            "versions": asked.value,
            "token": content,
            "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        }
        yield Returned(value=seen)

    def cancel(self) -> None:
        """Kill the running task, if there is one."""
        self._worker.cancel()

    def close(self) -> None:
        """End the worker and everything under it."""
        self._worker.close()


def _adopt(surroundings: Surroundings) -> None:
    """Let tasks find what they would find without Ray, which sets the number of threads and more for its processes."""
    theirs = surroundings.environment
    for name in os.environ.keys() - theirs.keys():
        if not name.startswith("RAY_"):
            del os.environ[name]
    os.environ.update({name: value for name, value in theirs.items() if not name.startswith("RAY_")})
    with contextlib.suppress(OSError):  # a node of a cluster may not have it
        os.chdir(surroundings.folder)
