"""The command `infertune`. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import json
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from agent import (
    cli_challenge,
    cli_chat,
    cli_evidence,
    cli_manifests,
    cli_plan,
    cli_questions,
    cli_schedule,
    cli_sessions,
    cli_simulate,
)
from agent.cli_common import EXIT_DIFFERENT, EXIT_USER_ERROR, Home, Output, finish, observing
from tools.errors import InfertuneError

STARTED = time.monotonic()

app = typer.Typer(
    name="infertune",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Make a model cheaper and faster to serve: measure every candidate on this machine, choose the cheapest that "
    "keeps the promises, and say how many replicas the traffic needs.",
)

app.add_typer(cli_sessions.app)
app.add_typer(cli_questions.app)
app.add_typer(cli_evidence.app)
app.add_typer(cli_manifests.app)
app.add_typer(cli_challenge.app)
app.add_typer(cli_chat.app)
app.add_typer(cli_simulate.app, name="simulate")
app.add_typer(cli_schedule.app, name="schedule", help="Scheduled runs: when, why, and what became of them.")
app.add_typer(cli_plan.app, name="plan", help="Changes to a cluster: offered, answered, carried out.")


class Executor(StrEnum):
    """Where trials run."""

    LOCAL = "local"
    RAY = "ray"


class SchemaOf(StrEnum):
    """Documents with a JSON schema."""

    SPEC = "spec"
    RESULT = "result"


Target = Annotated[str, typer.Argument(help="A tuning.yaml, or a bundled workload (digits-resnet50, digits-tiny).")]


@app.command()
def optimize(
    target: Target,
    home: Home = None,
    output: Annotated[Output, typer.Option(help="text for people, json prints result.json and nothing else.")] = (
        Output.TEXT
    ),
    time_budget: Annotated[
        float | None, typer.Option(min=1, help="Seconds after which no new trial is begun; overrides the spec.")
    ] = None,
    *,
    max_trials: Annotated[int | None, typer.Option(min=1, help="Stop after this many trials.")] = None,
    only: Annotated[
        str | None,
        typer.Option(help="Comma-separated runtimes and techniques; all others are left out. The baseline stays."),
    ] = None,
    exclude: Annotated[str | None, typer.Option(help="Comma-separated runtimes and techniques to leave out.")] = None,
    students: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated students, as in the spec's `search.students`: torchvision.models:resnet18@width=0.5."
        ),
    ] = None,
    executor: Annotated[
        Executor, typer.Option(help="Where trials run: in workers on this machine, or placed by Ray.")
    ] = Executor.LOCAL,
    ray_address: Annotated[
        str | None, typer.Option(help="Running Ray cluster, host:port or auto; default: a Ray of its own.")
    ] = None,
    auto_approve_within: Annotated[
        str | None,
        typer.Option(
            help="Approve a plan without a person if it lies within, e.g. min=2,max=20,target=5:50,daily-cost=80. "
            "For scheduled runs; the plan still has to pass every other rule."
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what earlier sessions on this machine measured.")
    ] = False,
    tracking_uri: Annotated[
        str | None,
        typer.Option(help="MLflow store; default: SQLite in the home directory.", envvar="MLFLOW_TRACKING_URI"),
    ] = None,
) -> None:
    """Optimize a workload: profile, try, measure, choose, size, record.

    Ctrl-C keeps the best so far. Exit code: 0 when every promise is kept (MET), 3 when not (INFEASIBLE, UNSTABLE),
    130 when interrupted, 2 for a mistake in the input.
    """
    from agent.bounds import read_bounds
    from agent.session import Options, home_directory
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
        search=search_wishes(only=only, exclude=exclude, students=students, max_trials=max_trials),
    )
    with observing(output, target) as observer:
        result = run(target, options, observer, STARTED)
    finish(result, output)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write the spec.")] = Path("tuning.yaml"),
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a commented tuning.yaml to start from."""
    from agent.template import write_template

    write_template(path, force=force)
    typer.echo(f"Wrote {path}. Fill it in, then: infertune check {path}")


@app.command()
def check(target: Target, home: Home = None) -> None:
    """Validate a spec, then load the model and one batch, and run it once. Measures and writes nothing."""
    from agent.check import check_spec
    from agent.session import home_directory

    for line in check_spec(target, home_directory(home)):
        typer.echo(line)


@app.command()
def doctor(
    output: Output = Output.TEXT,
    cluster: Annotated[
        Path | None,
        typer.Option(help="A tuning.yaml: say which rights its reader and its writer have, lack and should not have."),
    ] = None,
) -> None:
    """List CPU features, accelerators, runtimes and versions, and what each missing thing would enable.

    With --cluster, the rights of the two identities that a spec names; exit code 3 when they are not as they should be.
    """
    if cluster is not None:
        _print_rights(cluster, output)
        return
    from agent.doctor import examine, print_report

    found = examine()
    if output is Output.JSON:
        typer.echo(json.dumps(found, indent=1))
    else:
        print_report(found)


def _print_rights(path: Path, output: Output) -> None:
    from agent.cluster_doctor import describe, examine

    report = examine(path)
    if output is Output.JSON:
        typer.echo(report.model_dump_json(indent=1))
    else:
        for line in describe(report):
            typer.echo(line)
    if not report.ok:
        raise typer.Exit(EXIT_DIFFERENT)


@app.command()
def graph() -> None:
    """Print the agent's graph as Mermaid."""
    from agent.graph import build_graph

    typer.echo(build_graph().compile().get_graph().draw_mermaid())


@app.command()
def schema(of: Annotated[SchemaOf, typer.Argument(help="spec or result")] = SchemaOf.SPEC) -> None:
    """Print the JSON schema of tuning.yaml (for editors) or of result.json (for scripts)."""
    if of is SchemaOf.SPEC:
        from tools.spec import spec_schema

        typer.echo(json.dumps(spec_schema(), indent=2))
    else:
        from tools.result import SessionResult

        typer.echo(json.dumps(SessionResult.model_json_schema(), indent=2))


@app.command()
def ui(
    home: Home = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
) -> None:
    """Open MLflow on the local store, until Ctrl-C."""
    from agent.session import home_directory
    from tools.tracking.ui import serve_ui

    raise typer.Exit(serve_ui(home_directory(home), host, port))


def main() -> None:
    """Run the command line: a user's mistake is a sentence and exit 2, our bug keeps its traceback."""
    try:
        app()
    except InfertuneError as error:
        typer.echo(f"infertune: {error}", err=True)
        sys.exit(EXIT_USER_ERROR)
    except BrokenPipeError:
        sys.exit(1)


if __name__ == "__main__":
    main()
