"""MLflow at its worst: not there, silent, failing, and killed in the middle of being written to."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from agent.session import read_result
from agent.sessions import folders
from simulations.chaos.checks import kept_in, lost, runs_in
from simulations.chaos.hook.sitecustomize import Plan, Point
from simulations.chaos.lab import Case, Lab, Outcome, times, unwell
from simulations.chaos.runs import run
from tools.tracking.store import local_tracking_uri

PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "2", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
BOUND_S = 60.0
"""A session on a server that does not answer ends within so long, at this patience."""
CREATING, RECORDING = "MLflow store created", "session recorded"
COMMITS = {CREATING: (1, 12, 25), RECORDING: (1, 10, 25)}
"""Where it is killed: the first recording in a home makes the store, with a hundred commits of its own."""


def server_cases(lab: Lab) -> Iterator[Case]:
    """Yield all of them."""
    for name, server in (("refuses", _refusing), ("never answers", _silent), ("answers 500", _failing)):
        yield Case(f"MLflow {name}", "", partial(_away, lab, server))
    for victims, who in (("main", "main process"), ("self", "task")):
        for doing, commits in COMMITS.items():
            for nth in commits:
                for moment in ("before", "half"):
                    point = Point("task", "commit", "mlflow.db", moment)
                    inject = partial(_killed_while_recording, lab, point, nth=nth, victims=victims, doing=doing)
                    yield Case(f"{who} killed: {doing}", f"{moment} commit {nth}", inject)


def _away(lab: Lab, server: Callable[[], AbstractContextManager[str]], folder: Path) -> Outcome:
    """Run a session whose MLflow is away, then sync it to one that is there, twice."""
    home = lab.warm_home(folder)
    settings = lab.settings._replace(mlflow=True)
    began = time.monotonic()
    with server() as uri:
        ended = run(home, "optimize", str(lab.spec), "--tracking-uri", uri, settings=settings, extra=PATIENCE)
    complaints = [*ended.left, *unwell(ended)]
    if (took_s := time.monotonic() - began) > BOUND_S:
        complaints.append(f"it took {took_s:.0f} s")
    session = folders(home)[-1]
    reference = read_result(session).mlflow
    if reference is None or reference.run_id is not None or not reference.note:
        complaints.append(f"the result does not say that MLflow is away: {reference}")
    before = kept_in(home, session)
    for expected in (f"{session.name}  recorded", "Nothing to do"):
        ended = run(home, "sync", "--tracking-uri", local_tracking_uri(home), settings=settings)
        complaints += [*ended.left, *unwell(ended)]
        if expected not in ended.text:
            complaints.append(f"sync did not say {expected!r}: {ended.text}")
    complaints += _not_recorded_once(home, session)
    return Outcome(1, (*complaints, *lost(home, session, before=before, expected=lab.story)))


def _killed_while_recording(lab: Lab, point: Point, folder: Path, *, nth: int, victims: str, doing: str) -> Outcome:
    """Kill in the middle of a recording; the session is taken up, and where that is not enough, synced."""
    home = lab.warm_home(folder)
    settings = lab.settings._replace(mlflow=True)
    complaints: list[str] = []
    if doing == RECORDING:
        complaints = unwell(run(home, "optimize", str(lab.spec), settings=settings))
    counter = folder / "reached"
    plan = Plan(str(home), point=point, nth=nth, victims=victims, counter=str(counter))
    ended = run(home, "optimize", str(lab.spec), settings=settings, plan=plan)
    if times(counter) < nth:
        return Outcome(0, (f"the point was reached {times(counter)} times, so nothing was injected",))
    session = folders(home)[-1]
    before = kept_in(home, session)
    complaints += ended.left
    command = ("resume", session.name) if ended.killed else ("sync", session.name)
    if not ended.killed:
        complaints += unwell(ended)
    ended = run(home, *command, settings=settings)
    complaints += [*ended.left, *unwell(ended), *_not_recorded_once(home, session)]
    return Outcome(1, (*complaints, *lost(home, session, before=before, expected=lab.story)))


def _not_recorded_once(home: Path, session: Path) -> list[str]:
    runs, complete = runs_in(home / "mlflow.db", session.name)
    return [] if (runs, complete) == (1, 1) else [f"MLflow has {runs} runs of the session, {complete} of them complete"]


@contextlib.contextmanager
def _refusing() -> Iterator[str]:
    """Yield the address of a port on which nobody listens."""
    with socket.socket() as taken:  # bound and not listening: nobody else can take it meanwhile
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextlib.contextmanager
def _silent() -> Iterator[str]:
    """Yield the address of a server that accepts connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


class _ServerError(BaseHTTPRequestHandler):
    """Answers every request with 500."""

    def _answer(self) -> None:
        self.send_error(500)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815  the names that http.server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
        """Stay silent."""


@contextlib.contextmanager
def _failing() -> Iterator[str]:
    """Yield the address of a server that fails."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _ServerError) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
