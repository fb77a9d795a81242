"""The stand-in itself: HTTP, in a thread of its own, and the hold that a test or a simulation has on it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp.web
import kmock
import yaml
from aiohttp.test_utils import RawTestServer

from simulations.api_server.access import Access, Rule
from simulations.api_server.answers import Answer, Manifest, Refused
from simulations.api_server.calls import Call, carry_out
from simulations.api_server.faults import Fault, Faults
from simulations.api_server.hpas import MERGE_PATCH, Hpas
from simulations.api_server.workloads import DEPLOYMENTS, PODS, Workloads

READER, WRITER, NOBODY, ADMIN = "infertune-reader", "infertune", "nobody", "admin"
"""Users that each server knows: with the rights that infertune needs, with none, and with all."""


@dataclass(frozen=True)
class Request:
    """One request, in the order of arrival."""

    user: str | None
    """None: no valid token."""
    verb: str
    """get, list, create, update, delete, patch; a patch that only asks is `dry-run`."""
    path: str
    """With the query."""
    body: Any
    """JSON, None without."""
    status: int | None
    """Of the answer; None if the connection was cut in place of one."""
    stored: bool
    """Whether it changed what is stored."""


class _Handler(kmock.KubernetesScaffold):  # type: ignore[misc]  # untyped for mypy, as all test libraries
    """Hands over every request; discovery stays with kmock.

    kmock's reactions (`kmock[...] << ...`) cannot be used: what one callback answers (status, headers) sticks to the
    reaction. Its emulator of objects knows no dry run, no versions and no defaults.
    """

    answer: Callable[[kmock.Request], Any]

    async def _handle(self, request: kmock.Request) -> aiohttp.web.StreamResponse:
        response: aiohttp.web.StreamResponse | None = await self.answer(request)
        return await super()._handle(request) if response is None else response


class ApiServer(Faults):
    """An API server on a free port of loopback; a context manager.

    Example:
        with ApiServer() as server:
            server.put_hpa(manifest)
            kubeconfig = server.kubeconfig(tmp_path / "config")
    """

    def __init__(
        self,
        *,
        namespace: str = "inference-tenant-a",
        hpa: str = "resnet50",
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        """Make a server that is not yet running.

        Args:
            namespace: in which reader and writer have their rights.
            hpa: the one that the writer may patch.
            clock: tells the time that objects are stamped with.
        """
        super().__init__()
        self.namespace = namespace
        self.log: list[Request] = []
        self.access = Access()
        self.access.add(READER, [Rule(("get", "list", "watch"), namespace=namespace)])
        for verb, (group, resource) in (("get", DEPLOYMENTS), ("list", PODS)):
            self.access.add(READER, [Rule((verb,), (resource,), (group,), namespace=namespace)])
        self.access.add(WRITER, [Rule(("get", "patch"), names=(hpa,), namespace=namespace)])
        self.access.add(NOBODY)
        self.access.add(ADMIN, [Rule(("*",), ("*",), ("*",))])
        self.before: Callable[[str], object] | None = None
        """Called with the verb before each request is looked at: the world changes while others wait."""
        self._clock = clock
        self._hpas = Hpas(self._now)
        self._workloads = Workloads()
        self._lock = threading.RLock()
        self._port: int | None = None
        self._errors: list[Exception] = []
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], None] = lambda: None

    # --- running ---

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._errors and error is None:
            raise self._errors[0]

    def start(self) -> None:
        """Begin to serve: on the port that it had before, if it was stopped."""
        started = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(started),), daemon=True)
        self._thread.start()
        if not started.wait(10):
            msg = "the stand-in API server did not start within 10 s"
            raise RuntimeError(msg)

    def stop(self) -> None:
        """Stop serving: connections are refused from now on. What is stored stays."""
        if self._thread is not None:
            self._stop()
            self._thread.join()
            self._thread = None

    @property
    def url(self) -> str:
        """Its address; known once it has been started."""
        assert self._port is not None
        return f"http://127.0.0.1:{self._port}"

    async def _serve(self, started: threading.Event) -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()

        def stop() -> None:
            loop.call_soon_threadsafe(stopped.set)

        self._stop = stop
        handler = _Handler()
        handler.answer = self._answer
        # Not kmock's own Server: that patches the name resolution of all of aiohttp, once for each server.
        async with handler, RawTestServer(handler, host="127.0.0.1", port=self._port) as http:
            self._port = http.port
            started.set()
            await stopped.wait()
            # A path that it does not know is an answer like any other (404); the rest are mistakes of the stand-in.
            self._errors += [error for error in handler.errors if not isinstance(error, kmock.KubernetesError)]

    # --- what tests and simulations do to it ---

    def put_hpa(self, manifest: Manifest, *, manager: str = "kubectl") -> Manifest:
        """Store an HPA, as if `manager` had created it (in place of the one of that name), and return it."""
        namespace = manifest["metadata"].get("namespace", self.namespace)
        with self._lock:
            with contextlib.suppress(Refused):
                self._hpas.delete(namespace, manifest["metadata"]["name"])
            return self._hpas.create(namespace, manifest, manager=manager)

    def hpa(self, namespace: str, name: str) -> Manifest:
        """Return an HPA as it is stored now."""
        with self._lock:
            return self._hpas.get(namespace, name)

    def delete_hpa(self, namespace: str, name: str) -> None:
        """Remove an HPA."""
        with self._lock:
            self._hpas.delete(namespace, name)

    def edit_hpa(self, namespace: str, name: str, patch: Manifest, *, manager: str = "kubectl-edit") -> Manifest:
        """Merge-patch an HPA as somebody else, without a request, and return it."""
        with self._lock:
            return self._hpas.patch(namespace, name, patch, kind=MERGE_PATCH, manager=manager, parameters={})[0]

    def set_status(
        self,
        namespace: str,
        name: str,
        *,
        current: int | None = None,
        desired: int | None = None,
        conditions: Iterable[Manifest] | None = None,
    ) -> Manifest:
        """Let the controller write the status, which takes a new resourceVersion; what is None stays."""
        status = {
            "currentReplicas": current,
            "desiredReplicas": desired,
            "conditions": None if conditions is None else list(conditions),
        }
        with self._lock:
            return self._hpas.set_status(namespace, name, {k: v for k, v in status.items() if v is not None})

    def put_deployment(self, manifest: Manifest) -> None:
        """Store a Deployment, in place of the one of that name."""
        with self._lock:
            self._workloads.put(DEPLOYMENTS, manifest["metadata"].get("namespace", self.namespace), manifest)

    def put_pod(self, manifest: Manifest) -> None:
        """Store a pod, in place of the one of that name."""
        with self._lock:
            self._workloads.put(PODS, manifest["metadata"].get("namespace", self.namespace), manifest)

    def kubeconfig(self, path: Path, *, others: dict[str, ApiServer] | None = None) -> Path:
        """Write a kubeconfig with a context for each user, and none of them current.

        Args:
            path: where to.
            others: further servers: each becomes a context of that name, with all rights. The first is the current
                context, which nobody may ever fall back to.
        """
        users = {"reader": READER, "writer": WRITER, "nobody": NOBODY, "admin": ADMIN}
        entries = [(context, "here", self, user) for context, user in users.items()]
        entries += [(context, context, other, ADMIN) for context, other in (others or {}).items()]
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": next(iter(others or {}), ""),
            "clusters": [
                {"name": name, "cluster": {"server": server.url}}
                for name, server in {cluster: server for _, cluster, server, _ in entries}.items()
            ],
            "users": [
                {"name": f"{context}-user", "user": {"token": server.access.add(user)}}
                for context, _, server, user in entries
            ],
            "contexts": [
                {"name": context, "context": {"cluster": cluster, "user": f"{context}-user"}}
                for context, cluster, _, _ in entries
            ],
        }
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o600)
        return path

    # --- serving ---

    def _now(self) -> str:
        return self._clock().astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    async def _answer(self, request: kmock.Request) -> aiohttp.web.StreamResponse | None:
        """Answer a request; None leaves it to kmock."""
        with self._lock:
            call = Call.of(request, self.access.user_of(request.headers.get("Authorization")))
            path = request.url.path_qs
            if self.before is not None:
                self.before(call.verb)
            fault = self.take_fault(call.verb, path)
            answer, stored = self._outcome(call, fault)
            status = None if answer is None else answer.status
            self.log.append(Request(call.user, call.verb, path, call.body, status, stored))
        if fault is not None and fault.effect == "slow":
            await asyncio.sleep(fault.seconds)
        if fault is not None and fault.effect.startswith("cut"):
            _cut(request)
            return aiohttp.web.Response()
        return None if answer is None else _response(answer)

    def _outcome(self, call: Call, fault: Fault | None) -> tuple[Answer | None, bool]:
        if fault is not None and fault.effect in ("answer", "cut"):
            return fault.answer, False
        try:
            answer, stored = carry_out(call, self.access, self._hpas, self._workloads, self._now())
        except Refused as refused:
            answer, stored = refused.answer, False
        return (None if fault is not None and fault.effect == "cut after storing" else answer), stored


def _cut(request: kmock.Request) -> None:
    """Reset the connection: kmock keeps the raw request, and nothing above it can do that."""
    raw = request._raw_request  # noqa: SLF001
    if raw is not None and raw.transport is not None:
        raw.transport.abort()


def _response(answer: Answer) -> aiohttp.web.Response:
    if isinstance(answer.body, str):
        return aiohttp.web.Response(
            text=answer.body, status=answer.status, headers=answer.headers, content_type="text/html"
        )
    return aiohttp.web.json_response(answer.body, status=answer.status, headers=answer.headers)
