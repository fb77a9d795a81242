"""The commands that look at, take up and question the sessions of a home directory."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.cli_common import EXIT_DIFFERENT, Home, Output, finish, observing

app = typer.Typer()

Session = Annotated[
    str | None, typer.Argument(help="A session's id, or its beginning; the latest that fits if left out.")
]


@app.command()
def sessions(home: Home = None) -> None:
    """List the sessions in the home directory, the newest last."""
    from agent.session import home_directory
    from agent.sessions import list_sessions

    for line in list_sessions(home_directory(home)):
        typer.echo(line)


@app.command()
def resume(session: Session = None, home: Home = None, output: Output = Output.TEXT) -> None:
    """Take up a session that was killed or interrupted, where it stopped.

    No finished trial is run again, and no decision changes. Exit codes are those of `optimize`.
    """
    from agent.session import home_directory
    from agent.session import resume as run
    from agent.sessions import find

    folder = find(home_directory(home), session, to_resume=session is None)
    with observing(output, folder.name) as observer:
        result = run(folder, observer)
    finish(result, output)


@app.command()
def sync(
    session: Session = None,
    home: Home = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="Record there; default: where the session was to go.")
    ] = None,
) -> None:
    """Complete the record in MLflow of sessions that ended while it was away; each is recorded once.

    Exit code 3 when MLflow still refuses.
    """
    from agent.session import home_directory
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


@app.command()
def replay(session: Session = None, home: Home = None) -> None:
    """Run a session's graph again on what it measured, and check that every decision comes out the same.

    Measures and writes nothing. Exit code 3 when a decision differs.
    """
    from agent.replay import describe
    from agent.replay import replay as run
    from agent.session import home_directory
    from agent.sessions import find

    replayed = run(find(home_directory(home), session))
    for line in describe(replayed):
        typer.echo(line)
    if not replayed.same:
        raise typer.Exit(EXIT_DIFFERENT)
