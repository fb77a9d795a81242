"""Sessions that a chat started: subprocesses of their own, which live on when the chat ends.

Each start is noted in `<home>/chat/starts/` before the process begins, under the id of the call that asked for it: a
chat that was killed in the middle of a start and resumed does not start a second one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tools.artifacts import write_file
from tools.contracts import digest_of
from tools.errors import InfertuneError, StorageError

FOLDER = Path("chat") / "starts"
PATIENCE_S = 20.0
"""How long a start waits for the session's id: the command has imports to do first."""
_LOOK_S = 0.2
_SECRETS = ("OPENAI_API_KEY",)
"""A session needs no model, and so gets none of its keys."""
_STARTED: list[subprocess.Popen[bytes]] = []
"""By this process; they may outlive it."""


def start(
    home: Path, call: str, arguments: Sequence[str], *, patience_s: float = PATIENCE_S
) -> tuple[str | None, str | None]:
    """Start `infertune optimize` in the background, at most once for each call.

    Args:
        home: the home directory.
        call: id of the call that asks for it; the same call again is answered, and nothing is started.
        arguments: of `optimize`.
        patience_s: how long to wait for the session to show.

    Returns:
        The session's id, None if it does not show yet, and the last lines of the command's errors if it ended first.

    Raises:
        StorageError: the note cannot be written.
    """
    noted = _note(home, call)
    log = noted.with_suffix(".log")
    if not noted.exists():
        write_file(noted, json.dumps({"arguments": list(arguments)}))
        process = _spawn([*arguments, "--home", str(home), "--output", "json"], log)
        write_file(noted, json.dumps({"arguments": list(arguments), **_identity(process.pid)}))
    note = _read(noted)
    if "pid" not in note:
        return None, "the chat was cut off while it started it; whether it runs, list_sessions tells"
    end = time.monotonic() + patience_s
    session = note.get("session")
    while session is None and _is_alive(note) and time.monotonic() < end:
        session = _session_of(note["pid"], home)
        time.sleep(_LOOK_S)
    if session is not None:
        write_file(noted, json.dumps({**note, "session": session}))
        return session, None
    return None, None if _is_alive(note) else _last_words(log)


def _spawn(arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    try:
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "agent.cli", "optimize", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**environment, "PYTHONPATH": _import_path()},
                start_new_session=True,  # Ctrl-C in the chat is not meant for it
            )
    except OSError as error:
        raise StorageError(f"a session cannot be started ({error.strerror}).", where=str(log)) from None
    _STARTED.append(process)
    return process


def is_known(home: Path, call: str) -> bool:
    """Return whether this call has started something before."""
    return _note(home, call).exists()


def stop(home: Path, session: str) -> bool:
    """Send SIGINT to a session that a chat of this home started; return whether there was one to send it to.

    It is sent once, however often it is asked for: a second one would end the session at once, without a result.
    """
    for path, note in _notes(home):
        if _is_alive(note) and session in (note.get("session"), _session_of(note["pid"], home)):
            if not note.get("stopped"):
                write_file(path, json.dumps({**note, "session": session, "stopped": True}))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(note["pid"], signal.SIGINT)
            return True
    return False


def is_running(home: Path) -> bool:
    """Return whether a session that a chat of this home started still runs."""
    return any(_is_alive(note) for _, note in _notes(home))


def _note(home: Path, call: str) -> Path:
    return home / FOLDER / f"{digest_of(call)}.json"


def _notes(home: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted((home / FOLDER).glob("*.json")):
        with contextlib.suppress(InfertuneError):
            yield path, _read(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        note: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot be read ({error}).", where=str(path), fix="Delete it.") from None
    return note


def _identity(pid: int) -> dict[str, Any]:
    """Return what tells a process from a later one with the same number."""
    import psutil

    try:
        return {"pid": pid, "created": psutil.Process(pid).create_time()}
    except psutil.Error:
        return {}


def _is_alive(note: dict[str, Any]) -> bool:
    import psutil

    for ours in _STARTED:
        ours.poll()  # takes note of its end, if there was one
    try:
        process = psutil.Process(note["pid"])
        return bool(process.create_time() == note["created"] and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, KeyError):
        return False


def _session_of(pid: int | None, home: Path) -> str | None:
    """Return the session whose lock a process holds open."""
    import psutil

    if pid is None:
        return None
    try:
        opened = [Path(file.path) for file in psutil.Process(pid).open_files()]
    except psutil.Error:
        return None
    return next((path.parent.name for path in opened if path.parent.parent == home / "sessions"), None)


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "it ended without a word"


def _import_path() -> str:
    here = str(Path(__file__).parents[2])
    given = os.environ.get("PYTHONPATH")
    return here if not given else f"{here}{os.pathsep}{given}"
