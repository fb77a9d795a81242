"""The machine that measures: what it does when somebody kills a worker, or a person wants it to stop."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tools.contracts import Crashed, Failed
from tools.machine import Job, Machine
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


def meet(folder: str, mine: str, other: str) -> str:
    """Say that this task is here, and wait for another: two that meet run at the same time."""
    (Path(folder) / mine).touch()
    while not (Path(folder) / other).exists():
        time.sleep(0.01)
    return mine


def wait_for_ever(folder: str, mine: str) -> None:
    (Path(folder) / mine).touch()
    time.sleep(600)


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


def couple(tmp_path):
    pairs = (("one", "two"), ("two", "one"))
    return [Job("test_machine:meet", {"folder": str(tmp_path), "mine": a, "other": b}, a) for a, b in pairs]


@pytest.fixture
def crew(machine, tmp_path):
    """A machine with two builders."""
    with contextlib.ExitStack() as stack:
        machine.builders = [stack.enter_context(Worker(LIGHT_MODULES, tmp_path / name)) for name in ("a", "b")]
        yield machine


def test_jobs_run_at_the_same_time_where_there_are_builders(crew, tmp_path):
    ended = {job.label: outcome for job, outcome in crew.run_many(couple(tmp_path))}
    assert ended == {"one": Returned(value="one"), "two": Returned(value="two")}


def test_more_jobs_than_builders_are_all_done_and_each_is_given_as_it_ends(crew, tmp_path):
    jobs = [Job("worker_tasks:echo", {"value": n}, f"job-{n}") for n in range(5)]
    assert sorted(outcome.value for _, outcome in crew.run_many(jobs)) == list(range(5))


def test_without_builders_jobs_run_one_after_the_other_in_their_order(machine, tmp_path):
    jobs = [Job("worker_tasks:echo", {"value": n}, f"job-{n}") for n in range(3)]
    assert [outcome.value for _, outcome in machine.run_many(jobs)] == [0, 1, 2]


def test_a_stop_ends_all_that_runs_and_begins_nothing_more(crew, tmp_path):
    def stop():
        while not all((tmp_path / name).exists() for name in ("0", "1")):
            time.sleep(0.01)
        crew.stop()

    jobs = [Job("test_machine:wait_for_ever", {"folder": str(tmp_path), "mine": str(n)}, f"job-{n}") for n in range(4)]
    stopper = threading.Thread(target=stop)
    stopper.start()
    outcomes = [outcome for _, outcome in crew.run_many(jobs)]
    stopper.join()
    assert [outcome.reason for outcome in outcomes] == ["interrupted"] * 4
    assert not (tmp_path / "2").exists()


def test_whoever_stops_listening_ends_what_still_runs(crew, tmp_path):
    jobs = [
        Job("worker_tasks:echo", {"value": 1}, "quick"),
        Job("test_machine:wait_for_ever", {"folder": str(tmp_path), "mine": "slow"}, "slow"),
    ]
    ended = crew.run_many(jobs)
    assert next(ended)[1] == Returned(value=1)
    while not (tmp_path / "slow").exists():
        time.sleep(0.01)
    ended.close()
    assert crew.run("worker_tasks:echo", {"value": 2}, label="next", needs_torch=False) == Returned(value=2)
