"""The command that writes Kubernetes manifests, and checks them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent import cli_help
from agent.cli_common import EXIT_DIFFERENT, Home
from agent.cli_completion import complete_sessions_and_targets
from agent.home import home_directory
from tools.errors import InfertuneError

if TYPE_CHECKING:
    from tools.manifests.gather import Choices
    from tools.manifests.service import Service

app = typer.Typer()


@app.command(
    rich_help_panel=cli_help.CLUSTER,
    epilog=cli_help.manual(
        examples=(
            (
                "For what the latest session chose:",
                "infertune manifests --out deploy --image registry.example/shop:1.4",
            ),
            ("For a spec alone, before anything was measured:", "infertune manifests tuning.yaml --out deploy"),
            ("In a pipeline:", "infertune manifests --check deploy"),
        ),
        exits={3: "with --check: a manifest is not valid"},
    ),
)
def manifests(
    target: Annotated[
        str | None,
        typer.Argument(
            help="A session's id or its beginning (the latest if left out), a tuning.yaml, a bundled workload, or the "
            "service.json of an earlier tree.",
            autocompletion=complete_sessions_and_targets,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where to write them.")] = None,
    home: Home = None,
    *,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of Deployment, Service and autoscaler; default: as in the spec's HPA."),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of production; staging's ends in -staging.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="Of the model server, with a tag or a digest.")
    ] = None,
    job_image: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="Of infertune with the workload in /workload.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that differ; the diff is shown.")] = False,
    check: Annotated[
        Path | None, typer.Option("--check", metavar="DIR", help="Write nothing: validate the manifests there.")
    ] = None,
) -> None:
    """Write Kubernetes manifests for what a session chose.

    A kustomize base and overlays, or for a spec alone. Requests, probes and bounds come from measurements, and each
    file says from which. Nothing is applied.
    """
    if check is not None:
        _check(check)
        return
    if out is None:
        raise InfertuneError("there is nowhere to write.", where="--out", fix="Name a folder: --out deploy")
    from tools.manifests.gather import Choices
    from tools.manifests.tree import tree
    from tools.manifests.writing import compare, write_tree

    choices = Choices(name=name, namespace=namespace, image=image, job_image=job_image)
    service = _service(target, home, choices)
    files = tree(service)
    found = compare(files, out)
    if found.diff:
        typer.echo(found.diff)
    write_tree(files, out, force=force)
    if found.is_same:
        typer.echo(f"{out} is as {service.origin} has it already.")
        return
    typer.echo(f"Wrote {len(found.added)} new and {len(found.changed)} changed files to {out}, from {service.origin}.")
    if service.image.endswith(":set-me"):
        typer.echo("The image is a placeholder: give --image REGISTRY/IMAGE:TAG.")
    typer.echo(f"Next: kubectl kustomize {out / 'overlays' / 'staging'}")


def _service(target: str | None, home: Path | None, choices: Choices) -> Service:
    from agent.loading import read_spec
    from tools.manifests import gather
    from tools.manifests.service import Service
    from tools.workloads.bundled import BUNDLED

    if target is not None and target.endswith(".json"):
        return gather.with_choices(Service.read(Path(target)), choices)
    if target is not None and (target in BUNDLED or target.endswith((".yaml", ".yml"))):
        return gather.from_spec(read_spec(target), choices)
    return _of_session(target, home, choices)


def _of_session(session: str | None, home: Path | None, choices: Choices) -> Service:
    from agent.sessions import find
    from tools.contracts import Verdict
    from tools.manifests.gather import from_session
    from tools.record import RESULT, read_record
    from tools.tracking.session import read_result

    folder = find(home_directory(home), session)
    result = read_result(folder / RESULT)
    if result.verdict is not Verdict.MET:
        typer.echo(f"Mind that session {result.session} ended {result.verdict.value}: {result.summary}", err=True)
    loaded = read_record(folder).loaded
    if loaded is None:
        raise InfertuneError("was never loaded, so there is nothing to serve.", where=folder.name)
    return from_session(result, loaded.spec, choices)


def _check(folder: Path) -> None:
    from tools.manifests.check import check_tree

    report = check_tree(folder)
    for line in report.lines():
        typer.echo(line)
    if report.problems:
        raise typer.Exit(EXIT_DIFFERENT)
