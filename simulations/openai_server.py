"""An OpenAI-compatible endpoint on loopback that says what a script tells it to, over real HTTP, streamed or whole.

    with OpenAIServer([calls(("explain", {})), says("Because it was cheapest.")]) as server:
        ...  # server.url is the base URL, server.requests what was asked

It is no model: it stands in for one in tests, and in demonstrations on a machine that has none. Requests that only
probe the endpoint are answered by its abilities, and take nothing from the script.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self, TypeAlias

PROBE = "ready"
"""Name of the tool, or of the choice, that a probe asks for."""
HANG_S = 30.0
"""A hanging answer ends by then, whatever happens to the server."""

Request: TypeAlias = dict[str, Any]
"""The body of a request, with its `authorization` header under that name."""


@dataclass(frozen=True)
class Answer:
    """One answer of the endpoint: a status, or deltas and how they end."""

    text: str = ""
    calls: tuple[tuple[str, Any], ...] = ()
    """Tools to call: (name, arguments)."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = "scripted"
    """The message of an answer whose status is no 200."""
    cut: bool = False
    """Close the connection after the text, without an end."""
    raw: bytes | None = None
    """Sent in place of a body."""
    hang: bool = False
    """Say nothing until the server is closed."""
    usage: bool = True
    """Whether tokens are counted, if the request asks for that."""
    piece: int = 7
    """Characters of one streamed delta."""
    pause_s: float = 0.0
    """Before each streamed delta."""
    comments: bool = False
    """Send comments in place of deltas, as some servers do to keep a connection open, until the client leaves."""


Scripted: TypeAlias = "Answer | Callable[[Request], Answer]"
"""An answer, or what makes one of the request."""


def says(text: str, **settings: Any) -> Answer:
    """Return prose. `settings` are fields of `Answer`."""
    return Answer(text=text, **settings)


def calls(*wanted: tuple[str, Any], text: str = "", **settings: Any) -> Answer:
    """Return tool calls: (name, arguments), where arguments that are a string are sent as they are."""
    return Answer(text=text, calls=tuple(wanted), **settings)


def fails(status: int, error: str = "scripted", **headers: object) -> Answer:
    """Return an HTTP error; `retry_after=3` is the header `retry-after: 3`."""
    named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    return Answer(status=status, error=error, headers=named)


class OpenAIServer:
    """Serves a script; when it is used up, prose that says so. A context manager.

    Args:
        script: the answers, in order.
        native: whether its model calls tools.
        json_mode: whether it answers in JSON when it is told to; without, it refuses `response_format`.
        numbers: whether it names the number of a choice.
        refuses: parameters of a request that it answers with a 400 that names them.
    """

    def __init__(
        self,
        script: Iterable[Scripted] = (),
        *,
        native: bool = True,
        json_mode: bool = True,
        numbers: bool = True,
        refuses: Collection[str] = (),
    ) -> None:
        self.script = list(script)
        self.native, self.json_mode, self.numbers = native, json_mode, numbers
        self.refuses = refuses
        self.requests: list[Request] = []
        """What took something from the script, in order."""
        self.probes: list[Request] = []
        """What only asked what it can do."""
        self.refused: list[Request] = []
        """What was answered with a 400 for one of its parameters."""
        self.closing = threading.Event()
        self.asked = threading.Event()
        """Set when a request took something from the script."""
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._http = _Http(self)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        """The base URL, as OPENAI_BASE_URL has it."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, request: Request) -> Answer:
        """Return what comes next for a request."""
        with self._lock:
            wrong = next((name for name in self.refuses if name in request), None)
            if wrong is not None:
                self.refused.append(request)
                return fails(400, f"Unsupported parameter: '{wrong}' is not supported with this model.")
            if is_probe(request):
                self.probes.append(request)
                return self._ability(request)
            self.requests.append(request)
            self.asked.set()
            if not self.script:
                return says("The script is used up.")
            following = self.script.pop(0)
        return following(request) if callable(following) else following

    def _ability(self, request: Request) -> Answer:
        if request.get("tools"):
            return calls((PROBE, {})) if self.native else says("I would call the tool ready!")
        if request.get("response_format"):
            if self.json_mode:
                return says(json.dumps({"tool": PROBE, "arguments": {}}))
            return fails(400, "response_format is not supported")
        return says("1" if self.numbers else "What a lovely question.")

    def deltas(self, answer: Answer) -> Iterator[dict[str, Any]]:
        """Yield an answer as the deltas of a stream."""
        for start in range(0, len(answer.text), answer.piece):
            yield {"content": answer.text[start : start + answer.piece]}
        for index, call in enumerate(self._called(answer)):
            function = {**call["function"], "arguments": ""}
            yield {"tool_calls": [{**call, "index": index, "function": function}]}
            yield {"tool_calls": [{"index": index, "function": {"arguments": call["function"]["arguments"]}}]}

    def whole(self, answer: Answer) -> dict[str, Any]:
        """Return an answer as the body of a request that does not stream."""
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.calls:
            message["tool_calls"] = list(self._called(answer))
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {**_HEAD, "object": "chat.completion", "choices": [choice], "usage": usage(answer)}

    def _called(self, answer: Answer) -> Iterator[dict[str, Any]]:
        for name, arguments in answer.calls:
            text = arguments if isinstance(arguments, str) else json.dumps(arguments)
            function = {"name": name, "arguments": text}
            yield {"id": f"call_{next(self._ids)}", "type": "function", "function": function}


_HEAD = {"id": "c", "created": 0, "model": "scripted"}


def chunk(delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
    """Return an event of a stream."""
    choice = {"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": finish}
    return {**_HEAD, "object": "chat.completion.chunk", "choices": [choice]}


def usage(answer: Answer) -> dict[str, int]:
    """Return the tokens of an answer: always 100 in, and one out for four characters."""
    out = 1 + len(answer.text) // 4
    return {"prompt_tokens": 100, "completion_tokens": out, "total_tokens": 100 + out}


def is_probe(request: Mapping[str, Any]) -> bool:
    """Return whether a request only asks what the endpoint can do."""
    names = [tool["function"]["name"] for tool in request.get("tools") or ()]
    return names == [PROBE] or "endpoint test" in str(request["messages"][0]["content"])


class _Http(ThreadingHTTPServer):
    """The server's socket. Its threads are waited for when it is closed."""

    daemon_threads = False

    def __init__(self, owner: OpenAIServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.owner = owner


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: _Http

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer."""
        length = int(self.headers["content-length"])
        request: Request = json.loads(self.rfile.read(length))
        request["authorization"] = self.headers.get("authorization")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # of a client that left
            self._send(self.server.owner.answer(request), request)

    def _send(self, answer: Answer, request: Request) -> None:
        self.close_connection = True
        owner = self.server.owner
        if answer.hang:
            owner.closing.wait(HANG_S)
        elif answer.status != 200:
            body = json.dumps({"error": {"message": answer.error, "type": "scripted"}}).encode()
            headers = {**answer.headers, "content-length": str(len(body))}
            self._start("application/json", headers, status=answer.status)
            self.wfile.write(body)
        elif answer.raw is not None:
            self._start("text/event-stream; charset=utf-8", {})
            self.wfile.write(answer.raw)
        elif request.get("stream"):
            self._start("text/event-stream", {**answer.headers, "transfer-encoding": "chunked"})
            self._stream(answer, counted=bool((request.get("stream_options") or {}).get("include_usage")))
        else:
            self._start("application/json", answer.headers)
            self.wfile.write(json.dumps(owner.whole(answer)).encode())

    def _start(self, kind: str, headers: Mapping[str, str], *, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"content-type": kind, "connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _stream(self, answer: Answer, *, counted: bool) -> None:
        owner = self.server.owner
        while answer.comments and not owner.closing.wait(answer.pause_s):
            self._part(": still at it\n\n")
        for delta in owner.deltas(answer):
            if answer.pause_s and owner.closing.wait(answer.pause_s):
                return
            self._event(chunk(delta))
        if answer.cut:
            return  # no terminating chunk: the connection just ends
        self._event(chunk({}, finish="tool_calls" if answer.calls else "stop"))
        if answer.usage and counted:
            self._event({**chunk({}), "choices": [], "usage": usage(answer)})
        self._part("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, payload: Mapping[str, Any]) -> None:
        self._part(f"data: {json.dumps(payload)}\n\n")

    def _part(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()
