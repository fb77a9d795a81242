"""The commands that take a session up again: to its end, into MLflow, or to check its decisions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent import cli_help
from agent.cli_common import EXIT_DIFFERENT, MOST_UNPACKED_MB, Format, Home, Output, finish, observing
from agent.cli_completion import complete_sessions
from agent.home import home_directory

app = typer.Typer()

Session = Annotated[
    str | None,
    typer.Argument(
        help="A session's id, or its beginning; the latest that fits if left out.", autocompletion=complete_sessions
    ),
]

SessionOrFile = Annotated[
    str | None,
    typer.Argument(
        help="A session's id, or its beginning; or an exported one's file. Default: the latest session.",
        autocompletion=complete_sessions,
    ),
]


@app.command(
    rich_help_panel=cli_help.LOOK_BACK,
    epilog=cli_help.manual(
        examples=(
            ("The latest that did not come to its end:", "infertune resume"),
            ("One of them:", "infertune resume 20261122-041502-3f9a"),
        ),
        exits=cli_help.VERDICTS,
        files=cli_help.SESSION_FILES,
    ),
)
def resume(session: Session = None, home: Home = None, output: Format = Output.TEXT) -> None:
    """Take up a session that was killed or interrupted.

    It goes on where it stopped. No finished trial is run again, and no decision changes. Exit codes are those of
    `optimize`.
    """
    from agent.session import resume as run
    from agent.sessions import find

    folder = find(home_directory(home), session, to_resume=session is None)
    with observing(output, folder.name) as observer:
        result = run(folder, observer)
    finish(result, output)


@app.command(
    rich_help_panel=cli_help.LOOK_BACK,
    epilog=cli_help.manual(
        examples=(
            ("All that MLflow missed:", "infertune sync"),
            ("One session, to a server:", "infertune sync 20261122-041502-3f9a --tracking-uri http://127.0.0.1:5000"),
        ),
        exits={3: "MLflow still refuses"},
    ),
)
def sync(
    session: Session = None,
    home: Home = None,
    tracking_uri: Annotated[
        str | None, typer.Option(metavar="URI", help="Record there; default: where the session was to go.")
    ] = None,
) -> None:
    """Complete the record in MLflow of sessions that it missed.

    They ended while it was away, or its database was lost. Each is recorded once.
    """
    from agent.sessions import find, folders
    from agent.sync import sync as run

    where = home_directory(home)
    chosen = folders(where) if session is None else [find(where, session)]
    answers = list(run(chosen, tracking_uri))
    for text, _ in answers:
        typer.echo(text)
    if not answers:
        typer.echo("Nothing to do: MLflow has every finished session.")
    if not all(done for _, done in answers):
        raise typer.Exit(EXIT_DIFFERENT)


@app.command(
    rich_help_panel=cli_help.LOOK_BACK,
    epilog=cli_help.manual(
        examples=(
            ("The latest session:", "infertune replay"),
            ("One that somebody exported, without importing it:", "infertune replay theirs.infertune.zip"),
        ),
        exits={3: "a decision differs"},
    ),
)
def replay(session: SessionOrFile = None, home: Home = None) -> None:
    """Check that a session's evidence leads to the same decisions.

    Runs its graph again on what it measured, and compares every decision. Measures and writes nothing.
    """
    from agent.replay import describe, replay_bundle
    from agent.replay import replay as run
    from agent.sessions import find

    if session is not None and Path(session).is_file():
        replayed = replay_bundle(Path(session), limit_mb=MOST_UNPACKED_MB)
    else:
        replayed = run(find(home_directory(home), session))
    for line in describe(replayed):
        typer.echo(line)
    if not replayed.same:
        raise typer.Exit(EXIT_DIFFERENT)
