"""A `tools.worker.Worker` on a node of a Ray cluster: the same calls, the same outcomes."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tools.contracts import Crashed, Failed, OutOfMemory
from tools.errors import InfertuneError, UnavailableError
from tools.executors.ray_host import LOOK_LIMIT_S
from tools.worker import Returned, TaskOutcome
from tools.worker.supervisor import START_LIMIT_S
from tools.worker.watch import DEAD_WITHIN_S, EventHandler

UNHEARD_S = START_LIMIT_S + DEAD_WITHIN_S + 30.0
"""A node keeps the time cap of a task itself. So much later it is taken for lost."""
CLOSE_WITHIN_S = 6.0
CANCEL_AGAIN_S = 1.0
"""A cancellation that arrives before there is anything to cancel does nothing, and so is repeated."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    id: str
    name: str
    """Its address, for a person."""
    cpus: int


@dataclass(frozen=True)
class _Lost:
    """The stream of what a task says broke off."""

    error: BaseException


_CANCEL = object()


class RayWorker:
    """Runs tasks on the first node that will do, and on the next one when that node is lost.

    Args:
        nodes: where it may be, the first choice first.
        start: starts a `Host` there, and returns Ray's handle of it.
        token: a file in the home directory, to see whether a node shares it.
        unfit: says what is wrong with a node where `Host.look` returned this; None if nothing is.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        start: Callable[[Node], Any],
        token: str,
        unfit: Callable[[Any], str | None],
    ) -> None:
        self.nodes = tuple(nodes)
        self._start = start
        self._token = token
        self._unfit = unfit
        self._host: Any = None
        self._node: Node | None = None
        self._said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._cancelled = False

    def run(
        self,
        task: str,
        arguments: dict[str, Any],
        *,
        label: str,
        limit_s: float,
        on_event: EventHandler | None = None,
    ) -> TaskOutcome:
        """Run a task, as `tools.worker.Worker.run` does.

        Returns:
            A value in any case. When the node is lost, it is `Crashed`, and says so; the next task runs elsewhere.

        Raises:
            InfertuneError: the worker could not start there.
            UnavailableError: no node of the cluster will do.
        """
        self._cancelled = False
        self.settle()
        if self._cancelled:
            return Failed(stage="starting", reason="interrupted")
        return self._ask("run", task, arguments, label, limit_s, limit_s=limit_s, on_event=on_event)

    def settle(self) -> Node | None:
        """Find a node, unless there is one.

        Returns:
            Where it is; None when looking for it was cancelled.

        Raises:
            UnavailableError: none will do; says what is wrong with each.
        """
        if self._node is not None:
            return self._node
        refused = []
        for node in self.nodes:
            self._host = self._start(node)
            why_not = self._look()
            if self._cancelled:
                self.close()
                return None
            if why_not is None:
                self._node = node
                return node
            self.close()
            refused.append(f"{node.name}: {why_not}")
        raise UnavailableError(f"no node of the Ray cluster can be used ({'; '.join(refused)}).")

    def _look(self) -> str | None:
        """Return what is wrong with the node that the host was started on; None if nothing is."""
        try:
            seen = self._ask("look", self._token, limit_s=LOOK_LIMIT_S)
        except InfertuneError as error:
            return str(error)
        return self._unfit(seen.value) if isinstance(seen, Returned) else _words(seen)

    def cancel(self) -> None:
        """Kill the running task, if there is one; its `run` returns `Failed(reason="interrupted")`.

        Safe to call from a signal handler.
        """
        self._cancelled = True
        self._said.put(_CANCEL)

    def close(self) -> None:
        """End the worker, its actor and everything under them."""
        import ray

        host, self._host, self._node = self._host, None, None
        if host is None:
            return
        with contextlib.suppress(ray.exceptions.RayError):  # it is lost already, or does not answer
            ray.get(host.close.remote(), timeout=CLOSE_WITHIN_S)
        ray.kill(host)  # what is left of its worker ends with it, and takes along what its tasks started

    def _ask(self, method: str, *arguments: Any, limit_s: float, on_event: EventHandler | None = None) -> TaskOutcome:
        """Call a method of the host, and follow what it says."""
        said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._said = said
        if self._cancelled:  # before there was a queue to tell it to
            said.put(_CANCEL)
        stream = getattr(self._host, method).options(num_returns="streaming").remote(*arguments)
        listener = threading.Thread(target=_listen, args=(stream, said), name="ray", daemon=True)
        listener.start()
        try:
            outcome = self._follow(said, limit_s, on_event)
        except BaseException:  # Ctrl-C, or an observer's bug
            self.close()
            raise
        finally:
            listener.join(timeout=DEAD_WITHIN_S)
        return outcome

    def _follow(self, said: queue.SimpleQueue[Any], limit_s: float, on_event: EventHandler | None) -> TaskOutcome:
        """Pass on what a task says until its outcome comes, or no more is to be expected."""
        stage, cancelling = "starting", False
        deadline = time.monotonic() + limit_s + UNHEARD_S
        while True:
            try:
                left_s = max(deadline - time.monotonic(), 0.0)
                message = said.get(timeout=min(CANCEL_AGAIN_S, left_s) if cancelling else left_s)
            except queue.Empty:
                if time.monotonic() < deadline:
                    self._host.cancel.remote()
                    continue
                message = _Lost(TimeoutError(f"no word from it for {limit_s + UNHEARD_S:.0f} s"))
            if message is _CANCEL:
                cancelling = True
                self._host.cancel.remote()
            elif isinstance(message, _Lost):
                self.close()
                return Failed(stage=stage, reason="interrupted") if cancelling else _lost(message.error, stage)
            elif isinstance(message, dict):
                stage = str(message.get("stage", stage))
                if on_event is not None:
                    on_event(message)
            else:
                return message  # type: ignore[no-any-return]


def _lost(error: BaseException, stage: str) -> TaskOutcome:
    """Return what became of a task whose words broke off.

    Raises:
        InfertuneError: it was never begun, since the worker could not start.
    """
    import ray

    if isinstance(error, InfertuneError):
        raise error
    if isinstance(error, ray.exceptions.OutOfMemoryError):  # Ray's own watch over the node
        return OutOfMemory(stage=stage)
    return Crashed(stage=stage, signal=f"worker lost (Ray: {_one_line(error)})")


def _listen(stream: Any, said: queue.SimpleQueue[Any]) -> None:
    """Put what comes out of a stream into a queue, which a signal handler can write to as well."""
    import ray

    try:
        for reference in stream:
            said.put(ray.get(reference))
    except BaseException as error:  # noqa: BLE001  whatever broke it off, the other thread has to know
        said.put(_Lost(getattr(error, "cause", None) or error))


def _words(outcome: TaskOutcome) -> str:
    from tools.outcomes import from_task, reason

    return reason(from_task(outcome))


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
