"""What the pages of `--help` have in common: panels and their order, and the end of each page as in a manual.

Examples stand in one place, at the end of a command's page, and a test reads them there: each has to parse.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from typer.core import TyperGroup

OPTIMIZE = "Optimize"
LOOK_BACK = "Look back"
CLUSTER = "Scale and change a cluster"
AUTOMATE = "Automate and talk"
SIMULATE = "Simulate"
SET_UP = "Set up"
PANELS = (OPTIMIZE, LOOK_BACK, CLUSTER, AUTOMATE, SIMULATE, SET_UP)
"""Of the commands, in the order in which `infertune --help` shows them."""

HOME_VARIABLE = ("INFERTUNE_HOME", "where things are kept, unless --home says; default: .infertune here")
SESSION_FILES = {
    "HOME/sessions/ID/result.json": "the outcome, for scripts",
    "HOME/sessions/ID/report.html": "the same for people",
    "HOME/sessions/ID/journal.jsonl": "all that happened, in order",
}
VERDICTS = {
    0: "every promise is kept (MET)",
    3: "one is not, or it cannot be told (INFEASIBLE, UNSTABLE)",
    130: "interrupted; what was measured so far stays",
}
"""Exit codes of what ends with a verdict."""
_EXITS = {
    0: "it worked",
    1: "a bug of infertune: its traceback says where",
    2: "a mistake in the input; a line says which",
}
_WIDTH = 78
"""Columns of a page, less its margins, in a terminal of 80."""
_INDENT = "  "


class Panels(TyperGroup):
    """The commands of `infertune`, panel by panel."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands' names in the order of their panels; within one, as they were added."""
        return sorted(super().list_commands(ctx), key=lambda name: PANELS.index(_panel(self.commands[name])))


class DefaultsToList(TyperGroup):
    """A group that alone, or with options only, is its command `list`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments. While a shell completes them they stay as they were typed: subcommands may follow."""
        if not ctx.resilient_parsing and (not args or (args[0].startswith("-") and args[0] != "--help")):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def manual(
    *,
    examples: Sequence[tuple[str, str]],
    exits: Mapping[int, str] | None = None,
    environment: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
    home: bool = True,
) -> str:
    """Return the end of a page: examples, exit codes, environment and files.

    Args:
        examples: what each does, as a line that ends with a colon, and the command as it is typed.
        exits: exit codes beyond those that all commands share, or in place of their texts.
        environment: variables beside `INFERTUNE_HOME`.
        files: that matter, by path; `HOME` stands for the home directory.
        home: whether the command looks at the home directory.
    """
    variables = {**({HOME_VARIABLE[0]: HOME_VARIABLE[1]} if home else {}), **(environment or {})}
    codes = {str(code): text for code, text in sorted({**_EXITS, **(exits or {})}.items())}
    shown = [line for what, command in examples for line in _example(what, command)]
    parts = [_headed("Examples", shown), _headed("Exit codes", _listed(codes))]
    if variables:
        parts.append(_headed("Environment", _listed(variables)))
    if files:
        parts.append(_headed("Files", _listed(files)))
    return "\n\n".join(parts)


def examples_in(epilog: str) -> list[str]:
    """Return the commands among the examples at the end of a page, each on one line."""
    joined = re.sub(r" \\\n\s*", " ", epilog.partition("[bold]Exit codes[/bold]")[0])
    return [line.strip() for line in joined.splitlines() if line.startswith(_INDENT * 2)]


def reflow(app: typer.Typer) -> None:
    """Join the lines of each paragraph of all commands' docstrings: a terminal wraps them at its own width."""
    for command in app.registered_commands:
        assert command.callback is not None, "typer made it of a function"
        text = inspect.cleandoc(command.help or command.callback.__doc__ or "")
        command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    for group in app.registered_groups:
        if group.typer_instance is not None:
            reflow(group.typer_instance)


def _panel(command: object) -> str:
    return getattr(command, "rich_help_panel", None) or SET_UP


def _headed(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"[bold]{title}[/bold]", *lines])


def _example(what: str, command: str) -> list[str]:
    """Return an example's lines; a long command goes on in the next one, as it may be pasted."""
    said = textwrap.wrap(what, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)
    lines = [_INDENT * 2]
    for part in re.split(r" (?=--?\w|\| )", command):
        room = _WIDTH - len(" \\")
        if lines[-1].strip() and len(lines[-1]) + len(part) + 1 > room:
            lines[-1] += " \\"
            lines.append(_INDENT * 3 + part)
        else:
            lines[-1] += f" {part}" if lines[-1].strip() else part
    return [*said, *lines]


def _listed(texts: Mapping[str, str]) -> list[str]:
    """Return names with their texts beside them; texts stand below where a name is long."""
    width = max(map(len, texts))
    lines: list[str] = []
    for name, text in texts.items():
        head = f"{_INDENT}{name.ljust(width)}  "
        lines += textwrap.wrap(text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
    return lines
