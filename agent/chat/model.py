"""An OpenAI-compatible endpoint, as the chat needs it: streaming text, tool calls, tokens, errors in a sentence."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from tools.cluster.text import shown
from tools.errors import InfertuneError

Wire: TypeAlias = Mapping[str, Any]
"""A message, or a tool, as the OpenAI protocol has it."""
Show: TypeAlias = Callable[[str], None]

CHARACTERS_A_TOKEN = 4
"""Where an endpoint does not count: about right for English and JSON."""
LONGEST_REPLY = 2_000
"""Tokens of one reply, asked of the endpoint; what streams on regardless is cut."""
_LONGEST_STREAM = 40_000
_MESSAGE = 200


class EndpointError(InfertuneError):
    """The endpoint did not answer, or not in a way that can be used."""

    lasting = False
    """Whether no other way of asking helps: it is not there, knows no such model, or takes no requests from us."""


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
    """Asks a model.

    Args:
        settings: which, and how patient to be.
    """

    def __init__(self, settings: Settings) -> None:
        from langchain_openai import ChatOpenAI
        from pydantic import SecretStr

        for name in ("httpx", "openai", "langchain_openai"):
            logging.getLogger(name).setLevel(logging.ERROR)  # their lines would land within the conversation
        self.settings = settings
        self._model = ChatOpenAI(
            model=settings.model,
            base_url=settings.base_url,
            api_key=SecretStr(settings.key or "none"),
            use_responses_api=False,
            temperature=0,
            timeout=settings.timeout_s,
            max_retries=settings.retries,
            stream_usage=True,
            max_completion_tokens=LONGEST_REPLY,
        )

    def ask(
        self, messages: Sequence[Wire], *, tools: Sequence[Wire] = (), as_json: bool = False, show: Show | None = None
    ) -> Reply:
        """Send messages and return the reply.

        Args:
            messages: the conversation.
            tools: that may be called.
            as_json: ask for a JSON object.
            show: is given the text as it comes.

        Raises:
            EndpointError: it cannot be reached, refuses, is too slow, breaks off, or sends what is no answer.
        """
        options: dict[str, Any] = {}
        if tools:
            options["tools"] = list(tools)
        if as_json:
            # Not `response_format` itself: with that langchain-openai parses the answer, and raises where it cannot.
            options["extra_body"] = {"response_format": {"type": "json_object"}}
        whole: Any = None
        length = 0
        with self._errors_in_a_sentence():
            for chunk in self._model.stream([dict(message) for message in messages], **options):
                whole = chunk if whole is None else whole + chunk
                text = _text(chunk)
                length += len(text)
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
        import httpx
        import openai

        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", UserWarning
                )  # pydantic's, about fields of a type that is none of theirs
                yield
        except EndpointError:
            raise
        except (openai.APIError, httpx.HTTPError, TimeoutError) as error:
            raise self._refused(error) from None
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            # What langchain-openai raises on a body that is no chat completion depends on where it stumbles.
            raise EndpointError(
                f"it sent what is no answer ({type(error).__name__}).",
                where=self.settings.place,
                fix="Is the base URL that of an OpenAI-compatible API?",
            ) from None

    def _refused(self, error: Exception) -> EndpointError:
        import httpx
        import openai

        what, fix = self._said(error)
        refused = EndpointError(what, where=self.settings.place, fix=fix)
        # Servers differ in how they say that they know no tools or no JSON mode: 400, 422, 500, 501.
        about_this = isinstance(
            error, openai.BadRequestError | openai.UnprocessableEntityError | openai.InternalServerError
        )
        refused.lasting = not about_this and isinstance(error, openai.OpenAIError | httpx.HTTPError | TimeoutError)
        return refused

    def _said(self, error: Exception) -> tuple[str, str | None]:
        import httpx
        import openai

        what = f"it failed: {self._harmless(str(error))}"
        fix: str | None = None
        match error:
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                what, fix = "it refuses the key.", "Check OPENAI_API_KEY."
            case openai.NotFoundError():
                what, fix = "it knows no such model, or no such address.", "Check INFERTUNE_MODEL and OPENAI_BASE_URL."
            case openai.RateLimitError():
                what, fix = f"it takes no more requests for now{_wait(error)}.", "Ask again later."
            case openai.APITimeoutError() | httpx.TimeoutException() | TimeoutError():
                what, fix = f"it did not answer within {self.settings.timeout_s:g} s.", "Ask again."
            case openai.APIStatusError():
                what = f"it answers with {error.status_code}: {self._harmless(error.message)}"
            case openai.APIConnectionError() | httpx.HTTPError():
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
        return json.loads(storable(json.dumps(json.loads(text), ensure_ascii=False)))
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
