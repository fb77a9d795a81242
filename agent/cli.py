"""The command `infertune`. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import os
import sys
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from agent import (
    cli_challenge,
    cli_chat,
    cli_evidence,
    cli_help,
    cli_manifests,
    cli_plan,
    cli_questions,
    cli_resume,
    cli_schedule,
    cli_sessions,
    cli_set_up,
    cli_simulate,
)
from agent.cli_common import EXIT_USER_ERROR, Home, Output, Target, finish, observing
from agent.cli_completion import complete_techniques
from agent.home import home_directory
from tools.errors import InfertuneError

if TYPE_CHECKING:
    from agent.chat.model import Settings

STARTED = time.monotonic()
_ENVIRONMENT = {
    "MLFLOW_TRACKING_URI": "where MLflow records; default: SQLite in the home directory",
    "INFERTUNE_MODEL": "the language model that `chat` talks with, and that `--advisor` asks",
    "OPENAI_BASE_URL": "its endpoint",
    "OPENAI_API_KEY": "its key, which is never written down",
}

app = typer.Typer(
    name="infertune",
    cls=cli_help.Panels,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Make a model cheaper and faster to serve: measure every candidate on this machine, choose the cheapest that "
    "keeps the promises, and say how many replicas the traffic needs.",
    epilog=cli_help.manual(
        examples=(
            ("To begin with, a bundled workload, in about a minute:", "infertune optimize digits-tiny"),
            ("Your own:", "infertune init tuning.yaml"),
            ("What was run, and what is left to be done:", "infertune sessions"),
            ("Complete commands and names with Tab:", "infertune --install-completion"),
        ),
        exits={
            3: "it worked, and the answer is no: a promise not kept, a decision that differs",
            130: "interrupted",
        },
        environment=_ENVIRONMENT,
        files={**cli_help.SESSION_FILES, "HOME/mlflow.db": "the same for MLflow: infertune ui"},
    ),
)

app.add_typer(cli_set_up.app)
app.add_typer(cli_sessions.app, name="sessions", rich_help_panel=cli_help.LOOK_BACK)
app.add_typer(cli_resume.app)
app.add_typer(cli_questions.app)
app.add_typer(cli_evidence.app, rich_help_panel=cli_help.LOOK_BACK)
app.add_typer(cli_manifests.app)
app.add_typer(cli_challenge.app)
app.add_typer(cli_chat.app)
app.add_typer(cli_simulate.app, name="simulate", rich_help_panel=cli_help.SIMULATE)
app.add_typer(cli_schedule.app, name="schedule", rich_help_panel=cli_help.AUTOMATE)
app.add_typer(cli_plan.app, name="plan", rich_help_panel=cli_help.CLUSTER)


class Executor(StrEnum):
    """Where trials run."""

    LOCAL = "local"
    RAY = "ray"


_TRIED, _PLACED = "What is tried", "Where it runs and is recorded"


@app.command(
    rich_help_panel=cli_help.OPTIMIZE,
    epilog=cli_help.manual(
        examples=(
            ("A bundled workload, in about a minute:", "infertune optimize digits-tiny"),
            (
                "Your own, for ten minutes, without what needs training:",
                "infertune optimize tuning.yaml --time-budget 600 --exclude distillation,pruning",
            ),
            (
                "Another student than the search would take:",
                "infertune optimize tuning.yaml --students torchvision.models:resnet18@width=0.5",
            ),
            (
                "On a schedule of your own, with a change of the cluster approved within bounds:",
                "infertune optimize tuning.yaml --auto-approve-within min=2,max=20,target=5:50,daily-cost=80",
            ),
            ("In a script:", "infertune optimize tuning.yaml --output json | jq .verdict"),
        ),
        exits=cli_help.VERDICTS,
        environment={"MLFLOW_TRACKING_URI": "where MLflow records, unless --tracking-uri says"},
        files=cli_help.SESSION_FILES,
    ),
)
def optimize(
    target: Target,
    home: Home = None,
    output: Annotated[Output, typer.Option(help="text for people, json prints result.json and nothing else.")] = (
        Output.TEXT
    ),
    time_budget: Annotated[
        float | None,
        typer.Option(
            min=1,
            metavar="SECONDS",
            rich_help_panel=_TRIED,
            help="After these no new trial is begun; overrides the spec.",
        ),
    ] = None,
    *,
    max_trials: Annotated[
        int | None, typer.Option(min=1, metavar="N", rich_help_panel=_TRIED, help="Candidates that are tried at most.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            rich_help_panel=_TRIED,
            autocompletion=complete_techniques,
            help="Comma-separated runtimes and techniques; all others are left out. The baseline stays.",
        ),
    ] = None,
    exclude: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            rich_help_panel=_TRIED,
            autocompletion=complete_techniques,
            help="Comma-separated runtimes and techniques to leave out.",
        ),
    ] = None,
    students: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            rich_help_panel=_TRIED,
            help="Comma-separated students, as in the spec's `search.students`; see the examples.",
        ),
    ] = None,
    executor: Annotated[
        Executor,
        typer.Option(rich_help_panel=_PLACED, help="Where trials run: in workers on this machine, or placed by Ray."),
    ] = Executor.LOCAL,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            rich_help_panel=_PLACED,
            help="Running Ray cluster, host:port or auto; default: a Ray of its own.",
        ),
    ] = None,
    auto_approve_within: Annotated[
        str | None,
        typer.Option(
            metavar="BOUNDS",
            help="Approve a plan without a person if it lies within; see the examples. For scheduled runs; the plan "
            "still has to pass every other rule.",
        ),
    ] = None,
    advisor: Annotated[
        bool,
        typer.Option(
            "--advisor",
            help="Ask the language model of INFERTUNE_MODEL what to try of what the policy leaves, within a tenth of "
            "the time, and for a summary. No answer of it can make the result worse.",
        ),
    ] = False,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", rich_help_panel=_TRIED, help="Measure again what earlier sessions on this machine measured."
        ),
    ] = False,
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            rich_help_panel=_PLACED,
            help="MLflow store; default: SQLite in the home directory.",
            envvar="MLFLOW_TRACKING_URI",
        ),
    ] = None,
) -> None:
    """Optimize a workload: profile, try, measure, choose, size, record.

    Every candidate is built and measured on this machine; the cheapest that keeps the promises of the spec is
    recommended, with how many replicas the traffic needs. Ctrl-C keeps the best so far.
    """
    from agent.bounds import read_bounds
    from agent.session import Options
    from agent.session import optimize as run
    from agent.wishes import search_wishes

    options = Options(
        home=home_directory(home),
        tracking_uri=tracking_uri,
        fresh=fresh,
        time_budget_s=time_budget,
        executor=executor,
        ray_address=ray_address,
        auto_approve=None if auto_approve_within is None else read_bounds(auto_approve_within),
        advisor=_advisor() if advisor else None,
        search=search_wishes(only=only, exclude=exclude, students=students, max_trials=max_trials),
    )
    with observing(output, target) as observer:
        result = run(target, options, observer, STARTED)
    finish(result, output)


def _advisor() -> Settings:
    """Return the endpoint that the environment names.

    Raises:
        SpecError: it names none.
    """
    from agent.advisor import configured
    from agent.endpoint import lacking
    from tools.errors import SpecError

    settings = configured()
    if settings is None:
        raise SpecError(
            f"no language model is configured: {lacking(os.environ)}",
            where="--advisor",
            fix="Set INFERTUNE_MODEL, and OPENAI_BASE_URL or OPENAI_API_KEY; or leave the option out.",
        )
    return settings


cli_help.reflow(app)


def main() -> None:
    """Run the command line: a user's mistake is a sentence and exit 2, our bug keeps its traceback."""
    try:
        app(prog_name="infertune")
    except InfertuneError as error:
        typer.echo(f"infertune: {error}", err=True)
        sys.exit(EXIT_USER_ERROR)
    except BrokenPipeError:
        sys.exit(1)


if __name__ == "__main__":
    main()
