"""The endpoint of a language model, as the environment names it.

Importing it costs nothing: a schedule asks before it starts anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

MODEL, BASE_URL, KEY = "INFERTUNE_MODEL", "OPENAI_BASE_URL", "OPENAI_API_KEY"


def lacking(environment: Mapping[str, str]) -> str | None:
    """Return what an endpoint lacks in this environment, in a sentence that tells no value; None if it has all."""
    base_url = environment.get(BASE_URL)
    if not environment.get(MODEL):
        return f"{MODEL} is not set."
    if not (base_url or environment.get(KEY)):
        return f"neither {BASE_URL} nor {KEY} is set."
    if base_url and not is_base_url(base_url):
        return f"{BASE_URL} is no URL of an endpoint."
    return None


def is_base_url(text: str) -> bool:
    """Return whether a text is the URL of a server that can be asked over HTTP."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
