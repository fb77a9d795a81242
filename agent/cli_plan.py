"""The commands about changes to a cluster: what is offered, a person's word on it, and carrying it out."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

from agent.cli_common import EXIT_DIFFERENT, EXIT_INTERRUPTED, Home, Output, observing
from tools.errors import InfertuneError

app = typer.Typer(no_args_is_help=True)

Digest = Annotated[
    str | None,
    typer.Argument(help="A plan's digest, or its first 8 digits; if left out, the only plan that is open."),
]
By = Annotated[str, typer.Option("--by", help="Your name, as it is to stand in the record.")]


@app.command("list")
def list_plans(home: Home = None) -> None:
    """List all plans and where they stand, the newest last."""
    from agent.session import home_directory
    from tools.cluster.store import PlanStore

    store = PlanStore(home_directory(home))
    plans = store.plans()
    for plan in plans:
        target = f"{plan.target.context} {plan.target.namespace}/{plan.target.name}"
        typer.echo(f"{plan.digest}  {store.state(plan.digest)}  {target}  good until {plan.expires}  {plan.session}")
    if not plans:
        typer.echo("There are no plans. A session makes one where its spec names a `cluster` and sets `apply: true`.")
    flaw = store.flaw()
    if flaw is not None:
        typer.echo(f"The store was changed by hand: {flaw} Nothing is applied from it.", err=True)


@app.command()
def show(digest: Digest = None, home: Home = None) -> None:
    """Show a plan: what would change, why, by which evidence, and what happened to it so far."""
    from agent.changes import find_plan
    from agent.session import home_directory, read_result
    from tools.cluster.plans import describe
    from tools.cluster.store import PlanStore
    from tools.errors import StorageError

    where = home_directory(home)
    plan = find_plan(where, digest)
    typer.echo(describe(plan))
    try:
        told = read_result(where / "sessions" / plan.session).plan
    except StorageError:  # the session may be gone; the plan says everything that is approved
        told = None
    if told is not None and told.digest == plan.digest:
        if told.server_diff:
            typer.echo("The API server's own dry run:\n\n" + told.server_diff)
        for note in told.notes:
            typer.echo(note)
    for event in PlanStore(where).events(plan.digest):
        why = event.detail.get("why")
        typer.echo(f"{event.at}  {event.kind} by {event.by}{f': {why}' if why else ''}")


@app.command()
def approve(by: By, digest: Digest = None, home: Home = None) -> None:
    """Approve exactly this plan, in your name. Nothing is applied yet: `infertune plan apply` does that."""
    from agent.changes import find_plan
    from agent.session import home_directory
    from tools.cluster.plans import approve as note
    from tools.cluster.store import PlanStore

    where = home_directory(home)
    plan = find_plan(where, digest)
    note(PlanStore(where), plan.digest, by=by, now=dt.datetime.now(dt.UTC))
    typer.echo(f"Plan {plan.digest} is approved by {by}, good until {plan.expires}.")
    typer.echo(f"Carry it out: infertune plan apply {plan.digest}")


@app.command()
def reject(
    by: By,
    digest: Digest = None,
    home: Home = None,
    why: Annotated[str, typer.Option(help="The reason, for the record.")] = "",
) -> None:
    """Refuse a plan, or take an approval back that was not acted on yet."""
    from agent.changes import find_plan
    from agent.session import home_directory
    from tools.cluster.plans import reject as note
    from tools.cluster.store import PlanStore

    where = home_directory(home)
    plan = find_plan(where, digest)
    note(PlanStore(where), plan.digest, by=by, now=dt.datetime.now(dt.UTC), why=why)
    typer.echo(f"Plan {plan.digest} is rejected. The HPA stays as it is.")
    _tell_record(where, plan.digest)


@app.command()
def apply(digest: Digest = None, home: Home = None, output: Output = Output.TEXT) -> None:
    """Carry out an approved plan: patch, watch for its window, roll back on a breach. Again after a crash, it goes on.

    Exit code 0 when the change is verified, 3 when it was not applied or was rolled back, 2 when a rule forbids it.
    """
    from agent.changes import carry_out, find_plan
    from agent.session import home_directory

    where = home_directory(home)
    plan = find_plan(where, digest)
    try:
        with observing(output, plan.target.name) as observer:
            result = carry_out(where, plan.digest, observer)
    except KeyboardInterrupt:
        typer.echo(
            f"infertune: interrupted. Nothing is taken back: the plan stays where it stands, see `infertune plan show "
            f"{plan.digest}`. Go on: infertune plan apply {plan.digest}",
            err=True,
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None
    told = result.plan
    assert told is not None, "the session made this plan"
    if output is Output.JSON:
        typer.echo(told.model_dump_json(indent=1))
    else:
        last = told.events[-1]
        for event in told.events:
            if event.kind == "breached":
                typer.echo(f"BREACHED  plan {told.digest}: {event.why}")
        typer.echo(f"{told.state.upper()}  plan {told.digest}: {last.why or f'{last.kind} by {last.by}.'}")
    if told.state != "verified":
        raise typer.Exit(EXIT_DIFFERENT)


@app.command()
def rollback(
    by: By,
    digest: Annotated[str, typer.Argument(help="The plan's digest, or its first 8 digits.")],
    home: Home = None,
    why: Annotated[str, typer.Option(help="The reason, for the record.")] = "A person asked for it.",
) -> None:
    """Put back what was before a plan, if the HPA is still as the plan left it.

    Exit code 3 when it is not: then it is left alone, and said so.
    """
    from agent.changes import find_plan, take_back
    from agent.session import home_directory

    where = home_directory(home)
    plan = find_plan(where, digest)
    outcome = take_back(where, plan.digest, by=by, why=why)
    typer.echo(f"{outcome.state.upper()}  plan {plan.digest}: {outcome.why}")
    _tell_record(where, plan.digest, taken_back_by=by)
    if outcome.state != "rolled_back":
        raise typer.Exit(EXIT_DIFFERENT)


def _tell_record(home: Path, digest: str, *, taken_back_by: str | None = None) -> None:
    """Have the session's record say what a person decided. If that is not possible now, the decision stands anyway."""
    from agent.changes import bring_up_to_date
    from tools.observer import Silent

    try:
        bring_up_to_date(home, digest, Silent(), taken_back_by=taken_back_by)
    except InfertuneError as error:
        typer.echo(
            f"infertune: the session's record does not say so yet: {error} "
            f"To complete it: infertune plan apply {digest}",
            err=True,
        )
