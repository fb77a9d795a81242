"""The command that tells an optimization step by step, and whether it came as far as was asked."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.cli_common import EXIT_DIFFERENT, Home, Output, observing

app = typer.Typer()


@app.command()
def challenge(
    workload: Annotated[
        str, typer.Argument(help="A bundled workload (digits-resnet50, digits-tiny), or a tuning.yaml.")
    ] = "digits-resnet50",
    home: Home = None,
    output: Output = Output.TEXT,
    *,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run a new session even where one fits, and measure all of it again.")
    ] = False,
) -> None:
    """Show what each technique brings, one on top of the other, every figure measured: about a quarter of an hour.

    Runs a session, or takes up the last one that fits, measures the steps that it did not, and writes challenge.html
    beside its report. Exit code 3 when a target is not met.
    """
    from rich.console import Console

    from agent.challenge import run_challenge
    from agent.challenge_console import print_told
    from agent.session import home_directory
    from tools.challenge import TargetState

    with observing(output, workload) as observer:
        told = run_challenge(workload, home_directory(home), observer, fresh=fresh)
    if output is Output.JSON:
        typer.echo(told.challenge.model_dump_json(indent=1))
    else:
        print_told(told, Console())
    if any(target.state is not TargetState.MET for target in told.challenge.targets):
        raise typer.Exit(EXIT_DIFFERENT)
