"""What the tests of the worker share."""

import contextlib
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@contextlib.contextmanager
def environment(**variables):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


def run(worker, task, limit_s=30, on_event=None, silence_s=30, **arguments):
    return worker.run(
        f"worker_tasks:{task}", arguments, label=task, limit_s=limit_s, silence_s=silence_s, on_event=on_event
    )


def log_of(worker, label):
    return (worker._logs / f"{label}.log").read_text()


def wait_until(condition, what):
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail(what)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
