"""The command that tells an optimization step by step, and whether it came as far as was asked."""

from __future__ import annotations

from typing import Annotated

import typer

from agent import cli_help
from agent.cli_common import EXIT_DIFFERENT, Format, Home, Output, observing
from agent.cli_completion import complete_targets
from agent.home import home_directory

app = typer.Typer()


@app.command(
    rich_help_panel=cli_help.OPTIMIZE,
    epilog=cli_help.manual(
        examples=(
            ("The bundled ResNet-50, in about a quarter of an hour:", "infertune challenge"),
            ("Your own:", "infertune challenge tuning.yaml"),
        ),
        exits={3: "a target is not met"},
        files={"HOME/sessions/ID/challenge.html": "the steps, with every figure"},
    ),
)
def challenge(
    workload: Annotated[
        str,
        typer.Argument(
            help="A bundled workload (digits-resnet50, digits-tiny), or a tuning.yaml.",
            autocompletion=complete_targets,
        ),
    ] = "digits-resnet50",
    home: Home = None,
    output: Format = Output.TEXT,
    *,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run a new session even where one fits, and measure all of it again.")
    ] = False,
) -> None:
    """Show what each technique brings, one on top of the other.

    Every figure is measured, in about a quarter of an hour. Runs a session, or takes up the last one that fits,
    measures the steps that it did not, and writes challenge.html beside its report.
    """
    from rich.console import Console

    from agent.challenge import run_challenge
    from agent.challenge_console import print_told
    from tools.challenge import TargetState

    with observing(output, workload) as observer:
        told = run_challenge(workload, home_directory(home), observer, fresh=fresh)
    if output is Output.JSON:
        typer.echo(told.challenge.model_dump_json(indent=1))
    else:
        print_told(told, Console())
    if any(target.state is not TargetState.MET for target in told.challenge.targets):
        raise typer.Exit(EXIT_DIFFERENT)
