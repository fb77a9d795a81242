"""The commands that look at what was measured, tidy it up, and carry it from one home directory to another."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from agent import cli_help
from agent.cli_common import MOST_UNPACKED_MB, Format, Home, Output
from agent.cli_completion import complete_evidence, complete_sessions, complete_workload_names
from agent.home import home_directory
from tools.errors import InfertuneError

app = typer.Typer(
    name="evidence",
    no_args_is_help=True,
    help="Look at what was measured, tidy it up, carry it elsewhere.",
    epilog=cli_help.manual(
        examples=(
            ("What was measured:", "infertune evidence list"),
            ("What could be deleted:", "infertune evidence gc --dry-run"),
        ),
        files={
            "HOME/evidence.db": "a row for everything that was measured",
            "HOME/raw": "raw samples",
            "HOME/artifacts": "models that were built",
        },
    ),
)


@app.command(
    "list",
    epilog=cli_help.manual(
        examples=(
            ("Everything, the newest last:", "infertune evidence list"),
            ("The trials of one workload:", "infertune evidence list --kind trial --workload digits-tiny"),
        ),
    ),
)
def list_(
    session: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="What this session measured or used: its id, or its beginning.",
            autocompletion=complete_sessions,
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="Only this kind: profile, build, trial, sweep, comparison, edge_cases or another."
        ),
    ] = None,
    workload: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Only this workload: its name, or its digest.",
            autocompletion=complete_workload_names,
        ),
    ] = None,
    home: Home = None,
    output: Format = Output.TEXT,
) -> None:
    """List what was measured, the newest last."""
    from agent.evidence import Filter, chosen, line, summary

    where = home_directory(home)
    found, damaged = chosen(where, Filter.of(session=session, kind=kind, workload=workload))
    if output is Output.JSON:
        typer.echo(json.dumps({"evidence": [summary(e) for e in found], "damaged": damaged}, indent=1))
        return
    for evidence in found:
        typer.echo(line(evidence))
    if damaged:
        typer.echo(f"{damaged} more cannot be read: damaged on disk, or of another version. They count as missing.")
    elif not found:
        narrowed = (session, kind, workload) != (None, None, None)
        typer.echo(f"No {'such ' if narrowed else ''}evidence in {where}.")


@app.command(epilog=cli_help.manual(examples=(("By the beginning of its id:", "infertune evidence show 3f9a1c2b45"),)))
def show(
    identity: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="An id, or as much of its beginning as is unique.", autocompletion=complete_evidence
        ),
    ],
    home: Home = None,
    output: Format = Output.TEXT,
) -> None:
    """Show all of one evidence: what was asked, how, what came of it."""
    from rich.console import Console

    from agent.evidence import as_json, print_shown
    from agent.evidence import show as find

    shown = find(home_directory(home), identity)
    if output is Output.JSON:
        typer.echo(json.dumps(as_json(shown), indent=1))
    else:
        print_shown(shown, Console())


@app.command(
    epilog=cli_help.manual(
        examples=(
            ("Only look:", "infertune evidence gc --dry-run"),
            (
                "In a script, with sessions that ended a quarter of a year ago:",
                "infertune evidence gc --older-than 90 --yes",
            ),
        ),
    ),
)
def gc(
    home: Home = None,
    older_than: Annotated[
        int | None,
        typer.Option(min=0, metavar="DAYS", help="Also delete sessions that ended so long ago, never unfinished ones."),
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete what no session of this home needs.

    That is evidence, raw samples, artifacts and data. Says what goes, and asks.
    """
    import datetime as dt

    from agent.sessions import forget_threads
    from tools.report import format as fmt
    from tools.retention import alone, delete, find_garbage

    where = home_directory(home)
    if not (yes or dry_run or sys.stdin.isatty()):
        raise InfertuneError("there is nobody to ask.", fix="Say --yes to delete, or --dry-run to look.")
    if not where.is_dir():
        typer.echo(f"There is no {where}.")
        return
    age = None if older_than is None else dt.timedelta(days=older_than)
    with alone(where):
        garbage = find_garbage(where, dt.datetime.now(dt.UTC), age)
        for part in garbage.parts:
            typer.echo(f"{part.count:6,} {part.kind:<10} {fmt.mb(part.size_mb)}")
        if not garbage.parts:
            typer.echo("Nothing to delete: sessions need all that is there.")
            return
        if dry_run:
            typer.echo(f"Deleting this would free {fmt.mb(garbage.size_mb)}.")
            return
        if not (yes or typer.confirm(f"Delete this from {where}?")):
            typer.echo("Nothing was deleted.")
            return
        note = delete(garbage)
        forget_threads(where, [folder.name for folder in garbage.sessions])
    typer.echo(f"Freed {fmt.mb(garbage.size_mb)}." if note is None else note)


@app.command(
    epilog=cli_help.manual(
        examples=(
            ("Into a file in this folder:", "infertune evidence export 20261122-041502-3f9a"),
            (
                "Without the raw samples, elsewhere:",
                "infertune evidence export 20261122 --no-raw --to /tmp/session.zip",
            ),
        ),
    ),
)
def export(
    session: Annotated[str, typer.Argument(help="A session's id, or its beginning.", autocompletion=complete_sessions)],
    to: Annotated[
        Path | None, typer.Option("--to", "-o", metavar="FILE", help="The file; default: SESSION.infertune.zip here.")
    ] = None,
    home: Home = None,
    *,
    raw: Annotated[bool, typer.Option("--raw/--no-raw", help="With the raw samples.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a session and its evidence into one file.

    It can be replayed, questioned and explained elsewhere. The model's and the data's own files are not in it.
    """
    from agent.sessions import find
    from tools.bundle import SUFFIX, collect, write
    from tools.report import format as fmt

    folder = find(home_directory(home), session)
    path = to or Path(f"{folder.name}{SUFFIX}")
    contents = collect(folder, raw=raw)
    typer.echo(
        f"Session {folder.name}: {contents.evidence} pieces of evidence, {contents.raw} raw files, "
        f"{len(contents.members)} files and {fmt.mb(contents.size_mb)} in all."
    )
    typer.echo("No model and no data files: they are large, and stay here. Paths of this machine are named in it.")
    if contents.missing_raw:
        typer.echo(f"{len(contents.missing_raw)} raw files are lost here, and so not in it.")
    write(contents, path, overwrite=force)
    typer.echo(f"Wrote {path} ({fmt.mb(path.stat().st_size / 1e6)}). There: infertune evidence import {path.name}")


@app.command(
    "import",
    epilog=cli_help.manual(
        examples=(("What another machine exported:", "infertune evidence import 20261122-041502-3f9a.infertune.zip"),),
    ),
)
def import_(
    file: Annotated[Path, typer.Argument(help="What `export` wrote.")],
    home: Home = None,
    max_mb: Annotated[
        float, typer.Option(min=0, metavar="MB", help="Refuse a file that takes more, unpacked.")
    ] = MOST_UNPACKED_MB,
) -> None:
    """Bring an exported session into this home.

    All of the file is checked before anything is written.
    """
    from tools.unbundle import import_bundle

    done = import_bundle(file, home_directory(home), limit_mb=max_mb)
    if done.is_new:
        typer.echo(f"Imported session {done.session}: {done.evidence} pieces of evidence, {done.raw} raw files.")
    else:
        typer.echo(f"Session {done.session} is there already, with all {done.evidence} pieces of evidence.")
    typer.echo(f"Next: infertune replay {done.session}")
