"""How the stand-in fails when it is told to."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Literal, TypeAlias

from simulations.api_server import answers
from simulations.api_server.answers import Answer

Effect: TypeAlias = Literal["answer", "cut", "cut after storing", "slow"]

HTML = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"


@dataclass
class Fault:
    """What befalls the next requests of a kind."""

    effect: Effect
    verb: str
    """As in `Request.verb`; `*` for any."""
    path_part: str
    left: float
    """How often still."""
    answer: Answer | None = None
    seconds: float = 0.0


class Faults:
    """The faults that are still to come, first come first served."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []
        self._guard = threading.Lock()

    def fail_next(
        self,
        verb: str,
        path_part: str = "",
        *,
        status: int,
        times: int | None = 1,
        retry_after: int | None = None,
        message: str = "told to fail",
    ) -> None:
        """Answer the next requests with an error, and do nothing else.

        Args:
            verb: as in `Request.verb`, `*` for any.
            path_part: part of the path and query.
            status: of the answers.
            times: how many; None: all.
            retry_after: seconds, for the header.
            message: of the answers.
        """
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self._add("answer", verb, path_part, times, answer=answers.failure(status, message, None, headers))

    def answer_html(self, verb: str = "*", *, status: int = 200, times: int | None = 1) -> None:
        """Answer the next requests with a page, as a proxy or a login does."""
        self._add("answer", verb, "", times, answer=Answer(status, HTML))

    def cut_before_store(self, verb: str = "patch", *, times: int | None = 1) -> None:
        """Close the connection of the next requests without having done anything."""
        self._add("cut", verb, "", times)

    def cut_after_store(self, verb: str = "patch", *, times: int | None = 1) -> None:
        """Carry out the next requests, then close the connection without an answer."""
        self._add("cut after storing", verb, "", times)

    def slow(self, seconds: float, verb: str = "*", *, times: int | None = 1) -> None:
        """Carry out the next requests, and let them wait for the answer."""
        self._add("slow", verb, "", times, seconds=seconds)

    def heal(self) -> None:
        """Forget all faults that are still to come."""
        with self._guard:
            self._waiting.clear()

    def take_fault(self, verb: str, path: str) -> Fault | None:
        """Return the fault that befalls this request, and count it."""
        with self._guard:
            for fault in self._waiting:
                if fault.left > 0 and fault.verb in ("*", verb) and fault.path_part in path:
                    fault.left -= 1
                    return fault
        return None

    def _add(
        self,
        effect: Effect,
        verb: str,
        path_part: str,
        times: int | None,
        *,
        answer: Answer | None = None,
        seconds: float = 0.0,
    ) -> None:
        left = math.inf if times is None else times
        with self._guard:
            self._waiting.append(Fault(effect, verb, path_part, left, answer, seconds))
