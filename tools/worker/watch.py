"""Following one task to its end: its messages, its output, its signs of life, its time. One thread, no polling."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from tools.worker.child import STACK_SIGNAL
from tools.worker.output import OutputLog

EventHandler: TypeAlias = Callable[[dict[str, Any]], None]

MESSAGE_LIMIT_BYTES = 64_000_000
"""What a task says in one piece. An artifact belongs in a file, and its path in the message."""

STACK_WITHIN_S = 0.1
"""A child that is about to be killed has so long to write down where it hangs."""

DEAD_WITHIN_S = 30.0
"""What is killed and does not die for so long waits in the kernel, for a device or a file server. It is left there."""

_CHUNK_BYTES = 1 << 20
_DRAINING_READS = 4


class Stop(Enum):
    """Why a task was killed."""

    TIME = "time"
    SILENCE = "silence"
    MESSAGE = "message"


@dataclass
class Ending:
    """What is known of a task when it is over."""

    stage: str = "starting"
    answer: dict[str, Any] = field(default_factory=dict)
    """`returned`, `failed` or `out_of_memory`; empty when it never came to that."""
    stopped: Stop | None = None
    refusal: str = ""
    """What was wrong with its message."""
    status: int | None = None
    """Wait status; None when the warm process was lost, or gave up waiting."""
    oom_kill: str | None = None
    lost: str = ""
    """How the warm process was lost."""


class Watch:
    """Follows a child from the moment that its number is known.

    Args:
        connection: file descriptor on which the warm process tells of the child's end.
        messages: file descriptor of the child's messages, not blocking.
        output: file descriptor of what it prints, not blocking.
        log: takes what it prints.
        child: its process id, for the request of a stack.
        kill: kills it and its process group.
        limit_s: seconds that it may take.
        silence_s: seconds that it may go without a sign of life.
        on_event: is told of stages and events.
    """

    def __init__(
        self,
        *,
        connection: int,
        messages: int,
        output: int,
        log: OutputLog,
        child: int,
        kill: Callable[[], None],
        limit_s: float,
        silence_s: float,
        on_event: EventHandler | None,
    ) -> None:
        self._log = log
        self._child = child
        self._kill = kill
        self._silence_s = silence_s
        self._on_event = on_event
        self._ending = Ending()
        self._started = self._heard = time.monotonic()
        self._deadline = self._started + limit_s
        self._kill_at: float | None = None
        self._give_up_at: float | None = None
        self._beat: dict[str, Any] = {}
        self._told = bytearray()
        self._said = bytearray()
        self._connection = connection
        self._sources = {connection: self._on_connection, messages: self._on_messages, output: self._on_output}

    def follow(self) -> Ending:
        """Return when the child is dead and everything that it said is read."""
        ending = self._ending
        with selectors.DefaultSelector() as selector:
            for fd in self._sources:
                selector.register(fd, selectors.EVENT_READ)
            while ending.status is None and not ending.lost:
                # a process that was stopped (Ctrl-Z) wakes up with its time over: look again before judging by it
                for key, _ in selector.select(max(0.0, self._next_moment() - time.monotonic())) or selector.select(0):
                    if self._read(key.fd) == b"":
                        selector.unregister(key.fd)
                if ending.status is None:
                    self._look_at_the_clock()
        for fd in self._sources.keys() - {self._connection}:
            # what the warm process could not kill may write for ever: take what a pipe can hold, and no more
            for _ in range(_DRAINING_READS):
                if not self._read(fd):
                    break
        return ending

    def _next_moment(self) -> float:
        if self._give_up_at is not None:
            return self._give_up_at
        if self._kill_at is not None:
            return self._kill_at
        return min(self._deadline, self._heard + self._silence_s)

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()  # stands still while the machine is suspended, and knows no change of the time of day
        if now < self._next_moment():
            return
        if self._give_up_at is not None:
            self._ending.lost = f"the task could not be killed within {DEAD_WITHIN_S:.0f} s"
        elif self._kill_at is not None or self._ending.answer:  # one that gave its answer has nothing to explain
            self._kill()
            self._give_up_at = now + DEAD_WITHIN_S
        elif now >= self._deadline:
            self._stop(Stop.TIME, f"its time of {self._deadline - self._started:.1f} s was over")
        else:
            self._stop(Stop.SILENCE, f"it gave no sign of life for {self._silence_s:.1f} s")

    def _stop(self, why: Stop, sentence: str) -> None:
        """Have the child say where it is, and kill it a moment later."""
        self._ending.stopped = why
        last = f"; when last heard of: {self._beat}" if self._beat else ""
        self._log.note(f"killed while {self._ending.stage}: {sentence}{last}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child, STACK_SIGNAL)
        self._kill_at = time.monotonic() + STACK_WITHIN_S

    def _read(self, fd: int) -> bytes | None:
        """Read once and pass it on. Returns what was there: empty at the end, None when there is nothing now."""
        try:
            data = os.read(fd, _CHUNK_BYTES)
        except BlockingIOError:
            return None
        self._sources[fd](data)
        return data

    def _on_output(self, data: bytes) -> None:
        self._heard = time.monotonic()
        self._log.write(data)

    def _on_connection(self, data: bytes) -> None:
        if not data:
            self._ending.lost = "it ended without a word"
        for line in _complete_lines(self._told, data):
            answer = json.loads(line)
            self._ending.status, self._ending.oom_kill = answer["status"], answer["oom_kill"]

    def _on_messages(self, data: bytes) -> None:
        self._heard = time.monotonic()
        if self._ending.stopped is not None:  # asking for its stack may have woken it up: this is not its own doing
            return
        for line in _complete_lines(self._said, data):
            if len(line) > MESSAGE_LIMIT_BYTES:
                self._refuse(f"it answered with more than {MESSAGE_LIMIT_BYTES / 1e6:.0f} MB")
                return
            try:
                message = json.loads(line)
            except ValueError:
                message = None
            if not isinstance(message, dict):
                self._refuse("something else than messages came on its channel")
                return
            self._on_message(message)
        if len(self._said) > MESSAGE_LIMIT_BYTES:
            self._refuse(f"it answered with more than {MESSAGE_LIMIT_BYTES / 1e6:.0f} MB")

    def _on_message(self, message: dict[str, Any]) -> None:
        if "beat" in message:
            self._beat = message["beat"]
        elif "stage" in message or "event" in message:
            if "stage" in message:
                self._ending.stage = str(message["stage"])
            if self._on_event is not None:
                self._on_event(message)
        else:
            self._ending.answer = message

    def _refuse(self, sentence: str) -> None:
        self._said.clear()
        self._ending.refusal = sentence
        self._stop(Stop.MESSAGE, sentence)


def _complete_lines(buffer: bytearray, data: bytes) -> list[bytes]:
    """Add data to a buffer, and take the lines out that are complete. Looks at each byte once."""
    end = data.rfind(b"\n")
    if end < 0:
        buffer += data
        return []
    lines = (bytes(buffer) + data[:end]).split(b"\n")
    buffer[:] = data[end + 1 :]
    return lines
