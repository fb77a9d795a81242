"""`infertune challenge`: a session, and then the story of what each technique brought, one on top of the other.

What the session measured is found, what it did not is measured now by the same protocol, and nothing twice. Each step
is judged when it is measured, and only what is taken is built upon.
"""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass, replace
from pathlib import Path

from agent.climb import Climb
from agent.contexts import measuring, workers_of
from agent.policy import POLICY_VERSION
from agent.recorded import evidence_of, loaded_of
from agent.session import Options, alone, optimize, read_result
from agent.sessions import folders
from agent.signals import InterruptedSessionError
from tools import plugins
from tools.artifacts import write_file
from tools.challenge import Challenge
from tools.challenge_targets import targets
from tools.contracts import PROTOCOL_VERSION, Verdict
from tools.errors import InfertuneError
from tools.evidence import EVIDENCE, EvidenceStore
from tools.hardware import detect, library_versions
from tools.ledger import Ledger
from tools.machine import Machine
from tools.mirror import mirror_challenge
from tools.observer import Observer
from tools.outcomes import from_task, reason
from tools.record import State, read_record
from tools.result import SessionResult
from tools.selection import final_choice
from tools.summary_trials import build_summaries, trial_summaries
from tools.worker import Returned

JSON, PAGE, PICTURE = "challenge.json", "challenge.html", "challenge.png"
"""What is written into the session's folder."""
PAGE_LIMIT_S = 120.0


@dataclass(frozen=True)
class Told:
    """The story, and where it lies.

    Attributes:
        challenge: the story.
        folder: the session's.
        files: that were written, by what they are; why one is missing is among the notes.
        notes: sentences for a person.
    """

    challenge: Challenge
    folder: Path
    files: dict[str, Path]
    notes: tuple[str, ...] = ()


def run_challenge(target: str, home: Path, observer: Observer, *, fresh: bool = False) -> Told:
    """Run a session, or take up the last one that fits, and tell its story in steps.

    Args:
        target: a `tuning.yaml`, or the name of a bundled workload.
        home: the home directory.
        observer: is told what happens.
        fresh: run a new session even where one fits.

    Raises:
        InfertuneError: as `agent.session.optimize`; or the model as given could not be measured.
        InterruptedSessionError: Ctrl-C. What was measured is kept, and found the next time.
    """
    folder = None if fresh else fitting_session(home, target)
    if folder is None:
        result = optimize(target, Options(home=home, fresh=fresh), observer)
        folder = home / "sessions" / result.session
        if result.verdict is Verdict.INTERRUPTED:
            raise InterruptedSessionError(
                f"session {result.session} was interrupted, and has no story yet.",
                fix=f"Take it up (infertune resume {result.session}), then ask again.",
            )
    else:
        observer.finding(f"Session {folder.name} is taken up: the same target, machine and libraries.")
    with alone(home, folder):
        return _tell(home, folder, observer)


def fitting_session(home: Path, target: str) -> Path | None:
    """Return the latest finished session of a target whose numbers compare with today's; None without one."""
    wanted = str(Path(target).resolve()) if Path(target).exists() else target
    versions, hardware = {**library_versions(), **plugins.versions()}, detect()
    for folder in reversed(folders(home)):
        try:
            record = read_record(folder)
        except InfertuneError:
            continue  # damaged, or of another version: `infertune sessions` says so
        started = record.started
        same = (started.hardware, started.versions) == (hardware, versions)
        current = (started.policy, started.protocol) == (POLICY_VERSION, PROTOCOL_VERSION)
        if started.target == wanted and same and current and record.state is State.FINISHED:
            return folder
    return None


def _tell(home: Path, folder: Path, observer: Observer) -> Told:
    began = time.monotonic()
    record, result = read_record(folder), read_result(folder)
    loaded, started = loaded_of(record), record.started
    known = evidence_of(record, home)
    ledger = Ledger(None, evidence=record.evidence, decisions=())
    with workers_of(started, loaded.spec, home, observer, executor="local") as workers:
        with measuring(
            record,
            loaded,
            home,
            ledger,
            workers,
            recorded=known,
            store=EvidenceStore(home / EVIDENCE),
            observer=observer,
        ) as context:
            climb = Climb(context, known)
            steps = climb.steps()
            compared = climb.compared()
        challenge = Challenge(
            session=record.session,
            workload=loaded.workload.name,
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            metric=loaded.workload.metric,
            price_per_hour_usd=loaded.spec.hardware.price_per_hour_usd,
            steps=steps,
            targets=targets(steps, compared),
            seconds=time.monotonic() - began,
        )
        assert context.bench.machine is not None, "it measures"
        told = _written(challenge, _grown(result, climb), folder, context.bench.machine)
        missed = mirror_challenge(folder, context.tracking_uri, context.bench.machine)
        return told if missed is None else replace(told, notes=(*told.notes, missed))


def _grown(result: SessionResult, climb: Climb) -> SessionResult:
    """Return the session's result with what the steps measured beside its own trials."""
    view = climb.view
    return result.model_copy(
        update={
            "trials": trial_summaries(view, final_choice(view)[0]),
            "builds": build_summaries(view),
            "scaling": result.scaling if climb.scaling is None else climb.scaling,
        }
    )


def _written(challenge: Challenge, result: SessionResult, folder: Path, machine: Machine) -> Told:
    """Write the story: its numbers first, which nothing can take away, then the page, then a picture of it."""
    path = folder / JSON
    write_file(path, challenge.model_dump_json(indent=1) + "\n")
    files, notes = {"challenge": path}, []
    arguments = {
        "challenge": challenge.model_dump(mode="json"),
        "result": result.model_dump(mode="json"),
        "page": str(folder / PAGE),
        "picture": str(folder / PICTURE),
    }
    task = "tools.report.challenge:render_task"
    outcome = machine.background(task, arguments, label="challenge", limit_s=PAGE_LIMIT_S)
    if isinstance(outcome, Returned):
        files["page"] = folder / PAGE
        if outcome.value["picture"]:
            files["picture"] = folder / PICTURE
        notes += outcome.value["notes"]
    else:
        notes.append(f"The page could not be made: {reason(from_task(outcome))}.")
    return Told(challenge, folder, files, tuple(notes))
