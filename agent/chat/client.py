"""The client behind an endpoint: the parameters that a request may do without, and how long an answer may last."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI

    from agent.chat.model import Settings

LONGEST_REPLY = 2_000
"""Tokens of one reply, asked of the endpoint; what streams on regardless is cut."""
_OPTIONAL = ("stream_options", "max_completion_tokens", "temperature")
"""What a request may do without. Servers older than a parameter, and models that allow only one value, refuse it."""
_OLDER = {"max_completion_tokens": "max_tokens"}
"""What a parameter was called before."""
_MOST_BYTES = 64_000_000


class TooLongError(TimeoutError):
    """An answer went on for longer than it may, however steadily."""


class Client:
    """A client for one endpoint that leaves out what the endpoint was seen to refuse.

    Args:
        settings: which endpoint, and how patient to be.
        refused: names of the parameters that it refuses.
    """

    def __init__(self, settings: Settings, refused: frozenset[str] = frozenset()) -> None:
        from openai import DefaultHttpxClient

        self._settings = settings
        self._refused = refused
        # A proxy by OPENAI_PROXY has to be given here: langchain-openai takes it only without a client of ours.
        self._http = DefaultHttpxClient(
            proxy=os.environ.get("OPENAI_PROXY"), event_hooks={"response": [_limiting(settings.longest_s)]}
        )
        self.model = self._model()

    def without(self, refused: frozenset[str]) -> Client:
        """Return a client that leaves out more parameters; this one is closed."""
        self.close()
        return Client(self._settings, self._refused | refused)

    @property
    def sends(self) -> tuple[str, ...]:
        """Names of the parameters that it sends and could do without."""
        newest = [name for name in _OPTIONAL if name not in self._refused]
        older = [old for new, old in _OLDER.items() if new in self._refused and old not in self._refused]
        return (*newest, *older)

    @property
    def older(self) -> dict[str, Any]:
        """What belongs into the body by an older name, where the endpoint refuses the newer."""
        return {"max_tokens": LONGEST_REPLY} if "max_tokens" in self.sends else {}

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def _model(self) -> ChatOpenAI:
        from langchain_openai import ChatOpenAI
        from pydantic import SecretStr

        sent, settings = self.sends, self._settings
        return ChatOpenAI(
            model=settings.model,
            base_url=settings.base_url,
            api_key=SecretStr(settings.key or "none"),
            use_responses_api=False,
            temperature=0 if "temperature" in sent else None,
            timeout=settings.timeout_s,
            max_retries=settings.retries,
            stream_usage="stream_options" in sent,
            max_completion_tokens=LONGEST_REPLY if "max_completion_tokens" in sent else None,
            http_client=self._http,
            openai_proxy=None,
        )


def http_library() -> ModuleType:
    """Return what openai speaks HTTP with, since its errors are raised through: httpx, or from 3.0 on httpx2."""
    from openai import DefaultHttpxClient

    base: type = DefaultHttpxClient.__mro__[1]
    return importlib.import_module(base.__module__.partition(".")[0])


def _limiting(longest_s: float) -> Any:
    """Return a hook that limits how long, and how large, the body of a response may get.

    A limit of silence, which is what HTTP clients have, never ends an answer that dribbles: a character a second, or
    the comments by which some servers keep a connection open.
    """
    library = http_library()

    class Limited(library.SyncByteStream):  # type: ignore[name-defined,misc]
        def __init__(self, stream: Any) -> None:
            self._stream = stream
            self._end = time.monotonic() + longest_s

        def __iter__(self) -> Iterator[bytes]:
            length = 0
            for part in self._stream:
                length += len(part)
                if time.monotonic() > self._end or length > _MOST_BYTES:
                    raise TooLongError
                yield part

        def close(self) -> None:
            self._stream.close()

    def limit(response: Any) -> None:
        response.stream = Limited(response.stream)

    return limit
