"""The commands that list, show, compare and delete the sessions of a home directory."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from agent import cli_help
from agent.cli_common import Format, Home, Output, Verdict
from agent.cli_completion import complete_sessions, complete_workload_names
from agent.home import home_directory
from tools.errors import InfertuneError

if TYPE_CHECKING:
    from agent.session_deletion import Deletion

app = typer.Typer(
    cls=cli_help.DefaultsToList,
    help="List, show, compare or delete sessions; alone it lists them.",
    epilog=cli_help.manual(
        examples=(
            ("What was run so far, and what is left to be done about it:", "infertune sessions"),
            ("How the latest session ended:", "infertune sessions show"),
            ("The latest session beside the one before it:", "infertune sessions compare"),
        ),
        files=cli_help.SESSION_FILES,
    ),
)
Session = Annotated[
    str | None,
    typer.Argument(
        help="A session's id, or its beginning; the latest that fits if left out.", autocompletion=complete_sessions
    ),
]
Sessions = Annotated[
    list[str],
    typer.Argument(metavar="SESSION", help="Ids, or their beginnings.", autocompletion=complete_sessions),
]


@app.command(
    "list",
    epilog=cli_help.manual(
        examples=(
            ("Everything, the newest last:", "infertune sessions list"),
            (
                "Only one workload's sessions that could not keep their promises:",
                "infertune sessions list --workload digits-tiny --verdict INFEASIBLE",
            ),
            ("For a script:", "infertune sessions list --output json"),
        ),
    ),
)
def list_(
    home: Home = None,
    output: Format = Output.TEXT,
    workload: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only sessions of this one.", autocompletion=complete_workload_names),
    ] = None,
    verdict: Annotated[
        Verdict | None,
        typer.Option(
            metavar="VERDICT",
            case_sensitive=False,
            help="Only sessions that ended so: MET, INFEASIBLE, UNSTABLE or INTERRUPTED.",
        ),
    ] = None,
) -> None:
    """List sessions, the newest last, and what is left to do.

    The columns `p50` and `rate` say how many times as fast, and how many times the requests for the same money, the
    best configuration is, compared with the model as given.
    """
    import datetime as dt

    from rich.console import Console

    from agent.session_views import print_rows, rows
    from tools import contracts

    where, now = home_directory(home), dt.datetime.now(dt.UTC)
    wanted = None if verdict is None else contracts.Verdict(verdict.value)
    found = rows(where, now, workload=workload, verdict=wanted)
    if output is Output.JSON:
        typer.echo(json.dumps([row.as_json() for row in found], indent=1))
    elif found:
        print_rows(found, Console(highlight=False), now)
    elif (workload, verdict) != (None, None):
        typer.echo(f"no such sessions in {where}.")
    else:
        typer.echo(f"no sessions in {where} yet: infertune optimize digits-resnet50")


@app.command(
    epilog=cli_help.manual(
        examples=(
            ("How the latest session ended:", "infertune sessions show"),
            (
                "Its price for a thousand requests, in a script:",
                "infertune sessions show --output json | jq .best.cost_per_1000_usd",
            ),
        ),
        files=cli_help.SESSION_FILES,
    ),
)
def show(session: Session = None, home: Home = None, output: Format = Output.TEXT) -> None:
    """Show how a session ended, and every decision in a line.

    What it shows is stored: figures, files, plan and MLflow run. With --output json it prints result.json as it is.
    """
    import datetime as dt

    from rich.console import Console

    from agent.session_views import print_session
    from agent.sessions import find
    from tools.record import RESULT

    folder = find(home_directory(home), session)
    if output is Output.TEXT:
        print_session(folder, Console(highlight=False), dt.datetime.now(dt.UTC))
        return
    if not (folder / RESULT).exists():
        raise InfertuneError("has no result.", where=folder.name, fix=f"See: infertune sessions show {folder.name}")
    typer.echo((folder / RESULT).read_bytes(), nl=False)


@app.command(
    epilog=cli_help.manual(
        examples=(
            ("The latest session beside the one before it, of the same workload:", "infertune sessions compare"),
            (
                "Three of them, named by the beginnings of their ids:",
                "infertune sessions compare 20261120 20261121 20261122",
            ),
            ("For a script:", "infertune sessions compare 20261121 20261122 --output json"),
        ),
    ),
)
def compare(
    sessions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SESSION]...",
            help="Ids, or their beginnings. One alone is compared with the one before it of the same workload; "
            "default: the two latest of one workload.",
            autocompletion=complete_sessions,
        ),
    ] = None,
    home: Home = None,
    output: Format = Output.TEXT,
) -> None:
    """Compare sessions side by side, and say which figures do not.

    Below the figures stands what differs: objective, price, machine, versions of libraries, policy and protocol.
    Figures do not compare where workload, machine or measuring protocol differ.
    """
    from rich.console import Console

    from agent.session_comparison import as_json, gather, print_compared

    compared = gather(home_directory(home), sessions or [])
    if output is Output.JSON:
        typer.echo(json.dumps(as_json(compared), indent=1))
    else:
        print_compared(compared, Console(highlight=False))


@app.command(
    epilog=cli_help.manual(
        examples=(
            ("Look at what would go, and decide:", "infertune sessions delete 20261122-041502-3f9a"),
            ("Several, in a script: all of them, or none:", "infertune sessions delete --yes 20261120 20261121"),
            ("Tidy up what no session needs any more:", "infertune evidence gc"),
        ),
        files={
            "HOME/sessions/ID": "goes",
            "HOME/checkpoints.db": "loses what it holds of the session",
            "HOME/evidence.db": "stays: other sessions may rest on it",
        },
    ),
)
def delete(
    sessions: Sessions,
    home: Home = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete sessions: says what goes and what stays, and asks.

    A session that runs is refused, and so is one with a plan that is being carried out or may still be. Of several
    sessions all go, or none. A deletion that was killed is completed by the next one.
    """
    import datetime as dt

    from agent.session_deletion import delete as carry_out
    from agent.session_deletion import deletion_of

    if not (yes or sys.stdin.isatty()):
        raise InfertuneError("there is nobody to ask.", fix="Say --yes to delete.")
    with deletion_of(home_directory(home), sessions, dt.datetime.now(dt.UTC)) as deletion:
        _tell(deletion)
        if not (yes or typer.confirm("Delete?")):
            typer.echo("Nothing was deleted.")
            return
        carry_out(deletion)
    typer.echo("Deleted. What no other session needs of its evidence: infertune evidence gc")


def _tell(deletion: Deletion) -> None:
    """Say what goes and what stays."""
    from agent.session_deletion import session_of
    from tools.report import format as fmt

    for path in deletion.left_over:
        typer.echo(f"{session_of(path)}: its deletion was begun, and is completed.")
    for name in deletion.gone:
        typer.echo(f"{name} is not there: it was deleted already, or never was.")
    for session in deletion.sessions:
        typer.echo(f"{session.folder.name} goes:")
        inputs = f", {fmt.mb(session.inputs_mb)} of it copies of its inputs" if session.inputs_mb else ""
        files = "file" if session.files == 1 else "files"
        typer.echo(f"  {session.folder}: {session.files} {files}, {fmt.mb(session.files_mb)}{inputs}")
        if session.checkpoints_mb:
            typer.echo(f"  its checkpoints: {fmt.mb(session.checkpoints_mb)}")
        if session.evidence:
            pieces = "piece" if session.evidence == 1 else "pieces"
            typer.echo(f"  stays: {session.evidence} {pieces} of evidence, shared with other sessions")
        if session.run is not None:
            typer.echo(f"  stays: MLflow run {session.run}")
        for digest in session.verified:
            typer.echo(f"  after that, no command takes back what plan {digest} changed in the cluster")
