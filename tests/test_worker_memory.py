"""The worker's memory cap: whichever way a task runs out of memory, that is its outcome, and the next task runs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from worker_support import TESTS, alive, environment, run, wait_until

from tools.contracts import OutOfMemory
from tools.worker import Returned, Worker, groups
from tools.worker.limits import Shortage, shortage

CAP_MB = 300.0


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    with environment(PYTHONPATH=str(TESTS)), Worker([], tmp_path_factory.mktemp("logs")) as made:
        yield made


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """A worker with a memory cap that a control group keeps."""
    with environment(PYTHONPATH=str(TESTS)):
        with Worker(["numpy"], tmp_path_factory.mktemp("logs"), memory_limit_mb=CAP_MB) as made:
            run(made, "echo", value=0)
            if made._group is None:
                pytest.skip("no control group can be made here")
            yield made
        assert not made._group


@pytest.fixture(scope="module")
def ungrouped(tmp_path_factory):
    """A worker with a memory cap where no control group can be made."""
    folder = tmp_path_factory.mktemp("ungrouped")
    (folder / "without_groups.py").write_text("from tools.worker import groups\ngroups.enter = lambda limit_mb: None\n")
    with (
        environment(PYTHONPATH=f"{TESTS}{os.pathsep}{folder}"),
        Worker(["numpy", "without_groups"], folder, memory_limit_mb=CAP_MB) as made,
    ):
        run(made, "echo", value=0)
        assert made._group is None
        yield made


@pytest.fixture(params=["grouped", "ungrouped"])
def capped(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def torch_worker(tmp_path_factory):
    with (
        environment(PYTHONPATH=str(TESTS)),
        Worker(["torch"], tmp_path_factory.mktemp("torch"), memory_limit_mb=CAP_MB) as made,
    ):
        yield made


def test_a_memory_error_is_out_of_memory(worker):
    assert isinstance(run(worker, "no_memory"), OutOfMemory)


def test_an_error_that_a_memory_error_led_to_is_out_of_memory(worker):
    assert run(worker, "no_memory_in_other_words") == OutOfMemory(stage="starting")


def test_allocating_over_the_cap_is_out_of_memory(capped):
    assert run(capped, "allocate_until_killed") == OutOfMemory(stage="allocating", limit_mb=CAP_MB)
    assert run(capped, "allocate", mb=200) == Returned(value=200_000_000)


def test_one_allocation_that_is_far_too_large_raises_before_it_is_killed(capped):
    assert run(capped, "allocate", mb=5000) == OutOfMemory(stage="starting", limit_mb=CAP_MB)


def test_the_cap_holds_for_programs_that_a_task_starts(grouped):
    assert run(grouped, "allocate_in_a_program") == OutOfMemory(stage="delegating", limit_mb=CAP_MB)


@pytest.mark.parametrize("arena", [True, False])
def test_onnx_runtime_without_memory_is_out_of_memory(ungrouped, arena):
    assert run(ungrouped, "allocate_in_onnxruntime", arena=arena) == OutOfMemory(stage="allocating", limit_mb=CAP_MB)


def test_torch_without_memory_is_out_of_memory(torch_worker):
    assert run(torch_worker, "allocate_in_torch") == OutOfMemory(stage="allocating", limit_mb=CAP_MB)


def test_torch_loads_data_in_processes_of_its_own(torch_worker):
    assert run(torch_worker, "load_in_processes") == Returned(value=28)


def test_no_group_is_left_behind(tmp_path):
    with environment(PYTHONPATH=str(TESTS)), Worker([], tmp_path, memory_limit_mb=CAP_MB) as first:
        run(first, "echo", value=1)
        if first._group is None:
            pytest.skip("no control group can be made here")
        killed = first._group
        first._process.kill()
        first._process.wait()
        run(first, "echo", value=2)
        used = first._group
        assert used.is_dir()
        assert not killed.exists()
    assert not used.exists()


def test_an_abort_for_want_of_memory_is_not(worker):
    words = "terminate called after throwing an instance of 'std::bad_alloc'\n"
    assert run(worker, "abort", last_words=words) == OutOfMemory(stage="starting")


@pytest.mark.parametrize(
    "text",
    [
        "std::bad_alloc",
        "bad allocation",
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to",
        "[enforce fail at alloc_cpu.cpp:75] data. DefaultCPUAllocator: not enough memory: you tried",
        "[ONNXRuntimeError] : 1 : FAIL : BFCArena Failed to allocate memory for requested buffer of size 4000000000",
        "Check 'ptr' failed at src/cpu_memory.cpp:257:\nFailed to allocate 4000000000 bytes of memory",
    ],
)
def test_what_libraries_say_when_memory_runs_out_is_understood(text):
    assert shortage(RuntimeError(text)) is Shortage.HOST


@pytest.mark.parametrize("text", ["CUDA out of memory. Tried to allocate 20 GiB.", "CUDA error: out of memory"])
def test_memory_of_a_device_is_not_under_our_cap(text):
    assert shortage(RuntimeError(text)) is Shortage.DEVICE


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit in memory format"), OSError(2, "x"), ValueError()])
def test_other_errors_are_not_about_memory(error):
    assert shortage(error) is None


def test_an_error_that_hides_what_led_to_it_is_taken_at_its_word():
    error = ValueError("not about memory")
    error.__context__, error.__suppress_context__ = MemoryError(), True
    assert shortage(error) is None


BOTH_KILLED = """
import os, signal, sys, threading, time
from pathlib import Path
from tools.worker import Worker

folder = Path(sys.argv[1])
worker = Worker([], folder, memory_limit_mb=300)
task = ("worker_tasks:start_program_in_a_session_of_its_own", {"path": str(folder / "program"), "wait": True})
threading.Thread(target=lambda: worker.run(*task, label="x", limit_s=600), daemon=True).start()
while not (folder / "program").exists():
    time.sleep(0.01)
print(worker._group, flush=True)
os.kill(worker._process.pid, signal.SIGSTOP)
os.kill(worker._process.pid, signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_survived_the_kill_of_both_processes_is_removed_by_the_next_worker(grouped, tmp_path):
    with environment(PYTHONPATH=f"{TESTS}{os.pathsep}{TESTS.parent}"):
        command = [sys.executable, "-c", BOTH_KILLED, str(tmp_path)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        assert done.returncode == -signal.SIGKILL
        program = int((tmp_path / "program").read_text())
        assert Path(done.stdout.strip()).is_dir()
        with Worker([], tmp_path, memory_limit_mb=CAP_MB) as following:
            run(following, "echo", value=1)
            assert following._group != Path(done.stdout.strip())
    assert not Path(done.stdout.strip()).exists()
    wait_until(lambda: not alive(program), "a program of the killed task is still there")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A pretended machine: the lines of its mountinfo and cgroup files, with mounts below tmp_path."""
    files = {}
    monkeypatch.setattr(groups, "_lines", lambda path: files[path].format(mount=tmp_path).splitlines())

    def make(cgroup, mountinfo):
        files["/proc/self/cgroup"], files["/proc/self/mountinfo"] = cgroup, mountinfo

    return make


def test_a_group_of_version_1_is_made_below_our_own(machine, tmp_path):
    machine("4:memory:/jobs/one\n1:cpu:/", "30 1 0:26 / {mount} rw - cgroup cgroup rw,memory")
    (tmp_path / "jobs/one").mkdir(parents=True)
    assert list(groups._parents()) == [tmp_path / "jobs/one"]


def test_a_container_sees_its_own_part_of_the_hierarchy(machine, tmp_path):
    machine("4:memory:/docker/abc", "30 1 0:26 /docker/abc {mount} rw - cgroup cgroup rw,memory")
    assert list(groups._parents()) == [tmp_path]


def test_a_group_that_is_not_mounted_here_is_no_place(machine):
    machine("4:memory:/elsewhere", "30 1 0:26 /docker/abc {mount} rw - cgroup cgroup rw,memory")
    assert not list(groups._parents())


@pytest.mark.parametrize(("controllers", "count"), [("cpu memory", 1), ("cpu", 0)])
def test_version_2_needs_a_group_that_hands_the_controller_down(machine, tmp_path, controllers, count):
    machine("0::/", "30 1 0:26 / {mount} rw - cgroup2 cgroup2 rw")
    (tmp_path / "cgroup.subtree_control").write_text(controllers)
    assert len(list(groups._parents())) == count


def test_a_group_that_systemd_delegated_holds_ours_beside_the_one_that_we_are_in(machine, tmp_path):
    machine("0::/service/main", "30 1 0:26 / {mount} rw - cgroup2 cgroup2 rw")
    (tmp_path / "service/main").mkdir(parents=True)
    (tmp_path / "service/main/cgroup.subtree_control").write_text("")
    (tmp_path / "service/cgroup.subtree_control").write_text("memory")
    assert not list(groups._parents())
    try:
        os.setxattr(tmp_path / "service", "user.delegate", b"1")
    except OSError:
        pytest.skip("no extended attributes here")
    assert list(groups._parents()) == [tmp_path / "service"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memory.events", "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
    ],
)
def test_kills_at_the_cap_are_counted_in_both_versions(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert groups.MemoryGroup(tmp_path, tmp_path).oom_kills() == 2
