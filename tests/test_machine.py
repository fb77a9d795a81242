"""The machine that measures: what it does when somebody kills a worker, or a person wants it to stop."""

import os
import signal
from pathlib import Path

import pytest

from tools.contracts import Crashed, Failed
from tools.machine import Machine
from tools.observer import Silent
from tools.worker import LIGHT_MODULES, Returned, Worker


def die(times: int, counter: str) -> int:
    """Be killed, as by somebody's `kill -9`, so many times; then return how often it was tried."""
    file = Path(counter)
    tried = int(file.read_text()) + 1 if file.exists() else 1
    file.write_text(str(tried))
    if tried <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return tried


class Told(Silent):
    def __init__(self):
        self.sentences = []

    def finding(self, sentence):
        self.sentences.append(sentence)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with Worker(LIGHT_MODULES, tmp_path / "logs") as worker:
        yield Machine(worker, worker, Told(), limit_s=30)


def ask(machine, tmp_path, times):
    arguments = {"times": times, "counter": str(tmp_path / "counter")}
    return machine.run("test_machine:die", arguments, label="die", needs_torch=False)


def test_a_task_whose_worker_somebody_killed_is_run_once_more_and_that_is_said(machine, tmp_path):
    assert ask(machine, tmp_path, 1) == Returned(value=2)
    assert machine.observer.sentences == ["A worker was killed from outside (SIGKILL): trying once more."]


def test_a_task_that_is_killed_twice_has_crashed(machine, tmp_path):
    assert ask(machine, tmp_path, 5) == Crashed(stage="starting", signal="SIGKILL")
    assert (tmp_path / "counter").read_text() == "2"


def test_a_machine_that_was_stopped_runs_only_what_belongs_to_the_ending(machine, tmp_path):
    machine.stop()
    assert ask(machine, tmp_path, 0) == Failed(stage="starting", reason="interrupted")
    arguments = {"times": 0, "counter": str(tmp_path / "counter")}
    assert machine.background("test_machine:die", arguments, label="die", limit_s=30) == Returned(value=1)
