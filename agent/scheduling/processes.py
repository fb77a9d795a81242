"""One run as processes: `infertune optimize` in a group of its own, which survives the schedule and is found again.

A process carries the run's name in its environment. If the schedule was killed meanwhile, the next one waits for what
is left of the run; if the session did not come to its end, it is resumed; only where there is none is one begun.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from agent.endpoint import lacking
from agent.scheduling.store import Entry, Run
from agent.sessions import folders
from tools.contracts import Verdict, digest_of
from tools.errors import InfertuneError, StorageError
from tools.record import State, read_record

COMMAND = (sys.executable, "-P", "-c", "from agent.cli import main; main()")
"""`infertune`, by this interpreter, whatever lies in the working directory."""
NAME = "INFERTUNE_SCHEDULED_RUN"
OVERTIME_S = 3600.0
"""A session ends by itself when its budget is used up, after its last trial, a report, and the watch over a change.
One that goes on for longer than this hangs."""
UNLIMITED_S = 86_400.0
"""As long as a run may take whose budget only its spec knows."""
GRACE_S = 60.0
"""To keep the best so far, after a signal and before the next, harder one."""
OUTPUT = "schedule"
"""Folder in the home directory with what the runs wrote."""
FAILED = "FAILED"
"""In place of a verdict: the session came to none."""
USER_ERROR = 2
"""Exit code of `infertune` for what a person has to mend."""
_TAIL = 400
"""Characters of a failed session's last words."""


class Pause(Protocol):
    """Waits, and knows whether the schedule is asked to stop."""

    @property
    def stopping(self) -> bool:
        """Whether a person or the system asked to stop."""

    def wait(self, timeout_s: float, fd: int | None = None) -> bool:
        """Wait until `fd` can be read, and return whether it can; less long when asked to stop or woken."""


class Ended(NamedTuple):
    """What a run came to."""

    verdict: str
    exit_code: int | None = None
    session: str | None = None
    summary: str = ""
    plan: dict[str, Any] | None = None
    """Of `result.json`."""


class Processes:
    """Carries runs out.

    Args:
        home: where sessions are.
        pause: waits.
        command: what is run; its arguments are those of `infertune`.
    """

    def __init__(self, home: Path, pause: Pause, *, command: Sequence[str] = COMMAND) -> None:
        self._home = home
        self._pause = pause
        self._command = tuple(command)

    def carry_out(self, entry: Entry, run: Run, budget_s: float | None) -> Ended | None:
        """Bring a run to its end, from wherever it is; None when asked to stop before that.

        Raises:
            StorageError: nothing can be written.
        """
        limit_s = UNLIMITED_S if budget_s is None else budget_s + OVERTIME_S
        in_time = True
        left = self._left_over(run)
        if left is not None:
            with _pidfd(left) as fd:
                in_time = self._watch(left, fd, limit_s)
            if self._pause.stopping:
                return None
        ended = self._ended(run, None, in_time=in_time)
        if ended is not None:
            return ended
        session = self._unfinished(entry, run)
        if session is not None:
            code, in_time = self._start(run, ["resume", session], limit_s)
            if self._pause.stopping:
                return None
            if code != USER_ERROR:  # else: the machine or the libraries changed, and it has to begin anew
                return self._ended(run, code, in_time=in_time) or self._failed(run, code)
        code, in_time = self._start(run, ["optimize", entry.target, *_wishes(entry, run, budget_s)], limit_s)
        if self._pause.stopping:
            return None
        return self._ended(run, code, in_time=in_time) or self._failed(run, code)

    def _start(self, run: Run, arguments: list[str], limit_s: float) -> tuple[int, bool]:
        """Run a command to its end; return its exit code, and whether it ended by itself."""
        out, err = self._files(run)
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with out.open("wb") as stdout, err.open("ab") as stderr:
                process = subprocess.Popen(
                    [*self._command, *arguments, "--home", str(self._home), "--output", "json"],
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    env={**os.environ, NAME: self._name(run)},
                    start_new_session=True,
                )
        except OSError as error:
            raise StorageError(f"cannot be written or started ({error.strerror}).", where=str(out)) from None
        with process, _pidfd(process.pid) as fd:
            in_time = self._watch(process.pid, fd, limit_s)
            _signal(process.pid, signal.SIGKILL)  # whatever of its group is left; it is not reaped yet, so this is it
            return process.wait(), in_time

    def _watch(self, pid: int, fd: int, limit_s: float) -> bool:
        """Wait for a process; end its group when it takes too long, or when asked to stop. Whether it ended itself."""
        until = time.monotonic() + limit_s
        while not self._pause.stopping and (left_s := until - time.monotonic()) > 0:
            if self._pause.wait(left_s, fd):
                return True
        for harder in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            _signal(pid, harder)
            if _readable(fd, GRACE_S):
                break
        return False

    def _ended(self, run: Run, code: int | None, *, in_time: bool) -> Ended | None:
        """Return what the session said at its end, if it came to one."""
        try:
            said = json.loads(self._files(run)[0].read_bytes())
            verdict, session = Verdict(said["verdict"]), str(said["session"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if verdict is Verdict.INTERRUPTED and in_time:
            return None
        return Ended(verdict.value, code, session, str(said.get("summary", "")), said.get("plan"))

    def _failed(self, run: Run, code: int | None) -> Ended:
        try:
            words = self._files(run)[1].read_text(encoding="utf-8", errors="replace")
        except OSError:
            words = ""
        last = " ".join(words.split())[-_TAIL:] or "it said nothing"
        return Ended(FAILED, code, summary=f"exit code {code}: {last}")

    def _files(self, run: Run) -> tuple[Path, Path]:
        """Return where a run's output and its complaints go."""
        folder = self._home / OUTPUT
        return folder / f"{run.id}.json", folder / f"{run.id}.log"

    def _name(self, run: Run) -> str:
        return f"{digest_of(str(self._home))}:{run.id}"

    def _left_over(self, run: Run) -> int | None:
        """Return the process that leads what an earlier schedule started for this run, if it is alive."""
        import psutil

        for process in psutil.process_iter(["environ"]):
            if (process.info["environ"] or {}).get(NAME) == self._name(run):
                with contextlib.suppress(ProcessLookupError):
                    if os.getpgid(process.pid) == process.pid and process.pid != os.getpid():
                        return int(process.pid)
        return None

    def _unfinished(self, entry: Entry, run: Run) -> str | None:
        """Return the session that this run began and did not end, if there is one."""
        for folder in reversed(folders(self._home)):
            with contextlib.suppress(InfertuneError):
                record = read_record(folder)
                begun_s = datetime.fromisoformat(record.started.created).timestamp()
                if begun_s < int(run.begun_s):
                    return None
                if record.started.target == entry.target and record.state in (State.UNFINISHED, State.INTERRUPTED):
                    return record.session
        return None


def _wishes(entry: Entry, run: Run, budget_s: float | None) -> list[str]:
    wishes = [] if budget_s is None else ["--time-budget", f"{budget_s:.0f}"]
    if run.advisor and lacking(os.environ) is None:  # it may be gone since the run began
        wishes.append("--advisor")
    if entry.auto_approve_within is not None:
        wishes += ["--auto-approve-within", entry.auto_approve_within]
    return wishes


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _readable(fd: int, timeout_s: float) -> bool:
    return bool(select.select([fd], [], [], timeout_s)[0])


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    """Yield what can be read once the process has ended; at once, if it has ended already."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        fd, writing = os.pipe()
        os.close(writing)  # its end can be read at once
    try:
        yield fd
    finally:
        os.close(fd)
