"""`infertune doctor --cluster`: what the two identities of a spec may do, in lines for a person."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tools.cluster.rights import IdentityRights, RightsReport, examine_rights
from tools.errors import SpecError
from tools.spec import load_spec


def examine(path: Path) -> RightsReport:
    """Ask the cluster that a spec names.

    Raises:
        SpecError: the spec cannot be used, or names no cluster.
        ClusterError: a context cannot be used, or the server cannot be asked.
    """
    spec = load_spec(path)
    if spec.cluster is None:
        raise SpecError("names no `cluster`.", where=str(path), fix="`infertune init` writes a spec that shows how.")
    return examine_rights(spec.cluster)


def describe(report: RightsReport) -> Iterator[str]:
    """Say what each identity has, lacks and should not have."""
    yield f"HPA {report.namespace}/{report.hpa}"
    yield from _of(report.reader)
    if report.writer is None:
        yield "No writer is named (`cluster.writer_context`): plans are recommended, and never applied."
    else:
        yield from _of(report.writer)
    yield "Both have what they need, and nothing else." if report.ok else "The rights are not as they should be."


def _of(rights: IdentityRights) -> Iterator[str]:
    state = "as it should be" if not (rights.lacks or rights.exceeds) else "not as it should be"
    yield f"{rights.identity}: context {rights.context} at {rights.server}: {state}"
    for sentence in (*rights.lacks, *rights.exceeds, *rights.notes):
        yield f"  {sentence}"
