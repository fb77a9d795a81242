"""The worker: whatever a task does, `run` returns a value and the next task runs."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tools.contracts import Crashed, Failed, OutOfMemory, TimedOut
from tools.errors import InfertuneError
from tools.worker import Returned, Worker


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with Worker(["numpy"], tmp_path_factory.mktemp("logs")) as made:
        yield made
    patch.undo()


def run(worker, task, limit_s=30, on_event=None, **arguments):
    return worker.run(f"worker_tasks:{task}", arguments, label=task, limit_s=limit_s, on_event=on_event)


def test_a_value_comes_back(worker):
    assert run(worker, "echo", value={"a": [1, None, "ü"]}) == Returned(value={"a": [1, None, "ü"]})


def test_a_request_of_several_megabytes_arrives_whole(worker):
    assert run(worker, "size_of", text="x" * 5_000_000) == Returned(value=5_000_000)


def test_every_task_has_a_process_of_its_own(worker):
    first, second = run(worker, "pid"), run(worker, "pid")
    assert first.value != second.value != os.getpid()


def test_stages_and_events_arrive_in_order(worker):
    seen = []
    assert run(worker, "steps", on_event=seen.append) == Returned(value="done")
    assert [m for m in seen if "returned" not in m] == [
        {"stage": "first"},
        {"event": "point", "batch_size": 1, "p50_ms": 2.5},
        {"stage": "second"},
    ]


@pytest.mark.parametrize("task", ["hang", "hang_in_c"])
def test_a_hang_is_killed_at_its_limit(worker, task):
    outcome = run(worker, task, limit_s=0.3)
    assert isinstance(outcome, TimedOut)
    assert outcome.limit_s == 0.3


def test_the_stage_that_hung_is_named(worker):
    assert run(worker, "hang", limit_s=0.3).stage == "waiting for nothing"


def test_what_a_task_leaves_behind_is_killed(worker, tmp_path):
    file = tmp_path / "pid"
    assert isinstance(run(worker, "leave_child_behind", path=str(file)), Returned)
    left = int(file.read_text())
    for _ in range(100):
        if not _alive(left):
            return
        time.sleep(0.05)
    pytest.fail("the task's own child is still running")


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_segfault_is_an_outcome(worker):
    assert run(worker, "segfault") == Crashed(stage="dereferencing", signal="SIGSEGV")


def test_a_kill_that_we_did_not_send_is_taken_for_the_out_of_memory_killer(worker):
    assert isinstance(run(worker, "kill_oneself"), OutOfMemory)


def test_a_memory_error_is_out_of_memory(worker):
    assert isinstance(run(worker, "no_memory"), OutOfMemory)


def test_an_expected_error_keeps_its_sentence(worker):
    outcome = run(worker, "user_error")
    assert isinstance(outcome, Failed)
    assert outcome.reason == "model.py: the model is upside down. Turn it."


@pytest.mark.parametrize(
    ("task", "reason"), [("bug", "KeyError: 'missing'"), ("leave", "SystemExit: 3"), ("not_json", "TypeError")]
)
def test_any_other_exception_is_named(worker, task, reason):
    outcome = run(worker, task)
    assert isinstance(outcome, Failed)
    assert outcome.reason.startswith(reason)


def test_a_task_that_vanishes_points_to_its_log(worker):
    outcome = run(worker, "vanish")
    assert isinstance(outcome, Failed)
    assert "exit 7" in outcome.reason
    assert "vanish.log" in outcome.reason


def test_output_goes_to_the_log_and_not_to_the_terminal(worker, capfd):
    assert run(worker, "chatter") == Returned(value="quiet")
    assert capfd.readouterr() == ("", "")
    log = (worker._logs / "chatter.log").read_text()
    assert log.count("x") >= 2_000_000
    assert "from a child process" in log


def test_cancel_kills_what_runs(worker):
    threading.Timer(0.3, worker.cancel).start()
    outcome = run(worker, "hang")
    assert outcome.reason == "interrupted"
    assert run(worker, "echo", value=1) == Returned(value=1)


def test_a_killed_warm_process_costs_one_task_and_is_replaced(worker):
    run(worker, "echo", value=0)
    worker._process.send_signal(signal.SIGKILL)
    worker._process.wait()
    assert run(worker, "echo", value=2) == Returned(value=2)


def test_a_warm_process_killed_in_the_middle_takes_the_task_with_it(worker):
    run(worker, "echo", value=0)
    threading.Timer(0.3, worker._process.kill).start()
    started = time.monotonic()
    assert isinstance(run(worker, "hang", limit_s=60), Crashed)
    assert time.monotonic() - started < 30
    assert run(worker, "echo", value=3) == Returned(value=3)


def test_a_library_that_is_missing_is_said_at_once(tmp_path):
    with Worker(["no_such_library"], tmp_path) as broken, pytest.raises(InfertuneError, match="no_such_library"):
        run(broken, "echo", value=1)


def test_a_task_starts_with_one_thread(worker):
    assert run(worker, "threads") == Returned(value=1)
