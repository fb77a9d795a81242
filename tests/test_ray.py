"""The executor ray: the same workers, the same outcomes, on a Ray of its own and on a cluster of two nodes."""

import dataclasses
import os
import re
import signal
import sys
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from worker_support import TESTS, alive, wait_until

from tools.contracts import Crashed, Failed, OutOfMemory, TimedOut
from tools.errors import InfertuneError, UnavailableError
from tools.executors import open_workers
from tools.hardware import detect, library_versions
from tools.machine import Job, Machine
from tools.observer import Silent
from tools.worker import LIGHT_MODULES, Returned, Worker

pytestmark = pytest.mark.skipif(
    find_spec("ray") is None, reason="the executor ray is an extra: pip install 'infertune[ray]'"
)
CAP_MB = 300


def surroundings():
    names = ("OMP_NUM_THREADS", "PYTHONPATH", "CUDA_VISIBLE_DEVICES", "LD_PRELOAD")
    return [{n: os.environ.get(n) for n in names}, str(Path.cwd()), os.getpriority(os.PRIO_PROCESS, 0)]


def host_pid():
    """Return the process that holds the worker which runs this task."""
    return psutil.Process(os.getppid()).ppid()


def kill_the_host(counter, times):
    """Kill the Ray actor that this task runs under, so many times; then return how often it was tried."""
    file = Path(counter)
    tried = int(file.read_text()) + 1 if file.exists() else 1
    file.write_text(str(tried))
    if tried <= times:
        os.kill(host_pid(), signal.SIGKILL)
        time.sleep(600)
    return tried


class Told(Silent):
    def __init__(self):
        self.sentences = []
        self.events = []

    def finding(self, sentence):
        self.sentences.append(sentence)

    def event(self, message):
        self.events.append(message)


@pytest.fixture(scope="module", autouse=True)
def light():
    """Keep torch out: starting is what takes time, and these tasks need none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tools.executors.ray_cluster.TORCH_MODULES", LIGHT_MODULES)
        patch.setattr("tools.executors.ray_cluster.CPUS_A_BUILD", 1)
        patch.setenv("PYTHONPATH", str(TESTS))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield


def opened(home, observer, **changes):
    arguments = {
        "memory_limit_mb": CAP_MB,
        "home": home,
        "hardware": detect(),
        "versions": library_versions(),
        "observer": observer,
    }
    return open_workers("ray", home / "logs", **{**arguments, **changes})


def descendants():
    return {p.pid for p in psutil.Process().children(recursive=True)}


def run(machine, task, **arguments):
    return machine.run(f"worker_tasks:{task}", arguments, label=task, needs_torch=False)


class TestRayOfItsOwn:
    @pytest.fixture(scope="class")
    @classmethod
    def workers(cls, tmp_path_factory):
        with opened(tmp_path_factory.mktemp("home"), Told()) as workers:
            yield workers

    @pytest.fixture
    def machine(self, workers):
        return Machine(workers.torch, workers.light, Told(), limit_s=30, builders=workers.builders)

    def test_a_task_returns_its_value_and_its_events_arrive_in_order(self, machine):
        assert run(machine, "steps") == Returned(value="done")
        assert machine.observer.events == [
            {"stage": "first"},
            {"event": "point", "batch_size": 1, "p50_ms": 2.5},
            {"stage": "second"},
        ]

    def test_what_a_task_finds_around_it_is_what_it_finds_without_ray(self, machine, tmp_path):
        with Worker(LIGHT_MODULES, tmp_path) as worker:
            local = worker.run("test_ray:surroundings", {}, label="local", limit_s=30)
        assert machine.run("test_ray:surroundings", {}, label="ray", needs_torch=False) == local
        assert isinstance(local, Returned)

    def test_outcomes_are_the_workers_own(self, machine):
        assert run(machine, "user_error").kind == "WorkloadError"
        assert run(machine, "segfault").signal == "SIGSEGV"
        assert isinstance(run(machine, "no_memory"), OutOfMemory)
        hasty = dataclasses.replace(machine, limit_s=0.3)
        assert run(hasty, "hang") == TimedOut(stage="waiting for nothing", limit_s=0.3)

    def test_jobs_run_at_the_same_time(self, machine, tmp_path):
        pairs = (("one", "two"), ("two", "one"))
        jobs = [Job("test_machine:meet", {"folder": str(tmp_path), "mine": a, "other": b}, a) for a, b in pairs]
        ended = {job.label: outcome for job, outcome in machine.run_many(jobs)}
        assert ended == {"one": Returned(value="one"), "two": Returned(value="two")}

    def test_a_stop_ends_what_runs_and_what_belongs_to_the_ending_still_runs(self, machine, tmp_path):
        def stop():
            wait_until((tmp_path / "here").exists, "the task never began")
            machine.stop()

        stopper = threading.Thread(target=stop)
        stopper.start()
        arguments = {"folder": str(tmp_path), "mine": "here"}
        outcome = machine.run("test_machine:wait_for_ever", arguments, label="wait", needs_torch=False)
        stopper.join()
        assert outcome == Failed(stage="starting", reason="interrupted")
        assert run(machine, "pid") == Failed(stage="starting", reason="interrupted")
        report = machine.background("worker_tasks:echo", {"value": 3}, label="report", limit_s=30)
        assert report == Returned(value=3)

    def test_a_signal_handler_may_stop_a_task(self, machine, tmp_path):
        previous = signal.signal(signal.SIGUSR1, lambda *_: machine.stop())

        def interrupt():
            wait_until((tmp_path / "here").exists, "the task never began")
            os.kill(os.getpid(), signal.SIGUSR1)

        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        try:
            arguments = {"folder": str(tmp_path), "mine": "here"}
            outcome = machine.run("test_machine:wait_for_ever", arguments, label="wait", needs_torch=False)
        finally:
            interrupter.join()
            signal.signal(signal.SIGUSR1, previous)
        assert outcome == Failed(stage="starting", reason="interrupted")

    def test_an_observers_error_ends_the_task_and_the_next_one_runs(self, machine):
        def fail(_):
            raise KeyboardInterrupt

        machine.observer.event = fail
        with pytest.raises(KeyboardInterrupt):
            run(machine, "hang")
        machine.observer = Told()
        assert run(machine, "echo", value=1) == Returned(value=1)

    def test_a_task_whose_actor_was_killed_is_run_once_more_and_that_is_said(self, machine, tmp_path):
        arguments = {"counter": str(tmp_path / "counter"), "times": 1}
        outcome = machine.run("test_ray:kill_the_host", arguments, label="kill", needs_torch=False)
        assert outcome == Returned(value=2)
        (sentence,) = machine.observer.sentences
        assert re.match(
            r"A worker was killed from outside \(worker lost \(Ray: ActorDiedError: .*trying once", sentence
        )

    def test_a_task_that_is_lost_twice_has_crashed(self, machine, tmp_path):
        arguments = {"counter": str(tmp_path / "counter"), "times": 5}
        outcome = machine.run("test_ray:kill_the_host", arguments, label="kill", needs_torch=False)
        assert isinstance(outcome, Crashed)
        assert outcome.signal.startswith("worker lost (Ray: ActorDiedError: ")
        assert (tmp_path / "counter").read_text() == "2"
        assert run(machine, "echo", value=1) == Returned(value=1)


def test_a_ray_of_ones_own_hears_only_this_machine_and_leaves_nothing_behind(tmp_path):
    before, handler, folder = descendants(), signal.getsignal(signal.SIGTERM), Path(tempfile.gettempdir())
    with opened(tmp_path, Told()):
        mine = descendants() - before
        sockets = [c for c in psutil.net_connections("inet") if c.pid in mine and c.status == psutil.CONN_LISTEN]
        assert sockets
        assert {c.laddr.ip.removeprefix("::ffff:") for c in sockets} == {"127.0.0.1"}
        assert list(tmp_path.glob(".token-*"))
        assert list(folder.glob("infertune-ray-*"))
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in mine), "processes are left")
    assert not list(tmp_path.glob(".token-*"))
    assert not list(folder.glob("infertune-ray-*"))
    assert signal.getsignal(signal.SIGTERM) == handler
    assert "RAY_worker_niceness" not in os.environ


class TestCluster:
    """Two nodes on this machine, as `ray start` makes them."""

    @pytest.fixture(scope="class")
    @classmethod
    def cluster(cls):
        from ray.cluster_utils import Cluster

        with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray-") as folder:
            patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
            patch.setenv("RAY_worker_niceness", "0")
            patch.setenv("RAY_TMPDIR", folder)
            made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
            try:
                yield made
            finally:
                made.shutdown()

    def test_a_machine_that_is_not_the_sessions_is_refused_and_how_it_differs_is_said(self, cluster, tmp_path):
        other = detect().model_copy(update={"cpu": "another", "cores": 99})
        said = r"not the machine that the session is about: cpu is .* and not another, cores is \d+ and not 99"
        with (
            pytest.raises(UnavailableError, match=said),
            opened(tmp_path, Told(), hardware=other, ray_address=cluster.address),
        ):
            pass

    def test_other_libraries_are_refused(self, cluster, tmp_path):
        versions = library_versions() | {"numpy": "0.1"}
        with (
            pytest.raises(UnavailableError, match=r"its libraries differ: numpy is .* and not 0\.1"),
            opened(tmp_path, Told(), versions=versions, ray_address=cluster.address),
        ):
            pass

    def test_jobs_run_on_all_nodes_and_go_elsewhere_when_one_is_lost(self, cluster, tmp_path):
        import ray

        node = cluster.add_node(num_cpus=1)
        observer = Told()
        with opened(tmp_path, observer, ray_address=cluster.address) as workers:
            assert len(workers.builders) == 2
            machine = Machine(workers.torch, workers.light, observer, limit_s=30, builders=workers.builders)
            assert run(machine, "echo", value=0) == Returned(value=0)
            here = ray.get_runtime_context().get_node_id()
            assert [w.settle().id == here for w in (workers.torch, workers.light)] == [True, True]
            assert {w.settle().id for w in workers.builders} == {n["NodeID"] for n in ray.nodes()}
            (lost,) = [w for w in workers.builders if w.settle().id != here]
            process = lost.run("test_ray:host_pid", {}, label="pid", limit_s=30).value
            cluster.remove_node(node, allow_graceful=False)
            wait_until(lambda: not alive(process), "the actor outlives its node")
            jobs = [Job("worker_tasks:rest", {"seconds": 0.1}, f"job-{n}") for n in range(4)]
            outcomes = [outcome for _, outcome in machine.run_many(jobs)]
            assert all(isinstance(outcome, Returned) for outcome in outcomes), outcomes
            assert {w.settle().id for w in workers.builders} == {here}
        assert all("trying once more" in sentence for sentence in observer.sentences)


def test_a_node_without_the_home_directory_or_with_low_priority_is_refused(tmp_path):
    from tools.executors.ray_cluster import unfit_to_build, unfit_to_time

    seen = {"hardware": detect().model_dump(mode="json"), "versions": {"numpy": "2"}, "token": None, "niceness": 15}
    why = unfit_to_build(seen, "token", {"numpy": "2"}, tmp_path)
    assert why.startswith(f"it does not share the home directory {tmp_path} ")
    assert unfit_to_build({**seen, "token": "token"}, "token", {"numpy": "2"}, tmp_path) is None
    assert "RAY_worker_niceness=0" in unfit_to_time(seen, detect())
    assert unfit_to_time({**seen, "niceness": os.getpriority(os.PRIO_PROCESS, 0)}, detect()) is None


def test_without_ray_one_reads_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UnavailableError, match=r"pip install 'infertune\[ray\]'"), opened(tmp_path, Told()):
        pass


@pytest.mark.parametrize(
    ("executor", "address", "said"),
    [
        ("dask", None, "there is no executor 'dask'. Known: local, ray"),
        ("local", "auto", "of no use to the local executor. Add --executor ray"),
        ("ray", "ray://127.0.0.1:10001", "a Ray client cannot be used"),
        ("ray", "nonsense", "Ray could not be reached"),
        ("ray", "127.0.0.1:1", "Ray could not be reached"),
    ],
)
def test_what_cannot_be_is_refused_in_words(tmp_path, executor, address, said):
    arguments = {"memory_limit_mb": None, "home": tmp_path, "hardware": detect(), "versions": {}, "observer": Told()}
    with (
        pytest.raises(InfertuneError, match=re.escape(said)),
        open_workers(executor, tmp_path, ray_address=address, **arguments),
    ):
        pass


def test_the_local_executor_has_workers_of_this_machine_and_no_builders(tmp_path):
    arguments = {"memory_limit_mb": None, "home": tmp_path, "hardware": detect(), "versions": {}, "observer": Told()}
    with open_workers("local", tmp_path, **arguments) as workers:
        assert workers.light.run("worker_tasks:echo", {"value": 1}, label="x", limit_s=30) == Returned(value=1)
        assert workers.builders == ()
