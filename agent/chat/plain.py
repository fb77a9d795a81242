"""A tool's answer as lines for a person, and a model's text as a terminal may have it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tools.report import format as fmt

_FENCE = re.compile(r"</?data>")


def clean(text: str) -> str:
    """Return a text without what acts on a terminal or on the reading direction; line ends and tabs stay."""
    return "\n".join("\t".join(fmt.clean(cell) for cell in line.split("\t")) for line in text.split("\n"))


def plain(content: str) -> list[str]:
    """Return a tool's answer as indented lines."""
    told = json.loads(content)
    if "problem" in told:
        return [line(told["problem"])]
    lines = list(_lines(told["answer"], 0))
    return [*lines, "(shortened)"] if told.get("shortened") else lines


def line(value: Any) -> str:
    """Return one value of an answer on one line, without the fences of data."""
    if value is None:
        return fmt.NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean(_FENCE.sub("", str(value)))


def _lines(value: Any, depth: int, label: str = "") -> Iterator[str]:
    indent = "  " * depth
    if isinstance(value, dict):
        if label:
            yield f"{indent}{label}:"
            depth += 1
        for name, inner in value.items():
            yield from _lines(inner, depth, line(name))
    elif isinstance(value, list) and all(not isinstance(inner, dict | list) for inner in value):
        texts = [line(inner) for inner in value]
        if sum(map(len, texts)) <= 70:
            yield f"{indent}{label}: {', '.join(texts) or 'none'}"
        else:
            yield f"{indent}{label}:"
            yield from (f"{indent}  {text}" for text in texts)
    elif isinstance(value, list):
        yield f"{indent}{label}:"
        for inner in value:
            first, *rest = _lines(inner, depth + 2) or [""]
            yield f"{indent}  - {first.strip()}"
            yield from rest
    else:
        yield f"{indent}{label}: {line(value)}"
