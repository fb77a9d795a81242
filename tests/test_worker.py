"""The worker: whatever a task does, `run` returns a value and the next task runs."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_support import TESTS, alive, environment, log_of, run, wait_until

from tools.contracts import Crashed, Failed, TimedOut
from tools.errors import InfertuneError
from tools.worker import Returned, Worker, output, was_killed_from_outside
from tools.worker.watch import _complete_lines


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    with environment(PYTHONPATH=str(TESTS)), Worker(["numpy"], tmp_path_factory.mktemp("logs")) as made:
        yield made


@pytest.fixture(autouse=True)
def _the_next_task_runs(request):
    """Whatever a test did to the worker, it works afterwards."""
    yield
    if "worker" in request.fixturenames:
        made = request.getfixturevalue("worker")
        assert run(made, "echo", value="next") == Returned(value="next")


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
    assert seen == [
        {"stage": "first"},
        {"event": "point", "batch_size": 1, "p50_ms": 2.5},
        {"stage": "second"},
    ]


@pytest.mark.parametrize("task", ["hang", "hang_in_c", "hang_with_the_interpreter"])
def test_a_hang_is_killed_at_its_limit(worker, task):
    outcome = run(worker, task, limit_s=0.3)
    assert isinstance(outcome, TimedOut)
    assert (outcome.limit_s, outcome.silent) == (0.3, False)


def test_a_hang_that_holds_the_interpreter_is_silent(worker):
    outcome = run(worker, "hang_with_the_interpreter", silence_s=0.3)
    assert outcome == TimedOut(stage="holding on", limit_s=0.3, silent=True)


def test_the_log_of_a_hang_says_where_it_hung(worker):
    run(worker, "hang_with_the_interpreter", limit_s=0.3)
    log = log_of(worker, "hang_with_the_interpreter")
    assert "killed while holding on: its time of 0.3 s was over" in log
    assert "in hang_with_the_interpreter" in log


def test_a_task_that_works_is_not_silent(worker):
    seen = []
    assert run(worker, "busy", seconds=2.7, silence_s=2.5, on_event=seen.append) == Returned(value="done")
    assert not seen, "signs of life are not for observers"


def test_the_stage_that_hung_is_named(worker):
    assert run(worker, "hang", limit_s=0.3).stage == "waiting for nothing"


def test_what_a_task_leaves_behind_is_killed(worker, tmp_path):
    file = tmp_path / "pid"
    assert isinstance(run(worker, "leave_child_behind", path=str(file)), Returned)
    assert not alive(int(file.read_text()))


def test_what_a_task_leaves_behind_in_a_session_of_its_own_is_killed_too(worker, tmp_path):
    file = tmp_path / "pid"
    assert isinstance(run(worker, "start_program_in_a_session_of_its_own", path=str(file)), Returned)
    assert not alive(int(file.read_text()))


def test_a_segfault_is_an_outcome_and_its_stack_is_in_the_log(worker):
    assert run(worker, "segfault") == Crashed(stage="dereferencing", signal="SIGSEGV")
    log = log_of(worker, "segfault")
    assert "Segmentation fault" in log
    assert "in segfault" in log


def test_an_abort_is_a_crash(worker):
    assert run(worker, "abort") == Crashed(stage="starting", signal="SIGABRT")


def test_a_signal_without_a_name_is_a_crash(worker):
    assert run(worker, "die_of", number=signal.SIGRTMIN + 3).signal == f"signal {signal.SIGRTMIN + 3}"


def test_a_kill_that_we_did_not_send_came_from_outside(worker):
    outcome = run(worker, "die_of", number=int(signal.SIGKILL))
    assert outcome == Crashed(stage="starting", signal="SIGKILL")
    assert was_killed_from_outside(outcome)


def test_a_crash_of_its_own_did_not_come_from_outside(worker):
    assert not was_killed_from_outside(run(worker, "segfault"))
    assert not was_killed_from_outside(run(worker, "echo", value=1))


def test_an_expected_error_keeps_its_sentence(worker):
    outcome = run(worker, "user_error")
    assert isinstance(outcome, Failed)
    assert outcome.reason == "model.py: the model is upside down. Turn it."


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("bug", "KeyError: 'missing'"),
        ("leave", "SystemExit: 3"),
        ("not_json", "TypeError"),
        ("raise_keyboard_interrupt", "KeyboardInterrupt"),
        ("raise_unprintable", "UnprintableError: (its text cannot be printed)"),
    ],
)
def test_any_other_exception_is_named(worker, task, reason):
    outcome = run(worker, task)
    assert isinstance(outcome, Failed)
    assert outcome.reason.startswith(reason)


@pytest.mark.parametrize("text", ["\ud800", "a\x00b", "\x1b[31m", "é" * 100_000])
def test_the_text_of_any_exception_can_be_written_to_a_file(worker, text):
    outcome = run(worker, "raise_text", text=text)
    assert outcome.reason.startswith("RuntimeError: ")
    assert len(outcome.model_dump_json().encode()) < 5000


def test_what_is_not_a_number_comes_back(worker):
    nan, *infinite = run(worker, "not_a_number").value
    assert math.isnan(nan)
    assert infinite == [float("inf"), -float("inf")]


def test_an_answer_of_many_megabytes_comes_back(worker):
    assert len(run(worker, "return_much", mb=20).value) == 20_000_000


def test_an_answer_that_is_too_long_is_refused(worker):
    outcome = run(worker, "return_much", mb=200)
    assert isinstance(outcome, Failed)
    assert "more than 64 MB" in outcome.reason


@pytest.mark.parametrize("text", ["nonsense\n", "[1]\n", "\n"])
def test_what_is_no_message_is_refused(worker, text):
    outcome = run(worker, "scribble_on_the_channel", text=text)
    assert isinstance(outcome, Failed)
    assert "something else than messages" in outcome.reason


def test_a_task_that_closes_its_channel_fails(worker):
    assert isinstance(run(worker, "close_everything"), Failed)


def test_a_task_may_fork(worker):
    assert run(worker, "multiprocess") == Returned(value=[1, 2, 3])


def test_a_task_that_vanishes_points_to_its_log(worker):
    outcome = run(worker, "vanish")
    assert isinstance(outcome, Failed)
    assert "exit 7" in outcome.reason
    assert "vanish.log" in outcome.reason


def test_output_goes_to_the_log_and_not_to_the_terminal(worker, capfd):
    assert run(worker, "chatter") == Returned(value="quiet")
    assert capfd.readouterr() == ("", "")
    log = log_of(worker, "chatter")
    assert log.count("x") >= output.HEAD_BYTES
    assert "from a child process" in log


def test_of_a_gigabyte_of_output_the_beginning_and_the_end_are_kept(worker):
    assert isinstance(run(worker, "print_much", mb=1000), Returned)
    log = log_of(worker, "print_much")
    assert log.startswith("the beginning\n")
    assert log.endswith("the end\n")
    assert "998.7 MB of output left out here" in log
    assert len(log) < output.HEAD_BYTES + output.TAIL_BYTES + 100


def test_a_killed_task_leaves_what_it_had_printed(worker):
    run(worker, "print_and_hang", limit_s=0.3)
    assert log_of(worker, "print_and_hang").startswith("before the hang\n")


@given(st.lists(st.binary(max_size=50)))
def test_a_log_keeps_all_or_says_how_much_is_missing(chunks):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "HEAD_BYTES", 40)
        patch.setattr(output, "TAIL_BYTES", 30)
        written = []
        log = output.OutputLog(Path(os.devnull))
        patch.setattr(log, "_put", written.append)
        for chunk in chunks:
            log.write(chunk)
        log.close()
    everything, kept = b"".join(chunks), b"".join(written)
    if len(everything) <= 70:
        assert kept == everything
    else:
        assert kept.startswith(everything[:40])
        assert kept.endswith(everything[-30:])
        assert b"left out here" in kept


@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_lines_are_found_wherever_the_stream_is_cut(stream, cuts):
    buffer, lines = bytearray(), []
    edges = [0, *sorted(cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        lines += _complete_lines(buffer, stream[start:end])
    assert [*lines, bytes(buffer)] == stream.split(b"\n")


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


def test_a_warm_process_killed_in_the_middle_takes_the_task_with_it(worker, tmp_path):
    file = tmp_path / "pids"

    def kill(_message):
        wait_until(lambda: file.exists() and file.read_text(), "the task did not start")
        worker._process.kill()

    outcome = run(worker, "say_own_pid_and_hang", limit_s=60, on_event=kill, path=str(file))
    assert isinstance(outcome, Crashed)
    assert outcome.signal.startswith("worker lost")
    assert was_killed_from_outside(outcome)
    child = int(file.read_text().split()[0])
    wait_until(lambda: not alive(child), "the child outlived the warm process")


def test_an_observer_that_raises_does_not_confuse_the_next_task(worker):
    def raises(_message):
        raise ValueError("seen")

    with pytest.raises(ValueError, match="seen"):
        run(worker, "hang", on_event=raises)


STOPPED_PROCESS = """
import os, signal, subprocess, sys
from pathlib import Path
from tools.worker import Worker

def stop(message):
    subprocess.Popen(["sh", "-c", f"sleep 0.1; kill -STOP {os.getpid()}; sleep 0.8; kill -CONT {os.getpid()}"])

with Worker([], Path(sys.argv[1])) as worker:
    for limits in ({"limit_s": 0.7, "silence_s": 30}, {"limit_s": 30, "silence_s": 0.7}):
        outcome = worker.run("worker_tasks:rest", {"seconds": 0.4}, label="x", on_event=stop, **limits)
        print(outcome.value)
"""


def test_an_answer_that_came_while_the_main_process_was_stopped_counts(tmp_path):
    with environment(PYTHONPATH=f"{TESTS}{os.pathsep}{TESTS.parent}"):
        command = [sys.executable, "-W", "ignore", "-c", STOPPED_PROCESS, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "done\ndone\n"


MAIN_PROCESS = """
import sys, threading, time
from pathlib import Path
from tools.worker import Worker

folder = Path(sys.argv[1])
worker = Worker(["numpy"], folder, memory_limit_mb=1000)
arguments = {"path": str(folder / "program"), "wait": True}
task = ("worker_tasks:start_program_in_a_session_of_its_own", arguments)
threading.Thread(target=lambda: worker.run(*task, label="x", limit_s=600), daemon=True).start()
while not (folder / "program").exists():
    time.sleep(0.01)
time.sleep(0.1)
print(f'[{worker._process.pid}, {worker._child}, "{worker._group or ""}"]', flush=True)
time.sleep(600)
"""


def test_nothing_outlives_a_main_process_that_was_killed(tmp_path):
    with environment(PYTHONPATH=f"{TESTS}{os.pathsep}{TESTS.parent}"):
        command = [sys.executable, "-c", MAIN_PROCESS, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as main:
            zygote, child, group = json.loads(main.stdout.readline())
            program = int((tmp_path / "program").read_text())
            assert all(alive(pid) for pid in (zygote, child, program))
            main.kill()
    wait_until(lambda: not any(alive(pid) for pid in (zygote, child, program)), "something is left")
    wait_until(lambda: not group or not Path(group).exists(), "the control group is left")


def test_a_worker_outlives_the_thread_that_started_it(tmp_path):
    with environment(PYTHONPATH=str(TESTS)), Worker([], tmp_path) as made:
        thread = threading.Thread(target=run, args=(made, "echo"), kwargs={"value": 1})
        thread.start()
        thread.join()
        first = made._process.pid
        time.sleep(0.1)
        assert run(made, "echo", value=2) == Returned(value=2)
        assert made._process.pid == first


def test_a_library_that_is_missing_is_said_at_once(tmp_path):
    with Worker(["no_such_library"], tmp_path) as broken, pytest.raises(InfertuneError, match="no_such_library"):
        run(broken, "echo", value=1)


def test_a_task_starts_with_one_thread_and_a_heartbeat(worker):
    assert run(worker, "threads") == Returned(value=["MainThread", "heartbeat"])
