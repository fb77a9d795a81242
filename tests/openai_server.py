"""An OpenAI-compatible endpoint on loopback that says what a script tells it to, over real HTTP, streamed or whole.

    with OpenAIServer([calls(("explain", {})), says("Because it was cheapest.")]) as server:
        ...  # server.url is the base URL, server.requests what was asked

Requests that only probe the endpoint are answered by its abilities, and take nothing from the script.
"""

import contextlib
import itertools
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROBE = "ready"
"""Name of the tool, or of the choice, that a probe asks for."""


@dataclass(frozen=True)
class Answer:
    """One answer of the endpoint: a status, or deltas and how they end."""

    text: str = ""
    calls: tuple = ()
    status: int = 200
    headers: dict = field(default_factory=dict)
    error: str = "scripted"
    cut: bool = False
    """Close the connection after the text, without an end."""
    raw: bytes | None = None
    """Sent in place of a body."""
    hang: bool = False
    """Say nothing until the server is closed."""
    usage: bool = True
    piece: int = 7
    """Characters of one streamed delta."""


def says(text, **settings):
    """Prose."""
    return Answer(text=text, **settings)


def calls(*wanted, text="", **settings):
    """Tool calls: (name, arguments), where arguments that are a string are sent as they are."""
    return Answer(text=text, calls=tuple(wanted), **settings)


def fails(status, error="scripted", **headers):
    """An HTTP error."""
    named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    return Answer(status=status, error=error, headers=named)


class OpenAIServer:
    """Serves a script; when it is used up, prose that says so."""

    def __init__(self, script=(), *, native=True, json_mode=True, numbers=True):
        self.script = list(script)
        self.native, self.json_mode, self.numbers = native, json_mode, numbers
        self.requests = []
        self.probes = []
        self.closing = threading.Event()
        self.asked = threading.Event()
        """Set when a request took something from the script."""
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = False
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self):
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, request):
        """Return what comes next for a request."""
        with self._lock:
            if is_probe(request):
                self.probes.append(request)
                return self._ability(request)
            self.requests.append(request)
            self.asked.set()
            if not self.script:
                return says("The script is used up.")
            following = self.script.pop(0)
        return following(request) if callable(following) else following

    def _ability(self, request):
        if request.get("tools"):
            return calls((PROBE, {})) if self.native else says("I would call the tool ready!")
        if request.get("response_format"):
            if self.json_mode:
                return says(json.dumps({"tool": PROBE, "arguments": {}}))
            return fails(400, "response_format is not supported")
        return says("1" if self.numbers else "What a lovely question.")

    def _handler(self):  # noqa: C901 the handler's methods are counted as its own
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                length = int(self.headers["content-length"])
                request = json.loads(self.rfile.read(length))
                request["authorization"] = self.headers.get("authorization")
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # of a client that left
                    self.send(server.answer(request), request)

            def send(self, answer, request):
                self.close_connection = True
                if answer.hang:
                    server.closing.wait(30)
                    return
                if answer.status != 200:
                    body = json.dumps({"error": {"message": answer.error, "type": "scripted"}}).encode()
                    self.start(answer.status, "application/json", {**answer.headers, "content-length": str(len(body))})
                    self.wfile.write(body)
                    return
                if answer.raw is not None:
                    self.start(200, "text/event-stream; charset=utf-8", {})
                    self.wfile.write(answer.raw)
                    return
                self.start(200, "text/event-stream" if request.get("stream") else "application/json", answer.headers)
                if request.get("stream"):
                    self.stream(answer, request)
                else:
                    self.wfile.write(json.dumps(server.whole(answer)).encode())

            def start(self, status, kind, headers):
                self.send_response(status)
                for name, value in {"content-type": kind, "connection": "close", **headers}.items():
                    self.send_header(name, value)
                if kind == "text/event-stream":
                    self.send_header("transfer-encoding", "chunked")
                self.end_headers()

            def event(self, payload):
                text = payload if isinstance(payload, str) else json.dumps(payload)
                data = f"data: {text}\n\n".encode()
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                self.wfile.flush()

            def stream(self, answer, request):
                for delta in server.deltas(answer):
                    self.event(server.chunk(delta))
                if answer.cut:
                    return  # no terminating chunk: the connection just ends
                self.event(server.chunk({}, finish="tool_calls" if answer.calls else "stop"))
                if answer.usage and (request.get("stream_options") or {}).get("include_usage"):
                    self.event({**server.chunk({}), "choices": [], "usage": server.usage(answer)})
                self.event("[DONE]")
                self.wfile.write(b"0\r\n\r\n")

        return Handler

    def deltas(self, answer):
        for start in range(0, len(answer.text), answer.piece):
            yield {"content": answer.text[start : start + answer.piece]}
        for index, (name, arguments) in enumerate(answer.calls):
            text = arguments if isinstance(arguments, str) else json.dumps(arguments)
            function = {"name": name, "arguments": ""}
            begun = {"index": index, "id": f"call_{next(self._ids)}", "type": "function", "function": function}
            yield {"tool_calls": [begun]}
            yield {"tool_calls": [{"index": index, "function": {"arguments": text}}]}

    def chunk(self, delta, finish=None):
        choice = {"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": finish}
        return {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "scripted", "choices": [choice]}

    def whole(self, answer):
        message = {"role": "assistant", "content": answer.text}
        if answer.calls:
            message["tool_calls"] = [
                {
                    "id": f"call_{next(self._ids)}",
                    "type": "function",
                    "function": {"name": name, "arguments": a if isinstance(a, str) else json.dumps(a)},
                }
                for name, a in answer.calls
            ]
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": "scripted",
            "choices": [choice],
            "usage": self.usage(answer),
        }

    @staticmethod
    def usage(answer):
        out = 1 + len(answer.text) // 4
        return {"prompt_tokens": 100, "completion_tokens": out, "total_tokens": 100 + out}


def is_probe(request):
    """Whether a request only asks what the endpoint can do."""
    names = [tool["function"]["name"] for tool in request.get("tools") or ()]
    return names == [PROBE] or "endpoint test" in str(request["messages"][0]["content"])
