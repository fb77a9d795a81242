"""Looking at what was measured: one line each, or everything that is known of one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.text import Text

from agent.sessions import find, folders
from tools.contracts import Contract, Evidence, EvidenceKind, Interval, Measured, Unstable
from tools.errors import InfertuneError
from tools.evidence import EVIDENCE, EvidenceStore
from tools.outcomes import describe
from tools.record import SessionRecord, read_record
from tools.report import format as fmt

_UNITS = ("_ms", "_s", "_mb", "_rps", "_usd")


@dataclass(frozen=True)
class Filter:
    """Which evidence is wanted; None for any."""

    session: str | None = None
    """Measured or used by it: its id, or the beginning of it."""
    kind: EvidenceKind | None = None
    workload: str | None = None
    """Its name, or the beginning of its digest."""

    @classmethod
    def of(cls, *, session: str | None, kind: str | None, workload: str | None) -> Self:
        """Make a filter of what a person typed.

        Raises:
            InfertuneError: there is no such kind.
        """
        if kind is not None and kind not in set(EvidenceKind):
            raise InfertuneError(f"there is no kind {kind!r} of evidence.", fix=f"Kinds: {', '.join(EvidenceKind)}.")
        return cls(session, None if kind is None else EvidenceKind(kind), workload)


@dataclass(frozen=True)
class Shown:
    """All that is known of one evidence."""

    evidence: Evidence
    raw: Path | None
    """Where its raw samples should be."""
    arrays: Mapping[str, tuple[int, ...]] | None
    """Shapes of the arrays in there, by name; None when the file is missing or damaged."""
    used_by: tuple[str, ...]
    """Sessions."""
    unreadable: tuple[str, ...]
    """Sessions that may have used it, too: their journals cannot be read."""


def chosen(home: Path, wanted: Filter) -> tuple[list[Evidence], int]:
    """Return the evidence that is wanted, the newest last, and how many pieces are damaged or of another version.

    Raises:
        InfertuneError: there is no such session or workload, or the store cannot be read.
    """
    store = _store(home)
    if store is None:
        return [], 0
    rows = store.rows()
    if wanted.kind is not None:
        rows = [row for row in rows if row.kind == wanted.kind]
    if wanted.session is not None:
        folder = find(home, wanted.session)
        used = set(read_record(folder).evidence)
        rows = [row for row in rows if row.session == folder.name or row.id in used]
    if wanted.workload is not None:
        digests = _digests(home, wanted.workload, {row.workload for row in rows})
        rows = [row for row in rows if row.workload in digests]
    evidence = store.get_all(row.id for row in rows)
    return evidence, len(rows) - len(evidence)


def summary(evidence: Evidence) -> dict[str, Any]:
    """Return what a list says of one evidence, JSON-ready."""
    return {
        "id": evidence.id,
        "kind": evidence.kind.value,
        "recipe": _recipe(evidence),
        "outcome": outcome(evidence),
        "workload": evidence.workload,
        "session": evidence.session,
        "created": evidence.created,
        "seconds": evidence.seconds,
    }


def line(evidence: Evidence) -> str:
    """Return the same in one line, for a person."""
    told = summary(evidence)
    took = fmt.seconds(evidence.seconds)
    return fmt.clean(
        f"{told['id']}  {told['kind']:<10}  {told['recipe']:<26}  {told['outcome']}  "
        f"({told['session']}, {told['created']}, {took})"
    )


def _recipe(evidence: Evidence) -> str:
    """Return the recipe's name; a build has no runtime, and is told by its steps."""
    if evidence.kind is EvidenceKind.BUILD:
        return " + ".join(step.transform for step in evidence.recipe.steps)
    return evidence.recipe.name


def outcome(evidence: Evidence) -> str:
    """Return what came of it, in words."""
    told = describe(evidence)
    return f"unstable, {told}" if isinstance(evidence.outcome, Unstable) else told


def show(home: Path, beginning: str) -> Shown:
    """Return all that is known of one evidence.

    Args:
        home: the home directory.
        beginning: of its id: as much as is unique.

    Raises:
        InfertuneError: there is none, or more than one, or it is damaged.
    """
    store = _store(home)
    rows = [] if store is None else [row for row in store.rows() if beginning and row.id.startswith(beginning)]
    if store is None or len(rows) != 1:
        some = ", ".join(row.id for row in rows[:5])
        raise InfertuneError(
            f"{len(rows)} pieces of evidence begin with {beginning!r}." if rows else f"no evidence {beginning!r}.",
            where=str(home / EVIDENCE),
            fix=f"Some of them: {some}." if rows else "See: infertune evidence list",
        )
    evidence = store.get(rows[0].id)
    if evidence is None:
        raise InfertuneError(
            f"the evidence {rows[0].id} was damaged on disk, or another version of infertune wrote it.",
            where=str(home / EVIDENCE),
            fix="Import it from an export, or repeat the session: what is missing is measured again.",
        )
    raw = None if evidence.raw is None else home / "raw" / evidence.raw
    records, unreadable = _records(home)
    return Shown(
        evidence=evidence,
        raw=raw,
        arrays=None if raw is None else _arrays(raw),
        used_by=tuple(record.session for record in records if evidence.id in record.evidence),
        unreadable=tuple(unreadable),
    )


def as_json(shown: Shown) -> dict[str, Any]:
    """Return it JSON-ready."""
    return {
        **json.loads(shown.evidence.model_dump_json()),  # with words for the numbers that JSON lacks
        "recipe_name": _recipe(shown.evidence),
        "raw_path": None if shown.raw is None else str(shown.raw),
        "raw_arrays": None if shown.arrays is None else {name: list(shape) for name, shape in shown.arrays.items()},
        "used_by": list(shown.used_by),
    }


def print_shown(shown: Shown, console: Console) -> None:
    """Print it: one fact a line, indented below what it belongs to."""
    evidence = shown.evidence
    console.print(
        Text.assemble((evidence.id, "bold"), f"  {evidence.kind.value} of {fmt.clean(_recipe(evidence))}"),
        soft_wrap=True,
    )
    facts = evidence.model_dump(include={"question", "workload", "hardware", "protocol", "session", "created"})
    for name, value in {**facts, "seconds": fmt.seconds(evidence.seconds)}.items():
        _print_fact(console, 1, name, value)
    for name in ("recipe", "parameters", "versions"):
        for depth, label, text in _facts(name, getattr(evidence, name), 1):
            _print_fact(console, depth, label, text)
    _print_fact(console, 1, "outcome", evidence.outcome.outcome)
    told: Contract = evidence.outcome
    if isinstance(evidence.outcome, Measured | Unstable):
        if isinstance(evidence.outcome, Unstable):
            _print_fact(console, 2, "reason", evidence.outcome.reason)
        told = evidence.outcome.result
    for name in type(told).model_fields:
        if name not in ("outcome", "kind"):
            for depth, label, text in _facts(name, getattr(told, name), 2):
                _print_fact(console, depth, label, text)
    _print_raw(shown, console)
    _print_fact(console, 1, "used by", ", ".join(shown.used_by) or "no session of this home")
    if shown.unreadable:
        _print_fact(console, 1, "perhaps by", f"{', '.join(shown.unreadable)} (the journal cannot be read)")


def _print_raw(shown: Shown, console: Console) -> None:
    if shown.raw is None:
        return
    missing = "" if shown.arrays is not None else " (damaged)" if shown.raw.exists() else " (not there)"
    _print_fact(console, 1, "raw samples", f"{shown.raw}{missing}")
    for name, shape in (shown.arrays or {}).items():
        _print_fact(console, 2, name, " x ".join(map(str, shape)) or "1")


def _print_fact(console: Console, depth: int, label: str, text: str) -> None:
    name = f"{fmt.clean(label)}:" if text else fmt.clean(label)
    console.print(Text.assemble("  " * depth, (name, "dim"), " " if text else "", fmt.clean(text)), soft_wrap=True)


def _facts(name: str, value: Any, depth: int, unit: str = "") -> Iterator[tuple[int, str, str]]:
    """Yield depth, label and text of everything in a value; `unit` is the suffix of the name that it stands under."""
    if not _is_rate(name):
        unit = next((suffix for suffix in _UNITS if name.endswith(suffix)), unit)
    label = _label(name)
    if isinstance(value, Interval):
        yield depth, label, f"{fmt.quantity(unit, value.value)} {fmt.span(value)} n={value.n}"
    elif isinstance(value, Contract | Mapping):
        inner = dict(value)
        if inner:
            yield depth, label, ""
        for key, part in inner.items():
            yield from _facts(str(key), part, depth + 1, unit)
    elif isinstance(value, tuple) and all(isinstance(item, Contract) for item in value):
        for place, item in enumerate(value, start=1):
            yield from _item_facts(f"{name} {place}", item, depth, unit)
    elif isinstance(value, tuple) and all(isinstance(item, str) for item in value):
        yield from ((depth, label, text) for text in value)
    else:
        yield depth, label, _scalar(name, value)


def _item_facts(name: str, item: Contract, depth: int, unit: str) -> Iterator[tuple[int, str, str]]:
    """Yield the facts of one of many: in one line, unless there is something inside of it."""
    if any(isinstance(part, Contract | Mapping) for _, part in item):
        yield from _facts(name, item, depth, unit)
    else:
        yield depth, fmt.clean(name), ", ".join(f"{_label(n)} {_scalar(n, part)}" for n, part in item)


def _scalar(name: str, value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or fmt.NOTHING
    if not isinstance(value, str | int | float | None):
        return str(value)
    return fmt.quantity("" if _is_rate(name) else name, value)


def _label(name: str) -> str:
    return name.replace("_", " ") if _is_rate(name) else fmt.label(name)


def _is_rate(name: str) -> bool:
    """Whether the name ends in a unit that only looks like seconds: `gflops_per_s`."""
    return name.endswith("_per_s")


def _store(home: Path) -> EvidenceStore | None:
    """Open the store, unless there is none: looking must not make one."""
    return EvidenceStore(home / EVIDENCE) if (home / EVIDENCE).exists() else None


def _records(home: Path) -> tuple[list[SessionRecord], list[str]]:
    """Return the sessions that can be read, and the names of those that cannot."""
    records, unreadable = [], []
    for folder in folders(home):
        try:
            records.append(read_record(folder))
        except InfertuneError:
            unreadable.append(folder.name)
    return records, unreadable


def _digests(home: Path, wanted: str, known: set[str]) -> set[str]:
    """Return the digests of a workload: one by its beginning, or all that ever had a name.

    Raises:
        InfertuneError: there is none.
    """
    names: dict[str, set[str]] = {}
    for record in _records(home)[0]:
        if record.loaded is not None:
            names.setdefault(record.loaded.workload.name, set()).add(record.loaded.workload.digest)
    found = names.get(wanted) or {digest for digest in known if wanted and digest.startswith(wanted)}
    if not found:
        raise InfertuneError(
            f"there is no workload {wanted!r}.", where=str(home), fix=f"There are: {', '.join(names) or 'none'}."
        )
    return found


def _arrays(file: Path) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of the arrays in an `.npz`, or None when it is missing or damaged."""
    import zipfile
    import zlib

    import numpy as np

    with contextlib.suppress(OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error), np.load(file) as arrays:
        return {name: arrays[name].shape for name in arrays.files}
    return None
