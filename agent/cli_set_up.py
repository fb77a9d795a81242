"""The commands around an optimization: a spec to begin with, the machine, schemas, and MLflow's own pages."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from agent import cli_help
from agent.cli_common import EXIT_DIFFERENT, Format, Home, Output, Target
from agent.home import home_directory

app = typer.Typer()


class SchemaOf(StrEnum):
    """Documents with a JSON schema."""

    SPEC = "spec"
    RESULT = "result"


@app.command(
    rich_help_panel=cli_help.OPTIMIZE,
    epilog=cli_help.manual(
        examples=(
            ("A spec to fill in, here:", "infertune init"),
            ("Elsewhere, in place of what is there:", "infertune init specs/shop.yaml --force"),
        ),
        files={"tuning.yaml": "the spec", "tuning.schema.json": "its schema beside it, for editors"},
        home=False,
    ),
)
def init(
    path: Annotated[Path, typer.Argument(help="Where to write the spec.")] = Path("tuning.yaml"),
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a commented tuning.yaml to start from."""
    from agent.template import write_template

    write_template(path, force=force)
    typer.echo(f"Wrote {path}. Fill it in, then: infertune check {path}")


@app.command(
    rich_help_panel=cli_help.OPTIMIZE,
    epilog=cli_help.manual(examples=(("Before an optimization:", "infertune check tuning.yaml"),)),
)
def check(target: Target, home: Home = None) -> None:
    """Validate a spec, load its model, and run it on one batch.

    Measures and writes nothing.
    """
    from agent.check import check_spec

    for line in check_spec(target, home_directory(home)):
        typer.echo(line)


@app.command(
    rich_help_panel=cli_help.SET_UP,
    epilog=cli_help.manual(
        examples=(
            ("What this machine can run, and what is missing for more:", "infertune doctor"),
            ("Before a plan is applied:", "infertune doctor --cluster tuning.yaml"),
        ),
        exits={3: "the rights in the cluster are not as they should be"},
        home=False,
    ),
)
def doctor(
    output: Format = Output.TEXT,
    cluster: Annotated[
        Path | None,
        typer.Option(
            metavar="SPEC",
            help="A tuning.yaml: say which rights its reader and its writer have, lack and should not have.",
        ),
    ] = None,
) -> None:
    """Say what this machine can run, and what is missing for more.

    Lists CPU features, accelerators, runtimes and versions, and what each missing thing would enable. With --cluster,
    the rights of the two identities that a spec names.
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


@app.command(
    rich_help_panel=cli_help.SET_UP,
    epilog=cli_help.manual(examples=(("For a page that draws Mermaid:", "infertune graph"),), home=False),
)
def graph() -> None:
    """Print the agent's graph as Mermaid."""
    from agent.graph import build_graph

    typer.echo(build_graph().compile().get_graph().draw_mermaid())


@app.command(
    rich_help_panel=cli_help.SET_UP,
    epilog=cli_help.manual(
        examples=(
            ("For an editor:", "infertune schema spec"),
            ("For a script that reads results:", "infertune schema result"),
        ),
        home=False,
    ),
)
def schema(of: Annotated[SchemaOf, typer.Argument(help="Of tuning.yaml, or of result.json.")] = SchemaOf.SPEC) -> None:
    """Print the JSON schema of tuning.yaml or of result.json.

    The first is for editors, the second for scripts.
    """
    if of is SchemaOf.SPEC:
        from tools.spec import spec_schema

        typer.echo(json.dumps(spec_schema(), indent=2))
    else:
        from tools.result import SessionResult

        typer.echo(json.dumps(SessionResult.model_json_schema(), indent=2))


@app.command(
    rich_help_panel=cli_help.SET_UP,
    epilog=cli_help.manual(
        examples=(("On another port than MLflow's own:", "infertune ui --port 5001"),),
        files={"HOME/mlflow.db": "the store", "HOME/mlartifacts": "its files"},
    ),
)
def ui(
    home: Home = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="To listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, metavar="PORT", help="To listen on.")] = 5000,
) -> None:
    """Open MLflow on the local store, until Ctrl-C."""
    from tools.tracking.ui import serve_ui

    raise typer.Exit(serve_ui(home_directory(home), host, port))
