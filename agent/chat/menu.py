"""The chat without a model: a numbered menu over the same tools, for a person or a pipe."""

from __future__ import annotations

import secrets
import types
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from agent.chat.answers import Surroundings
from agent.chat.arguments import Arguments
from agent.chat.plain import plain
from agent.chat.tools import TOOLS, Tool, call
from agent.sessions import folders

Read: TypeAlias = Callable[[str], str | None]
Say: TypeAlias = Callable[[str], None]

_LATEST = 9
"""Sessions that are offered."""


def menu() -> list[str]:
    """Return the menu's lines."""
    return [*(f"{place:>3}. {tool.title}" for place, tool in enumerate(TOOLS.values(), 1)), "  q. Leave"]


def run_menu(at: Surroundings, read: Read, say: Say, *, once: bool = False) -> bool:
    """Offer the menu until the person leaves it.

    Args:
        at: what the tools work on.
        read: asks with a prompt and returns a line; None at the end of the input.
        say: takes a line.
        once: whether one choice is enough.

    Returns:
        Whether there is more input.
    """
    for line in menu():
        say(line)
    while True:
        answer = read("number> ")
        if answer is None:
            return False
        chosen = answer.strip().lower()
        if chosen in ("q", "quit", "exit"):
            return True
        if chosen in ("", "?", "menu", "help"):
            for line in menu():
                say(line)
            continue
        tool = _tool(chosen)
        if tool is None:
            say(f"That is no number from 1 to {len(TOOLS)}: the menu is shown again with an empty line, q leaves.")
            continue
        if not run_tool(tool, at, read, say):
            return False
        if once:
            return True


def run_tool(tool: Tool, at: Surroundings, read: Read, say: Say) -> bool:
    """Ask for a tool's arguments, run it, and say what it answers; return whether there is more input."""
    arguments: dict[str, str] = {}
    for name in tool.arguments.model_fields:
        value = _ask(tool, name, at, read, say)
        if value is None:
            return False
        if value:
            arguments[name] = value
    for line in plain(call(at, tool.name, arguments, f"menu:{secrets.token_hex(8)}")):
        say(line)
    return True


def _tool(chosen: str) -> Tool | None:
    tools = list(TOOLS.values())
    return tools[int(chosen) - 1] if chosen.isdecimal() and 1 <= int(chosen[:4]) <= len(tools) else None


def _ask(tool: Tool, name: str, at: Surroundings, read: Read, say: Say) -> str | None:
    """Return a value that the tool accepts, empty for none; None at the end of the input."""
    field = tool.arguments.model_fields[name]
    choices = _choices(name, field, at)
    for place, choice in enumerate(choices, 1):
        say(f"  {place}. {choice}")
    optional = "" if field.is_required() else f" [{_default(name, field, at)}]"
    what = name.replace("_", " ") if choices else field.description or name
    while True:
        answer = read(f"  {what}{optional}: ")
        if answer is None:
            return None
        value = answer.strip()
        if value.isdecimal() and 1 <= int(value[:4]) <= len(choices):
            value = choices[int(value) - 1]
        wrong = _wrong(tool.arguments, name, value, choices)
        if wrong is None:
            return value
        say(f"  {wrong}")


def _choices(name: str, field: FieldInfo, at: Surroundings) -> list[str]:
    if name in ("session", "first", "second"):
        return [folder.name for folder in folders(at.home)[-_LATEST:]]
    if name == "workload":
        return list(at.workloads())
    return [str(word) for kind in _kinds(field.annotation) if get_origin(kind) is Literal for word in get_args(kind)]


def _kinds(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        yield from get_args(annotation)
    else:
        yield annotation


def _default(name: str, field: FieldInfo, at: Surroundings) -> str:
    if name == "session":
        return at.session or "the latest"
    if name in ("first", "second"):
        return "the last but one" if name == "first" else "the latest"
    return "leave it" if field.default is None else f"{field.default:g}"


def _wrong(model: type[Arguments], name: str, value: str, choices: list[str]) -> str | None:
    """Say what is wrong with a value, None if nothing is."""
    if not value:
        return "This one is needed." if model.model_fields[name].is_required() else None
    if choices and value not in choices:
        return f"Choose a number from 1 to {len(choices)}."
    try:
        model.model_validate({name: value})  # others that are missing are not this one's fault
    except ValidationError as error:
        problem = next((p for p in error.errors(include_url=False) if name in p["loc"]), None)
        return None if problem is None else f"{problem['msg']}."
    return None
