"""An OpenAI-compatible endpoint, as the chat needs it: streaming text, tool calls, tokens, errors in a sentence."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeAlias
from urllib.parse import urlsplit

from agent.chat.client import Client, TooLongError, http_library
from tools.cluster.text import shown
from tools.errors import InfertuneError

Wire: TypeAlias = Mapping[str, Any]
"""A message, or a tool, as the OpenAI protocol has it."""
Show: TypeAlias = Callable[[str], None]

CHARACTERS_A_TOKEN = 4
"""Where an endpoint does not count: about right for English and JSON."""
_LONGEST_STREAM = 40_000
"""Characters of text and of arguments; beyond, a reply is cut."""
_MESSAGE = 200
LONGEST_S = 600.0
"""A slow model on a CPU writes 2,000 tokens in that time."""


class EndpointError(InfertuneError):
    """The endpoint did not answer, or not in a way that can be used."""

    lasting = False
    """Whether no other way of asking helps: it is not there, knows no such model, or takes no requests from us."""
    spare: frozenset[str] = frozenset()
    """Names of the parameters that it refuses, and that a request can do without."""


@dataclass(frozen=True)
class Settings:
    """Which endpoint, and how patient to be. The key is in no repr."""

    model: str
    base_url: str | None = None
    """None for OpenAI's own."""
    key: str | None = field(default=None, repr=False)
    """None for an endpoint that asks for none."""
    timeout_s: float = 60.0
    """Without a sign of life."""
    longest_s: float = LONGEST_S
    """Of one answer, however steadily it comes."""
    retries: int = 2
    """Of a request that was refused for now (429, 5xx) or did not get through; `Retry-After` is obeyed."""

    @property
    def place(self) -> str:
        """The endpoint's name, without user name or password."""
        parts = urlsplit(self.base_url or "https://api.openai.com/v1")
        port = "" if parts.port is None else f":{parts.port}"
        return f"{self.model} at {parts.hostname}{port}"


@dataclass(frozen=True)
class Usage:
    """Tokens of one request."""

    tokens_in: int
    tokens_out: int
    estimated: bool
    """Whether the endpoint did not say, and they were counted from the characters."""


@dataclass(frozen=True)
class Call:
    """A tool that a model asks for. `arguments` is what it sent, JSON or not."""

    identity: str
    tool: str
    arguments: Any


@dataclass(frozen=True)
class Reply:
    """What a model answered."""

    text: str
    calls: tuple[Call, ...]
    usage: Usage


class Endpoint:
    """Asks a model. A context manager: at its end the connections are closed.

    Args:
        settings: which, and how patient to be.
    """

    def __init__(self, settings: Settings) -> None:
        for name in ("httpx", "httpx2", "openai", "langchain_openai"):
            logging.getLogger(name).setLevel(logging.ERROR)  # their lines would land within the conversation
        self.settings = settings
        self._client = Client(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def ask(
        self, messages: Sequence[Wire], *, tools: Sequence[Wire] = (), as_json: bool = False, show: Show | None = None
    ) -> Reply:
        """Send messages and return the reply.

        A parameter that the endpoint refuses by name and that a request can do without is left out from then on.

        Args:
            messages: the conversation.
            tools: that may be called.
            as_json: ask for a JSON object.
            show: is given the text as it comes.

        Raises:
            EndpointError: it cannot be reached, refuses, is too slow, breaks off, or sends what is no answer.
        """
        while True:
            try:
                return self._ask(messages, tools, as_json=as_json, show=show)
            except EndpointError as error:
                if not error.spare:
                    raise
                self._client = self._client.without(error.spare)  # each time less is sent, so this ends

    def _ask(self, messages: Sequence[Wire], tools: Sequence[Wire], *, as_json: bool, show: Show | None) -> Reply:
        options: dict[str, Any] = {"extra_body": self._client.older}
        if tools:
            options["tools"] = list(tools)
        if as_json:
            # Not `response_format` itself: with that langchain-openai parses the answer, and raises where it cannot.
            options["extra_body"] = {**self._client.older, "response_format": {"type": "json_object"}}
        whole: Any = None
        length = 0
        with self._errors_in_a_sentence():
            for chunk in self._client.model.stream([dict(message) for message in messages], **options):
                whole = chunk if whole is None else whole + chunk
                text = _text(chunk)
                length += len(text) + sum(len(call["args"] or "") for call in chunk.tool_call_chunks)
                if show is not None and text:
                    show(text)
                if length > _LONGEST_STREAM:
                    break
            if whole is None:
                raise ValueError("an empty answer")
            if not whole.response_metadata.get("finish_reason") and length <= _LONGEST_STREAM:
                raise EndpointError("the answer broke off.", where=self.settings.place, fix="Ask again.")
            text = storable(_text(whole))
            return Reply(text, tuple(_calls(whole)), _usage(whole, messages, tools, text))

    @contextlib.contextmanager
    def _errors_in_a_sentence(self) -> Iterator[None]:
        import openai

        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", UserWarning
                )  # pydantic's, about fields of a type that is none of theirs
                yield
        except EndpointError:
            raise
        except (openai.APIError, http_library().HTTPError, TimeoutError) as error:
            raise self._refused(error) from None
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            # What langchain-openai raises on a body that is no chat completion depends on where it stumbles.
            raise EndpointError(
                f"it sent what is no answer ({type(error).__name__}).",
                where=self.settings.place,
                fix="Is the base URL that of an OpenAI-compatible API?",
            ) from None

    def _refused(self, error: Exception) -> EndpointError:
        import openai

        what, fix = self._said(error)
        refused = EndpointError(what, where=self.settings.place, fix=fix)
        if isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError):
            refused.spare = frozenset(name for name in self._client.sends if name in str(error))
        # Servers differ in how they say that they know no tools or no JSON mode: 400, 422, 500, 501.
        about_this = isinstance(
            error, openai.BadRequestError | openai.UnprocessableEntityError | openai.InternalServerError
        )
        refused.lasting = not about_this
        return refused

    def _said(self, error: Exception) -> tuple[str, str | None]:
        import openai

        http = http_library()
        what = f"it failed: {self._harmless(str(error))}"
        fix: str | None = None
        match error:
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                what, fix = "it refuses the key.", "Check OPENAI_API_KEY."
            case openai.NotFoundError():
                what, fix = "it knows no such model, or no such address.", "Check INFERTUNE_MODEL and OPENAI_BASE_URL."
            case openai.RateLimitError():
                what, fix = f"it takes no more requests for now{_wait(error)}.", "Ask again later."
            case TooLongError():
                what, fix = f"its answer took longer than {self.settings.longest_s:g} s.", "Ask for something shorter."
            case openai.APITimeoutError() | http.TimeoutException() | TimeoutError():
                what, fix = f"it did not answer within {self.settings.timeout_s:g} s.", "Ask again."
            case openai.APIStatusError():
                what = f"it answers with {error.status_code}: {self._harmless(error.message)}"
            case openai.APIConnectionError() | http.HTTPError():
                what, fix = "it cannot be reached, or broke off.", "Check OPENAI_BASE_URL, or ask again."
        return what, fix

    def _harmless(self, text: str) -> str:
        """Return a server's words, short, on one line, and without the key, should it repeat it."""
        key = self.settings.key
        return shown(text.replace(key, "(key)") if key else text, _MESSAGE)


def estimate(messages: Sequence[Wire], tools: Sequence[Wire] = ()) -> int:
    """Return about how many tokens a request takes, from its characters."""
    return 1 + len(json.dumps([list(map(dict, messages)), list(map(dict, tools))])) // CHARACTERS_A_TOKEN


def storable(text: str) -> str:
    """Return a text without halves of characters, which JSON can escape and UTF-8 cannot hold."""
    return text.encode(errors="replace").decode()


def parsed(text: str) -> Any:
    """Return what JSON says, without halves of characters, or the text itself if it is none."""
    try:
        # Not strict: small models write line ends into strings as they are.
        return json.loads(storable(json.dumps(json.loads(text, strict=False), ensure_ascii=False)))
    except (ValueError, RecursionError):
        return text


def _text(message: Any) -> str:
    content = message.content
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if isinstance(part, dict))


def _calls(message: Any) -> Iterator[Call]:
    """Yield the calls as they were sent: langchain completes JSON that was cut off, and so invents arguments."""
    for place, call in enumerate(message.tool_call_chunks):
        identity, tool = storable(call["id"] or f"call-{place}"), storable(call["name"] or "")
        yield Call(identity, tool, parsed(call["args"] or "{}"))


def _usage(message: Any, messages: Sequence[Wire], tools: Sequence[Wire], text: str) -> Usage:
    counted = message.usage_metadata
    if counted is None:
        said = len(text) + sum(len(call["args"] or "") for call in message.tool_call_chunks)
        return Usage(estimate(messages, tools), 1 + said // CHARACTERS_A_TOKEN, estimated=True)
    return Usage(counted["input_tokens"], counted["output_tokens"], estimated=False)


def _wait(error: Any) -> str:
    seconds = error.response.headers.get("retry-after", "")
    return f", and asks to wait {seconds} s" if seconds.isdecimal() and len(seconds) < 6 else ""
