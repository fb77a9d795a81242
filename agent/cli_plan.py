"""The commands about changes to a cluster: what is offered, a person's word on it, and carrying it out."""

from __future__ import annotations

import datetime as dt
import shlex
from pathlib import Path
from typing import Annotated

import typer

from agent import cli_help
from agent.cli_common import EXIT_DIFFERENT, EXIT_INTERRUPTED, Format, Home, Output, observing
from agent.cli_completion import complete_plans
from agent.home import home_directory
from tools.errors import InfertuneError

app = typer.Typer(
    no_args_is_help=True,
    help="Answer and carry out changes to a cluster.",
    epilog=cli_help.manual(
        examples=(
            ("What is offered:", "infertune plan list"),
            ("Look at it, approve it, carry it out:", "infertune plan show"),
            ("", "infertune plan approve --by ada"),
            ("", "infertune plan apply"),
        ),
        files={"HOME/plans.db": "plans, and all that happened to them", "HOME/plans.key": "what seals them"},
    ),
)

Digest = Annotated[
    str | None,
    typer.Argument(
        help="A plan's digest, or its first 8 digits; if left out, the only plan that is open.",
        autocompletion=complete_plans,
    ),
]
By = Annotated[str, typer.Option("--by", metavar="NAME", help="Your name, as it is to stand in the record.")]


@app.command("list", epilog=cli_help.manual(examples=(("All of them:", "infertune plan list"),)))
def list_plans(home: Home = None) -> None:
    """List all plans and where they stand, the newest last."""
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


@app.command(
    epilog=cli_help.manual(
        examples=(
            ("The only one that is open:", "infertune plan show"),
            ("One by the beginning of its digest:", "infertune plan show 1a2b3c4d"),
        ),
    ),
)
def show(digest: Digest = None, home: Home = None) -> None:
    """Show a plan: what would change, why, and what happened to it.

    With the evidence that it rests on, and the API server's own dry run.
    """
    from agent.changes import find_plan
    from tools.cluster.offer import offered
    from tools.cluster.plans import describe
    from tools.cluster.store import PlanStore

    where = home_directory(home)
    plan, store = find_plan(where, digest), PlanStore(where)
    typer.echo(describe(plan))
    offer = offered(store, plan)
    if offer.server_diff:
        typer.echo("The API server's own dry run:\n\n" + offer.server_diff)
    for note in offer.notes:
        typer.echo(note)
    for event in store.events(plan.digest):
        why = event.detail.get("why")
        typer.echo(f"{event.at}  {event.kind} by {event.by}{f': {why}' if why else ''}")


@app.command(
    epilog=cli_help.manual(examples=(("The plan that you looked at:", "infertune plan approve 1a2b3c4d --by ada"),)),
)
def approve(by: By, digest: Digest = None, home: Home = None) -> None:
    """Approve exactly this plan, in your name.

    Nothing is applied yet: `infertune plan apply` does that.
    """
    from agent.changes import find_plan
    from tools.cluster.plans import approve as note
    from tools.cluster.store import PlanStore

    where = home_directory(home)
    plan = find_plan(where, digest)
    note(PlanStore(where), plan.digest, by=by, now=dt.datetime.now(dt.UTC))
    typer.echo(f"Plan {plan.digest} is approved by {by}, good until {plan.expires}.")
    elsewhere = "" if home is None else f" --home {shlex.quote(str(home))}"
    typer.echo(f"Carry it out: infertune plan apply {plan.digest}{elsewhere}")


@app.command(
    epilog=cli_help.manual(
        examples=(("With a reason:", "infertune plan reject 1a2b3c4d --by ada --why 'a sale begins tomorrow'"),),
    ),
)
def reject(
    by: By,
    digest: Digest = None,
    home: Home = None,
    why: Annotated[str, typer.Option(metavar="TEXT", help="The reason, for the record.")] = "",
) -> None:
    """Refuse a plan, or take an approval back that was not acted on yet."""
    from agent.changes import find_plan
    from tools.cluster.plans import reject as note
    from tools.cluster.store import PlanStore

    where = home_directory(home)
    plan = find_plan(where, digest)
    note(PlanStore(where), plan.digest, by=by, now=dt.datetime.now(dt.UTC), why=why)
    typer.echo(f"Plan {plan.digest} is rejected. The HPA stays as it is.")
    _tell_record(where, plan.digest)


@app.command(
    epilog=cli_help.manual(
        examples=(
            ("The only plan that is open:", "infertune plan apply"),
            ("In a script:", "infertune plan apply 1a2b3c4d --output json | jq .state"),
        ),
        exits={
            0: "the change is verified",
            2: "a rule forbids it, or a mistake in the input; a line says which",
            3: "it was not applied, or was rolled back",
            130: "interrupted; the plan stays where it stands",
        },
    ),
)
def apply(digest: Digest = None, home: Home = None, output: Format = Output.TEXT) -> None:
    """Carry out an approved plan: patch, watch, roll back on a breach.

    It is watched for the plan's window. After a crash, the same command goes on.
    """
    from agent.changes import carry_out, find_plan

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


@app.command(
    epilog=cli_help.manual(
        examples=(("A change that was verified:", "infertune plan rollback 1a2b3c4d --by ada --why 'latency'"),),
        exits={3: "the HPA is no longer as the plan left it: it was left alone"},
    ),
)
def rollback(
    by: By,
    digest: Annotated[
        str, typer.Argument(help="The plan's digest, or its first 8 digits.", autocompletion=complete_plans)
    ],
    home: Home = None,
    why: Annotated[str, typer.Option(metavar="TEXT", help="The reason, for the record.")] = "A person asked for it.",
) -> None:
    """Put back what was before a plan.

    Only if the HPA is still as the plan left it; otherwise it is left alone, and said so.
    """
    from agent.changes import find_plan, take_back

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
