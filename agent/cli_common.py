"""What several commands share: options, exit codes, and how a result is shown."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli_completion import complete_targets

if TYPE_CHECKING:
    from tools.observer import Observer
    from tools.result import SessionResult

EXIT_USER_ERROR = 2
EXIT_DIFFERENT = 3
"""The command worked, and its answer is no: a promise not kept, a decision that differs, a record that is missing."""
EXIT_INTERRUPTED = 130
MOST_UNPACKED_MB = 4000.0
"""An exported session that takes more, unpacked, is refused unless a person says otherwise."""


class Output(StrEnum):
    """What is written to standard output."""

    TEXT = "text"
    JSON = "json"


class Verdict(StrEnum):
    """How a session ended: those of `tools.contracts`, which is too heavy to import for a page of help."""

    MET = "MET"
    INFEASIBLE = "INFEASIBLE"
    UNSTABLE = "UNSTABLE"
    INTERRUPTED = "INTERRUPTED"


Format = Annotated[Output, typer.Option(help="text for people, json for scripts.")]
"""The option `--output`."""
Home = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="DIR", help="Where evidence, artifacts and sessions are kept.", envvar="INFERTUNE_HOME"
    ),
]
Target = Annotated[
    str,
    typer.Argument(
        help="A tuning.yaml, or a bundled workload (digits-resnet50, digits-tiny).", autocompletion=complete_targets
    ),
]
"""What is optimized, checked or shown."""


@contextlib.contextmanager
def observing(output: Output, title: str) -> Iterator[Observer]:
    """Show a session as it runs; an interrupt before there is anything to show ends the command."""
    from rich.console import Console

    from agent.live import observer_for
    from agent.signals import InterruptedSessionError

    try:
        with observer_for(Console(), workload=title, silent=output is Output.JSON) as observer:
            yield observer
    except InterruptedSessionError as error:
        typer.echo(f"infertune: {error}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def finish(result: SessionResult, output: Output) -> None:
    """Show a result, and exit with what its verdict means."""
    if output is Output.JSON:
        typer.echo(result.model_dump_json(indent=1))
    else:
        from rich.console import Console

        from agent.console import print_summary

        print_summary(result, Console())
    raise typer.Exit({"MET": 0, "INTERRUPTED": EXIT_INTERRUPTED}.get(result.verdict.value, EXIT_DIFFERENT))
