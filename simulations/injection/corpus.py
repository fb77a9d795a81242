"""The hostile texts, read from `corpus.yaml`."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("corpus.yaml")
_ASCII = range(0x21, 0x7F)
_TAGS, _FULLWIDTH = 0xE0000, 0xFEE0
_SPACE, _TURN, _BACK = "\u200b", "\u202e", "\u202c"
_LOOKALIKES = str.maketrans(
    {
        "a": "\u0430", "e": "\u0435", "o": "\u043e", "p": "\u0440", "c": "\u0441", "s": "\u0455", "i": "\u0456",
        "<": "\u2039", ">": "\u203a", "/": "\u2215",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Hostile:
    """One text that somebody plants."""

    identity: str
    technique: str
    meaning: str
    """What it says, however it is written."""
    text: str
    """As it is planted."""
    figure: str | None = None
    """What it passes off as measured."""


@functools.cache
def corpus() -> tuple[Hostile, ...]:
    """Return all texts, in the order of the file."""
    found = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return tuple(_hostile(technique, entry) for technique, entries in found.items() for entry in entries)


def _hostile(technique: str, entry: dict[str, Any]) -> Hostile:
    meaning = entry["text"]
    text = written(meaning, entry.get("written", "plain")) * entry.get("repeat", 1)
    return Hostile(entry["id"], technique, meaning, text, entry.get("figure"))


def written(text: str, way: str) -> str:
    """Return a text in one of the ways that `corpus.yaml` describes."""
    try:
        return _WAYS[way](text)
    except KeyError:
        msg = f"{FILE.name}: nobody knows how to write {way!r}"
        raise ValueError(msg) from None


_WAYS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "tags": lambda text: "\U000e0001" + "".join(chr(_TAGS + ord(c)) for c in text if ord(c) in range(0x7F)),
    "fullwidth": lambda text: "".join(chr(ord(c) + _FULLWIDTH) if ord(c) in _ASCII else c for c in text),
    "spaced": _SPACE.join,
    "reversed": lambda text: f"{_TURN}{text[::-1]}{_BACK}",
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "homoglyphs": lambda text: text.translate(_LOOKALIKES),
}
