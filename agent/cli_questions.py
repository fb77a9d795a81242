"""The commands that question a session: what if it had been asked for something else, and why it decided as it did."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from agent import cli_help
from agent.cli_common import Format, Home, Output
from agent.cli_completion import complete_decisions, complete_sessions
from agent.home import home_directory

app = typer.Typer()

Session = Annotated[
    str | None,
    typer.Argument(help="A session's id, or its beginning; the latest if left out.", autocompletion=complete_sessions),
]


class Minimize(StrEnum):
    """What can be minimized."""

    COST = "cost"
    LATENCY = "latency"
    SIZE = "size"


def _limit(unit: str, what: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(metavar=unit, help=f"{what}; `none` removes the limit.")
    return option


@app.command(
    "what-if",
    rich_help_panel=cli_help.LOOK_BACK,
    epilog=cli_help.manual(
        examples=(
            ("The latest session, had the SLO been 20 ms:", "infertune what-if --p99-ms 20"),
            (
                "At another price, with no limit to memory:",
                "infertune what-if 20261122 --price-per-hour 0.4 --max-memory-mb none",
            ),
        ),
    ),
)
def what_if(
    session: Session = None,
    home: Home = None,
    output: Format = Output.TEXT,
    *,
    p99_ms: Annotated[str | None, _limit("MS", "Latency SLO")] = None,
    max_accuracy_drop: Annotated[
        str | None, typer.Option(metavar="DROP", help="In the metric's unit: 0.01 is one point of top1.")
    ] = None,
    max_memory_mb: Annotated[str | None, _limit("MB", "Peak memory of a replica")] = None,
    max_size_mb: Annotated[str | None, _limit("MB", "Size of the artifact")] = None,
    price_per_hour: Annotated[str | None, typer.Option(metavar="USD", help="Price of a replica.")] = None,
    minimize: Annotated[Minimize | None, typer.Option(help="What to minimize.")] = None,
    rate: Annotated[str | None, typer.Option(metavar="RPS", help="A constant rate, in place of the traffic.")] = None,
) -> None:
    """Ask what a session would have chosen under other promises.

    Or at another price, from its evidence alone. Measures nothing, and names what would have to be measured to be
    sure. What is not given stays as the session had it.
    """
    from rich.console import Console

    from agent.answers import print_what_if
    from agent.questions import what_if as ask
    from agent.sessions import find
    from tools.record import read_record

    changes = {
        "p99_ms": p99_ms,
        "max_accuracy_drop": max_accuracy_drop,
        "max_memory_mb": max_memory_mb,
        "max_size_mb": max_size_mb,
        "minimize": None if minimize is None else minimize.value,
        "price_per_hour_usd": price_per_hour,
        "rate_rps": rate,
    }
    folder = find(home_directory(home), session)
    found = ask(folder, {name: value for name, value in changes.items() if value is not None})
    if output is Output.JSON:
        typer.echo(found.model_dump_json(indent=1))
    else:
        print_what_if(found, read_record(folder).started.target, Console())


@app.command(
    rich_help_panel=cli_help.LOOK_BACK,
    epilog=cli_help.manual(
        examples=(
            ("All decisions of the latest session:", "infertune explain"),
            ("One of them, with options and evidence:", "infertune explain 20261122-041502-3f9a d05"),
            ("All that a node decided:", "infertune explain 20261122-041502-3f9a batch_tuning"),
        ),
    ),
)
def explain(
    session: Session = None,
    decision: Annotated[
        str | None,
        typer.Argument(
            help="A decision's id (d05), or a node, for all that it decided; default: all.",
            autocompletion=complete_decisions,
        ),
    ] = None,
    home: Home = None,
    output: Format = Output.TEXT,
) -> None:
    """Show what a session decided, by which numbers, and why."""
    import datetime as dt

    from rich.console import Console

    from agent.explain import as_json, print_explained
    from agent.questions import explain as ask
    from agent.sessions import find

    explained = ask(find(home_directory(home), session), decision)
    if output is Output.JSON:
        typer.echo(as_json(explained))
    else:
        print_explained(explained, Console(), dt.datetime.now(dt.UTC))
