"""What must still be true of a session and its home after a fault: each thing that is not becomes a sentence."""

from __future__ import annotations

import collections
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from agent.replay import describe, replay
from agent.session import read_result
from tools.artifacts import is_intact
from tools.contracts import Decision, Evidence
from tools.errors import InfertuneError
from tools.evidence import EVIDENCE, EvidenceStore
from tools.record import JOURNAL, State, read_record
from tools.result import SessionResult
from tools.tracking.facts import COMPLETE_TAG, SESSION_TAG


@dataclass(frozen=True)
class Story:
    """How a session went, as far as two sessions on the same evidence must agree."""

    decisions: tuple[Decision, ...]
    verdict: str
    best: str | None


@dataclass(frozen=True)
class Kept:
    """What a home directory had acknowledged at some moment, and so may never lose.

    Attributes:
        evidence: bodies of the store's rows by id.
        journal: the complete lines of the session's journal.
    """

    evidence: dict[str, str]
    journal: bytes


def story_of(folder: Path) -> Story:
    """Return how a finished session went.

    Raises:
        StorageError: its journal or its result cannot be read.
    """
    result = read_result(folder)
    return Story(read_record(folder).decisions, result.verdict.value, _best(result))


def kept_in(home: Path, folder: Path) -> Kept:
    """Return what is acknowledged now."""
    journal = (folder / JOURNAL).read_bytes() if (folder / JOURNAL).exists() else b""
    store = home / EVIDENCE
    evidence = dict(EvidenceStore(store).bodies()) if store.exists() else {}
    return Kept(evidence, journal[: journal.rfind(b"\n") + 1])


def lost(
    home: Path, folder: Path, *, before: Kept | None = None, expected: Story | None = None, again: int = 0
) -> list[str]:
    """Return what is wrong with a session that came to its end, and with the home that it is in.

    Args:
        home: the home directory.
        folder: the session's folder.
        before: what had been acknowledged when the fault came.
        expected: how an undisturbed session on the same evidence went.
        again: so many questions the session may have asked twice, since an answer's files were damaged.
    """
    try:
        return [
            *_unreadable(home, again),
            *_unfinished(folder),
            *_measured_twice(home, folder, again),
            *_undecided(folder),
            *_without_files(home, folder),
            *([] if before is None else _forgotten(home, folder, before)),
            *([] if expected is None else _otherwise(folder, expected)),
        ]
    except (InfertuneError, ValidationError, sqlite3.Error) as error:
        return [" ".join(str(error).split())]


def runs_in(database: Path, session: str) -> tuple[int, int]:
    """Return how many active MLflow runs a session has in a SQLite store, and how many of them are complete."""
    tagged = "run_uuid IN (SELECT run_uuid FROM tags WHERE key = ? AND value = ?)"
    count = f"SELECT COUNT(*) FROM runs WHERE lifecycle_stage = 'active' AND {tagged}"  # noqa: S608  a constant
    with closing(sqlite3.connect(database)) as connection:
        (runs,) = connection.execute(count, (SESSION_TAG, session)).fetchone()
        values = (SESSION_TAG, session, COMPLETE_TAG, "true")
        (done,) = connection.execute(f"{count} AND {tagged}", values).fetchone()
    return runs, done


def _unreadable(home: Path, damaged: int) -> Iterator[str]:
    """Look into both databases, and at every row and every artifact."""
    for database in (EVIDENCE, "checkpoints.db"):
        with closing(sqlite3.connect(home / database)) as connection:
            (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
        if answer != "ok":
            yield f"{database} is damaged: {answer}"
    bodies = EvidenceStore(home / EVIDENCE).bodies()
    altered = [identity for identity, body in bodies if Evidence.from_body(body).id != identity]
    if len(altered) > damaged:
        yield f"evidence is not what was written: {', '.join(altered)}"
    for kind in ("artifacts", "data"):
        for path in (home / kind).glob("[!.]*"):
            if not is_intact(path, path.name):
                yield f"{kind}/{path.name} is damaged"


def _unfinished(folder: Path) -> Iterator[str]:
    record = read_record(folder)
    if record.state is not State.FINISHED:
        yield f"the session is {record.state.value}"
    result = read_result(folder)
    if result.decisions != record.decisions:
        yield "result.json and the journal tell of other decisions"
    if not (folder / "report.html").exists() and not any("report.html" in note for note in result.notes):
        yield "there is no report.html, and no word why"


def _measured_twice(home: Path, folder: Path, again: int) -> Iterator[str]:
    rows = EvidenceStore(home / EVIDENCE).rows()
    asked = collections.Counter((row.question, row.kind) for row in rows if row.session == folder.name)
    twice = [(kind, count) for (_, kind), count in asked.items() if count > 1]
    if len(twice) > again:
        yield f"measured more than once: {', '.join(f'{kind} ({count} times)' for kind, count in twice)}"


def _undecided(folder: Path) -> Iterator[str]:
    replayed = replay(folder)
    if not replayed.same:
        yield " ".join(line.strip() for line in describe(replayed))


def _without_files(home: Path, folder: Path) -> Iterator[str]:
    """See that the best configuration can be taken into use, and that used evidence has its samples."""
    artifact = read_result(folder).files.get("artifact")
    if artifact is not None and not is_intact(Path(str(artifact)), Path(str(artifact)).name):
        yield f"the artifact of the best configuration, {artifact}, is missing or damaged"
    for evidence in EvidenceStore(home / EVIDENCE).get_all(read_record(folder).evidence):
        if evidence.raw is not None and not (home / "raw" / evidence.raw).is_file():
            yield f"the samples of evidence {evidence.id} are missing"


def _forgotten(home: Path, folder: Path, before: Kept) -> Iterator[str]:
    now = kept_in(home, folder)
    if not now.journal.startswith(before.journal):
        yield "lines that were in the journal before the fault are no longer there"
    gone = [identity for identity, body in before.evidence.items() if now.evidence.get(identity) != body]
    if gone:
        yield f"evidence from before the fault is gone or changed: {', '.join(gone)}"


def _otherwise(folder: Path, expected: Story) -> Iterator[str]:
    now = story_of(folder)
    if (now.verdict, now.best) != (expected.verdict, expected.best):
        yield f"it ended with {now.verdict}, {now.best}; undisturbed with {expected.verdict}, {expected.best}"
    if len(now.decisions) != len(expected.decisions):
        yield f"it made {len(now.decisions)} decisions; undisturbed {len(expected.decisions)}"
    for ours, theirs in zip(now.decisions, expected.decisions, strict=False):
        if ours != theirs:
            yield f"{ours.id} chose {ours.chosen} ({ours.reason}); undisturbed {theirs.chosen} ({theirs.reason})"


def _best(result: SessionResult) -> str | None:
    return None if result.best is None else f"{result.best.recipe} at batch {result.best.batch_size}"
