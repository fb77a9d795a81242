"""The commands about scheduled runs: what is on the schedule, and running it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from agent import cli_help
from agent.cli_common import EXIT_DIFFERENT, EXIT_INTERRUPTED, EXIT_USER_ERROR, Format, Home, Output
from agent.cli_completion import complete_schedules, complete_targets
from agent.home import home_directory

if TYPE_CHECKING:
    from agent.scheduling.store import Run

Budget: TypeAlias = Annotated[
    float | None, typer.Option(min=60, metavar="SECONDS", help="Of one run; overrides the spec's budget.")
]
MaxAge: TypeAlias = Annotated[
    float, typer.Option(min=0.01, metavar="DAYS", help="Evidence older than this is renewed.")
]
Bounds: TypeAlias = Annotated[
    str | None, typer.Option(metavar="BOUNDS", help="Approve plans within these, as for `optimize`.")
]
Advisor: TypeAlias = Annotated[
    bool, typer.Option("--advisor", help="Ask a language model, as `optimize --advisor`, where one is set up.")
]

app = typer.Typer(
    no_args_is_help=True,
    help="Run optimizations on a schedule, when there is a reason to.",
    epilog=cli_help.manual(
        examples=(
            ("Look every night whether there is a reason:", "infertune schedule add tuning.yaml --cron '17 3 * * *'"),
            ("Run what is due, until Ctrl-C:", "infertune schedule run"),
            ("What ran, and what is next:", "infertune schedule list"),
        ),
        files={"HOME/schedule.db": "what is on the schedule, and every run"},
    ),
)


@app.command(
    epilog=cli_help.manual(
        examples=(
            (
                "Every night, not during the day:",
                "infertune schedule add tuning.yaml --cron '17 * * * *' --quiet 08:00-18:30",
            ),
            (
                "A fleet, by the clocks of Berlin, an hour a day each:",
                "infertune schedule add specs --cron '0 2 * * 1-5' --timezone Europe/Berlin --daily-budget 3600",
            ),
            (
                "Tell a service of every run:",
                (
                    "infertune schedule add tuning.yaml --cron '17 3 * * *' --webhook https://ops.example/hook "
                    "--webhook-secret-env HOOK_SECRET"
                ),
            ),
        ),
    ),
)
def add(
    target: Annotated[
        str,
        typer.Argument(
            help="A tuning.yaml, a bundled workload, or a folder: then each spec in it, all or none.",
            autocompletion=complete_targets,
        ),
    ],
    cron: Annotated[
        str, typer.Option(metavar="LINE", help="When to look for a reason to run: five fields, as in '17 3 * * *'.")
    ],
    home: Home = None,
    *,
    timezone: Annotated[
        str, typer.Option(metavar="ZONE", help="Whose clocks these are: an IANA name, as Europe/Berlin.")
    ] = "UTC",
    quiet: Annotated[
        list[str] | None,
        typer.Option(metavar="HOURS", help="Hours in which nothing is begun, as 08:00-18:30; may be repeated."),
    ] = None,
    budget: Budget = None,
    daily_budget: Annotated[
        float | None, typer.Option(min=60, metavar="SECONDS", help="Of all its runs in a day.")
    ] = None,
    max_age_days: MaxAge = 30.0,
    auto_approve_within: Bounds = None,
    advisor: Advisor = False,
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="URL that is told of runs and of plans that wait.")
    ] = None,
    webhook_secret_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with the secret that signs it.")
    ] = None,
    webhook_secret_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable with it.")
    ] = None,
) -> None:
    """Put a spec, or a folder of them, on the schedule.

    Adding one again replaces it. At each time a reason is looked for (model, data or libraries changed, the traffic
    drifted, the SLO was missed, the evidence is old); only then is a session run.
    """
    from agent.schedule import Wishes, described
    from agent.schedule import add as put

    wishes = Wishes(
        cron=cron,
        timezone=timezone,
        quiet=tuple(quiet or ()),
        budget_s=budget,
        daily_budget_s=daily_budget,
        max_age_days=max_age_days,
        auto_approve_within=auto_approve_within,
        advisor=advisor,
        webhook=webhook,
        webhook_secret_file=webhook_secret_file,
        webhook_secret_env=webhook_secret_env,
    )
    for line in described(put(home_directory(home), target, wishes)):
        typer.echo(line)
    typer.echo("Run the schedule: infertune schedule run")


@app.command(
    epilog=cli_help.manual(
        examples=(
            ("What a CronJob or a systemd timer runs every night:", "infertune schedule tick tuning.yaml"),
            (
                "And tells a service:",
                "infertune schedule tick tuning.yaml --webhook https://ops.example/hook --webhook-secret-file secret",
            ),
        ),
        exits={
            **cli_help.VERDICTS,
            0: "there was no reason to run it, or every promise is kept (MET)",
            1: "the session failed, or a bug of infertune",
        },
        environment={
            "INFERTUNE_WEBHOOK": "stands for --webhook",
            "INFERTUNE_WEBHOOK_SECRET": "what it is signed with, without --webhook-secret-file",
        },
    ),
)
def tick(
    target: Annotated[
        str, typer.Argument(help="A tuning.yaml, or a bundled workload.", autocompletion=complete_targets)
    ],
    home: Home = None,
    *,
    budget: Budget = None,
    max_age_days: MaxAge = 30.0,
    auto_approve_within: Bounds = None,
    advisor: Advisor = False,
    webhook: Annotated[
        str | None,
        typer.Option(metavar="URL", envvar="INFERTUNE_WEBHOOK", help="URL that is told of runs and waiting plans."),
    ] = None,
    webhook_secret_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with the secret that signs it; else INFERTUNE_WEBHOOK_SECRET has it."),
    ] = None,
) -> None:
    """Look at one spec now, and run it if there is a reason.

    For a timetable elsewhere, such as a CronJob. Evidence is reused, and a run that was interrupted is taken up.
    """
    from agent.schedule import Wishes
    from agent.schedule import tick as look

    in_environment = webhook is not None and webhook_secret_file is None
    wishes = Wishes(
        cron=None,
        budget_s=budget,
        max_age_days=max_age_days,
        auto_approve_within=auto_approve_within,
        advisor=advisor,
        webhook=webhook,
        webhook_secret_file=webhook_secret_file,
        webhook_secret_env="INFERTUNE_WEBHOOK_SECRET" if in_environment else None,
    )
    raise typer.Exit(_exit_code(look(home_directory(home), target, wishes, _say)))


@app.command("list", epilog=cli_help.manual(examples=(("For a script:", "infertune schedule list --output json"),)))
def list_entries(home: Home = None, output: Format = Output.TEXT) -> None:
    """Show what is on the schedule, the last run, and the next time.

    With its verdict, and why it ran or did not.
    """
    from agent.schedule import rows, table

    where = home_directory(home)
    if output is Output.JSON:
        typer.echo(json.dumps(rows(where), indent=1))
    else:
        for line in table(where):
            typer.echo(line)


@app.command(
    epilog=cli_help.manual(
        examples=(
            ("As a service, with metrics for Prometheus:", "infertune schedule run --metrics-port 9109"),
            ("From a cron of your own:", "infertune schedule run --once"),
        ),
    ),
)
def run(
    home: Home = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Deal with what is due now, and return.")] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, metavar="PORT", help="Serve /metrics for Prometheus on 127.0.0.1; 0: any free port."
        ),
    ] = None,
) -> None:
    """Run the schedule in the foreground, until Ctrl-C.

    A run that is interrupted is resumed at the next start.
    """
    from agent.scheduling.daemon import run as serve

    serve(home_directory(home), once=once, metrics_port=metrics_port, say=_say)


@app.command(
    epilog=cli_help.manual(
        examples=(
            ("By its spec:", "infertune schedule remove tuning.yaml"),
            ("By its id:", "infertune schedule remove 5d3e0c1a"),
        ),
    ),
)
def remove(
    entry: Annotated[
        str,
        typer.Argument(
            help="Its id, or the beginning of it, its workload's name, or its spec.", autocompletion=complete_schedules
        ),
    ],
    home: Home = None,
) -> None:
    """Take a spec off the schedule.

    What it ran stays on record.
    """
    from agent.schedule import remove as take_off

    removed = take_off(home_directory(home), entry)
    typer.echo(f"Removed {removed.id} ({removed.name}).")


def _exit_code(run: Run) -> int:
    """Return what `optimize` would have exited with; 0 where there was no reason to run it."""
    if run.state == "begun":
        return EXIT_INTERRUPTED
    if run.state != "ended" or run.verdict == "MET":
        return run.exit_code or 0
    if run.verdict == "FAILED":
        return EXIT_USER_ERROR if run.exit_code == EXIT_USER_ERROR else 1
    return EXIT_DIFFERENT


def _say(sentence: str) -> None:
    typer.echo(sentence)
    sys.stdout.flush()
