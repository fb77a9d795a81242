"""Running sessions as processes of their own, and seeing that nothing of them is left."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from simulations.chaos.child import SETTINGS, Settings
from simulations.chaos.hook.sitecustomize import PLAN, Plan

ROOT = Path(__file__).resolve().parents[2]
HOOK = Path(__file__).resolve().parent / "hook"
LIMIT_S = 300.0
"""For one command: far more than any takes, so that one that hangs is a finding and not the end."""
GONE_WITHIN_S = 15.0
"""A worker whose session was killed has so long to notice."""
_MARK = "CHAOS_MARK"


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; negative for the signal that killed it.
        text: what it printed.
        left: processes that it left behind, as sentences; they were killed.
    """

    code: int
    text: str
    left: tuple[str, ...]

    @property
    def killed(self) -> bool:
        """Whether it was killed."""
        return self.code == -signal.SIGKILL


@dataclass(frozen=True)
class Started:
    """A command that runs."""

    process: subprocess.Popen[bytes]
    mark: str
    log: Path

    def wait(self) -> Ended:
        """Wait for its end, and for that of everything that it started."""
        try:
            code = self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            code = -signal.SIGALRM
        left = _left(self.mark) if code != -signal.SIGALRM else [f"the command hung for {LIMIT_S:.0f} s"]
        self.end()
        return Ended(code, self.log.read_text(encoding="utf-8", errors="replace"), tuple(left))

    def end(self) -> None:
        """Kill it, and everything that it started. What has ended already is no error."""
        while left := list(_marked(self.mark)):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self.process.wait()


def start(
    home: Path, *command: str, settings: Settings, plan: Plan | None = None, extra: Mapping[str, str] | None = None
) -> Started:
    """Start `infertune` on a home directory.

    Args:
        home: the home directory.
        command: the arguments of `infertune`, without `--home`.
        settings: how it is made quick.
        plan: what is done to it.
        extra: environment variables.
    """
    mark = secrets.token_hex(8)
    log = home.parent / f"{command[0]}-{mark}.log"
    environment = {
        **{name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"},
        "PYTHONPATH": os.pathsep.join([str(HOOK), str(ROOT)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        SETTINGS: json.dumps(settings._asdict()),
        _MARK: mark,
        **(extra or {}),
    }
    if plan is not None:
        environment[PLAN] = plan.to_json()
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "simulations.chaos.child", *command, "--home", str(home)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=home.parent,
        )
    return Started(process, mark, log)


def run(
    home: Path, *command: str, settings: Settings, plan: Plan | None = None, extra: Mapping[str, str] | None = None
) -> Ended:
    """Run `infertune` on a home directory to its end; arguments as for `start`."""
    started = start(home, *command, settings=settings, plan=plan, extra=extra)
    try:
        return started.wait()
    finally:
        started.end()  # when we are interrupted ourselves


def _left(mark: str) -> list[str]:
    """Return what is still there after a fair time."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while (left := list(_marked(mark))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [f"process {pid} was left behind ({_command_line(pid)})" for pid in left]


def _marked(mark: str) -> Iterator[int]:
    """Yield the processes that inherited the mark; dead ones that nobody has waited for have no environment."""
    text = f"{_MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if text in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)


def _command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:100]
    return "it ended meanwhile"
