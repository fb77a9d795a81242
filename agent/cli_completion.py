"""What a shell offers after Tab: sessions, decisions, plans, schedules, workloads, scenarios and techniques.

A person waits for each of these, so they look with the standard library only: at names of folders, at the first bytes
of a result, at a few columns of a database. And they never fail: a home that is damaged, or none at all, offers
nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import typer

from agent.home import home_directory

Offers: TypeAlias = list[tuple[str, str]]
"""Values, each with a line of help, which shells other than bash show beside it."""

TECHNIQUES = (
    *(
        "eager",
        "eager-cuda",
        "compiled",
        "compiled-cuda",
        "torchscript",
        "onnxruntime",
        "onnxruntime-cuda",
        "onnxruntime-tensorrt",
        "openvino",
    ),
    *("quantization", "pruning", "distillation", "fold-normalization"),
    *(
        "distill",
        "fold-normalization-onnx",
        "prune-channels",
        "prune-iteratively",
        "prune-weights",
        "quantize-aware",
        "quantize-dynamic",
        "quantize-mixed",
        "quantize-mixed-onnx",
        "quantize-nncf",
        "quantize-pt2e",
        "quantize-static",
        "quantize-weights",
        "quantize-weights-onnx",
    ),
    *("fp32", "fp16", "bf16", "fp8", "int8", "int4-weights", "int8-dynamic", "int8-mixed", "int8-static"),
    *("threads", "streams", "max_length"),
)
"""What `--only` and `--exclude` take: runtimes, groups of techniques, techniques, precisions and settings. Asking the
parts that know would import them all; a test holds this list against them."""
_ROOT = Path(__file__).resolve().parents[1]
_BUNDLED = _ROOT / "tools" / "workloads" / "bundled"
_SCENARIOS = _ROOT / "simulations" / "scenarios"
_UNSAFE = re.compile(r"[^\w@%+=:,./~-]")
"""What shells, or typer on the way to them, would take for more than text."""
_HELP = 80
_HEAD_BYTES = 4096
"""Of a result: its verdict stands near its beginning."""
_VERDICT = re.compile(rb'"verdict":\s*"([A-Z]+)"')
_MOST = 200
"""Sessions that are offered: nobody looks through more."""
_BUSY_S = 0.2


def _quietly(
    find: Callable[[typer.Context, str], Iterable[tuple[str, str]]],
) -> Callable[[typer.Context, str], Offers]:
    """Make a completion of a function that finds what can be completed.

    Whatever is wrong with a home, a person who typed Tab is in the middle of a command: a traceback would only be in
    the way, and the command itself will say what it is. Names that a shell could take for a command are left out.
    """

    def complete(ctx: typer.Context, incomplete: str) -> Offers:
        try:
            return [
                (value, " ".join(_UNSAFE.sub(" ", told).split())[:_HELP])
                for value, told in find(ctx, incomplete)
                if value.startswith(incomplete) and not _UNSAFE.search(value)
            ]
        except Exception:  # noqa: BLE001  # see above
            return []

    complete.__doc__ = find.__doc__  # and no more: typer would call it with the names of the wrapped function
    return complete


@_quietly
def complete_sessions(ctx: typer.Context, _: str) -> Iterator[tuple[str, str]]:
    """Offer ids of sessions, the newest first, with what became of them."""
    for folder in _sessions(ctx):
        yield folder.name, _verdict(folder)


@_quietly
def complete_decisions(ctx: typer.Context, _: str) -> Iterator[tuple[str, str]]:
    """Offer the decisions of the session that was named, or of the latest, and the nodes that made them."""
    named = ctx.params.get("session")
    folder = next(f for f in _sessions(ctx) if f.name.startswith(named or ""))
    nodes: dict[str, str] = {}
    for line in (folder / "journal.jsonl").read_bytes().splitlines():
        if b'"kind":"decision"' in line:
            decision = json.loads(line)["payload"]
            nodes[decision["node"]] = "all that it decided"
            yield decision["id"], f"{decision['node']}, {decision['question']}"
    yield from nodes.items()


@_quietly
def complete_evidence(ctx: typer.Context, _: str) -> Iterator[tuple[str, str]]:
    """Offer ids of evidence."""
    yield from _rows(_home(ctx) / "evidence.db", "SELECT id, kind FROM findings ORDER BY rowid DESC LIMIT 200")


@_quietly
def complete_plans(ctx: typer.Context, _: str) -> Iterator[tuple[str, str]]:
    """Offer digests of plans, the newest first, with where they stand."""
    asked = (
        "SELECT digest, (SELECT kind FROM events WHERE plan = digest ORDER BY seq DESC LIMIT 1) "
        "FROM plans ORDER BY rowid DESC"
    )
    yield from _rows(_home(ctx) / "plans.db", asked)


@_quietly
def complete_schedules(ctx: typer.Context, _: str) -> Iterator[tuple[str, str]]:
    """Offer ids of what is on the schedule, with their workloads."""
    for identity, body in _rows(_home(ctx) / "schedule.db", "SELECT id, body FROM entries"):
        yield identity, str(json.loads(body)["name"])


@_quietly
def complete_workload_names(ctx: typer.Context, _: str) -> Iterator[tuple[str, str]]:
    """Offer the names of the workloads of the latest sessions, and the bundled ones."""
    found = dict.fromkeys(name for folder in _sessions(ctx) if (name := _workload(folder)))
    for name in {**found, **dict.fromkeys(_bundled())}:
        yield name, ""


@_quietly
def complete_targets(_: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Offer bundled workloads, and specs and folders on disk."""
    yield from _targets(incomplete)


@_quietly
def complete_sessions_and_targets(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Offer what can be looked at or served: sessions, bundled workloads and specs."""
    yield from _targets(incomplete)
    for folder in _sessions(ctx):
        yield folder.name, _verdict(folder)


@_quietly
def complete_traffic(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Offer the bundled trace, traces on disk, and sessions."""
    yield "day", "the bundled trace"
    yield from _paths(incomplete, (".csv", ".json.gz"))
    for folder in _sessions(ctx):
        yield folder.name, _verdict(folder)


@_quietly
def complete_scenarios(_: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Offer the bundled scenarios, and files."""
    yield "all", "every bundled scenario"
    for file in sorted(_SCENARIOS.glob("*.yaml")):
        yield file.stem, ""
    yield from _paths(incomplete, (".yaml", ".yml"))


@_quietly
def complete_techniques(_: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Offer runtimes and techniques, after those of a comma-separated list that are there already."""
    *before, _last = incomplete.split(",")
    for name in TECHNIQUES:
        if name not in before:
            yield ",".join([*before, name]), ""


def _home(ctx: typer.Context) -> Path:
    return home_directory(ctx.params.get("home"))


def _sessions(ctx: typer.Context) -> list[Path]:
    folder = _home(ctx) / "sessions"
    names = sorted((e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith(".")), reverse=True)
    return [folder / name for name in names[:_MOST]]


def _head(folder: Path) -> bytes:
    with contextlib.suppress(OSError), (folder / "result.json").open("rb") as stream:
        return stream.read(_HEAD_BYTES)
    return b""


def _verdict(folder: Path) -> str:
    found = _VERDICT.search(_head(folder))
    return "no result yet" if found is None else found[1].decode()


def _workload(folder: Path) -> str:
    found = re.search(rb'"workload":\s*("[^"\\]+")', _head(folder))
    return "" if found is None else str(json.loads(found[1]))


def _rows(file: Path, asked: str) -> Iterator[tuple[str, str]]:
    """Yield rows of two texts from a database, which is only read, and never made."""
    connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)
    with contextlib.closing(connection):
        yield from connection.execute(asked).fetchall()


def _bundled() -> list[str]:
    return sorted(file.stem for file in _BUNDLED.glob("*.yaml") if b"\nworkload:" in b"\n" + file.read_bytes())


def _targets(incomplete: str) -> Iterator[tuple[str, str]]:
    for name in _bundled():
        yield name, "bundled"
    yield from _paths(incomplete, (".yaml", ".yml"))


def _paths(incomplete: str, endings: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield files that end so, and folders, in the folder that is being typed."""
    typed = incomplete.rpartition("/")[0] + "/" if "/" in incomplete else ""
    for entry in sorted(os.scandir(Path(typed or ".").expanduser()), key=lambda entry: entry.name):
        if entry.name.startswith(".") and not incomplete[len(typed) :].startswith("."):
            continue
        if entry.is_dir():
            yield f"{typed}{entry.name}/", "folder"
        elif entry.name.endswith(endings):
            yield f"{typed}{entry.name}", "file"
