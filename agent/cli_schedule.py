"""The commands about scheduled runs: what is on the schedule, and running it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from agent.cli_common import Home, Output

app = typer.Typer(no_args_is_help=True)


@app.command()
def add(
    target: Annotated[
        str, typer.Argument(help="A tuning.yaml, a bundled workload, or a folder: then each spec in it, all or none.")
    ],
    cron: Annotated[str, typer.Option(help="When to look for a reason to run: five fields, as in '17 3 * * *'.")],
    home: Home = None,
    *,
    timezone: Annotated[str, typer.Option(help="Whose clocks these are: an IANA name, as Europe/Berlin.")] = "UTC",
    quiet: Annotated[
        list[str] | None, typer.Option(help="Hours in which nothing is begun, as 08:00-18:30; may be repeated.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(min=60, help="Seconds of one run; overrides the spec's budget.")
    ] = None,
    daily_budget: Annotated[float | None, typer.Option(min=60, help="Seconds of all its runs in a day.")] = None,
    max_age_days: Annotated[float, typer.Option(min=0.01, help="Evidence older than this is renewed.")] = 30.0,
    auto_approve_within: Annotated[
        str | None, typer.Option(help="As for `optimize`: approve plans within, e.g. min=2,max=20,daily-cost=80.")
    ] = None,
    webhook: Annotated[str | None, typer.Option(help="URL that is told of runs and of plans that wait.")] = None,
    webhook_secret_file: Annotated[Path | None, typer.Option(help="File with the secret that signs it.")] = None,
    webhook_secret_env: Annotated[str | None, typer.Option(help="Environment variable with it.")] = None,
) -> None:
    """Put a spec, or a folder of them, on the schedule. Adding one again replaces it.

    At each time a reason is looked for (model, data or libraries changed, the traffic drifted, the SLO was missed, the
    evidence is old); only then is a session run.
    """
    from agent.schedule import Wishes, described
    from agent.schedule import add as put
    from agent.session import home_directory

    wishes = Wishes(
        cron=cron,
        timezone=timezone,
        quiet=tuple(quiet or ()),
        budget_s=budget,
        daily_budget_s=daily_budget,
        max_age_days=max_age_days,
        auto_approve_within=auto_approve_within,
        webhook=webhook,
        webhook_secret_file=webhook_secret_file,
        webhook_secret_env=webhook_secret_env,
    )
    for line in described(put(home_directory(home), target, wishes)):
        typer.echo(line)
    typer.echo("Run the schedule: infertune schedule run")


@app.command("list")
def list_entries(home: Home = None, output: Output = Output.TEXT) -> None:
    """Show what is on the schedule: the last run, its verdict, why it ran or did not, and the next time."""
    from agent.schedule import rows, table
    from agent.session import home_directory

    where = home_directory(home)
    if output is Output.JSON:
        typer.echo(json.dumps(rows(where), indent=1))
    else:
        for line in table(where):
            typer.echo(line)


@app.command()
def run(
    home: Home = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Deal with what is due now, and return.")] = False,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve /metrics for Prometheus on 127.0.0.1; 0: any free port.")
    ] = None,
) -> None:
    """Run the schedule in the foreground, until Ctrl-C. A run that is interrupted is resumed at the next start."""
    from agent.scheduling.daemon import run as serve
    from agent.session import home_directory

    serve(home_directory(home), once=once, metrics_port=metrics_port, say=_say)


@app.command()
def remove(
    entry: Annotated[str, typer.Argument(help="Its id, or the beginning of it, its workload's name, or its spec.")],
    home: Home = None,
) -> None:
    """Take a spec off the schedule. What it ran stays on record."""
    from agent.schedule import remove as take_off
    from agent.session import home_directory

    removed = take_off(home_directory(home), entry)
    typer.echo(f"Removed {removed.id} ({removed.name}).")


def _say(sentence: str) -> None:
    typer.echo(sentence)
    sys.stdout.flush()
